//! The promises that hold at any time, checked after every step.
//!
//! Each is a sentence of the README, of the crate's documentation or of the builder's settings. If a rule can't know
//! what happened between two checks, it passes: a false alarm costs more than a fault that another seed finds.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use tokio::time::Instant;
use tower_headless::{EjectionReason, EndpointState};

use crate::{
    broadcasts::Broadcast,
    cluster::Cluster,
    failures::{self, Facts},
    keys::{self, Preferences},
    lock::lock,
    plan::{CHECK_INTERVAL, Checks, Config, Ready},
    pod::Receiver,
    states,
    subsets::Part,
    users::{Answer, User},
    view::{Seen, View},
    world::{Broken, Trace, broken},
};

/// An endpoint that refused is tried again after 5 s ± 20 % at most.
pub(crate) const BACK_OFF: Duration = Duration::from_millis(6_100);

/// After this time a pod whose checks pass is known to be well.
pub(crate) const CHECKED: Duration = Duration::from_millis(4 * CHECK_INTERVAL);

/// How long the balancer's own attempt to reach an endpoint may take.
pub(crate) const ATTEMPT: Duration = Duration::from_millis(5_100);

/// What has been seen so far.
#[derive(Default)]
pub(crate) struct Promises {
    pub(crate) previous: Option<View>,
    pub(crate) trace: Trace,
    facts: Facts,
    preferences: Preferences,
    has_broadcast: bool,
    pub(crate) part: Part,
}

impl Promises {
    pub(crate) fn check(
        &mut self,
        config: &Config,
        cluster: &Cluster,
        view: &mut View,
        users: &mut [User],
        broadcasts: &mut [Broadcast],
        started: Instant,
    ) -> Result<(), Broken> {
        self.note(view);
        view.note_ejections(self.previous.as_ref());
        states::each_pod_is_made_once(cluster)?;
        for seen in &view.pods {
            states::requests_are_counted(cluster, seen)?;
            states::a_state_has_its_reason(config, cluster, seen)?;
            states::a_pod_that_accepts_is_found(view, seen)?;
        }
        self.a_pending_pod_gets_nothing(cluster, view, !broadcasts.is_empty())?;
        self.few_are_ejected(config, view)?;
        self.a_pod_that_comes_back_has_answered(config, view)?;
        self.part.check(config, cluster, view, broadcasts)?;
        if !broadcasts.iter().any(Broadcast::is_running) {
            states::nothing_is_kept(cluster, users, view.at)?;
        }
        states::no_request_waits_for_a_pod_that_left(cluster)?;
        states::no_request_waits_while_an_endpoint_accepts(cluster, view, users)?;
        for broadcast in broadcasts {
            broadcast.check(config, cluster, view, &self.facts, started)?;
        }
        if let Some(before) = &self.previous {
            keys::no_pod_drowns(config, cluster, before, view, users)?;
        }
        for user in users.iter_mut() {
            if let Some(before) = &self.previous {
                self.preferences
                    .check(config, cluster, before, view, user)?;
            }
            self.no_other_pod_gets_it(cluster, user)?;
            self.an_avoided_pod_is_the_last_resort(view, user)?;
            if user.times_sent() > 1 {
                return broken("nothing is sent twice", format!("request {}", user.number));
            }
            self.see(config, cluster, user, started)?;
            states::a_request_for_one_pod_waits_no_longer(config, cluster, user, view.at)?;
            user.is_old = true;
        }
        Ok(())
    }

    fn note(&mut self, view: &View) {
        let mut hasher = DefaultHasher::new();
        self.trace.hash(&mut hasher);
        for seen in &view.pods {
            let log = seen.log;
            (seen.status.to_string(), log.begun, log.good, log.bad).hash(&mut hasher);
        }
        self.trace = hasher.finish();
    }

    /// The last handle has been dropped.
    pub(crate) fn close(&mut self) {
        self.facts.is_closed = true;
    }

    /// Notes an answer, and checks that it is allowed.
    pub(crate) fn see(
        &mut self,
        config: &Config,
        cluster: &Cluster,
        user: &mut User,
        started: Instant,
    ) -> Result<(), Broken> {
        let record = lock(&user.record);
        let Some((at, answer)) = &record.answer else {
            return Ok(());
        };
        if std::mem::replace(&mut user.is_seen, true) {
            return Ok(());
        }
        match answer {
            Answer::Head { .. } => self.facts.accepted(*at),
            Answer::Panic => {}
            Answer::Error(error) => {
                let case = failures::Case {
                    number: user.number,
                    at: *at,
                    started,
                    begun: user.begun,
                    wants: user.wants,
                };
                self.facts.may_fail(config, cluster, &case, error)?;
            }
        }
        Ok(())
    }

    /// A request for one pod is sent only to it, by what the balancer knows then. A request for all others is never
    /// sent to the pod that is left out.
    fn no_other_pod_gets_it(&self, cluster: &Cluster, user: &User) -> Result<(), Broken> {
        let last = lock(&user.sent).last;
        let (Some(Receiver { host, known, .. }), Some((pin, pod))) = (last, user.wants) else {
            return Ok(());
        };
        // While a request for the others waits for readiness, another pod may take the place of its pod.
        let since = if pin.is_others() { user.known } else { known };
        let mut sets = (since..=known).filter_map(|known| cluster.told(known));
        if sets.any(|told| told.fits(user.wants, host)) || self.facts.is_closed {
            return Ok(());
        }
        let what = format!(
            "request {} for {pin:?} {pod} was sent to {host}",
            user.number
        );
        broken("a request goes only to a pod that it is for", what)
    }

