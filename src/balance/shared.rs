//! What the clones of a balancer, their requests and the background task have in common.

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
    asked::Asked, errand::Errand, generator::Generator, history::History, reconnect::Refusal,
    starter::Starter,
};
use crate::{
    attempts::PickReason,
    counters::{TurnedDown, Wait, WaitCause},
    endpoint::Endpoint,
    error::{self, BoxError, Error, SharedError, chain},
    in_flight::InFlight,
    logs::{Line, REQUESTS, debug},
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
    /// Requests ask for the pod of this name, or leave it out by it: discovery may have to look for it.
    Asked(Box<str>),
    /// A request waits for this pod, until then at the most. The balancer's subset may have it, or take it in.
    Named(PodId, Instant),
    /// Requests that leave this pod out find no other one in the balancer's subset.
    LeftOut(PodId),
    /// A request would fail, and waits until all that was told before has been done.
    Heard(oneshot::Sender<()>),
    /// A broadcast wants all pods, whatever the balancer's subset; it is told when the set has them.
    Widen(oneshot::Sender<()>),
    /// One that wanted all pods is over.
    Narrow,
}

impl<S> Event<S> {
    /// Whether it says how an endpoint fares.
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
    /// Set for good once there is an answer, or no use in waiting for one before calling.
    pub(super) opened: AtomicBool,
    /// Told when `opened` is set.
    pub(super) opening: Step<Arc<Notify>>,
    /// A request found no endpoint.
    pub(super) starved: Step<Arc<Notify>>,
    /// The set has changed.
    pub(super) members: watch::Sender<()>,
    /// A request that found no endpoint may find one now. Those that wait are woken in the order in which they came, and
    /// hold a share of this.
    pub(super) changes: Step<Arc<Notify>>,
    pub(super) events: Step<mpsc::UnboundedSender<Event<S>>>,
    pub(super) ready_timeout: ReadyTimeout,
    /// The set is a part of what discovery finds.
    pub(super) is_part: bool,
    pub(super) asked: Asked,
    closed: AtomicBool,
    /// How often the background task's runtime has ended before discovery had answered.
    cut_off: AtomicU64,
    notes: CheckedMutex<Notes>,
    /// Where requests are counted.
    history: Option<CheckedMutex<History>>,
    /// The policy's name.
    pub(super) policy: &'static str,
    starter: OnceLock<Weak<Starter>>,
}

/// What errors and staleness tell of the past.
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

