//! What a request takes along from one endpoint to the next: where it wants to go, and until when it waits for that.

use std::error::Error as StdError;

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;

use crate::{
    attempts::{AttemptOutcome, Recording},
    counters::WaitCause,
    endpoint::Endpoint,
    error::{Refusal, SharedError},
    route::Route,
};

/// One word, empty for most requests.
#[derive(Default)]
pub(super) struct Errand(Option<Box<Trip>>);

#[derive(Default)]
struct Trip {
    route: Route,
    /// Of a request for one pod, once it has been asked for; of any, once an endpoint was busy.
    deadline: Option<Option<Instant>>,
    busy: Option<Box<BusyEndpoints>>,
    /// Whether the background task has heard that there is no endpoint for it, if it has been told.
    heard: Option<Heard>,
    /// Writes what comes of it, if that is asked for.
    recording: Option<Recording>,
}

/// The endpoints that have no room for a request.
#[derive(Clone, Debug)]
struct BusyEndpoints {
    /// The way to others.
    beside: Route,
    last: Refusal,
    /// All of them have been asked for room.
    are_all_asked: bool,
    late: Late,
}

/// Whether a request that looks for room has waited for as long as it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Late {
    #[default]
    No,
    /// It has, and waits at one endpoint more that it hadn't asked.
    Once,
    /// It waits nowhere.
    Over,
}

/// Ready when the background task has heard of a request.
pub(super) type Heard = Shared<BoxFuture<'static, ()>>;

impl Errand {
    pub(super) fn new(route: Route) -> Self {
        let has_wishes = !route.is_empty();
        Self(has_wishes.then(|| {
            Box::new(Trip {
                recording: route.recording(),
                route,
                ..Trip::default()
            })
        }))
    }

    /// What writes its attempts, if that is asked for.
    #[inline]
    pub(super) fn recording(&mut self) -> Option<&mut Recording> {
        self.0.as_mut()?.recording.as_mut()
    }

    /// An endpoint is looked for, if attempts are written.
    pub(super) fn seeks(&mut self, policy: &'static str) {
        if let Some(recording) = self.recording() {
            recording.seek(policy);
        }
    }

    /// It waits for this from now on, if attempts are written.
    pub(super) fn waits_for(&mut self, cause: WaitCause) {
        if let Some(recording) = self.recording() {
            recording.wait_for(cause);
        }
    }

    /// The attempt has come to this, if attempts are written.
    pub(super) fn ended(&mut self, outcome: AttemptOutcome) {
        if let Some(recording) = self.recording() {
            recording.end(outcome);
        }
    }

    /// The attempt has failed with this, if attempts are written; `outcome` makes of the error's text what it has come to.
    pub(super) fn failed(
        &mut self,
        error: &(dyn StdError + 'static),
        outcome: impl FnOnce(String) -> AttemptOutcome,
    ) {
        if let Some(recording) = self.recording() {
            recording.fail(error, outcome);
        }
    }

    pub(super) fn route(&self) -> &Route {
        const ANYWHERE: &Route = &Route::new();
        self.0.as_ref().map_or(ANYWHERE, |trip| &trip.route)
    }

    /// Where it wants to go, but away from this endpoint if that can be helped.
    pub(super) fn avoid(&mut self, endpoint: &Endpoint) {
        let trip = self.0.get_or_insert_default();
        trip.route = std::mem::take(&mut trip.route).avoid(endpoint);
        if let Some(busy) = &mut trip.busy {
            busy.beside = std::mem::take(&mut busy.beside).avoid(endpoint);
        }
    }

    /// An endpoint has no room for it; the way to others that haven't been asked for room.
    pub(super) fn busy(&mut self, endpoint: &Endpoint, why: SharedError) -> &Route {
        let trip = self.0.get_or_insert_default();
        let last = Refusal {
            endpoint: endpoint.clone(),
            why,
        };
        let busy = match trip.busy.take() {
            Some(before) => BusyEndpoints {
                beside: before.beside.avoid(endpoint),
                last,
                ..*before
            },
            None => BusyEndpoints {
                beside: trip.route.clone().only_others().avoid(endpoint),
                last,
                are_all_asked: false,
                late: Late::No,
            },
        };
        &trip.busy.insert(Box::new(busy)).beside
    }

    /// All have been asked for room: from now on each of them may be once more.
    pub(super) fn ask_again(&mut self) {
        if let Some(trip) = &mut self.0
            && let Some(busy) = &mut trip.busy
        {
            busy.beside = trip.route.clone().only_others();
            busy.are_all_asked = true;
        }
    }

    /// It has waited in a line until its time was over. The next endpoint may have room and be connecting: one is waited for, unless
    /// all have been asked, and from the one after that it has to come at once.
    pub(super) fn is_late(&mut self) {
        if let Some(trip) = &mut self.0
            && let Some(busy) = &mut trip.busy
        {
            busy.late = match busy.late {
                Late::No if !busy.are_all_asked => Late::Once,
                _ => Late::Over,
            };
        }
    }

    /// The last endpoint that had no room for it, if it waits for room while it is at `endpoint`: in the line of that one, or anywhere
    /// once its time is over. Another endpoint may have room, and only not be ready yet.
    pub(super) fn waits_for_room(&self, endpoint: &Endpoint) -> Option<&Refusal> {
        let busy = self.0.as_ref()?.busy.as_ref()?;
        (busy.last.endpoint == *endpoint || busy.late == Late::Over).then_some(&busy.last)
    }

    /// An endpoint has it. Should it come back, it waits anew.
    pub(super) fn sent(&mut self) {
        let Some(trip) = &mut self.0 else { return };
        if trip.busy.take().is_some() && !trip.route.is_for_one() {
            trip.deadline = None;
        }
        if let Some(recording) = &trip.recording {
            recording.wait_over();
        }
    }

    /// Until when the request waits for its pod, or for room, which is decided when it first has to.
    pub(super) fn deadline(&mut self, decide: impl FnOnce() -> Option<Instant>) -> Option<Instant> {
        let trip = self.0.as_mut()?;
        *trip.deadline.get_or_insert_with(decide)
    }

    /// Whether the background task has heard of it.
    pub(super) fn has_been_heard(&self) -> bool {
        let heard = self.0.as_ref().and_then(|trip| trip.heard.clone());
        heard.is_some_and(|heard| heard.now_or_never().is_some())
    }

    /// Waits until the background task has heard of it, which is told by `tell` if it hasn't been yet.
    pub(super) fn heard(&mut self, tell: impl FnOnce() -> BoxFuture<'static, ()>) -> Heard {
        let trip = self.0.get_or_insert_default();
        trip.heard.get_or_insert_with(|| tell().shared()).clone()
    }

    /// It has been placed: should that endpoint refuse it, that is news.
    pub(super) fn placed(&mut self) {
        if let Some(trip) = &mut self.0 {
            trip.heard = None;
        }
    }
}
