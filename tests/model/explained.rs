//! What `explain` and the counters say, compared with the pods, and with where the next request goes.

use tower_headless::{
    BalanceCounts, EndpointCounts, EndpointExplanation, EndpointState, Explanation, KeyExplanation,
    Verdict,
};

use crate::{
    cluster::host,
    plan::{Config, Hosts, PolicyName},
    subject::Subject,
    users::{User, Wish},
    view::{Seen, View},
    world::{Broken, broken},
};

fn host_of(pod: &EndpointExplanation) -> u8 {
    let endpoint = pod.address.into();
    host(&endpoint)
}

/// The requests that have ended, or gone elsewhere.
fn ended(counts: &EndpointCounts) -> u64 {
    let turned_down = counts.refused + counts.handed_back + counts.busy;
    let failed = counts.failures.total() + counts.overloads;
    counts.successes + failed + counts.cancelled + turned_down
}

fn waiting(counts: &BalanceCounts) -> u64 {
    let waits = &counts.waits;
    let all = [
        &waits.discovery,
        &waits.unreachable,
        &waits.connection,
        &waits.pod,
    ];
    all.iter().map(|it| it.waiting()).sum()
}

/// The explanation agrees with itself, and with what else can be seen.
pub(crate) fn it_agrees(config: &Config, view: &View, it: &Explanation) -> Result<(), Broken> {
    if it.endpoints.len() != view.pods.len() || it.size != view.pods.len() {
        return broken("explain shows the set", it.to_string());
    }
    for (seen, pod) in view.pods.iter().zip(&it.endpoints) {
        counts_agree(seen, pod)?;
        a_verdict_agrees(seen, pod)?;
        a_share_agrees(config, pod)?;
    }
    let picked = it.endpoints.iter().filter(|pod| pod.verdict.is_picked());
    let far = it
        .endpoints
        .iter()
        .filter(|pod| pod.verdict == Verdict::Far);
    let (picked, far) = (picked.count(), far.count());
    if ![picked, picked + far].contains(&it.available) {
        let what = "the available are those that are picked, and the far ones if they get some";
        return broken(what, it.to_string());
    }
    let shares: Option<f64> = it.endpoints.iter().map(|pod| pod.share).sum();
    let gets_some = |pod: &EndpointExplanation| {
        use Verdict::{Far, LastResort, Panic, Picked};
        matches!(pod.verdict, Picked | Panic | Far | LastResort)
    };
    let is_any = it.endpoints.iter().any(gets_some);
    let is_whole = |sum: f64| (sum - 1.0).abs() < 1e-6 || sum == 0.0 && !is_any;
    if shares.is_some_and(|sum| !is_whole(sum)) {
        return broken("shares sum up to one", format!("{shares:?} in {it}"));
    }
    let mut events = it.events.windows(2);
    if events.any(|two| two[0].at > two[1].at) {
        return broken("events are in order", it.to_string());
    }
    Ok(())
}

fn counts_agree(seen: &Seen, pod: &EndpointExplanation) -> Result<(), Broken> {
    let counts = pod.counts.as_ref().expect("the balancer counts");
    let is_whole = counts.requests == ended(counts) + u64::from(pod.in_flight);
    if pod.in_flight != seen.status.in_flight || !is_whole {
        let what = format!("{}, {} in flight: {counts:?}", seen.status, pod.in_flight);
        return broken("each request is counted once", what);
    }
    if pod.waiting > pod.in_flight || pod.load < pod.in_flight {
        let what = format!(
            "{} waiting, load {}; {}",
            pod.waiting, pod.load, seen.status
        );
        return broken("each request is counted once", what);
    }
    Ok(())
}

