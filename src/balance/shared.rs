//! What the clones of a balancer, their requests and the background task have in common.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock, PoisonError, Weak},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    runtime,
    sync::{Notify, futures::OwnedNotified, mpsc, watch},
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{errand::Errand, generator::Generator, reconnect::Refusal};
use crate::{
    error::{BoxError, Error, NoEndpoints, SharedError},
    in_flight::InFlight,
    member::{Member, MemberId, MemberRef},
    route::Route,
    signals::Signals,
    snapshot::Current,
    sync::{
        Mutex, MutexGuard, Step,
        atomic::{AtomicBool, Ordering},
        step,
    },
};

/// How long a pod is tried often that requests wait for without a deadline, each time that they look.
const WANTED: Duration = Duration::from_secs(60);

/// How long a call waits when no endpoint accepts its request (the ready timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadyTimeout {
    /// It waits until the outage has lasted this long, and fails at once after that.
    Bounded(Duration),
    /// It waits for as long as it takes.
    Forever,
}

/// Waits for a service's readiness; made where the type of its requests is known.
pub(super) type ReadyFn<S> = fn(S) -> BoxFuture<'static, Result<(), BoxError>>;

/// What requests tell the background task.
pub(super) enum Event<S> {
    /// An endpoint refused a request, and so is how to find out when it accepts some again.
    Refused {
        member: Arc<Member>,
        refusal: Refusal,
        ready: ReadyFn<S>,
    },
    /// An endpoint has accepted its trial request.
    Accepted(Arc<Member>),
    /// Requests wait for this very endpoint, until then at the most.
    Wanted(Arc<Member>, Instant),
}

pub(super) struct Shared<S> {
    pub(super) current: Step<Current<S>>,
    pub(super) signals: Arc<Signals>,
    pub(super) generator: Generator,
    /// Set for good once there is an answer, or no use in waiting for one before calling.
    pub(super) opened: AtomicBool,
    /// Told when `opened` is set.
    pub(super) opening: Step<Arc<Notify>>,
    /// A request found no endpoint.
    pub(super) starved: Step<Notify>,
    /// The set has changed.
    pub(super) members: watch::Sender<()>,
    /// A request that found no endpoint may find one now. Those that wait are woken in the order in which they came, and
    /// hold a share of this.
    changes: Step<Arc<Notify>>,
    events: Step<mpsc::UnboundedSender<Event<S>>>,
    ready_timeout: ReadyTimeout,
    closed: AtomicBool,
    notes: Mutex<Notes>,
    starter: OnceLock<Weak<Starter>>,
}

/// Starts the background task, when there is a runtime to do so.
pub(super) struct Starter {
    /// The task, as long as it could not be started for want of a runtime.
    driver: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Starter {
    pub(super) fn new(driver: BoxFuture<'static, ()>) -> Self {
        Self {
            driver: Mutex::new(Some(driver)),
        }
    }

    /// The background task, for those who run it themselves.
    #[cfg(all(test, tower_headless_shuttle))]
    pub(super) fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.driver.lock().unwrap().take()
    }

    /// Starts the background task if that has not been done and there is a runtime to do it.
    pub(super) fn start(&self) {
        if let Ok(runtime) = runtime::Handle::try_current() {
            let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(driver) = driver.take() {
                runtime.spawn(driver);
            }
        }
    }
}

/// What errors and staleness tell of the past.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) last_answer: Option<Instant>,
    pub(super) last_error: Option<SharedError>,
    /// With the member that refused.
    pub(super) last_refusal: Option<(MemberId, SharedError)>,
}

/// Where a request goes.
pub(super) enum Placement<S> {
    Picked(S, InFlight),
    /// Nowhere before this future has ended.
    Waiting(BoxFuture<'static, ()>),
}

impl<S> Shared<S> {
    pub(super) fn new(
        current: Current<S>,
        signals: Arc<Signals>,
        generator: Generator,
        ready_timeout: ReadyTimeout,
        events: mpsc::UnboundedSender<Event<S>>,
    ) -> Self {
        Self {
            current: step(current),
            signals,
            generator,
            opened: AtomicBool::new(ready_timeout == ReadyTimeout::Bounded(Duration::ZERO)),
            opening: step(Arc::default()),
            starved: step(Notify::new()),
            members: watch::Sender::new(()),
            changes: step(Arc::default()),
            events: step(events),
            ready_timeout,
            closed: AtomicBool::new(false),
            notes: Mutex::default(),
            starter: OnceLock::new(),
        }
    }

    /// Says what starts the background task, once.
    pub(super) fn set_starter(&self, starter: &Arc<Starter>) {
        let _ = self.starter.set(Arc::downgrade(starter));
    }

    /// Starts the background task, unless that has been done. For requests: each that finds no endpoint sees to it.
    fn start(&self) {
        if let Some(starter) = self.starter.get().and_then(Weak::upgrade) {
            starter.start();
        }
    }

    /// Lets calls through: from now on, each finds out for itself how it stands.
    pub(super) fn open(&self) {
        if !self.opened.swap(true, Ordering::AcqRel) {
            self.opening.notify_waiters();
        }
    }

