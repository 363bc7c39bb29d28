//! What the clones of a balancer, their requests and the background task have in common.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{generator::Generator, recovery::Refusal};
use crate::{
    error::{BoxError, Error, NoEndpoints, SharedError},
    in_flight::InFlight,
    load::{Load, Share},
    policy::Policy,
    signals::Signals,
    snapshot::Current,
};

/// What a call does when no endpoint accepts its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It waits until the outage has lasted this long, and fails at once after that.
    Bounded(Duration),
    /// It waits for as long as it takes.
    Forever,
}

/// Waits for a service's readiness; made where the type of its requests is known.
pub(super) type Probe<S> = fn(S) -> BoxFuture<'static, Result<(), BoxError>>;

/// What requests tell the background task.
pub(super) enum Event<S> {
    /// An endpoint refused a request, and so is how to find out when it accepts some again.
    Refused {
        load: Arc<Load>,
        refusal: Refusal,
        probe: Probe<S>,
    },
    /// An endpoint has accepted its trial request.
    Accepted(Arc<Load>),
}

pub(super) struct Shared<S, P: Policy> {
    pub(super) current: Current<S, P>,
    pub(super) signals: Arc<Signals>,
    pub(super) generator: Generator,
    /// Set for good once there is an answer, or no use in waiting for one before calling.
    pub(super) opened: AtomicBool,
    /// Told when `opened` is set.
    pub(super) opening: Arc<Notify>,
    /// A request found no endpoint.
    pub(super) starved: Notify,
    /// The set has changed.
    pub(super) members: watch::Sender<()>,
    /// A request that found no endpoint may find one now. Its receivers are the requests that wait.
    changes: watch::Sender<()>,
    events: mpsc::UnboundedSender<Event<S>>,
    patience: Patience,
    closed: AtomicBool,
    notes: Mutex<Notes>,
}

/// What errors and staleness tell of the past.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) last_answer: Option<Instant>,
    pub(super) last_error: Option<SharedError>,
    pub(super) last_refusal: Option<SharedError>,
}

/// Where a request goes.
pub(super) enum Placement<S> {
    Picked(S, InFlight),
    /// Nowhere before this future has ended.
    Waiting(BoxFuture<'static, ()>),
}

impl<S, P: Policy> Shared<S, P> {
    pub(super) fn new(
        current: Current<S, P>,
        signals: Arc<Signals>,
        generator: Generator,
        patience: Patience,
        events: mpsc::UnboundedSender<Event<S>>,
    ) -> Self {
        Self {
            current,
            signals,
            generator,
            opened: AtomicBool::new(patience == Patience::Bounded(Duration::ZERO)),
            opening: Arc::default(),
            starved: Notify::new(),
            members: watch::Sender::new(()),
            changes: watch::Sender::new(()),
            events,
            patience,
            closed: AtomicBool::new(false),
            notes: Mutex::default(),
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
        match self.patience {
            _ if self.opened.load(Ordering::Acquire) => None,
            // One beyond the end of time never comes.
            Patience::Bounded(timeout) => started.checked_add(timeout),
            Patience::Forever => None,
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
        self.changes.send_replace(());
    }

    /// Whether requests wait for an endpoint.
    pub(super) fn is_awaited(&self) -> bool {
        self.changes.receiver_count() > 0
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
        probe: Probe<S>,
    ) {
        debug!(endpoint = %in_flight.endpoint(), %error, "request refused; it goes to another endpoint");
        self.notes().last_refusal = Some(error.into());
        in_flight.refuse();
        let trial = in_flight.end_trial();
        // Of the many requests that meet a pod that has just gone, one tells.
        if (in_flight.share().refuse() || trial)
            && let Some(load) = in_flight.share().load()
        {
            // An error means that the background task is gone, and with it the need to tell it anything.
            let _ = self.events.send(Event::Refused {
                load,
                refusal,
                probe,
            });
        }
    }
}

impl<S: Send + Sync + 'static, P: Policy> Shared<S, P> {
    /// The balancer that `in_flight` is a request of, unless it is gone.
    pub(super) fn of(in_flight: &InFlight) -> Option<Arc<Self>> {
        in_flight.share().signals().owner()
    }

    /// The endpoint has answered the request of `in_flight`.
    #[inline]
    pub(super) fn accepted(in_flight: &mut InFlight) {
        in_flight.answer();
        Self::end_trial(in_flight);
        in_flight.share().signals().outage.end();
    }

    /// The endpoint took the request of `in_flight`, whatever came of it: if that was a trial, it has passed.
    #[inline]
    pub(super) fn end_trial(in_flight: &mut InFlight) {
        if in_flight.end_trial() {
            Self::accepted_trial(in_flight.share());
        }
    }

    #[cold]
    fn accepted_trial(share: &Share) {
        share.accept();
        if let (Some(load), Some(shared)) = (share.load(), share.signals().owner::<Self>()) {
            let _ = shared.events.send(Event::Accepted(load));
            shared.wake();
        }
    }
}

impl<S: Clone, P: Policy> Shared<S, P> {
    /// Picks an endpoint: its service, and the guard of a request that is counted in.
    #[inline]
    pub(super) fn pick(&self) -> Option<(S, InFlight)> {
        let snapshot = self.current.load();
        let picked = snapshot.pick(&mut &self.generator)?;
        // The guard is there first: should the clone panic, the request is counted out again.
        Some((picked.service.clone(), picked.in_flight))
    }

    /// The same, but none of `avoid`.
    pub(super) fn pick_avoiding(&self, avoid: &[SocketAddr]) -> Option<(S, InFlight)> {
        let snapshot = self.current.load();
        let picked = snapshot.pick_avoiding(avoid, &mut &self.generator)?;
        Some((picked.service.clone(), picked.in_flight))
    }

    /// For a request that found no endpoint: another look, and then a wait for one if that has a chance.
    pub(super) fn pick_or_wait(&self) -> Result<Placement<S>, Error> {
        // Subscribed before the second look, so that no change falls between the look and the wait.
        let changes = self.changes.subscribe();
        match self.pick() {
            Some((service, in_flight)) => Ok(Placement::Picked(service, in_flight)),
            None => self.wait(changes).map(Placement::Waiting),
        }
    }

    fn wait(&self, mut changes: watch::Receiver<()>) -> Result<BoxFuture<'static, ()>, Error> {
        let now = Instant::now();
        let since = self.signals.begin_outage(now);
        let deadline = match self.patience {
            Patience::Bounded(timeout) => since.checked_add(timeout),
            Patience::Forever => None,
        };
        self.starved.notify_one();
        self.may_wait(now, deadline)?;
        Ok(Box::pin(async move {
            // Woken or out of time, the request is placed anew, and learns there how it stands.
            let _ = match deadline {
                Some(deadline) => timeout_at(deadline, changes.changed()).await.is_ok(),
                None => changes.changed().await.is_ok(),
            };
        }))
    }

    /// Whether there is something to wait for, and time.
    fn may_wait(&self, now: Instant, deadline: Option<Instant>) -> Result<(), Error> {
        let snapshot = self.current.load();
        let notes = self.notes();
        if Handle::try_current().is_err() {
            return Err(Error::no_runtime());
        }
        if self.is_closed() {
            return Err(Error::closed(notes.last_refusal.clone()));
        }
        let empty = snapshot.loads().is_empty();
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
            Error::unreachable(snapshot.loads().len(), notes.last_refusal.clone())
        })
    }
}
