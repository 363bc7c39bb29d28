//! The one background task of a balancer: it polls discovery, publishes sets, and finds out when endpoints that refused
//! requests accept them again. It ends when the last handle is dropped.

use std::{
    convert::Infallible, future::poll_fn, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info};

use super::{
    care::Care,
    checks::{Answer, Checks},
    recovery::{Recovery, Refusal},
    shared::{Event, Probe, Shared},
};
use crate::{
    discovery::Discovery, endpoint::Endpoint, error::BoxError, load::Load, policy::Policy,
    snapshot::Writer,
};

/// How long an endpoint's service may take to become ready when it is probed. A connect timeout of its own, which should
/// be shorter, belongs to the service.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many endpoints are probed at the same time at most.
const MAX_PROBES: usize = 16;

pub(super) struct Driver<D, S, P: Policy, M> {
    pub(super) shared: Arc<Shared<S, P>>,
    pub(super) discovery: D,
    pub(super) writer: Writer<P, M>,
    pub(super) events: mpsc::UnboundedReceiver<Event<S>>,
    recovery: Recovery,
    care: Care,
    checks: Checks,
    probe: Option<Probe<S>>,
    probes: FuturesUnordered<BoxFuture<'static, Probed>>,
    opens_at: Option<Instant>,
    _close: CloseOnDrop<S, P>,
}

/// What came of a probe.
struct Probed {
    load: Arc<Load>,
    refusal: Refusal,
    result: Result<(), BoxError>,
}

/// Tells everybody who waits that nothing will come any more, also if the task panics or its runtime is shut down.
struct CloseOnDrop<S, P: Policy>(Arc<Shared<S, P>>);

