//! What the clones of a balancer, their requests and the background task share.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    error::Error as StdError,
    mem::take,
    ops::DerefMut,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    asked::Asked, generator::Generator, history::History, ignored_keys::IgnoredKeys,
    reconnect::RefusalKind, request_context::RequestContext, starter::Starter,
};
use crate::{
    attempts::PickReason,
    counters::{TurnedDown, Wait, WaitCause},
    endpoint::Endpoint,
    error::{self, BoxError, Error, SharedError, chain},
    in_flight::InFlight,
    logs::{Line, REQUESTS, debug, warn},
    member::{Member, MemberId, MemberRef},
    route::{PodId, Route},
    signals::{Attendant, Signals},
    snapshot::Current,
    sync::{
        CheckedMutex, Step,
        atomic::{AtomicBool, AtomicU64, Ordering},
        step,
    },
};

pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call waits when no endpoint accepts its request (the ready timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadyTimeout {
    /// It waits until the outage has lasted this long, and fails at once after that.
    Bounded(Duration),
    /// It waits without limit.
    Forever,
}

/// Waits until a service is ready. Made where the type of its requests is known.
pub(super) type ReadyFn<S> = fn(S) -> BoxFuture<'static, Result<(), BoxError>>;

/// What requests tell the background task.
pub(super) enum Event<S> {
    /// An endpoint refused a request; `ready` finds out when it accepts requests again.
    Refused {
        member: Arc<Member>,
        refusal: RefusalKind,
        ready: ReadyFn<S>,
    },
    /// An endpoint has accepted its trial request.
    Accepted(Arc<Member>),
    /// Requests wait for this very endpoint, at most until then.
    Wanted(Arc<Member>, Instant),
    /// Requests ask for the pod of this name, or leave it out: discovery may have to look for it.
    Asked(Box<str>),
    /// A request waits for this pod, at most until then. The balancer's subset may have it, or take it in.
    Named(PodId, Instant),
    /// Requests that leave this pod out find no other one in the balancer's subset.
    LeftOut(PodId),
    /// A request would fail, and waits until the task has handled all events before this one.
    Heard(oneshot::Sender<()>),
    /// A broadcast wants all pods, whatever the balancer's subset; the sender is told when the set has them.
    Widen(oneshot::Sender<()>),
    /// A broadcast that wanted all pods is over.
    Narrow,
}

impl<S> Event<S> {
    /// Whether it is about an endpoint's state.
    pub(super) fn is_of_endpoint(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::Accepted(_) | Self::Wanted(..)
        )
    }
}

pub(super) struct Shared<S> {
    pub(super) current: Step<Current<S>>,
    pub(super) signals: Arc<Signals>,
    pub(super) generator: Generator,
    /// Set for good once discovery has answered, or it is no use to wait for that in `poll_ready`.
    pub(super) opened: AtomicBool,
    /// Notified when `opened` is set.
    pub(super) opening: Step<Arc<Notify>>,
    /// Notified when a request found no endpoint.
    pub(super) starved: Step<Arc<Notify>>,
    /// Sent when the set has changed.
    pub(super) members: watch::Sender<()>,
    /// Notified when a request that found no endpoint may find one now. Requests that wait are woken in the order in
    /// which they came, and each holds a clone of the `Arc`: see `is_awaited`.
    pub(super) changes: Step<Arc<Notify>>,
    pub(super) events: Step<mpsc::UnboundedSender<Event<S>>>,
    pub(super) ready_timeout: ReadyTimeout,
    /// The set is a subset of what discovery finds.
    pub(super) is_part: bool,
    pub(super) asked: Asked,
    closed: AtomicBool,
    /// How often the background task's runtime has ended before discovery had answered.
    cut_off: AtomicU64,
    notes: CheckedMutex<Notes>,
    /// Kept only if requests are counted.
    history: Option<CheckedMutex<History>>,
    /// The policy's name.
    pub(super) policy: &'static str,
    /// Whether a request has had a key that the policy ignores.
    pub(super) ignored_keys: IgnoredKeys,
    starter: OnceLock<Weak<Starter>>,
}

