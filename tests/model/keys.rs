//! The promises about requests with keys.

use std::collections::HashMap;

use crate::{
    cluster::Cluster,
    lock::lock,
    plan::{BOUND, Config, Locality, PolicyName},
    users::{Answer, User},
    view::{Seen, View},
    world::{Broken, broken},
};

/// Each key's order of preference, as far as it has been seen: the key, the pod that got its request, and a pod that
/// was passed over though it would have taken the request.
#[derive(Default)]
pub(crate) struct Preferences(HashMap<(u8, u8, u8), String>);

impl Preferences {
    /// A key's pods have one order, whatever the set. So its requests stay at one pod, leave it only while it is away,
    /// and come back with it.
    pub(crate) fn check(
        &mut self,
        config: &Config,
        cluster: &Cluster,
        before: &View,
        view: &View,
        user: &User,
    ) -> Result<(), Broken> {
        // New pods, near pods and other weights change which keys a pod has.
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
        // If most pods are out, a key's order is another one.
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

/// A pod that gets a key's request has no more than its share of the requests in flight.
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
    // Pods without weight have only requests for them by name, or of a broadcast.
    let weighty = |view: &'a View| view.pods.iter().filter(|seen| has_weight(seen));
    let load = |seen: &Seen| f64::from(seen.status.in_flight);
    // Requests that failed a moment ago may still count, and those that ended since the last look made room.
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

/// The key and the pod of a request that began and was answered since the last look, at one time. Only then the state
/// of the other pods at that time is known.
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
