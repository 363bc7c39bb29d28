//! The one background task of a balancer: it polls discovery, publishes sets, judges the endpoints' health, and tries
//! endpoints that refuse requests again. It ends when the last handle is dropped.
//!
//! ```text
//!  source's answer (or, with a subset, this client's part of it)
//!                  ─▶ registry compares it with the set ─▶ joined: a new member, a new life, even at an old address
//!                                                       ├▶ stayed: what is newly known of it
//!                                                       └▶ left:   no pick takes it; its requests end; it is forgotten
//! ```
//!
//! This file says what is done when. What is done stands in `driver/`, one file for each cause.

mod bell;
mod events;
mod publish;
mod refusals;
mod review;
#[cfg(all(test, feature = "http"))]
mod tests;

use std::{
    convert::Infallible,
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use bell::Bell;

use super::{
    attempts::Reconnects,
    checks::Checks,
    health_monitor::HealthMonitor,
    part::Part,
    registry::Registry,
    shared::{Event, ReadyFn, Shared},
    starter::Background,
};
use crate::{
    discovery::{Discovery, FailureLog},
    endpoint::Endpoint,
    home::Timer,
    logs::{self, ENDPOINTS, Untold, info},
    snapshot::Writer,
};

pub(super) struct Driver<D, S, M> {
    shared: Arc<Shared<S>>,
    discovery: D,
    failures: FailureLog,
    /// Chooses the balancer's part of discovery's set; `None` without a subset.
    part: Option<Part>,
    registry: Registry<S, M>,
    events: mpsc::UnboundedReceiver<Event<S>>,
    /// The last step handled events. Everything else goes first in the next step, so that many events can't starve it.
    has_heard: bool,
    monitor: HealthMonitor,
    checks: Checks,
    attempts: Reconnects<S>,
    /// Makes new endpoints ready before requests need them, if that is wanted.
    ahead: Option<ReadyFn<S>>,
    opens_at: Option<Instant>,
    /// When to choose the part again, because it could not be published.
    chooses_at: Option<Instant>,
    /// Requests that would fail, and wait until their events have been handled.
    unheard: Vec<oneshot::Sender<()>>,
    /// Rung by a request with something to review at once.
    review: Bell,
    /// Rung by a request that found no endpoint.
    starved: Bell,
    /// Fires when something is due.
    timer: Timer,
    has_begun: bool,
    /// Something may have changed that the history keeps.
    is_news: bool,
    /// Closed when the last handle of the balancer, which has the other end, is dropped.
    handles: oneshot::Receiver<Infallible>,
    _close: CloseOnDrop<S>,
}

/// Wakes all that wait, to fail, when the task ends; also if it panics.
struct CloseOnDrop<S>(Arc<Shared<S>>);

impl<S> Drop for CloseOnDrop<S> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<D, S, M> Driver<D, S, M>
where
    D: Discovery,
    S: Clone + Send + 'static,
    M: FnMut(&Endpoint) -> S,
{
    pub(super) fn new(
        shared: Arc<Shared<S>>,
        (discovery, part): (D, Option<Part>),
        writer: Writer<M>,
        (monitor, checks): (HealthMonitor, Checks),
        ahead: Option<ReadyFn<S>>,
        (events, handles): (
            mpsc::UnboundedReceiver<Event<S>>,
            oneshot::Receiver<Infallible>,
        ),
    ) -> Self {
        Self {
            _close: CloseOnDrop(shared.clone()),
            review: Bell::new(shared.signals.review.clone()),
            starved: Bell::new(shared.starved.clone()),
            timer: Timer::at(Instant::now()),
            has_begun: false,
            is_news: false,
            handles,
            shared,
            discovery,
            failures: FailureLog::default(),
            part,
            registry: Registry::new(writer),
            events,
            has_heard: false,
            monitor,
            checks,
            attempts: Reconnects::new(),
            ahead,
            opens_at: None,
            chooses_at: None,
            unheard: Vec::new(),
        }
    }

    /// Does one piece of pending work, and adapts the subset to it. `Break`: the task ends.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        let step = self.poll_first(cx);
        if step.is_ready() {
            self.is_news = true;
            self.fit();
            for request in self.unheard.drain(..) {
                let _ = request.send(());
            }
        }
        step
    }

    /// Does the first piece of pending work.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        if self.handles.poll_unpin(cx).is_ready() {
            return Poll::Ready(ControlFlow::Break(()));
        }
        let has_heard = std::mem::take(&mut self.has_heard);
        if !has_heard && let Poll::Ready(Some(event)) = self.events.poll_recv(cx) {
            self.on_events(event);
        } else if let Poll::Ready(answer) = self.discovery.poll_next(cx) {
            // Before attempts, which a large set that refuses keeps coming: a new set may end that.
            self.on_answer(answer);
        } else if self.poll_peers(cx).is_ready() {
            self.choose();
        } else if let Poll::Ready(attempt) = self.attempts.poll_next(cx) {
            self.on_attempt(attempt);
        } else if let Poll::Ready(result) = self.checks.poll_next(cx) {
            self.on_checked(result);
        } else if self.poll_due(cx).is_ready() {
            self.on_due();
        } else if self.review.poll(cx).is_ready() {
            self.on_review();
        } else if self.starved.poll(cx).is_ready() {
            self.discovery.refresh();
        } else if has_heard && let Poll::Ready(Some(event)) = self.events.poll_recv(cx) {
            self.on_events(event);
        } else {
            return Poll::Pending;
        }
        Poll::Ready(ControlFlow::Continue(()))
    }

    /// Waits until something is due.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due() else {
            return Poll::Pending;
        };
        self.timer.reset(due);
        self.timer.poll(cx)
    }

    fn begin(&mut self) {
        let now = Instant::now();
        self.shared.signals.begin_outage(now);
        self.opens_at = self.shared.opens_at(now);
    }

    fn due(&self) -> Option<Instant> {
        let is_outage = self.shared.signals.outage.is_on();
        let due = [
            self.attempts.due(is_outage),
            self.monitor.due(),
            self.checks.due(),
            self.opens_at,
            self.chooses_at,
            self.part.as_ref().and_then(Part::due),
            self.shared.signals.changes.due(),
        ];
        due.into_iter().flatten().min()
    }

    fn on_due(&mut self) {
        let now = Instant::now();
        if self.monitor.due().is_some_and(|due| due <= now) {
            self.review();
        }
        if self.opens_at.is_some_and(|at| at <= now) {
            self.opens_at = None;
            self.shared.open();
        }
        if self.chooses_at.is_some_and(|at| at <= now) {
            self.chooses_at = None;
            self.choose();
        }
        if let Some(untold) = self.shared.signals.changes.take_due(now) {
            self.tell_of_more(untold);
        }
        self.checks.begin(&mut self.registry.lives, now);
        let is_outage = self.shared.signals.outage.is_on();
        self.attempts
            .begin(&mut self.registry.lives, now, is_outage);
    }

    /// Logs how many changes were too many to be logged one by one.
    fn tell_of_more(&self, untold: Untold) {
        let [
            refused,
            accepted,
            ejected,
            readmitted,
            failed,
            passed,
            panics,
        ] = untold;
        info!(
            ENDPOINTS,
            self.shared.signals.service(),
            refused,
            accepted,
            ejected,
            readmitted,
            failed_checks = failed,
            passed_checks = passed,
            panics,
            is_panic = self.monitor.is_panic(),
            "more endpoints changed in the last minute; at debug level, each change is logged",
        );
    }

    /// Keeps in the history what has changed in the state of the endpoints and the source.
    fn take_stock(&mut self) {
        if self.shared.signals.tally().is_none() {
            return;
        }
        let (report, now) = (self.discovery.report(), Instant::now());
        let Some(mut history) = self.shared.history() else {
            return;
        };
        history.reported(report, now);
        if !std::mem::take(&mut self.is_news) {
            return;
        }
        history.set_panic(self.monitor.is_panic(), now);
        for (id, life) in &mut self.registry.lives {
            let standing = life.standing();
            if std::mem::replace(&mut life.told, standing) != standing {
                history.see(*id, &life.endpoint, standing, now);
            }
        }
    }
}