/// What errors and `staleness` need to know of the past.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) last_answer: Option<Instant>,
    pub(super) last_error: Option<SharedError>,
    pub(super) last_refusal: Option<error::Refusal>,
    /// The last refusal of each member of the set.
    pub(super) refusals: BTreeMap<MemberId, SharedError>,
    /// The last endpoints that had names and have left, and when; the latest first.
    pub(super) left: VecDeque<(Endpoint, Instant)>,
}

/// How many endpoints that have left are remembered.
const LEFT: usize = 64;

impl<S> Shared<S> {
    pub(super) fn new(
        current: Current<S>,
        signals: Arc<Signals>,
        generator: Generator,
        ready_timeout: ReadyTimeout,
        events: mpsc::UnboundedSender<Event<S>>,
    ) -> Self {
        let history = signals.tally().map(|_| CheckedMutex::default());
        Self {
            current: step(current),
            signals,
            generator,
            opened: AtomicBool::new(ready_timeout == ReadyTimeout::Bounded(Duration::ZERO)),
            opening: step(Arc::default()),
            starved: step(Arc::default()),
            members: watch::Sender::new(()),
            changes: step(Arc::default()),
            events: step(events),
            ready_timeout,
            is_part: false,
            asked: Asked::new(Instant::now()),
            closed: AtomicBool::new(false),
            cut_off: AtomicU64::new(0),
            notes: CheckedMutex::default(),
            history,
            policy: "custom",
            ignored_keys: IgnoredKeys::new(),
            starter: OnceLock::new(),
        }
    }

    /// Sets what starts the background task. Called once.
    pub(super) fn set_starter(&self, starter: &Arc<Starter>) {
        let attendant: Arc<dyn Attendant> = starter.clone();
        self.signals.attended_by(Arc::downgrade(&attendant));
        let _ = self.starter.set(Arc::downgrade(starter));
    }

    /// Starts the background task, unless it runs. Each request that finds no endpoint calls this. False if there is no
    /// runtime here to start it in.
    pub(super) fn start(&self) -> bool {
        let starter = self.starter.get().and_then(Weak::upgrade);
        starter.is_none_or(|starter| starter.start())
    }

    /// The background task's runtime has ended. Wakes all that wait: they try again, and start the task in another
    /// runtime.
    pub(super) fn suspend(&self) {
        if !self.current.load().is_discovered() {
            self.cut_off.fetch_add(1, Ordering::AcqRel);
        }
        self.signals.vacate();
        self.opening.notify_waiters();
        self.wake();
        self.members.send_replace(());
    }

    /// Compare it with a later value: they differ if the background task's runtime has ended meanwhile, before
    /// discovery's first answer, so that the wait for this answer is lost.
    pub(super) fn cut_off(&self) -> u64 {
        self.cut_off.load(Ordering::Acquire)
    }

    /// Ends the wait in `poll_ready`, for good: from now on each request finds out in `call` whether there are
    /// endpoints.
    pub(super) fn open(&self) {
        if !self.opened.swap(true, Ordering::AcqRel) {
            self.opening.notify_waiters();
        }
    }

    /// When `poll_ready` stops waiting, even if discovery hasn't answered.
    pub(super) fn opens_at(&self, started: Instant) -> Option<Instant> {
        match self.ready_timeout {
            _ if self.opened.load(Ordering::Acquire) => None,
            // A time beyond the clock's range never comes.
            ReadyTimeout::Bounded(timeout) => started.checked_add(timeout),
            ReadyTimeout::Forever => None,
        }
    }

    /// The background task has ended for good: wakes all that wait, to fail.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.open();
        self.wake();
        self.members.send_replace(());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Wakes the requests that wait, to try again.
    pub(super) fn wake(&self) {
        self.changes.notify_waiters();
    }