fn a_verdict_agrees(seen: &Seen, pod: &EndpointExplanation) -> Result<(), Broken> {
    use EndpointState::{Available, Ejected, Pending, Unreachable};
    let agrees = match seen.status.state {
        Available => matches!(
            pod.verdict,
            Verdict::Picked
                | Verdict::Far
                | Verdict::Panic
                | Verdict::LastResort
                | Verdict::OnlyByName
        ),
        Ejected(reason) => {
            pod.reason == Some(reason)
                && matches!(
                    pod.verdict,
                    Verdict::Ejected | Verdict::CheckFails | Verdict::LastResort | Verdict::Trial
                )
        }
        Pending => pod.verdict == Verdict::Pending,
        Unreachable => matches!(pod.verdict, Verdict::Unreachable | Verdict::Trial),
        _ => true,
    };
    match agrees {
        true => Ok(()),
        false => {
            let what = format!("{}: {} ({:?})", seen.status, pod.verdict, pod.reason);
            broken("a verdict goes with its state", what)
        }
    }
}

/// Those that get no requests have no share. The others have one, if shares don't depend on loads or keys.
fn a_share_agrees(config: &Config, pod: &EndpointExplanation) -> Result<(), Broken> {
    use Verdict::{Far, LastResort, Panic, Picked, Trial};
    let Some(share) = pod.share else {
        return Ok(());
    };
    let is_even = matches!(config.policy, PolicyName::RoundRobin | PolicyName::Random);
    let agrees = match pod.verdict {
        Picked | Panic | LastResort => share > 0.0 || !is_even,
        // The last resort may have a trial on offer: that is for one request, and the share for all.
        Far | Trial => true,
        _ => share == 0.0,
    };
    match agrees && (0.0..=1.0 + 1e-9).contains(&share) {
        true => Ok(()),
        false => broken(
            "a share goes with its verdict",
            format!("{}: {}, {share}", pod.label(), pod.verdict),
        ),
    }
}

/// Nothing is in flight any more, nor waits.
pub(crate) fn all_is_over(it: &Explanation) -> Result<(), Broken> {
    let totals = it.totals.as_ref().expect("the balancer counts");
    match totals.endpoints.requests == ended(&totals.endpoints) && waiting(totals) == 0 {
        true => Ok(()),
        false => broken("the totals add up", format!("{totals:?}")),
    }
}

/// What was told before a request.
pub(crate) struct Told {
    it: Explanation,
    key: Option<KeyExplanation>,
    refusals: u32,
}

impl Told {
    /// `None` if the request goes its own way.
    pub(crate) fn before(
        subject: &dyn Subject,
        config: &Config,
        wish: &Wish,
        refusals: u32,
    ) -> Option<Self> {
        let is_plain = wish.wants.is_none() && wish.avoid == Hosts::default();
        let is_keyed = config.policy.is_keyed();
        let is_explained = is_plain && wish.key.is_some() == is_keyed;
        is_explained.then(|| Self {
            it: subject.explain(),
            key: wish.key.and_then(|key| subject.explain_key(key)),
            refusals,
        })
    }

    /// The request has gone where this says, if it has gone anywhere and nothing has refused it.
    pub(crate) fn agrees(&self, user: &User, refusals: u32) -> Result<(), Broken> {
        let last = crate::lock::lock(&user.sent).last;
        let Some(last) = last.filter(|_| refusals == self.refusals) else {
            return Ok(());
        };
        let pods = || self.it.endpoints.iter();
        let told = pods().find(|pod| host_of(pod) == last.host);
        if let Some(key) = &self.key {
            let chosen = key.endpoint().map(|it| host(&it.address.into()));
            if chosen != Some(last.host) {
                let what = format!("key {:?} went to {}: {key}", user.key, last.host);
                return broken("a key goes where explain says", what);
            }
            return Ok(());
        }
        let is_trial = |pod: &EndpointExplanation| pod.verdict == Verdict::Trial;
        let agrees = match pods().find(|pod| is_trial(pod)) {
            Some(tried) => host_of(tried) == last.host,
            None => told.is_some_and(|pod| pod.share.is_none_or(|share| share > 0.0)),
        };
        match agrees {
            true => Ok(()),
            false => {
                let what = format!("request {} went to {}: {}", user.number, last.host, self.it);
                broken("a request goes where explain says", what)
            }
        }
    }
}
