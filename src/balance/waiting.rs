//! A request that finds no endpoint: whether it waits, for what, and until when.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use tokio::{
    runtime,
    sync::{futures::OwnedNotified, oneshot},
    time::Instant,
};

use super::{
    asked,
    request_context::RequestContext,
    shared::{Event, Notes, READY_TIMEOUT, ReadyTimeout, Shared},
};
use crate::{
    attempts::AttemptOutcome,
    endpoint::Endpoint,
    error::{Away, Busy, Error, NoEndpoints, PodState, Refusal, SharedError},
    home::Timer,
    in_flight::InFlight,
    route::{Route, Target},
};

/// For requests that wait for a pod without a deadline: how long the pod is tried often, each time that they look.
const WANTED: Duration = Duration::from_secs(60);

/// Where a request goes.
pub(super) enum Placement<S> {
    Picked(S, InFlight),
    /// It waits until this future has ended.
    Waiting(BoxFuture<'static, ()>),
}

impl<S: Clone> Shared<S> {
    /// For a request that found no endpoint: picks once more, then waits if there is something to wait for.
    pub(super) fn pick_or_wait(&self, context: &mut RequestContext) -> Result<Placement<S>, Error> {
        // Enabled before the second pick, so that no change between the pick and the wait is missed.
        let change = self.next_change();
        let has_been_heard = context.has_been_heard();
        if let Some((service, in_flight)) = self.pick_routed(context.route()) {
            return Ok(Placement::Picked(service, in_flight));
        }
        self.is_running()?;
        self.starved.notify_one();
        let now = Instant::now();
        let wait = match context.route().is_for_one() {
            true => self.wait_for_one(change, now, context),
            false => self.wait_for_any(change, now, context.route()),
        };
        let wait = wait.or_else(|error| match has_been_heard {
            true => Err(error),
            false => self.tell(context).ok_or(error),
        });
        wait.map(Placement::Waiting).or_else(|error| {
            // The endpoint may have come since the second pick. The error would say that it refuses.
            let late = self.pick_routed(context.route());
            let (service, in_flight) = late.ok_or(error)?;
            Ok(Placement::Picked(service, in_flight))
        })
    }

    /// For a request that finds no room at this endpoint: another one that it hasn't asked for room, if there is one.
    /// The request waits up to the ready timeout in all, counted from when it began to wait.
    pub(super) fn pick_beside(
        &self,
        context: &mut RequestContext,
        in_flight: &mut InFlight,
        busy: Busy,
    ) -> Option<(S, InFlight)> {
        let why = busy.why.clone();
        let beside = context.busy(in_flight.endpoint(), busy.why).clone();
        let now = Instant::now();
        let since = now.checked_sub(busy.waited).unwrap_or(now);
        let deadline = context.deadline(|| self.deadline(since));
        if context.route().is_for_one() {
            return None;
        }
        // A request that didn't wait in line may still ask all endpoints.
        if !busy.waited.is_zero() && deadline.is_some_and(|deadline| deadline <= now) {
            context.is_late();
        }
        let picked = self.pick_routed(&beside);
        match &picked {
            Some((_, placed)) => {
                in_flight.found_no_room();
                if let Some(recording) = context.recording() {
                    recording.fail(&*why, |error| AttemptOutcome::Busy { error });
                    recording.seek(self.policy);
                    self.record_pick(context, placed, Some(&beside));
                }
            }
            None => context.ask_again(),
        }
        picked
    }

    /// A wait for the one endpoint of a request, or the error if the request may not wait.
    fn wait_for_one(
        &self,
        change: Pin<Box<OwnedNotified>>,
        now: Instant,
        context: &mut RequestContext,
    ) -> Result<BoxFuture<'static, ()>, Error> {
        let deadline = context.deadline(|| self.deadline(now));
        self.may_wait_for(context.route(), now, deadline)?;
        // A longer wait is cut into parts: each tells discovery again that the pod is asked for.
        let ask = now + asked::EVERY;
        let next = deadline.map_or(ask, |deadline| deadline.min(ask));
        Ok(until(change, Some(next)))
    }

