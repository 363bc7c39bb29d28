//! Why a pick chose its endpoint: found out afterwards, for the few requests whose attempts are recorded, so that picks
//! needn't remember.

use super::Snapshot;
use crate::{attempts::PickReason, in_flight::InFlight, route::Route};

impl<S> Snapshot<S> {
    /// Why a request with this route went to its endpoint, as far as is known now.
    pub(crate) fn why(&self, route: &Route, in_flight: &InFlight) -> PickReason {
        let endpoint = in_flight.endpoint();
        if route.requested_member().is_some() {
            return PickReason::Broadcast;
        }
        if route.requested().is_some() {
            return PickReason::Requested;
        }
        if in_flight.is_trial() {
            return PickReason::Trial;
        }
        let Some(index) = self.index_of(endpoint) else {
            return PickReason::Policy;
        };
        let preferred = route.preferred();
        if preferred.is_some_and(|pod| self.indices_of(pod).any(|it| it == index)) {
            return PickReason::Preferred;
        }
        if route.avoids(endpoint) {
            return PickReason::Avoided;
        }
        if !self.members.is_available(index) {
            return PickReason::LastResort;
        }
        if self.pickers.whole.is_keyed(route) {
            let home = self.pickers.first(route, &|_| true);
            return match home == Some(index) {
                true => PickReason::Key,
                false => PickReason::NextForKey,
            };
        }
        self.why_by_load(route, index)
    }

    fn why_by_load(&self, route: &Route, index: usize) -> PickReason {
        let mut others = (0..self.members.len()).filter(|&other| other != index);
        if !others.any(|other| self.members.is_available(other)) {
            return PickReason::Only;
        }
        if !route.avoided().is_empty() {
            return PickReason::Elsewhere;
        }
        match self.is_near(index) {
            Some(true) => PickReason::Near,
            Some(false) => PickReason::Far,
            None => PickReason::Policy,
        }
    }
}