impl<S, P: Policy> Drop for CloseOnDrop<S, P> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<D, S, P, M> Driver<D, S, P, M>
where
    D: Discovery,
    S: Clone + Send + 'static,
    P: Policy,
    M: FnMut(&Endpoint) -> S,
{
    pub(super) fn new(
        shared: Arc<Shared<S, P>>,
        discovery: D,
        writer: Writer<P, M>,
        (care, checks): (Care, Checks),
        events: mpsc::UnboundedReceiver<Event<S>>,
    ) -> Self {
        Self {
            _close: CloseOnDrop(shared.clone()),
            shared,
            discovery,
            writer,
            events,
            recovery: Recovery::default(),
            care,
            checks,
            probe: None,
            probes: FuturesUnordered::new(),
            opens_at: None,
        }
    }

    /// Runs until `handles`, of which every handle has a share of the other end, is closed.
    pub(super) async fn run(mut self, mut handles: oneshot::Receiver<Infallible>) {
        let now = Instant::now();
        self.shared.signals.begin_outage(now);
        self.opens_at = self.shared.opens_at(now);
        loop {
            let due = self.due();
            let wait = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = &mut handles => return,
                Some(event) = self.events.recv() => self.on_events(event),
                Some(probed) = self.probes.next() => self.on_probed(probed),
                Some(answer) = self.checks.next() => self.on_checked(answer),
                () = wait => self.on_due(),
                () = self.shared.signals.review.notified() => self.review(),
                () = self.shared.starved.notified() => self.discovery.refresh(),
                answer = poll_fn(|cx| self.discovery.poll_next(cx)) => self.on_answer(answer),
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let has_room = self.probes.len() < MAX_PROBES;
        let probe = has_room.then(|| self.recovery.due(self.shared.signals.outage.is_on()));
        let due = [
            probe.flatten(),
            self.care.due(),
            self.checks.due(),
            self.opens_at,
        ];
        due.into_iter().flatten().min()
    }

    fn on_answer(&mut self, answer: Result<Vec<Endpoint>, BoxError>) {
        match answer {
            Ok(set) => {
                let mut notes = self.shared.notes();
                notes.last_answer = Some(Instant::now());
                if !set.is_empty() {
                    notes.last_error = None;
                }
                drop(notes);
                self.publish(set);
            }
            Err(error) => self.shared.notes().last_error = Some(error.into()),
        }
        if self.shared.is_awaited() {
            self.discovery.refresh();
        }
    }

    fn publish(&mut self, set: Vec<Endpoint>) {
        let was_empty = self.shared.current.load().loads().is_empty();
        let update = self
            .writer
            .update(&self.shared.current, set, &mut &self.shared.generator);
        let Some(change) = update else { return };
        info!(
            endpoints = self.shared.current.load().loads().len(),
            joined = change.joined,
            left = change.left,
            altered = change.altered,
            "endpoints changed",
        );
        self.recovery.tidy();
        let snapshot = self.shared.current.load();
        let now = Instant::now();
        self.care.admit(snapshot.endpoints(), snapshot.loads(), now);
        let generator = &mut &self.shared.generator;
        self.checks.admit(snapshot.loads(), now, generator);
        drop(snapshot);
        self.review();
        if was_empty {
            // Until now there was nothing to refuse a request.
            self.shared.signals.outage.end();
        }
        self.shared.open();
        self.opens_at = None;
        self.shared.wake();
        self.shared.members.send_replace(());
    }

    fn on_event(&mut self, event: Event<S>) {
        match event {
            Event::Refused {
                load,
                refusal,
                probe,
            } => {
                info!(endpoint = %load.endpoint(), "endpoint refuses requests");
                self.probe = Some(probe);
                self.discovery.refused(load.endpoint());
                self.refused(load, refusal);
            }
            Event::Accepted(load) => self.accepted(&load),
        }
    }

    /// All the events there are, and then what they mean for the near endpoints' share and for how many may be ejected: of a
    /// large set that refuses, each is one.
    fn on_events(&mut self, first: Event<S>) {
        self.on_event(first);
        while let Ok(event) = self.events.try_recv() {
            self.on_event(event);
        }
        self.review();
        self.shared.current.load().recount();
    }

    fn refused(&mut self, load: Arc<Load>, refusal: Refusal) {
        let generator = &mut &self.shared.generator;
        self.recovery
            .refused(load, refusal, Instant::now(), generator);
    }

    fn accepted(&mut self, load: &Arc<Load>) {
        info!(endpoint = %load.endpoint(), "endpoint accepts requests again");
        self.recovery.forget(load);
        self.shared.signals.outage.end();
    }

    fn on_due(&mut self) {
        let now = Instant::now();
        if self.care.due().is_some_and(|due| due <= now) {
            self.review();
        }
        if self.opens_at.is_some_and(|at| at <= now) {
            self.opens_at = None;
            self.shared.open();
        }
        self.checks.begin(now);
        let outage = self.shared.signals.outage.is_on();
        while self.probes.len() < MAX_PROBES
            && let Some((load, refusal)) = self.recovery.take_due(now, outage)
        {
            self.begin_probe(load, refusal);
        }
    }

    /// Has the endpoints' health judged.
    fn review(&mut self) {
        let generator = &mut &self.shared.generator;
        if self.care.review(Instant::now(), generator) {
            self.shared.current.load().recount();
            self.shared.wake();
        }
    }

    fn on_checked(&mut self, answer: Answer) {
        let generator = &mut &self.shared.generator;
        let news = self.checks.judge(answer, Instant::now(), generator);
        if let Some(refusal) = news.refusal {
            self.shared.notes().last_refusal = Some(refusal);
        } else if news.is_change {
            self.shared.signals.outage.end();
        }
        if news.is_change {
            self.review();
        }
    }

    fn begin_probe(&mut self, load: Arc<Load>, refusal: Refusal) {
        let snapshot = self.shared.current.load();
        let (Some(service), Some(probe)) = (snapshot.service(&load), self.probe) else {
            self.recovery.forget(&load);
            return;
        };
        let ready = AssertUnwindSafe(probe(service.clone())).catch_unwind();
        self.probes.push(Box::pin(async move {
            let result = match timeout(PROBE_TIMEOUT, ready).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err("the endpoint's service panicked".into()),
                Err(elapsed) => Err(elapsed.into()),
            };
            Probed {
                load,
                refusal,
                result,
            }
        }));
    }

    fn on_probed(&mut self, probed: Probed) {
        let Probed {
            load,
            refusal,
            result,
        } = probed;
        match (result, refusal) {
            _ if load.is_removed() => self.recovery.forget(&load),
            (Err(error), refusal) => {
                debug!(endpoint = %load.endpoint(), %error, "endpoint still refuses");
                self.shared.notes().last_refusal = Some(error.into());
                self.refused(load, refusal);
            }
            (Ok(()), Refusal::NotReady) => {
                load.accept();
                self.shared.current.load().recount();
                self.accepted(&load);
                self.shared.wake();
            }
            (Ok(()), Refusal::HandedBack) => {
                load.offer_trial();
                self.shared.wake();
            }
        }
    }
}