    /// With a subset, the background task may take in other pods for a request that would fail: waits, once, until the
    /// task has heard of the request. The ready timeout doesn't bound this, because it is no wait for an endpoint.
    fn tell(&self, context: &mut RequestContext) -> Option<BoxFuture<'static, ()>> {
        if !self.is_part || !self.current.load().is_discovered() {
            return None;
        }
        let route = context.route().clone();
        // Enabled before the task is told. Also wakes the request if the task's runtime ends.
        let change = self.next_change();
        let heard = context.heard(|| {
            // Told again: the task may have dropped what it heard before there was a set.
            if let Some(pod) = route.requested() {
                let _ = self.events.send(Event::Named(pod.clone(), Instant::now()));
            }
            if let Some(pod) = route.left_out() {
                let _ = self.events.send(Event::LeftOut(pod.clone()));
            }
            let (sender, is_heard) = oneshot::channel();
            let _ = self.events.send(Event::Heard(sender));
            is_heard.map(drop).boxed()
        });
        Some(select(heard, change).map(drop).boxed())
    }
}

impl<S> Shared<S> {
    /// All endpoints that `route` doesn't leave out, as targets of one request each. Waits for the first as a request
    /// does.
    pub(super) async fn wait_for_targets(&self, route: &Route) -> Result<Vec<Target>, Error> {
        let cut_off = self.cut_off();
        loop {
            let wait = {
                let change = self.next_change();
                let targets = self.current.load().targets_of(route);
                if !targets.is_empty() {
                    return Ok(targets);
                }
                self.is_running()?;
                self.starved.notify_one();
                self.wait_for_any(change, Instant::now(), route)?
            };
            wait.await;
            if self.cut_off() != cut_off {
                return Err(self.closed());
            }
        }
    }

    /// Waits until the background task has done something, in whatever runtime it runs.
    pub(super) async fn wait_for_task(
        &self,
        mut is_done: oneshot::Receiver<()>,
    ) -> Result<(), Error> {
        loop {
            // Also wakes if the task's runtime ends: `is_running` then starts the task in this one.
            let change = self.next_change();
            self.is_running()?;
            if let Either::Left((done, _)) = select(&mut is_done, change).await {
                return done.map_err(|_| self.closed());
            }
        }
    }

