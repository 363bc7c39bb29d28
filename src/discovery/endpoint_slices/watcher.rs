//! The slices of a Service, listed and then watched.
//!
//! ```text
//!             ┌────── no history from there (410) ───────┐
//!             ▼                                          │
//!   idle ──▶ list ──▶ open a watch from the list's ──▶ open: events and bookmarks ─┐
//!             ▲       version      ▲                     │                         │
//!             │                    └── it ends, or is ◀──┴─────────────────────────┘
//!             │                        silent for too long: from the last version
//!             └── back-off ◀── any error, wherever it happens
//! ```
//!
//! A list replaces the known slices only once it is complete, so there is no gap in between. After an error it always
//! lists, because the list has a new version, in case the old one was the problem. Only if the server says that it gets
//! too many requests (429), the watch goes on from the old one.
//!
//! `kube_runtime::watcher` does nearly the same, but has four faults here: it hides bookmarks, so a quiet watch looks
//! like a dead one; after a 410 to opening a watch it retries the same version for ever; its back-off can't be cut
//! short; and it brings eight crates.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{
    api::{Api, Event, Events, Listed, What},
    error::{EndpointSlicesError, Reason},
    open::{Heard, Open, SETTLED, SILENCE},
    slices::Slices,
    target::ServiceTarget,
};
use crate::logs::{DISCOVERY, debug, here, info};
use crate::{
    backoff::Backoff,
    discovery::{
        DiscoveryReport,
        families::{Families, Sets},
        shared::Source,
    },
    endpoint::Endpoint,
};

/// How long the API server may take to answer. A watch is answered at once too, and then goes on.
const ANSWER: Duration = Duration::from_secs(10);

/// The longest pause that the server can ask for; also that of the back-off.
const LONGEST: Duration = Duration::from_secs(30);

/// Silence for this long is suspicious if every pod refuses connections.
const DOUBT: Duration = Duration::from_secs(10);

/// Keeps the set fresh by watching `A`.
pub(super) struct Watcher<A> {
    target: ServiceTarget,
    api: A,
    slices: Slices,
    /// The version up to which events are known; none if a list must come next.
    version: Option<String>,
    state: State,
    backoff: Option<Backoff>,
    /// There is a set to yield.
    news: bool,
    /// The last set.
    in_use: Vec<Endpoint>,
    /// The ready endpoints of each family by then, the preferred one's first.
    of_families: [Vec<Endpoint>; 2],
    families: Families,
}

enum State {
    Idle,
    Listing(Asked<Listed>),
    Opening(Asked<Events>),
    Open(Open),
    Pausing {
        /// It can be cut short to this.
        soonest: Instant,
        timer: Pin<Box<Sleep>>,
    },
}

type Asked<T> = BoxFuture<'static, Result<T, Reason>>;

impl<A: Api> Watcher<A> {
    pub(super) fn new(target: ServiceTarget, slices: Slices, api: A) -> Self {
        Self {
            target,
            api,
            slices,
            version: None,
            state: State::Idle,
            backoff: None,
            news: false,
            in_use: Vec::new(),
            of_families: Default::default(),
            families: Families::default(),
        }
    }