/// How many steps are done in one poll before other tasks have their turn.
const STEPS: usize = 64;

impl<D, S, M> Background for Driver<D, S, M>
where
    D: Discovery,
    S: Clone + Send + Sync + 'static,
    M: FnMut(&Endpoint) -> S + Send + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _entered = logs::enter(self.shared.signals.service());
        let signals = &self.shared.signals;
        signals.hear(signals.age(Instant::now()));
        if !std::mem::replace(&mut self.has_begun, true) {
            self.begin();
        }
        for _ in 0..STEPS {
            match self.poll_step(cx) {
                Poll::Ready(ControlFlow::Continue(())) => {}
                Poll::Ready(ControlFlow::Break(())) => return Poll::Ready(()),
                Poll::Pending => {
                    self.take_stock();
                    return Poll::Pending;
                }
            }
        }
        self.take_stock();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn service(&self) -> Option<Arc<str>> {
        self.shared.signals.service().cloned()
    }

    fn moved(&mut self) {
        let _entered = logs::enter(self.shared.signals.service());
        let (lives, now) = (&mut self.registry.lives, Instant::now());
        let generator = &mut &self.shared.generator;
        self.attempts.begin_anew(lives, now, generator);
        self.checks.begin_anew(lives, now);
        self.discovery.refresh();
        if let Some(part) = &mut self.part {
            part.moved();
        }
    }

    fn suspended(&self) -> Box<dyn FnOnce()> {
        let shared = self.shared.clone();
        Box::new(move || shared.suspend())
    }
}