    /// When calls are let through whatever discovery does.
    pub(super) fn opens_at(&self, started: Instant) -> Option<Instant> {
        match self.ready_timeout {
            _ if self.opened.load(Ordering::Acquire) => None,
            // One beyond the end of time never comes.
            ReadyTimeout::Bounded(timeout) => started.checked_add(timeout),
            ReadyTimeout::Forever => None,
        }
    }

    /// The background task has ended; nothing that is waited for will come.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.open();
        self.wake();
        self.members.send_replace(());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Lets the requests that wait try again.
    pub(super) fn wake(&self) {
        self.changes.notify_waiters();
    }

    /// Whether requests wait for an endpoint.
    pub(super) fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.changes) > 1
    }

    /// Discovery has answered; what it failed before is over.
    pub(super) fn note_answer(&self, answered: Option<Instant>) {
        let mut notes = self.notes();
        notes.last_answer = answered;
        let error = notes.last_error.take();
        // An error is the user's, and may look at the balancer when it is dropped.
        drop(notes);
        drop(error);
    }

    pub(super) fn note_error(&self, error: SharedError) {
        let before = self.notes().last_error.replace(error);
        drop(before);
    }

    /// A member has refused a request, an attempt or a check.
    pub(super) fn note_refusal(&self, id: MemberId, refusal: SharedError) {
        let before = self.notes().last_refusal.replace((id, refusal));
        drop(before);
    }

    fn last_refusal(&self) -> Option<SharedError> {
        let notes = self.notes();
        notes
            .last_refusal
            .as_ref()
            .map(|(_, refusal)| refusal.clone())
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An endpoint refused the request of `in_flight`.
    #[cold]
    pub(super) fn refused(
        &self,
        mut in_flight: InFlight,
        refusal: Refusal,
        error: BoxError,
        ready: ReadyFn<S>,
    ) {
        debug!(endpoint = %in_flight.endpoint(), %error, "request refused; it goes to another endpoint");
        self.note_refusal(in_flight.member().id(), error.into());
        in_flight.refuse();
        let trial = in_flight.end_trial();
        // Of the many requests that meet a pod that has just gone, one tells.
        if (in_flight.member().refuse() || trial)
            && let Some(member) = in_flight.member().member()
        {
            // An error means that the background task is gone, and with it the need to tell it anything.
            let _ = self.events.send(Event::Refused {
                member,
                refusal,
                ready,
            });
        }
    }
}

impl<S: Send + Sync + 'static> Shared<S> {
    /// The balancer that `in_flight` is a request of, unless it is gone.
    pub(super) fn of(in_flight: &InFlight) -> Option<Arc<Self>> {
        in_flight.member().signals().owner()
    }

    /// The endpoint has answered the request of `in_flight`; unless the answer is whole, its end may be far away.
    #[inline]
    pub(super) fn accepted(in_flight: &mut InFlight, is_whole: bool) {
        in_flight.answer(is_whole);
        Self::end_trial(in_flight);
        in_flight.member().signals().outage.end();
    }

    /// The endpoint took the request of `in_flight`, whatever came of it: if that was a trial, it has passed.
    #[inline]
    pub(super) fn end_trial(in_flight: &mut InFlight) {
        if in_flight.end_trial() {
            Self::accepted_trial(in_flight.member());
        }
    }

    #[cold]
    fn accepted_trial(member: &MemberRef) {
        // A trial of one that is ejected, and no more, is judged by what comes of it.
        if member.accept()
            && let (Some(member), Some(shared)) =
                (member.member(), member.signals().owner::<Self>())
        {
            let _ = shared.events.send(Event::Accepted(member));
            shared.wake();
        }
    }
}

impl<S: Clone> Shared<S> {
    /// Picks an endpoint: its service, and the guard of a request that is counted in.
    #[inline]
    pub(super) fn pick(&self) -> Option<(S, InFlight)> {
        let snapshot = self.current.load();
        let picked = snapshot.pick(&const { Route::new() }, &mut &self.generator)?;
        // The guard is there first: should the clone panic, the request is counted out again.
        Some((picked.service.clone(), picked.in_flight))
    }

    /// Picks an endpoint for a request that says where it wants to go.
    pub(super) fn pick_routed(&self, route: &Route) -> Option<(S, InFlight)> {
        let snapshot = self.current.load();
        let picked = snapshot.pick_routed(route, &mut &self.generator)?;
        Some((picked.service.clone(), picked.in_flight))
    }

    /// For a request that found no endpoint: another look, and then a wait for one if that has a chance.
    pub(super) fn pick_or_wait(&self, errand: &mut Errand) -> Result<Placement<S>, Error> {
        // Enabled before the second look, so that no change falls between the look and the wait.
        let change = self.next_change();
        if let Some((service, in_flight)) = self.pick_routed(errand.route()) {
            return Ok(Placement::Picked(service, in_flight));
        }
        self.start();
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
        if self.is_closed() {
            return Err(Error::closed(self.last_refusal()));
        }
        Ok(())
    }
}

/// Waits for a change, but not beyond the deadline. Woken or out of time, the request learns anew how it stands.
fn until(change: Pin<Box<OwnedNotified>>, deadline: Option<Instant>) -> BoxFuture<'static, ()> {
    match deadline {
        Some(deadline) => Box::pin(timeout_at(deadline, change).map(drop)),
        None => change,
    }
}
