//! How discovery's answers become the balancer's set, or this client's part of it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{
        part::Part,
        registry::{Life, SetChange},
    },
    Driver,
};
use crate::{
    discovery::Discovery,
    endpoint::Endpoint,
    error::{BoxError, chain},
    locality::Proximities,
    logs::{ENDPOINTS, error, info},
    subset::Fitting,
};

impl<D, S, M> Driver<D, S, M>
where
    D: Discovery,
    S: Clone + Send + 'static,
    M: FnMut(&Endpoint) -> S,
{
    pub(super) fn on_answer(&mut self, answer: Result<Vec<Endpoint>, BoxError>) {
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

    pub(super) fn poll_peers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let part = self.part.as_mut();
        part.map_or(Poll::Pending, |part| part.poll_peers(cx))
    }

    /// Publishes the chosen part as the balancer's set.
    pub(super) fn choose(&mut self) {
        if let Some((set, proximities)) = self.part.as_ref().and_then(Part::chosen) {
            self.publish(set, proximities);
        }
    }

    /// Takes substitutes into a subset if too few of its pods accept requests, or lets them go. In rounds, because a
    /// substitute may be known to refuse already: requests asked for it by name.
    pub(super) fn fit(&mut self) {
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
}

/// How long until a set is published again after the user's code panicked.
const PUBLISH_AGAIN: Duration = Duration::from_secs(1);