    /// Whether requests wait for an endpoint.
    pub(super) fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.changes) > 1
    }

    /// Discovery has answered: its last error is forgotten.
    pub(super) fn note_answer(&self, answered: Option<Instant>) {
        let mut notes = self.notes();
        notes.last_answer = answered;
        let error = notes.last_error.take();
        // Dropped outside of the lock: the error is the user's, and its `Drop` may call the balancer.
        drop(notes);
        drop(error);
    }

    pub(super) fn note_error(&self, error: SharedError) {
        let before = self.notes().last_error.replace(error);
        drop(before);
    }

    /// Keeps why a member refused a request or an attempt, or failed a check.
    pub(super) fn note_refusal(&self, id: MemberId, endpoint: &Endpoint, why: SharedError) {
        let last = error::Refusal {
            endpoint: endpoint.clone(),
            why: why.clone(),
        };
        self.keep_text(id, &*why);
        let mut notes = self.notes();
        let before = notes.last_refusal.replace(last);
        let its_own = notes.refusals.insert(id, why);
        drop(notes);
        drop((before, its_own));
    }

    /// What has happened, if that is kept. No pick takes this lock.
    pub(super) fn history(&self) -> Option<impl DerefMut<Target = History>> {
        let history = self.history.as_ref()?;
        Some(history.lock())
    }

    /// A request of `member` has failed with this. Not kept if the lock is taken, or if an error was kept just before.
    #[cold]
    pub(super) fn note_failure(&self, member: &MemberRef, error: &BoxError) {
        self.keep_text(member.id(), &**error);
    }

    /// Keeps the error's text as the endpoint's last one. `try_lock`, because requests mustn't wait for `explain`; and
    /// the text is made only if it will be kept.
    fn keep_text(&self, id: MemberId, error: &(dyn StdError + 'static)) {
        let now = Instant::now();
        let history = || self.history.as_ref()?.try_lock();
        if !history().is_some_and(|history| history.wants_error(id, now)) {
            return;
        }
        // Formatted outside of the lock: the error is the user's, and its `Display` may call the balancer.
        let text = chain(error);
        if let Some(mut history) = history() {
            history.note_error(id, text, now);
        }
    }

    /// Forgets why members refused that have left the set.
    pub(super) fn forget_refusals(&self) {
        let snapshot = self.current.load();
        let members: BTreeSet<_> = snapshot.members().iter().map(|it| it.id()).collect();
        let mut notes = self.notes();
        let refusals = take(&mut notes.refusals).into_iter();
        let (stay, left): (_, Vec<_>) = refusals.partition(|(id, _)| members.contains(id));
        notes.refusals = BTreeMap::from_iter::<Vec<_>>(stay);
        drop(notes);
        drop(left);
    }

    /// Remembers the named endpoints that have left the set.
    pub(super) fn note_left<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>) {
        let now = Instant::now();
        let is_named = |it: &&Endpoint| it.name().is_some();
        let mut notes = self.notes();
        for endpoint in endpoints.filter(is_named) {
            notes.left.push_front((endpoint.clone(), now));
        }
        notes.left.truncate(LEFT);
    }

    /// Tells discovery which pods are asked for, or left out, by name: it may have to look for them.
    pub(super) fn ask_for(&self, route: &Route) {
        if route.is_empty() || !self.asked.is_of_use() {
            return;
        }
        let named = [route.requested(), route.preferred(), route.left_out()];
        for pod in named.into_iter().flatten() {
            let snapshot = self.current.load();
            if let Some(name) = snapshot.name_of(pod)
                && self.asked.is_due(name, Instant::now())
            {
                let name = name.to_string().into();
                let _ = self.events.send(Event::Asked(name));
            }
        }
    }

    /// Warns once if a request has a key that the policy ignores.
    pub(super) fn heed_key(&self, route: &Route) {
        if self.ignored_keys.is_first(route) {
            let (service, policy) = (self.signals.service(), self.policy);
            let what = "a request has a key, but the policy ignores keys: set `policy(ConsistentHash::new())`";
            warn!(REQUESTS, service, policy, "{what}");
        }
    }

    /// Counts a request that begins to wait, if requests are counted.
    pub(super) fn wait(&self, cause: WaitCause) -> Option<Wait> {
        Some(self.signals.tally()?.wait(cause))
    }

    /// Counts a request that fails before any endpoint had it.
    pub(super) fn count_unplaced(&self) {
        if let Some(tally) = self.signals.tally() {
            tally.unplaced();
        }
    }

    /// What a request that finds no endpoint waits for.
    pub(super) fn wait_cause(&self, route: &Route) -> WaitCause {
        match self.current.load().is_discovered() {
            false => WaitCause::Discovery,
            true if route.is_for_one() => WaitCause::Pod,
            true => WaitCause::Unreachable,
        }
    }

    /// Records which endpoint a request goes to, and why, if its attempts are recorded. The pick went by the request's
    /// own route, or by `beside`.
    pub(super) fn record_pick(
        &self,
        context: &mut RequestContext,
        in_flight: &InFlight,
        beside: Option<&Route>,
    ) {
        if context.recording().is_none() {
            return;
        }
        let route = beside.unwrap_or(context.route());
        let is_panic = || self.history().is_some_and(|history| history.is_panic);
        let (snapshot, endpoint) = (self.current.load(), in_flight.endpoint());
        let why = snapshot.why(route, in_flight);
        let is_policy = matches!(why, PickReason::Near | PickReason::Far | PickReason::Policy);
        let why = match is_policy && is_panic() {
            true => PickReason::Panic,
            false => why,
        };
        if let Some(recording) = context.recording() {
            recording.picked(snapshot.known(endpoint).unwrap_or(endpoint), why);
        }
    }

    /// The error that the background task has ended, or will not get an answer.
    pub(super) fn closed(&self) -> Error {
        let last = self.notes().last_refusal.clone();
        Error::closed(last.map(|last| last.why))
    }

    pub(super) fn notes(&self) -> impl DerefMut<Target = Notes> {
        self.notes.lock()
    }

    /// An endpoint refused the request of `in_flight`. The request is placed again, unless it `is_lost`.
    #[cold]
    pub(super) fn refused(
        &self,
        mut in_flight: InFlight,
        refusal: RefusalKind,
        is_lost: bool,
        error: BoxError,
        ready: ReadyFn<S>,
    ) {
        let (service, endpoint) = (self.signals.service(), in_flight.endpoint());
        let why = Line(&*error);
        match is_lost {
            true => {
                debug!(REQUESTS, service, %endpoint, error = %why, "request lost; its endpoint is passed over");
            }
            false => {
                debug!(REQUESTS, service, %endpoint, error = %why, "endpoint refused the request, unsent; it is placed again");
            }
        }
        let id = in_flight.member().id();
        self.note_refusal(id, in_flight.endpoint(), error.into());
        in_flight.refuse(match refusal {
            _ if is_lost => None,
            RefusalKind::NotReady => Some(TurnedDown::NotReady),
            RefusalKind::HandedBack => Some(TurnedDown::HandedBack),
        });
        let trial = in_flight.end_trial();
        // When many requests meet a pod that has just gone, only one tells the background task.
        if (in_flight.member().refuse() || trial)
            && let Some(member) = in_flight.member().member()
        {
            // An error means that the background task has ended: there is nobody to tell.
            let _ = self.events.send(Event::Refused {
                member,
                refusal,
                ready,
            });
            self.start();
        }
    }
}