    /// A request goes to a pod that it avoids only if no other one takes it.
    fn an_avoided_pod_is_the_last_resort(&self, view: &View, user: &User) -> Result<(), Broken> {
        let record = lock(&user.record);
        let (Some((at, Answer::Head { host: Some(host) })), Some(before)) =
            (&record.answer, &self.previous)
        else {
            return Ok(());
        };
        // The other pods' state is known only for requests that began and were answered since the last check, at one
        // time.
        let is_known = *at == user.begun && before.at == *at && before.version == view.version;
        if user.is_seen || user.is_old || !is_known || !user.avoids.contains(*host) {
            return Ok(());
        }
        let would_take = |seen: &&Seen| {
            let is_there = |was: &Seen| was.is_available() && was.refusals() == seen.refusals();
            !user.avoids.contains(seen.life.host)
                && seen.is_available()
                && before.of(&seen.life).is_some_and(is_there)
                && seen.life.prompt_since().is_some_and(|since| since <= *at)
        };
        match view.pods.iter().find(would_take) {
            Some(other) => {
                let what = format!(
                    "pod {host} got request {}, and {}",
                    user.number, other.status
                );
                broken("an avoided pod is the last resort", what)
            }
            None => Ok(()),
        }
    }

    /// A pending pod gets only requests for it alone.
    fn a_pending_pod_gets_nothing(
        &mut self,
        cluster: &Cluster,
        view: &View,
        is_broadcast: bool,
    ) -> Result<(), Broken> {
        self.has_broadcast |= is_broadcast;
        let is_asked_for = |seen: &Seen| {
            let mut sets = cluster.told.iter();
            self.has_broadcast || sets.any(|told| self.part.is_wanted(told, seen.life.host))
        };
        for seen in view.pods.iter().filter(|seen| !is_asked_for(seen)) {
            if seen.status.state == EndpointState::Pending && seen.log.begun > 0 {
                return broken("no request before the first check", seen.status.to_string());
            }
        }
        Ok(())
    }

    /// The view before, if the set is the same and only requests came between. Failed checks may cause a panic, in
    /// which they don't show.
    fn plainly_before(&self, config: &Config, view: &View) -> Option<&View> {
        let before = self.previous.as_ref()?;
        let is_plain = config.checks == Checks::Off
            && before.version == view.version
            && before.refusals() == view.refusals()
            && before.is_plain()
            && view.is_plain();
        is_plain.then_some(before)
    }

    fn few_are_ejected(&self, config: &Config, view: &View) -> Result<(), Broken> {
        let Some(before) = self.plainly_before(config, view) else {
            return Ok(());
        };
        // An ejection from an earlier set may have been hidden by a panic, and shows again when that ends.
        let is_new = |seen: &&Seen| {
            seen.is_out()
                && seen.out_in == Some(view.version)
                && before.of(&seen.life).is_some_and(Seen::is_available)
        };
        let counted = view.counted();
        let Some(new) = counted.iter().copied().find(is_new) else {
            return Ok(());
        };
        let all = counted.len();
        let out = counted.iter().filter(|seen| seen.is_out()).count();
        if out as f64 > all as f64 * config.max_ejected + 1e-6 {
            let what = format!("{out} of {all}: {}", new.status);
            return broken("no more pods are ejected than allowed", what);
        }
        if out == all {
            return broken("the last one is never ejected", new.status.to_string());
        }
        Ok(())
    }

    /// A pod that was ejected for failed requests comes back when a request succeeds. Or when more would be out than
    /// may be, as when a subset has shrunk and other pods count.
    fn a_pod_that_comes_back_has_answered(
        &self,
        config: &Config,
        view: &mut View,
    ) -> Result<(), Broken> {
        let all = view.counted().len() as f64;
        let may_panic =
            all - (all * config.max_ejected + 1e-6).floor() < all * config.panic_threshold - 1e-6;
        let plainly_before = self.plainly_before(config, view);
        let Some(before) =
            plainly_before.filter(|before| !may_panic && before.counts_the_same(view))
        else {
            return Ok(());
        };
        for seen in &mut view.pods {
            let Some(was) = before.of(&seen.life) else {
                continue;
            };
            use EndpointState::{Available, Ejected};
            let good_before = match (was.status.state, seen.status.state) {
                (Available, Ejected(reason)) if reason != EjectionReason::Unresponsive => {
                    Some((was.log.good, view.version))
                }
                (Ejected(_), _) => was.good_before,
                _ => None,
            };
            if seen.is_available() && good_before.is_some_and(|(good, _)| good == seen.log.good) {
                let what = format!("{}, and was {}", seen.status, was.status.state);
                return broken("an ejected pod comes back by a success", what);
            }
            seen.good_before = good_before;
        }
        Ok(())
    }
}

/// The ready timeout, if requests ever fail because no endpoint accepts them.
pub(crate) fn ready_timeout(config: &Config) -> Option<Duration> {
    match config.ready {
        Ready::Timeout(millis) => Some(Duration::from_millis(millis.into())),
        Ready::FailFast => Some(Duration::ZERO),
        Ready::Wait => None,
    }
}
