//! The one background task of a balancer: it polls discovery, publishes sets, judges the endpoints' health, and tries
//! endpoints that refuse requests again. It ends when the last handle is dropped.
//!
//! ```text
//!  source's answer (or, with a subset, this client's part of it)
//!                  ─▶ registry compares it with the set ─▶ joined: a new member, a new life, even at an old address
//!                                                       ├▶ stayed: what is newly known of it
//!                                                       └▶ left:   no pick takes it; its requests end; it is forgotten
//! ```

use std::{
    convert::Infallible,
    future::Future,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::{Notify, futures::OwnedNotified, mpsc, oneshot},
    time::Instant,
};

use super::{
    attempts::{self, ReconnectAttempt, Reconnects},
    checks::{CheckResult, Checks},
    health_monitor::HealthMonitor,
    part::Part,
    reconnect::RefusalKind,
    registry::{Life, Registry, SetChange},
    shared::{Event, ReadyFn, Shared},
    starter::Background,
};
use crate::{
    discovery::{Discovery, FailureLog},
    endpoint::Endpoint,
    error::{BoxError, chain},
    home::Timer,
    locality::Proximities,
    logs::{self, ENDPOINTS, Line, Untold, change, debug, display, error, info},
    member::{Member, TrialVerdict},
    snapshot::Writer,
    subset::Fitting,
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

    fn on_answer(&mut self, answer: Result<Vec<Endpoint>, BoxError>) {
        self.failures.note(&answer);
        if let Some(tally) = self.shared.signals.tally() {
            tally.discovered(answer.as_ref().ok().map(Vec::len));
        }
        let error = answer.as_ref().err().map(|error| chain(&**error));
        if let Some(mut history) = self.shared.history() {
            history.discovered(error, Instant::now());
        }
        match answer {
            Ok(set) => {
                let answered = Instant::now().checked_sub(self.discovery.age());
                self.shared.note_answer(answered);
                match &mut self.part {
                    Some(part) => {
                        part.set(set, Instant::now());
                        self.choose();
                    }
                    None => self.publish(set, Proximities::Look),
                }
            }
            Err(error) => self.shared.note_error(error.into()),
        }
        if self.shared.is_awaited() {
            self.discovery.refresh();
        }
    }

    fn poll_peers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let part = self.part.as_mut();
        part.map_or(Poll::Pending, |part| part.poll_peers(cx))
    }

    /// Publishes the chosen part as the balancer's set.
    fn choose(&mut self) {
        if let Some((set, proximities)) = self.part.as_ref().and_then(Part::chosen) {
            self.publish(set, proximities);
        }
    }

    /// Takes substitutes into a subset if too few of its pods accept requests, or lets them go. In rounds, because a
    /// substitute may be known to refuse already: requests asked for it by name.
    fn fit(&mut self) {
        let mut fitting = Fitting::default();
        while self.fit_once(&mut fitting) {
            self.choose();
        }
    }

    /// One round of [`fit`](Self::fit). True if it changes the set.
    fn fit_once(&mut self, fitting: &mut Fitting) -> bool {
        let Some(part) = &mut self.part else {
            return false;
        };
        let (snapshot, lives) = (self.shared.current.load(), &self.registry.lives);
        part.fit(fitting, Instant::now(), |endpoint| {
            let member = snapshot.member_of(endpoint);
            // An endpoint that isn't in the set yet has not been tried, so it may accept.
            let life = member.and_then(|member| lives.get(&member.id()));
            life.is_none_or(Life::may_accept)
        })
    }

    fn publish(&mut self, set: Vec<Endpoint>, proximities: Proximities) {
        let (shared, now) = (self.shared.clone(), Instant::now());
        let generator = &mut &shared.generator;
        // Making services and preparing pickers are the user's code, and may panic.
        let update = AssertUnwindSafe(|| {
            let set = (set, proximities);
            self.registry.update(&shared.current, set, now, generator)
        });
        let update = catch_unwind(update);
        // Without a part, the source's next answer is published. A part may change between answers, so it is chosen
        // again soon.
        let is_missed = update.is_err() && self.part.is_some();
        self.chooses_at = is_missed.then(|| now + PUBLISH_AGAIN);
        let change = match update {
            Ok(Some(change)) => change,
            Ok(None) => return,
            Err(_) => {
                error!(
                    ENDPOINTS,
                    shared.signals.service(),
                    "making an endpoint's service, or the policy, panicked; the last endpoints stay"
                );
                return;
            }
        };
        info!(
            ENDPOINTS,
            shared.signals.service(),
            endpoints = self.registry.lives.len(),
            joined = change.joined.len(),
            left = change.left.len(),
            altered = change.altered,
            "endpoints changed",
        );
        self.keep(&change, now);
        let left = change.left.iter().map(|life| &life.endpoint);
        let part = self.part.as_ref();
        // A pod that leaves only the subset is still there.
        shared.note_left(left.filter(|left| part.is_none_or(|part| !part.has(left))));
        if !change.left.is_empty() {
            shared.forget_refusals();
        }
        for life in &change.left {
            self.attempts.leave(life.member.id());
            self.checks.leave(life);
        }
        for id in &change.joined {
            let Some(life) = self.registry.lives.get_mut(id) else {
                continue;
            };
            self.checks.join(life, now, generator);
            if let Some(ready) = self.ahead {
                self.attempts.join(life, ready, now);
            }
            if !change.is_first {
                // The endpoints of the first answer may have run for long, and aren't new.
                self.monitor.slow_start().join(life, now);
            }
        }
        self.review();
        if change.is_first {
            // Until now requests waited for the first answer, and nothing has refused them.
            shared.signals.outage.end();
        }
        shared.open();
        self.opens_at = None;
        shared.wake();
        shared.members.send_replace(());
    }

    /// Keeps in the history which endpoints have joined and left.
    fn keep(&self, change: &SetChange<S>, now: Instant) {
        let Some(mut history) = self.shared.history() else {
            return;
        };
        for life in &change.left {
            history.leave(life.member.id(), &life.endpoint, now);
        }
        for id in &change.joined {
            if let Some(life) = self.registry.lives.get(id) {
                history.join(*id, &life.endpoint, now);
            }
        }
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

    /// Handles all events that there are now. Health and the near endpoints' share are reviewed once after them,
    /// because a large set that refuses makes an event for each endpoint.
    fn on_events(&mut self, first: Event<S>) {
        self.has_heard = true;
        let mut is_of_endpoints = first.is_of_endpoint();
        // Not the events that come meanwhile: they may never end.
        let more = self.events.len();
        self.on_event(first);
        for _ in 0..more {
            let Ok(event) = self.events.try_recv() else {
                break;
            };
            is_of_endpoints |= event.is_of_endpoint();
            self.on_event(event);
        }
        if is_of_endpoints {
            self.review();
            self.shared.current.load().recount();
        }
    }

    fn on_event(&mut self, event: Event<S>) {
        match event {
            Event::Refused {
                member,
                refusal,
                ready,
            } => {
                self.tell_of_refusal(&member);
                self.attempts.set_ready(ready);
                self.discovery.refused(member.endpoint());
                self.refused(&member, refusal);
            }
            Event::Accepted(member) => self.accepted(&member),
            Event::Wanted(member, until) => {
                self.attempts.want(&mut self.registry.lives, &member, until);
            }
            Event::Asked(pod) => {
                if !self.discovery.wanted(&pod) {
                    self.shared.asked.end();
                }
            }
            Event::Named(pod, until) => {
                let part = self.part.as_mut();
                if part.is_some_and(|part| part.want(pod, until, Instant::now())) {
                    self.choose();
                }
            }
            Event::LeftOut(pod) => {
                // `fit` adapts the subset to it.
                if let Some(part) = &mut self.part {
                    part.leave_out(pod, Instant::now());
                }
            }
            Event::Heard(request) => self.unheard.push(request),
            Event::Widen(whole) => {
                if self.part.as_mut().is_some_and(Part::widen) {
                    self.choose();
                }
                // If the broadcast no longer waits, it sends `Narrow`.
                let _ = whole.send(());
            }
            Event::Narrow => {
                if self.part.as_mut().is_some_and(Part::narrow) {
                    self.choose();
                }
            }
        }
    }

    fn tell_of_refusal(&self, member: &Member) {
        let (endpoint, signals) = (member.endpoint(), &self.shared.signals);
        let error = self.shared.notes().refusals.get(&member.id()).cloned();
        let error = error.as_deref().map(|error| display(Line(error)));
        change!(Refuses, signals, %endpoint, error, "endpoint refuses requests");
    }

    fn refused(&mut self, member: &Member, refusal: RefusalKind) {
        let (lives, now) = (&mut self.registry.lives, Instant::now());
        let generator = &mut &self.shared.generator;
        self.attempts
            .refused(lives, member, refusal, now, generator);
    }

    fn accepted(&mut self, member: &Member) {
        let (endpoint, signals) = (member.endpoint(), &self.shared.signals);
        change!(Accepts, signals, %endpoint, "endpoint accepts requests again");
        self.discovery.accepted(member.endpoint());
        // It accepts requests again, so earlier failures don't count.
        member.stats().forget_failures();
        self.attempts.accepted(&mut self.registry.lives, member);
        let life = self.registry.lives.get(&member.id());
        if life.is_some_and(|life| life.health.is_half_open()) {
            // It became half-open while it refused, so its trial had to wait.
            member.offer_trial();
        }
        self.shared.signals.outage.end();
    }

    /// A request has reported something that can't wait for the next regular review.
    fn on_review(&mut self) {
        for (member, verdict) in self.attempts.ended_trials(&self.registry.lives) {
            match verdict {
                // The trial got no answer.
                TrialVerdict::GivenUp | TrialVerdict::Failed => {
                    self.refused(&member, RefusalKind::HandedBack)
                }
                _ => {
                    member.offer_trial();
                    self.shared.wake();
                }
            }
        }
        self.review();
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

    /// Reviews the endpoints' health.
    fn review(&mut self) {
        let generator = &mut &self.shared.generator;
        let lives = &mut self.registry.lives;
        if self.monitor.review(lives, Instant::now(), generator) {
            self.shared.current.load().recount();
            self.shared.wake();
        }
    }

    fn on_checked(&mut self, result: Option<CheckResult>) {
        let generator = &mut &self.shared.generator;
        let lives = &mut self.registry.lives;
        let consequence = self.checks.judge(result, lives, Instant::now(), generator);
        if let Some((id, refusal)) = consequence.refusal {
            if let Some(life) = self.registry.lives.get(&id) {
                self.shared.note_refusal(id, &life.endpoint, refusal);
            }
        } else if consequence.is_change {
            self.shared.signals.outage.end();
        }
        if consequence.is_change {
            self.review();
        }
    }

    /// An attempt has ended. It is ignored if its member has left.
    fn on_attempt(&mut self, attempt: Option<ReconnectAttempt>) {
        let Some(ReconnectAttempt { id, result }) = attempt else {
            return;
        };
        let Some((member, refusal)) = attempts::of(&self.registry.lives, id) else {
            return;
        };
        match (result, refusal) {
            // A new endpoint, and no request has found out yet that it refuses.
            (Err(error), None) => {
                self.shared
                    .note_refusal(id, member.endpoint(), error.into());
                if member.refuse() {
                    self.tell_of_refusal(&member);
                    self.discovery.refused(member.endpoint());
                    self.refused(&member, RefusalKind::NotReady);
                    self.shared.current.load().recount();
                }
            }
            (Ok(()), None) => {}
            (Err(error), Some(refusal)) => {
                let service = self.shared.signals.service();
                let (endpoint, why) = (member.endpoint(), Line(&*error));
                debug!(ENDPOINTS, service, %endpoint, error = %why, "endpoint still refuses");
                self.shared
                    .note_refusal(id, member.endpoint(), error.into());
                self.refused(&member, refusal);
            }
            (Ok(()), Some(RefusalKind::NotReady)) => {
                member.accept();
                self.shared.current.load().recount();
                self.accepted(&member);
                self.shared.wake();
            }
            (Ok(()), Some(RefusalKind::HandedBack)) => {
                member.offer_trial();
                self.shared.wake();
            }
        }
    }
}

/// How long until a set is published again after the user's code panicked.
const PUBLISH_AGAIN: Duration = Duration::from_secs(1);

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

/// Rings when it is notified, once for any number of times.
struct Bell {
    notify: Arc<Notify>,
    notified: Pin<Box<OwnedNotified>>,
}

impl Bell {
    fn new(notify: Arc<Notify>) -> Self {
        let notified = Box::pin(notify.clone().notified_owned());
        Self { notify, notified }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let rung = self.notified.as_mut().poll(cx);
        if rung.is_ready() {
            self.notified = Box::pin(self.notify.clone().notified_owned());
        }
        rung
    }
}

#[cfg(all(test, feature = "http"))]
mod tests;