    /// A wait for any endpoint, or the error if there is nothing to wait for.
    fn wait_for_any(
        &self,
        change: Pin<Box<OwnedNotified>>,
        now: Instant,
        route: &Route,
    ) -> Result<BoxFuture<'static, ()>, Error> {
        let left_out = route.left_out().filter(|_| self.is_part);
        if let Some(pod) = left_out {
            let _ = self.events.send(Event::LeftOut(pod.clone()));
        }
        let deadline = self.deadline(self.signals.begin_outage(now));
        self.may_wait(now, deadline, route)?;
        Ok(until(change, deadline))
    }

    /// Waits until discovery has answered, up to the ready timeout from now on.
    pub(super) async fn wait_for_discovery(&self) -> Result<(), Error> {
        let (cut_off, now) = (self.cut_off(), Instant::now());
        let deadline = match self.ready_timeout {
            // Requests never wait, but a caller of this does.
            ReadyTimeout::Bounded(Duration::ZERO) => Some(now + READY_TIMEOUT),
            _ => self.deadline(now),
        };
        loop {
            let wait = {
                let change = self.next_change();
                if self.current.load().is_discovered() {
                    return Ok(());
                }
                self.is_running()?;
                self.starved.notify_one();
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return Err(self.not_discovered(&self.notes()));
                }
                until(change, deadline)
            };
            wait.await;
            if self.cut_off() != cut_off {
                return Err(self.closed());
            }
        }
    }

    /// The error of a request that doesn't wait: no endpoint that it may go to takes it.
    pub(super) fn no_other(&self) -> Error {
        let last = self.notes().last_refusal.clone();
        Error::unreachable(self.current.load().members().len(), last)
    }

    /// Waits for the next change that may concern requests; counted from now on, not from the first poll.
    fn next_change(&self) -> Pin<Box<OwnedNotified>> {
        let mut change = Box::pin(self.changes.clone().notified_owned());
        change.as_mut().enable();
        change
    }

    /// For a request whose endpoint isn't ready yet: waits for the next change, or for its deadline if it has one.
    pub(super) fn change_or_deadline(
        &self,
        context: &mut RequestContext,
        at: &Endpoint,
    ) -> BoxFuture<'static, ()> {
        let deadline = self.ready_deadline(context, at, Instant::now());
        until(self.next_change(), deadline)
    }

    /// Until when a request that has been brought to `at` waits there: any request for room, a request for one pod also
    /// until the pod is ready. Without a deadline if requests never wait: that is about endpoints that refuse, and this
    /// one hasn't.
    fn ready_deadline(
        &self,
        context: &mut RequestContext,
        at: &Endpoint,
        now: Instant,
    ) -> Option<Instant> {
        if context.waits_for_room(at).is_some() {
            return context.deadline(|| None);
        }
        let is_bounded = self.ready_timeout != ReadyTimeout::Bounded(Duration::ZERO);
        let is_for_one = context.route().is_for_one();
        (is_bounded && is_for_one).then(|| context.deadline(|| self.deadline(now)))?
    }

    /// Until when a request waits that began to wait at `since`; `None` if there is no limit, or it is beyond the
    /// clock's range.
    fn deadline(&self, since: Instant) -> Option<Instant> {
        match self.ready_timeout {
            ReadyTimeout::Bounded(timeout) => since.checked_add(timeout),
            ReadyTimeout::Forever => None,
        }
    }

    /// Whether a request may wait: there is something to wait for, and time is left.
    fn may_wait(
        &self,
        now: Instant,
        deadline: Option<Instant>,
        route: &Route,
    ) -> Result<(), Error> {
        let snapshot = self.current.load();
        self.is_running()?;
        let notes = self.notes();
        let endpoints = snapshot.not_left_out(route);
        let empty = endpoints == 0;
        if empty && snapshot.is_discovered() {
            let why = match snapshot.members().is_empty() {
                true => NoEndpoints::Empty,
                false => NoEndpoints::LeftOut,
            };
            return Err(Error::no_endpoints(why, notes.last_error.clone()));
        }
        if deadline.is_none_or(|deadline| deadline > now) {
            return Ok(());
        }
        Err(if empty {
            self.not_discovered(&notes)
        } else {
            Error::unreachable(endpoints, notes.last_refusal.clone())
        })
    }

    /// Whether a request may go on waiting for its one pod. A pod that is asked for by name may be away, because a
    /// StatefulSet's pods come back.
    fn may_wait_for(
        &self,
        route: &Route,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        self.is_running()?;
        let snapshot = self.current.load();
        let requested: Vec<_> = snapshot.requested(route).collect();
        let target = route.requested_member();
        if let Some(target) = target.filter(|_| requested.is_empty()) {
            return Err(Error::gone(target.endpoint.clone()));
        }
        if let Some(pod) = route.requested().filter(|_| target.is_none()) {
            if pod.name() == Some("") {
                return Err(Error::pod_unreachable("", PodState::Nameless, None));
            }
            if let Err(ambiguous) = pod.among(snapshot.endpoints()) {
                let state = PodState::Ambiguous(ambiguous.0);
                return Err(Error::pod_unreachable(pod.to_string(), state, None));
            }
            // Also if the pod is in the set: it may leave again if it is there only as a substitute or for a broadcast.
            if self.is_part {
                let until = deadline.unwrap_or(now + WANTED);
                let _ = self.events.send(Event::Named(pod.clone(), until));
            }
        }
        if deadline.is_none_or(|deadline| deadline > now) {
            let refusing = requested.into_iter();
            for member in refusing.filter(|member| member.is_unreachable()) {
                let until = deadline.unwrap_or(now + WANTED);
                let _ = self.events.send(Event::Wanted(member.clone(), until));
            }
            return Ok(());
        }
        let notes = self.notes();
        if !snapshot.is_discovered() {
            return Err(self.not_discovered(&notes));
        }
        let cause = requested
            .iter()
            .find_map(|member| notes.refusals.get(&member.id()).cloned());
        if let Some(target) = target {
            return Err(Error::endpoint_unreachable(target.endpoint.clone(), cause));
        }
        let pod = route.requested().map(|pod| pod.among(snapshot.endpoints()));
        let Some(Ok(pod)) = pod else {
            return Err(Error::unreachable(snapshot.members().len(), None));
        };
        let state = match snapshot.requested_endpoint(route) {
            Some(endpoint) => PodState::Refuses(endpoint.clone()),
            None => {
                let mut left = notes.left.iter();
                let last = left.find(|(endpoint, _)| pod.is(endpoint));
                let last = last.map(|(endpoint, at)| (endpoint.clone(), now - *at));
                PodState::Away(Away::new(snapshot.endpoints(), last, pod.advice()))
            }
        };
        // Without a refusal: the pod may be missing because discovery fails.
        let cause = cause.or_else(|| notes.last_error.clone());
        Err(Error::pod_unreachable(pod.to_string(), state, cause))
    }

    fn not_discovered(&self, notes: &Notes) -> Error {
        let waited = match self.ready_timeout {
            ReadyTimeout::Bounded(timeout) if !timeout.is_zero() => Some(timeout),
            _ => None,
        };
        let why = NoEndpoints::NotDiscovered(waited);
        Error::no_endpoints(why, notes.last_error.clone())
    }

    /// The error that a request that waits for an endpoint would fail with if it stopped waiting now.
    #[cfg(feature = "http")]
    pub(super) fn gives_up(&self, route: &Route) -> Option<Error> {
        let now = Instant::now();
        let error = match route.is_for_one() {
            true => self.may_wait_for(route, now, Some(now)),
            false => self.may_wait(now, Some(now), route),
        };
        error.err().map(Error::so_far)
    }

    /// Why the endpoint that was picked for a request refuses, while it does.
    #[cfg(feature = "http")]
    pub(super) fn refusal_of(&self, picked: &InFlight) -> Option<SharedError> {
        let member = picked.member();
        member
            .is_unreachable()
            .then(|| self.notes().refusals.get(&member.id()).cloned())?
    }

    /// Why the one endpoint of a request refuses, while it does.
    pub(super) fn refusal(&self, route: &Route) -> Option<SharedError> {
        let snapshot = self.current.load();
        let mut refusing = snapshot
            .requested(route)
            .filter(|member| member.is_unreachable());
        let notes = self.notes();
        refusing.find_map(|member| notes.refusals.get(&member.id()).cloned())
    }

    /// Whether a request has been placed where it must not go, by what is known now: at a pod that it isn't for, or one
    /// that it leaves out.
    pub(super) fn is_lost(&self, route: &Route, in_flight: &InFlight) -> bool {
        if route.is_empty() {
            return false;
        }
        let (endpoint, id) = (in_flight.endpoint(), in_flight.member().id());
        let snapshot = self.current.load();
        match route.is_for_one() {
            true => !snapshot.is_for(route, id),
            false => snapshot.is_left_out(route, endpoint, id),
        }
    }

    /// If its time is up: the error of a request for one pod that waits until the pod is ready, or of any request that
    /// waits for room.
    pub(super) fn is_over(
        &self,
        context: &mut RequestContext,
        in_flight: &mut InFlight,
    ) -> Option<Error> {
        let now = Instant::now();
        let deadline = self.ready_deadline(context, in_flight.endpoint(), now);
        if deadline.is_none_or(|deadline| deadline > now) {
            return None;
        }
        let Some(last) = context.waits_for_room(in_flight.endpoint()) else {
            return self.may_wait_for(context.route(), now, deadline).err();
        };
        in_flight.found_no_room();
        Some(self.busy(context.route(), last))
    }

    /// The error that no endpoint has room for a request.
    fn busy(&self, route: &Route, last: &Refusal) -> Error {
        match (route.requested(), route.requested_member()) {
            (Some(pod), None) => {
                let state = PodState::Busy(last.endpoint.clone());
                Error::pod_unreachable(pod.to_string(), state, Some(last.why.clone()))
            }
            (_, Some(_)) => Error::busy(1, last.clone()),
            (None, None) => {
                let endpoints = self.current.load().not_left_out(route);
                Error::busy(endpoints.max(1), last.clone())
            }
        }
    }

    /// Fails if nothing can change any more: there is no runtime, or the background task has ended.
    fn is_running(&self) -> Result<(), Error> {
        if runtime::Handle::try_current().is_err() {
            return Err(Error::no_runtime());
        }
        if self.is_closed() || !self.start() {
            return Err(self.closed());
        }
        Ok(())
    }
}

/// Waits for a change, but not beyond the deadline. After either, the request looks again.
fn until(mut change: Pin<Box<OwnedNotified>>, deadline: Option<Instant>) -> BoxFuture<'static, ()> {
    let Some(deadline) = deadline else {
        return change;
    };
    let mut timer = Timer::at(deadline);
    Box::pin(poll_fn(move |cx| match change.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => timer.poll(cx),
    }))
}
