//! What is promised of requests with keys.

use std::collections::HashMap;

use crate::{
    cluster::Cluster,
    lock::lock,
    plan::{BOUND, Config, Locality, PolicyName},
    users::{Answer, User},
    view::{Seen, View},
    world::{Broken, broken},
};

/// Each key's order of preference, as far as it has shown: the key, the pod that got a request of it, and one that was passed over
/// and would have taken it.
#[derive(Default)]
pub(crate) struct Preferences(HashMap<(u8, u8, u8), String>);

impl Preferences {
    /// A key's pods have one order, in whatever set: so its requests stay where they are, leave only a pod that is away, and come
    /// home when that is back.
    pub(crate) fn check(
        &mut self,
        config: &Config,
        cluster: &Cluster,
        before: &View,
        view: &View,
        user: &User,
    ) -> Result<(), Broken> {
        // New pods and near ones, and those of other weights, have other parts of the keys.
        let is_strict = config.policy == PolicyName::ConsistentHash
            && config.slow_start == 0
            && config.locality == Locality::Off
            && cluster.are_alike();
        let Some((key, host)) = answered_at_once(before, view, user).filter(|_| is_strict) else {
            return Ok(());
        };
        let would_take = |seen: &&Seen| {
            seen.life.host != host
                && !user.avoids.contains(seen.life.host)
                && would_have_taken(before, seen)
        };
        let passed_over: Vec<_> = view.pods.iter().filter(would_take).collect();
        // Where most are out, a key's order is another one.
        if (passed_over.len() + 1) * 2 < view.pods.len() {
            return Ok(());
        }
        let chosen = cluster.identity(host);
        for seen in passed_over {
            let other = cluster.identity(seen.life.host);
            if let Some(earlier) = self.0.get(&(key, other, chosen)) {
                let number = user.number;
                let what = format!(
                    "{chosen} got request {number} with key {key} rather than {other}, which {earlier}"
                );
                return broken("a key has one order of pods", what);
            }
            let what = format!("got request {} rather than {other}", user.number);
            self.0.entry((key, chosen, other)).or_insert(what);
        }
        Ok(())
    }
}

/// A pod that gets a key's request has no more than its part of those in flight.
pub(crate) fn no_pod_drowns<'a>(
    config: &Config,
    cluster: &Cluster,
    before: &'a View,
    view: &'a View,
    users: &[User],
) -> Result<(), Broken> {
    let is_bounded = config.policy == PolicyName::BoundedHash
        && config.slow_start == 0
        && config.locality == Locality::Off
        && cluster.are_alike();
    let mut new = users.iter().filter(|user| !user.is_old);
    let (Some(user), None) = (new.next(), new.next()) else {
        return Ok(());
    };
    let Some((key, host)) = answered_at_once(before, view, user).filter(|_| is_bounded) else {
        return Ok(());
    };
    // Those without weight have what was asked of them by name, or of all.
    let weighty = |view: &'a View| view.pods.iter().filter(|seen| has_weight(seen));
    let load = |seen: &Seen| f64::from(seen.status.in_flight);
    // What failed a moment ago may count still, and what has ended since the last look has made room.
    let is_plain = |seen: &Seen| {
        let was = before.of(&seen.life).map(load);
        seen.log.bad == 0
            && seen.log.handed_back == 0
            && seen.status.endpoint.weight() == 1
            && would_have_taken(before, seen)
            && (was == Some(load(seen)) || seen.life.host == host && was <= Some(load(seen)))
    };
    let len = weighty(before).count();
    if !user.avoids.is_empty() || !weighty(view).all(is_plain) || weighty(view).count() != len {
        return Ok(());
    }
    let all: f64 = weighty(before).map(load).sum();
    let had = weighty(before).find(|seen| seen.life.host == host);
    let had = had.map_or(0.0, load);
    let most = BOUND * (all + 1.0) / len as f64;
    if had > 0.0 && had >= most + 1e-6 {
        let what = format!(
            "pod {host} had {had} of {all}, and got request {} with key {key}",
            user.number
        );
        return broken("no pod drowns in a key", what);
    }
    Ok(())
}

/// The key of a request that was begun and answered since the last look, at the same time, and who has answered it: only of that is
/// it known how the other pods were.
fn answered_at_once(before: &View, view: &View, user: &User) -> Option<(u8, u8)> {
    let record = lock(&user.record);
    let Some((at, Answer::Head { host: Some(host) })) = &record.answer else {
        return None;
    };
    let is_known = *at == user.begun && before.at == *at && before.version == view.version;
    let is_free = user.wants.is_none() && !user.is_seen && !user.is_old;
    user.key
        .filter(|_| is_known && is_free)
        .map(|key| (key, *host))
}

fn has_weight(seen: &Seen) -> bool {
    seen.status.endpoint.weight() > 0
}

/// Whether a pod would have taken any request since the last look that could have gone to others.
fn would_have_taken(before: &View, seen: &Seen) -> bool {
    let was_there = |was: &Seen| was.is_available() && was.refusals() == seen.refusals();
    seen.is_available()
        && has_weight(seen)
        && before.of(&seen.life).is_some_and(has_weight)
        && before.of(&seen.life).is_some_and(was_there)
        && seen.life.prompt_since().is_some()
}