/// How many endpoints that have left are kept in mind.
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
            starter: OnceLock::new(),
        }
    }

    /// Says what starts the background task, once.
    pub(super) fn set_starter(&self, starter: &Arc<Starter>) {
        let attendant: Arc<dyn Attendant> = starter.clone();
        self.signals.attended_by(Arc::downgrade(&attendant));
        let _ = self.starter.set(Arc::downgrade(starter));
    }

    /// Starts the background task, unless it runs. For requests: each that finds no endpoint sees to it. False if it can't
    /// be started here.
    pub(super) fn start(&self) -> bool {
        let starter = self.starter.get().and_then(Weak::upgrade);
        starter.is_none_or(|starter| starter.start())
    }

    /// The background task's runtime has ended. Whoever waits tries again, and starts it in another one.
    pub(super) fn suspend(&self) {
        if !self.current.load().is_discovered() {
            self.cut_off.fetch_add(1, Ordering::AcqRel);
        }
        self.signals.vacate();
        self.opening.notify_waiters();
        self.wake();
        self.members.send_replace(());
    }

    /// To be compared with a later one: they differ if the background task's runtime has ended meanwhile, and with it the
    /// only thing that was waited for.
    pub(super) fn cut_off(&self) -> u64 {
        self.cut_off.load(Ordering::Acquire)
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

    /// What has happened, where that is kept. No pick takes this lock.
    pub(super) fn history(&self) -> Option<impl DerefMut<Target = History>> {
        let history = self.history.as_ref()?;
        Some(history.lock())
    }

    /// A request of `member` has failed with this. Not kept if somebody else is at it, or another one was just now.
    #[cold]
    pub(super) fn note_failure(&self, member: &MemberRef, error: &BoxError) {
        self.keep_text(member.id(), &**error);
    }

    /// Keeps the error's text as the endpoint's last one. Requests neither wait for whoever explains, nor format an error each.
    fn keep_text(&self, id: MemberId, error: &(dyn StdError + 'static)) {
        let now = Instant::now();
        let history = || self.history.as_ref()?.try_lock();
        if !history().is_some_and(|history| history.wants_error(id, now)) {
            return;
        }
        // An error is the user's, and may look at the balancer when it is shown.
        let text = chain(error);
        if let Some(mut history) = history() {
            history.note_error(id, text, now);
        }
    }

    /// Members have left the set: why they refused is of no interest any more.
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

    /// Endpoints have left the set.
    pub(super) fn note_left<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>) {
        let now = Instant::now();
        let is_named = |it: &&Endpoint| it.name().is_some();
        let mut notes = self.notes();
        for endpoint in endpoints.filter(is_named) {
            notes.left.push_front((endpoint.clone(), now));
        }
        notes.left.truncate(LEFT);
    }

    /// Has discovery told of the pods that are asked for by name, or left out by it: it may have to look for them.
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

    /// A request begins to wait for this, if that is counted.
    pub(super) fn wait(&self, cause: WaitCause) -> Option<Wait> {
        Some(self.signals.tally()?.wait(cause))
    }

    /// A request fails that no endpoint has had.
    pub(super) fn count_unplaced(&self) {
        if let Some(tally) = self.signals.tally() {
            tally.unplaced();
        }
    }

    /// What a request waits for that finds no endpoint.
    pub(super) fn wait_cause(&self, route: &Route) -> WaitCause {
        match self.current.load().is_discovered() {
            false => WaitCause::Discovery,
            true if route.is_for_one() => WaitCause::Pod,
            true => WaitCause::Unreachable,
        }
    }

    /// Writes which endpoint a request goes to, and why, where its attempts are written. By its own route, or `beside` others.
    pub(super) fn record_pick(
        &self,
        errand: &mut Errand,
        in_flight: &InFlight,
        beside: Option<&Route>,
    ) {
        if errand.recording().is_none() {
            return;
        }
        let route = beside.unwrap_or(errand.route());
        let is_panic = || self.history().is_some_and(|history| history.is_panic);
        let (snapshot, endpoint) = (self.current.load(), in_flight.endpoint());
        let why = snapshot.why(route, in_flight);
        let is_policy = matches!(why, PickReason::Near | PickReason::Far | PickReason::Policy);
        let why = match is_policy && is_panic() {
            true => PickReason::Panic,
            false => why,
        };
        if let Some(recording) = errand.recording() {
            recording.picked(snapshot.known(endpoint).unwrap_or(endpoint), why);
        }
    }

    /// That the background task has ended, or will not come to an answer.
    pub(super) fn closed(&self) -> Error {
        let last = self.notes().last_refusal.clone();
        Error::closed(last.map(|last| last.why))
    }

    pub(super) fn notes(&self) -> impl DerefMut<Target = Notes> {
        self.notes.lock()
    }

    /// An endpoint refused the request of `in_flight`; it goes to another one, unless it `is_lost`.
    #[cold]
    pub(super) fn refused(
        &self,
        mut in_flight: InFlight,
        refusal: Refusal,
        is_lost: bool,
        error: BoxError,
        ready: ReadyFn<S>,
    ) {
        let (service, endpoint) = (self.signals.service(), in_flight.endpoint());
        let why = Line(&*error);
        match is_lost {
            true => {
                debug!(REQUESTS, service, %endpoint, error = %why, "request lost: its endpoint is passed over");
            }
            false => {
                debug!(REQUESTS, service, %endpoint, error = %why, "request refused, unsent; it is offered again");
            }
        }
        let id = in_flight.member().id();
        self.note_refusal(id, in_flight.endpoint(), error.into());
        in_flight.refuse(match refusal {
            _ if is_lost => None,
            Refusal::NotReady => Some(TurnedDown::NotReady),
            Refusal::HandedBack => Some(TurnedDown::HandedBack),
        });
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
            self.start();
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
}
