//! What a request carries from one endpoint to the next: its route, and its deadline for waiting.

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

/// A request's route and waits. One pointer, null for most requests.
#[derive(Default)]
pub(super) struct RequestContext(Option<Box<Inner>>);

#[derive(Default)]
struct Inner {
    route: Route,
    /// Set once a request for one pod waits for it, or any request has found an endpoint busy. The inner `None`: no
    /// deadline.
    deadline: Option<Option<Instant>>,
    busy: Option<Box<BusyEndpoints>>,
    /// Once the background task has been told that there is no endpoint for it: whether the task has heard.
    heard: Option<Heard>,
    /// Records its attempts, if the caller asked for that.
    recording: Option<Recording>,
}

/// The endpoints that had no room for a request.
#[derive(Clone, Debug)]
struct BusyEndpoints {
    /// The route to the others.
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
    /// It has, and may wait at one more endpoint that it hadn't asked.
    Once,
    /// It waits nowhere any more.
    Over,
}

/// Ready when the background task has heard of a request.
pub(super) type Heard = Shared<BoxFuture<'static, ()>>;

impl RequestContext {
    pub(super) fn new(route: Route) -> Self {
        let has_route = !route.is_empty();
        Self(has_route.then(|| {
            Box::new(Inner {
                recording: route.recording(),
                route,
                ..Inner::default()
            })
        }))
    }

    /// The record of its attempts, if the caller asked for one.
    #[inline]
    pub(super) fn recording(&mut self) -> Option<&mut Recording> {
        self.0.as_mut()?.recording.as_mut()
    }

    /// Records, if attempts are recorded, that an endpoint is looked for.
    pub(super) fn seeks(&mut self, policy: &'static str) {
        if let Some(recording) = self.recording() {
            recording.seek(policy);
        }
    }

    /// Records, if attempts are recorded, what it waits for from now on.
    pub(super) fn waits_for(&mut self, cause: WaitCause) {
        if let Some(recording) = self.recording() {
            recording.wait_for(cause);
        }
    }

    /// Records the attempt's outcome, if attempts are recorded.
    pub(super) fn ended(&mut self, outcome: AttemptOutcome) {
        if let Some(recording) = self.recording() {
            recording.end(outcome);
        }
    }

    /// Records the attempt's error, if attempts are recorded; `outcome` makes the outcome from the error's text.
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
        self.0.as_ref().map_or(ANYWHERE, |inner| &inner.route)
    }

    /// Avoids this endpoint from now on, if another one will do.
    pub(super) fn avoid(&mut self, endpoint: &Endpoint) {
        let inner = self.0.get_or_insert_default();
        inner.route = std::mem::take(&mut inner.route).avoid(endpoint);
        if let Some(busy) = &mut inner.busy {
            busy.beside = std::mem::take(&mut busy.beside).avoid(endpoint);
        }
    }

    /// Notes that an endpoint has no room; returns the route to others that haven't been asked for room.
    pub(super) fn busy(&mut self, endpoint: &Endpoint, why: SharedError) -> &Route {
        let inner = self.0.get_or_insert_default();
        let last = Refusal {
            endpoint: endpoint.clone(),
            why,
        };
        let busy = match inner.busy.take() {
            Some(before) => BusyEndpoints {
                beside: before.beside.avoid(endpoint),
                last,
                ..*before
            },
            None => BusyEndpoints {
                beside: inner.route.clone().only_others().avoid(endpoint),
                last,
                are_all_asked: false,
                late: Late::No,
            },
        };
        &inner.busy.insert(Box::new(busy)).beside
    }

    /// All endpoints have been asked for room: from now on each may be asked again.
    pub(super) fn ask_again(&mut self) {
        if let Some(inner) = &mut self.0
            && let Some(busy) = &mut inner.busy
        {
            busy.beside = inner.route.clone().only_others();
            busy.are_all_asked = true;
        }
    }

    /// Its time was over while it waited in line. The next endpoint may have room and only be connecting, so the
    /// request waits for one more, unless all have been asked. The endpoint after that has to have room at once.
    pub(super) fn is_late(&mut self) {
        if let Some(inner) = &mut self.0
            && let Some(busy) = &mut inner.busy
        {
            busy.late = match busy.late {
                Late::No if !busy.are_all_asked => Late::Once,
                _ => Late::Over,
            };
        }
    }

    /// The last endpoint that had no room, if at `endpoint` the request waits for room: because it is in line there, or
    /// because its time is over. Otherwise `None`: `endpoint` may have room, and only not be ready yet.
    pub(super) fn waits_for_room(&self, endpoint: &Endpoint) -> Option<&Refusal> {
        let busy = self.0.as_ref()?.busy.as_ref()?;
        (busy.last.endpoint == *endpoint || busy.late == Late::Over).then_some(&busy.last)
    }

    /// An endpoint has the request. If that hands it back, its wait begins anew.
    pub(super) fn sent(&mut self) {
        let Some(inner) = &mut self.0 else { return };
        if inner.busy.take().is_some() && !inner.route.is_for_one() {
            inner.deadline = None;
        }
        if let Some(recording) = &inner.recording {
            recording.wait_over();
        }
    }

    /// Until when the request waits for its pod, or for room: decided by `decide` when it first has to wait.
    pub(super) fn deadline(&mut self, decide: impl FnOnce() -> Option<Instant>) -> Option<Instant> {
        let inner = self.0.as_mut()?;
        *inner.deadline.get_or_insert_with(decide)
    }

    /// Whether the background task has heard of it.
    pub(super) fn has_been_heard(&self) -> bool {
        let heard = self.0.as_ref().and_then(|inner| inner.heard.clone());
        heard.is_some_and(|heard| heard.now_or_never().is_some())
    }

    /// Waits until the background task has heard of it. `tell` tells the task, unless that has been done.
    pub(super) fn heard(&mut self, tell: impl FnOnce() -> BoxFuture<'static, ()>) -> Heard {
        let inner = self.0.get_or_insert_default();
        inner.heard.get_or_insert_with(|| tell().shared()).clone()
    }

    /// It has been placed. If that endpoint refuses it, the background task has to be told again.
    pub(super) fn placed(&mut self) {
        if let Some(inner) = &mut self.0 {
            inner.heard = None;
        }
    }
}
