//! What becomes of a request that finds no endpoint: whether it waits, for what, and until when.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{runtime, sync::futures::OwnedNotified, time::Instant};

use super::{
    errand::Errand,
    shared::{Event, ReadyTimeout, Shared},
};
use crate::{
    error::{Error, NoEndpoints, SharedError},
    home::Timer,
    in_flight::InFlight,
    member::MemberId,
};

/// How long a pod is tried often that requests wait for without a deadline, each time that they look.
const WANTED: Duration = Duration::from_secs(60);

/// Where a request goes.
pub(super) enum Placement<S> {
    Picked(S, InFlight),
    /// Nowhere before this future has ended.
    Waiting(BoxFuture<'static, ()>),
}

impl<S: Clone> Shared<S> {
    /// For a request that found no endpoint: another look, and then a wait for one if that has a chance.
    pub(super) fn pick_or_wait(&self, errand: &mut Errand) -> Result<Placement<S>, Error> {
        // Enabled before the second look, so that no change falls between the look and the wait.
        let change = self.next_change();
        if let Some((service, in_flight)) = self.pick_routed(errand.route()) {
            return Ok(Placement::Picked(service, in_flight));
        }
        self.is_running()?;
        self.starved.notify_one();
        let now = Instant::now();
        let route = errand.route().clone();
        let deadline = match route.requested_pod() {
            Some(pod) => {
                let deadline = errand.deadline(|| self.deadline(now));
                self.may_wait_for(pod, now, deadline)?;
                deadline
            }
            None => {
                let deadline = self.deadline(self.signals.begin_outage(now));
                self.may_wait(now, deadline)?;
                deadline
            }
        };
        Ok(Placement::Waiting(until(change, deadline)))
    }

    /// For a request that waits for nothing: no endpoint takes it of those that it may go to.
    pub(super) fn no_other(&self) -> Error {
        Error::unreachable(self.current.load().members().len(), self.last_refusal())
    }

    /// Waits for the next change that may concern requests; from now on, and not from its first poll.
    fn next_change(&self) -> Pin<Box<OwnedNotified>> {
        let mut change = Box::pin(self.changes.clone().notified_owned());
        change.as_mut().enable();
        change
    }

    /// For a request whose endpoint isn't ready yet: waits for the next change, or for its deadline if it has one.
    pub(super) fn change_or_deadline(&self, errand: &mut Errand) -> BoxFuture<'static, ()> {
        let now = Instant::now();
        let is_bounded = errand.route().requested_pod().is_some();
        let deadline = match is_bounded {
            true => errand.deadline(|| self.deadline(now)),
            false => None,
        };
        until(self.next_change(), deadline)
    }

    /// Until when a request waits that waits since then; none waits for ever. One beyond the end of time never comes.
    fn deadline(&self, since: Instant) -> Option<Instant> {
        match self.ready_timeout {
            ReadyTimeout::Bounded(timeout) => since.checked_add(timeout),
            ReadyTimeout::Forever => None,
        }
    }

    /// Whether there is something to wait for, and time.
    fn may_wait(&self, now: Instant, deadline: Option<Instant>) -> Result<(), Error> {
        let snapshot = self.current.load();
        self.is_running()?;
        let notes = self.notes();
        let empty = snapshot.members().is_empty();
        if empty && snapshot.is_discovered() {
            return Err(Error::no_endpoints(
                NoEndpoints::Empty,
                notes.last_error.clone(),
            ));
        }
        if deadline.is_none_or(|deadline| deadline > now) {
            return Ok(());
        }
        Err(if empty {
            Error::no_endpoints(NoEndpoints::NotDiscovered, notes.last_error.clone())
        } else {
            let refusal = notes
                .last_refusal
                .as_ref()
                .map(|(_, refusal)| refusal.clone());
            Error::unreachable(snapshot.members().len(), refusal)
        })
    }

    /// Whether a request may go on waiting for the pod of this name. It may be away: a StatefulSet's come back.
    pub(super) fn may_wait_for(
        &self,
        pod: &str,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        self.is_running()?;
        let snapshot = self.current.load();
        let named: Vec<_> = snapshot.named(pod).collect();
        if deadline.is_none_or(|deadline| deadline > now) {
            for member in named.into_iter().filter(|member| member.is_unreachable()) {
                let until = deadline.unwrap_or(now + WANTED);
                let _ = self.events.send(Event::Wanted(member.clone(), until));
            }
            return Ok(());
        }
        let notes = self.notes();
        if !snapshot.is_discovered() {
            let why = NoEndpoints::NotDiscovered;
            return Err(Error::no_endpoints(why, notes.last_error.clone()));
        }
        let is_its_own =
            |(id, _): &&(MemberId, SharedError)| named.iter().any(|member| member.id() == *id);
        let cause = notes.last_refusal.as_ref().filter(is_its_own);
        Err(Error::pod_unreachable(
            pod,
            cause.map(|(_, refusal)| refusal.clone()),
        ))
    }

    /// Why a request for one pod waits no longer for it to become ready, if its time is up.
    pub(super) fn is_over(&self, errand: &mut Errand) -> Option<Error> {
        let now = Instant::now();
        let deadline = errand.deadline(|| self.deadline(now));
        let pod = errand.route().requested_pod()?;
        let is_over = deadline.is_some_and(|deadline| deadline <= now);
        is_over.then(|| self.may_wait_for(pod, now, deadline).err())?
    }

    /// Whether anything can still change.
    fn is_running(&self) -> Result<(), Error> {
        if runtime::Handle::try_current().is_err() {
            return Err(Error::no_runtime());
        }
        if self.is_closed() || !self.start() {
            return Err(Error::closed(self.last_refusal()));
        }
        Ok(())
    }
}

/// Waits for a change, but not beyond the deadline. Woken or out of time, the request learns anew how it stands.
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
