//! Says what is wrong now, in sentences.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    counters::{BalanceTally, WaitCause},
    explain::{Explanation, Verdict, short},
};

/// What is wrong, the worst first: by the explanation, and by the counters.
pub(super) fn of(it: &Explanation, tally: Option<&BalanceTally>, now: Instant) -> Vec<String> {
    let mut trouble = of_explanation(it);
    if let Some(tally) = tally {
        trouble.extend(of_counts(tally, it.size, now));
    }
    trouble
}

fn of_explanation(it: &Explanation) -> Vec<String> {
    let mut trouble = Vec::new();
    let unreachable = of_verdict(it, Verdict::Unreachable);
    let discovery = &it.discovery;
    let error = discovery
        .last_error
        .as_ref()
        .map(|error| error.text.as_str());
    match (discovery.staleness, discovery.is_failing) {
        (None, _) => trouble.push(match error {
            Some(error) => format!("discovery has not answered yet: {error}"),
            None => "discovery has not answered yet".into(),
        }),
        (Some(_), _) if it.size == 0 => trouble.push(match error {
            Some(error) => format!("the service has no endpoints: {error}"),
            None => "the service has no endpoints".into(),
        }),
        (Some(age), true) => trouble.push(format!(
            "discovery fails, and the last set, {} old, is used: {}",
            short(age),
            error.unwrap_or("no error is known"),
        )),
        (Some(_), false) => {}
    }
    if it.size > 0 && unreachable == it.size {
        let since = match it.outage {
            Some(outage) => format!(", for {}", short(outage)),
            None => String::new(),
        };
        let none = none_accepts(it.size);
        trouble.push(format!(
            "{none}{since}: requests wait until the ready timeout since then is over, and fail at once after it"
        ));
    } else if it.is_panic {
        trouble.push("too few endpoints are healthy: ejections are ignored (panic)".into());
    }
    for endpoint in &it.endpoints {
        let is_out = match endpoint.verdict {
            Verdict::Picked | Verdict::Far | Verdict::OnlyByName => false,
            // Every rollout has some; only those with an error are trouble.
            Verdict::Pending => endpoint.last_error.is_some(),
            _ => true,
        };
        if is_out && !endpoint.why.is_empty() {
            let (label, verdict) = (endpoint.label(), endpoint.verdict);
            trouble.push(format!("{label} {verdict}: {}", endpoint.why));
        }
    }
    trouble
}

fn none_accepts(endpoints: usize) -> String {
    match endpoints {
        1 => "the only endpoint accepts no requests".to_owned(),
        _ => format!("none of {endpoints} endpoints accepts requests"),
    }
}

fn of_verdict(it: &Explanation, verdict: Verdict) -> usize {
    let endpoints = it.endpoints.iter();
    endpoints
        .filter(|endpoint| endpoint.verdict == verdict)
        .count()
}

/// How long the retry budget counts as spent after it last refused a retry.
const SPENT: Duration = Duration::from_secs(60);

/// Requests that wait for a connection are trouble if they have waited for this long: connecting takes less.
const LONG: Duration = Duration::from_millis(250);

/// They are trouble also if there are more of them than this, and more than endpoints.
const MANY: u64 = 10;

/// What is wrong by the counters.
fn of_counts(tally: &BalanceTally, endpoints: usize, now: Instant) -> Vec<String> {
    let mut trouble = Vec::new();
    for (cause, what) in [
        (WaitCause::Discovery, "for discovery's first answer"),
        (
            WaitCause::Unreachable,
            "for an endpoint that accepts requests",
        ),
        (
            WaitCause::Connection,
            "for the endpoint that was picked to be ready: a connection is made, or its limit is reached",
        ),
        (WaitCause::Pod, "for the one pod that they are for"),
    ] {
        let (waiting, waited) = tally.waiting(cause, now);
        let are_many = waiting > MANY.max(endpoints as u64);
        match waiting {
            0 => {}
            _ if cause == WaitCause::Connection && waited < LONG && !are_many => {}
            1 => trouble.push(format!("1 request waits {what}")),
            many => trouble.push(format!("{many} requests wait {what}")),
        }
    }
    let ago = tally.since_budget_refused(now).filter(|ago| *ago < SPENT);
    if let Some(ago) = ago {
        let ago = short(ago);
        trouble.push(format!(
            "the retry budget was spent: requests were not sent again, the last one {ago} ago"
        ));
    }
    trouble
}
