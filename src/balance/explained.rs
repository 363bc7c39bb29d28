//! Makes a balancer's [`Explanation`].

mod key;
mod trouble;

pub(super) use key::explain_key;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    history::{History, Past, Standing},
    shared::Shared,
};
use crate::{
    counters::{LastFailure, WhatFailed},
    endpoint::Counted,
    error::is_timeout,
    explain::{
        DiscoveryExplanation, EndpointExplanation, Event, Explanation, LastError,
        PolicyExplanation, Verdict, short,
    },
    member::{EjectionReason, Member, OVERTAKEN},
    snapshot::Snapshot,
};

/// One moment, on both clocks.
struct Clock {
    now: Instant,
    wall: SystemTime,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "only shown: no decision depends on it"
    )]
    fn read() -> Self {
        Self {
            now: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// What the wall clock showed at `at`, unless it has been set since.
    fn wall(&self, at: Instant) -> SystemTime {
        let ago = self.now.saturating_duration_since(at);
        let ahead = at.saturating_duration_since(self.now);
        let past = self.wall.checked_sub(ago);
        let then = past.and_then(|past| past.checked_add(ahead));
        then.unwrap_or(self.wall)
    }
}

pub(super) fn explain<S>(shared: &Shared<S>) -> Explanation {
    let clock = Clock::read();
    let snapshot = shared.current.load();
    // Counted before the history is locked, because the sums take a lock of their own.
    let tally = shared.signals.tally();
    let totals = tally.map(|tally| tally.counts());
    let history = shared.history();
    let explainer = Explainer {
        shared,
        snapshot: &snapshot,
        history: history.as_deref(),
        clock: &clock,
    };
    let endpoints = explainer.endpoints();
    let discovery = explainer.discovery();
    let gets_some = |it: &&EndpointExplanation| {
        it.verdict.is_picked() || (it.verdict == Verdict::Far && snapshot.spills())
    };
    let available = endpoints.iter().filter(gets_some).count();
    // The signal ends only when a request is accepted. If an endpoint is available, the outage may be over before that.
    let is_outage = available == 0 && !snapshot.members().iter().any(|it| it.is_available());
    let outage = shared.signals.outage_for(clock.now);
    let is_panic = history.as_ref().is_some_and(|history| history.is_panic);
    let mut explanation = Explanation {
        service: shared.signals.service().map(|name| name.to_string()),
        at: clock.wall,
        trouble: Vec::new(),
        discovery,
        policy: PolicyExplanation {
            name: shared.policy.to_owned(),
            is_load_aware: snapshot.is_load_aware(),
            is_near_first: snapshot.is_near_first(),
        },
        size: endpoints.len(),
        available,
        is_panic,
        outage: outage.filter(|_| is_outage),
        totals,
        endpoints,
        events: explainer.events(),
    };
    explanation.trouble = trouble::of(&explanation, tally.map(|tally| &**tally), clock.now);
    if shared.ignored_keys.has_seen() {
        let policy = shared.policy;
        let trouble = format!("requests have keys, but the policy ({policy}) ignores them");
        explanation.trouble.push(trouble);
    }
    explanation
}

struct Explainer<'a, S> {
    shared: &'a Shared<S>,
    snapshot: &'a Snapshot<S>,
    history: Option<&'a History>,
    clock: &'a Clock,
}