impl<S: Send + Sync + 'static> Shared<S> {
    /// The balancer that `in_flight` is a request of, unless it is gone.
    pub(super) fn of(in_flight: &InFlight) -> Option<Arc<Self>> {
        in_flight.member().signals().owner()
    }

    /// The endpoint has answered the request of `in_flight`. If the answer `is_whole`, nothing of it is still to come.
    #[inline]
    pub(super) fn accepted(in_flight: &mut InFlight, is_whole: bool) {
        in_flight.answer(is_whole);
        Self::end_trial(in_flight);
        in_flight.member().signals().outage.end();
    }

    /// The endpoint took the request of `in_flight`, whatever came of it: if it was a trial, the endpoint accepts
    /// requests again.
    #[inline]
    pub(super) fn end_trial(in_flight: &mut InFlight) {
        if in_flight.end_trial() {
            Self::accepted_trial(in_flight.member());
        }
    }

    #[cold]
    fn accepted_trial(member: &MemberRef) {
        // If the endpoint was only ejected, outlier detection judges the trial by its outcome.
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
    /// Picks an endpoint: a clone of its service, and the guard that counts the request.
    #[inline]
    pub(super) fn pick(&self) -> Option<(S, InFlight)> {
        let snapshot = self.current.load();
        let picked = snapshot.pick(&const { Route::new() }, &mut &self.generator)?;
        // The guard exists before the clone is made: if that panics, the request is counted out again.
        Some((picked.service.clone(), picked.in_flight))
    }

    /// Picks an endpoint for a request with a route.
    pub(super) fn pick_routed(&self, route: &Route) -> Option<(S, InFlight)> {
        let snapshot = self.current.load();
        let picked = snapshot.pick_routed(route, &mut &self.generator)?;
        Some((picked.service.clone(), picked.in_flight))
    }
}