    /// Goes on to the next state.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        match &mut self.state {
            State::Idle => self.ask(),
            State::Pausing { timer, .. } => {
                ready!(timer.as_mut().poll(cx));
                self.ask();
            }
            State::Listing(list) => {
                let Listed { slices, version } = ready!(list.poll_unpin(cx))?;
                self.slices.replace(slices);
                self.version = Some(version);
                self.news = true;
                self.ask();
            }
            State::Opening(watch) => match ready!(watch.poll_unpin(cx)) {
                Ok(events) => self.state = State::Open(Open::new(events)),
                Err(Reason::Expired) => self.expired(),
                Err(reason) => return Poll::Ready(Err(reason)),
            },
            State::Open(open) => {
                let heard = ready!(open.poll(cx));
                self.hear(heard)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Lists, or watches from the last known version.
    fn ask(&mut self) {
        self.state = match &self.version {
            None => State::Listing(bounded(self.api.list())),
            Some(version) => State::Opening(bounded(self.api.watch(version))),
        };
    }

    fn hear(&mut self, heard: Heard) -> Result<(), Reason> {
        match heard {
            Heard::Event(event) => {
                self.take(*event);
                self.fresh();
            }
            Heard::Settled => self.fresh(),
            Heard::Failed(Reason::Expired) => self.expired(),
            Heard::Failed(reason) => return Err(reason),
            Heard::Ended { wordless: true, .. } => return Err(Reason::Ended),
            Heard::Ended { since, .. } => {
                let pause = SETTLED.saturating_sub(since.elapsed());
                self.pause_for(pause);
            }
            Heard::Silence => {
                debug!(DISCOVERY, here(), target = %self.target, "the watch is silent; opening another one from its last version");
                self.ask();
            }
        }
        Ok(())
    }

    fn take(&mut self, Event { what, version }: Event) {
        match what {
            What::Applied(slice) => self.slices.apply(slice),
            What::Deleted(slice) => self.slices.remove(&slice),
            What::Bookmark => {}
        }
        self.version = Some(version);
    }

    /// Notes that the known slices are up to date.
    fn fresh(&mut self) {
        self.news = true;
        self.backoff = None;
    }

    /// Handles a 410: the API server has no history from the last version.
    fn expired(&mut self) {
        debug!(DISCOVERY, here(), target = %self.target, "the watch's version has expired; listing the slices again");
        self.version = None;
        // Immediate the first time, then paced, in case the next version expires too.
        let pause = match self.backoff {
            Some(_) => self.pause(),
            None => {
                self.backoff = Some(Backoff::of_discovery());
                Duration::ZERO
            }
        };
        self.pause_for(pause);
    }

    fn failed(&mut self, reason: Reason) -> EndpointSlicesError {
        let mut wanted = Duration::ZERO;
        match reason {
            // The version isn't the problem, and another list would only add to the load.
            Reason::Throttled { pause, .. } => wanted = pause.unwrap_or_default().min(LONGEST),
            _ => self.version = None,
        }
        let pause = self.pause().max(wanted);
        self.pause_at_least(wanted, pause);
        self.error(reason)
    }

    fn pause(&mut self) -> Duration {
        let backoff = self.backoff.get_or_insert_with(Backoff::of_discovery);
        backoff.next(&mut rand::rng())
    }

    fn pause_for(&mut self, pause: Duration) {
        self.pause_at_least(SETTLED, pause);
    }

    /// Waits for `pause`, which can be cut short to `least`, or to [`SETTLED`] if that is longer.
    fn pause_at_least(&mut self, least: Duration, pause: Duration) {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + pause));
        let soonest = now + least.max(SETTLED);
        self.state = State::Pausing { soonest, timer };
    }

    fn error(&self, reason: Reason) -> EndpointSlicesError {
        EndpointSlicesError::new(&self.target, reason)
    }

    /// The set, or the error that keeps it from being one.
    fn current_set(&mut self) -> Result<Vec<Endpoint>, EndpointSlicesError> {
        let endpoints = self.slices.endpoints(self.families.is_other());
        let endpoints = endpoints.map_err(|reason| self.error(reason))?;
        self.families.retain(&endpoints);
        self.of_families = self.slices.families();
        self.in_use.clone_from(&endpoints);
        Ok(endpoints)
    }

    /// Switches to the other address family if all endpoints of the one in use refuse.
    fn poll_families(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let [preferred, other] = &self.of_families;
        let is_second = match self.families.is_other() {
            true => !other.is_empty(),
            false => preferred.is_empty(),
        };
        let sets = Sets {
            in_use: &self.in_use,
            other: Some(if is_second { preferred } else { other }),
            preferred: Some(preferred),
        };
        ready!(self.families.poll_change(sets, cx));
        info!(DISCOVERY, here(), target = %self.target, "switched to the other address family: the endpoints of this one refuse connections");
        Poll::Ready(())
    }

    /// Cuts a pause short.
    fn hurry(&mut self) {
        if let State::Pausing { soonest, timer } = &mut self.state {
            let soonest = (*soonest).max(Instant::now());
            if soonest < timer.deadline() {
                timer.as_mut().reset(soonest);
            }
        }
    }
}

impl<A: Api> Source for Watcher<A> {
    type Error = EndpointSlicesError;

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<Endpoint>, EndpointSlicesError>> {
        // Takes all pending events before it yields, so that a pod that moves between slices is never missing.
        while let Poll::Ready(step) = self.poll_step(cx) {
            if let Err(reason) = step {
                return Poll::Ready(Err(self.failed(reason)));
            }
        }
        if std::mem::take(&mut self.news) || self.poll_families(cx).is_ready() {
            return Poll::Ready(self.current_set());
        }
        Poll::Pending
    }

    fn refresh(&mut self) {
        match &self.state {
            // An open watch needs no refresh, unless the server is gone and nobody has noticed.
            State::Open(open) if open.silence() >= DOUBT => self.ask(),
            _ => self.hurry(),
        }
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        self.families.refused(endpoint);
        self.hurry();
    }

    fn accepted(&mut self, endpoint: &Endpoint) {
        self.families.accepted(endpoint);
    }

    fn report(&self) -> DiscoveryReport {
        let mut report = DiscoveryReport::new("endpoint_slices");
        report.server = self.api.server();
        let (activity, next_refresh) = match &self.state {
            State::Idle | State::Listing(_) => ("lists", None),
            State::Opening(_) | State::Open(_) => ("watches", None),
            State::Pausing { timer, .. } => ("waits", Some(timer.deadline())),
        };
        report.activity = Some(activity.into());
        report.next_refresh = next_refresh;
        report
    }

    fn renewed(&self) -> Self {
        let (target, slices) = (self.target.clone(), self.slices.renewed());
        Self::new(target, slices, self.api.renewed())
    }

    /// Longer than the minute between a quiet watch's bookmarks.
    fn fresh_for(&self) -> Option<Duration> {
        Some(SILENCE)
    }
}

fn bounded<T: 'static>(asked: Asked<T>) -> Asked<T> {
    let answer = timeout(ANSWER, asked);
    Box::pin(answer.map(|answer| answer.unwrap_or(Err(Reason::Timeout(ANSWER)))))
}