impl<S> Explainer<'_, S> {
    fn discovery(&self) -> DiscoveryExplanation {
        let report = self.history.and_then(|history| history.report.as_ref());
        let notes = self.shared.notes();
        let (last_answer, last_error) = (notes.last_answer, notes.last_error.clone());
        drop(notes);
        let error = self.history.and_then(|it| it.discovery_error.as_ref());
        let error = error.map(|(text, at)| LastError::new(&**text, self.clock.wall(*at)));
        let age = |at| self.clock.now.saturating_duration_since(at);
        DiscoveryExplanation {
            kind: report.map(|report| report.kind.to_string()),
            is_fallback: report.is_some_and(|report| report.is_fallback),
            name: report.and_then(|report| Some(report.name.as_ref()?.to_string())),
            server: report.and_then(|report| Some(report.server.as_ref()?.to_string())),
            activity: report.and_then(|report| Some(report.activity.as_ref()?.to_string())),
            ttl: report.and_then(|report| report.ttl),
            staleness: last_answer.map(age),
            last_answer: last_answer.map(|at| self.clock.wall(at)),
            next_refresh: report
                .and_then(|report| report.next_refresh)
                .map(|at| self.clock.wall(at)),
            is_failing: last_error.is_some(),
            // If no history is kept, the error's time is unknown, and shown as now.
            last_error: error.or_else(|| {
                let text = last_error.map(|error| crate::error::chain(&*error))?;
                Some(LastError::new(text, self.clock.wall))
            }),
            last_change: self
                .history
                .and_then(|history| history.last_change)
                .map(|at| self.clock.wall(at)),
        }
    }

    fn events(&self) -> Vec<Event> {
        let happened = self.history.map(|it| it.happened(self.clock.now));
        let event = |it: &super::history::Happened| Event {
            at: self.clock.wall(it.at),
            kind: it.kind,
            endpoint: it.endpoint.as_deref().map(str::to_owned),
            detail: it.detail.as_deref().map(str::to_owned),
        };
        happened.into_iter().flatten().map(event).collect()
    }

    fn endpoints(&self) -> Vec<EndpointExplanation> {
        let members = self.snapshot.members();
        let serving = Serving::of(self.snapshot);
        let (shares, homes) = (self.snapshot.shares(), self.snapshot.key_homes());
        let explained = members.iter().enumerate().map(|(index, member)| {
            let mut explained = self.endpoint(index, member, &serving);
            explained.share = shares.as_ref().map(|shares| shares[index]);
            explained.key_share = homes.as_ref().map(|homes| homes[index].0);
            explained.key_ranges = homes.as_ref().map(|homes| homes[index].1);
            explained
        });
        explained.collect()
    }

    fn endpoint(
        &self,
        index: usize,
        member: &Arc<Member>,
        serving: &Serving,
    ) -> EndpointExplanation {
        let endpoint = &self.snapshot.endpoints()[index];
        let is_counted = serving.counted.has(endpoint.weight());
        let past = self.history.and_then(|history| history.past(member.id()));
        // The status word says what holds now; the history says why.
        let complaint = match past.map(|past| past.standing) {
            Some(Standing::Panic(reason)) => Some(reason),
            _ => None,
        };
        let standing = Standing::of(member, complaint);
        let is_near = self.snapshot.is_near(index);
        let verdict = match (standing, self.snapshot.members().len()) {
            // Keeping the only endpoint is no panic.
            (Standing::Panic(_), 1) => Verdict::LastResort,
            _ if !is_counted => serving.verdict_without_weight(standing, member),
            _ => serving.verdict(standing, member, is_near),
        };
        let next_trial = past.and_then(|past| past.next_trial);
        let next_trial = next_trial.map(|at| at.saturating_duration_since(self.clock.now));
        let next_trial = next_trial.filter(|_| standing != Standing::In);
        let last_error = self.last_error(member, past);
        let counts = member.tally().map(|tally| tally.counts());
        let quantile = |part| counts.as_ref().and_then(|it| it.latency.quantile(part));
        let slow_start_share = member.slow_start_share();
        let mut explained = EndpointExplanation {
            is_in_subset: is_counted || !self.shared.is_part,
            is_near,
            verdict,
            reason: standing.reason(),
            since: past.map(|past| self.clock.wall(past.since)),
            joined: past.map(|past| self.clock.wall(past.joined)),
            next_trial,
            in_flight: member.in_flight(),
            waiting: member.waiting(),
            load: self.snapshot.load_of(index),
            slow_start: slow_start_share,
            average_latency: self.snapshot.average_latency(index),
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
            counts,
            last_error,
            life: member.id().number(),
            ..EndpointExplanation::of(endpoint)
        };
        explained.why = self.why(standing, &explained, member);
        explained
    }

    /// The last error with a text, or the last failure without one if that came later.
    fn last_error(&self, member: &Member, past: Option<&Past>) -> Option<LastError> {
        let failure = member.tally().and_then(|tally| tally.last_failure());
        let failure = failure.map(|it| (words(it), self.shared.signals.at(it.age)));
        let error = past.and_then(|past| past.last_error.as_ref());
        let told = error.map(|(text, at)| (text.to_string(), *at));
        /// If they are this close, both are the same failure.
        const CLOSE: Duration = Duration::from_millis(150);
        let last = match (failure, told) {
            (Some(failure), Some(told)) if failure.1 > told.1 + CLOSE => Some(failure),
            (failure, None) => failure,
            (_, told) => told,
        };
        last.map(|(text, at)| LastError::new(text, self.clock.wall(at)))
    }

    /// Whether an endpoint that is unreachable timed out, rather than refused.
    fn is_late(&self, member: &Member) -> bool {
        let notes = self.shared.notes();
        let refusal = notes.refusals.get(&member.id());
        refusal.is_some_and(|why| is_timeout(&**why))
    }

    fn why(&self, standing: Standing, it: &EndpointExplanation, member: &Member) -> String {
        let error = it.last_error.as_ref().map(|error| error.text.as_str());
        let of_error = |words: &str| match error {
            Some(error) => format!("{words}: {error}"),
            None => words.to_owned(),
        };
        let mut why = match standing {
            Standing::In => return healthy(it),
            Standing::Panic(reason) if it.verdict == Verdict::LastResort => {
                format!("would be ejected ({reason})")
            }
            Standing::Panic(reason) => {
                format!("would be ejected ({reason}), but too many others are out")
            }
            Standing::Ejected(EjectionReason::ConsecutiveFailures) => {
                let limit = self.shared.signals.consecutive_failures();
                let words = match limit {
                    Some(limit) => format!("{limit} failures in a row"),
                    None => "failures in a row".to_owned(),
                };
                of_error(&words)
            }
            Standing::Ejected(EjectionReason::SuccessRate) => {
                of_error("too few of its requests were successes")
            }
            Standing::Ejected(EjectionReason::Unresponsive) => match it.waiting {
                0 => "requests waited, and none was answered, while the others answered".into(),
                waiting => format!(
                    "{waiting} requests wait, and none is answered, while the others answer"
                ),
            },
            Standing::Ejected(EjectionReason::Slow) => {
                format!("other endpoints answered {OVERTAKEN} of its requests in a row first")
            }
            Standing::Ejected(EjectionReason::CheckFailed) | Standing::CheckFails => {
                of_error("its health check fails")
            }
            Standing::Pending if member.is_unready() => {
                return of_error("new: it is not connected yet");
            }
            Standing::Pending => return of_error("new: it has passed no health check yet"),
            Standing::Unreachable => of_error(match self.is_late(member) {
                true => "doesn't answer in time",
                false => "refuses requests",
            }),
        };
        match (it.verdict, it.next_trial) {
            (Verdict::LastResort, _) => why += "; but no other endpoint is left",
            (Verdict::Trial, _) => why += "; the next request tries it",
            _ if member.has_trial() => why += "; the next request for it tries it",
            (_, Some(left)) if left.is_zero() => why += "; it is being tried",
            (_, Some(left)) => why += &format!("; tried again in {}", short(left)),
            _ => {}
        }
        why
    }
}

/// What to say about a healthy endpoint.
fn healthy(it: &EndpointExplanation) -> String {
    match it.verdict {
        Verdict::OnlyByName if !it.is_in_subset => {
            "outside of this client's subset: gets requests that ask for it".into()
        }
        Verdict::OnlyByName => "weight 0: gets requests that ask for it".into(),
        Verdict::LastResort => {
            "weight 0: gets requests because no other endpoint accepts any".into()
        }
        Verdict::Far => "far: gets what the near ones can't take".into(),
        _ if it.slow_start < 1.0 => {
            let part = it.slow_start * 100.0;
            format!("new: gets {part:.0} % of its share (slow start)")
        }
        _ if it.is_terminating => "about to end".into(),
        _ => String::new(),
    }
}

fn words(failure: LastFailure) -> String {
    match failure.what {
        WhatFailed::Answer(Some(status)) => format!("answered {status}"),
        WhatFailed::Answer(None) => "its answer was a failure, or broke off".into(),
        WhatFailed::Error => "no answer".into(),
        WhatFailed::GivenUp => "cancelled by the caller: the endpoint answered nobody".into(),
    }
}

/// Which endpoints of a set requests can go to, as picks see it.
struct Serving {
    counted: Counted,
    has_available: bool,
    /// An endpoint that counts is available.
    has_counted: bool,
    /// Also one that is near.
    has_near: bool,
    /// None is available, nor only ejected: then any trial will do.
    is_none_left: bool,
}

impl Serving {
    fn of<S>(snapshot: &Snapshot<S>) -> Self {
        let counted = Counted::of(snapshot.endpoints().iter().map(|it| it.weight()));
        let members = snapshot.members().iter().enumerate();
        let available = members.filter(|(_, member)| member.is_available());
        let counts = |index: usize| counted.has(snapshot.endpoints()[index].weight());
        let mut serving = available.clone().filter(|&(index, _)| counts(index));
        Self {
            counted,
            has_available: available.clone().next().is_some(),
            has_counted: serving.clone().next().is_some(),
            has_near: serving.any(|(index, _)| snapshot.is_near(index) == Some(true)),
            is_none_left: !(snapshot.members().iter())
                .any(|member| member.is_available() || member.is_only_ejected()),
        }
    }

    fn verdict(&self, standing: Standing, member: &Member, is_near: Option<bool>) -> Verdict {
        match standing {
            _ if member.has_trial() => Verdict::Trial,
            Standing::In | Standing::Panic(_) if is_near == Some(false) && self.has_near => {
                Verdict::Far
            }
            Standing::In => Verdict::Picked,
            Standing::Panic(_) => Verdict::Panic,
            _ => self.verdict_outside(standing, member),
        }
    }

    /// The verdict of an endpoint of weight zero. Requests that don't ask for it aren't its trial, unless nothing else is
    /// left for them.
    fn verdict_without_weight(&self, standing: Standing, member: &Member) -> Verdict {
        match standing {
            _ if self.is_none_left && member.has_trial() => Verdict::Trial,
            Standing::In | Standing::Panic(_) if self.has_counted => Verdict::OnlyByName,
            Standing::In | Standing::Panic(_) => Verdict::LastResort,
            _ => self.verdict_outside(standing, member),
        }
    }

    /// The verdict of an endpoint that is out.
    fn verdict_outside(&self, standing: Standing, member: &Member) -> Verdict {
        match standing {
            Standing::Ejected(_) if !self.has_available && member.is_only_ejected() => {
                Verdict::LastResort
            }
            Standing::Ejected(_) => Verdict::Ejected,
            Standing::CheckFails => Verdict::CheckFails,
            Standing::Pending => Verdict::Pending,
            Standing::Unreachable => Verdict::Unreachable,
            Standing::In | Standing::Panic(_) => Verdict::Picked,
        }
    }
}
