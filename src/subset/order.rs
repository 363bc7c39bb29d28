//! The order in which a client uses the pods: the first of them are its subset.
//!
//! **At random**, each client by its own seed: rendezvous hashing (Thaler and Ravishankar 1998; gRFC A68). When a pod
//! leaves, the clients that use it lose one entry, and no other entry moves.
//!
//! **By rank**, if the client knows its place among its peers: the pods are on a ring, and the client of rank c of M
//! begins at pod ⌊c·N/M⌋ of N:
//!
//! ```text
//!  pods      0   1   2   3   4   5   6   7   8   9        N = 10, subsets of 4, M = 5 clients
//!  client 0  ├───────────┤
//!  client 1          ├───────────┤
//!  client 2                  ├───────────┤
//!  client 3                          ├───────────┤
//!  client 4  ────┤                           ├────        each pod has two clients
//! ```
//!
//! A pod is used by the clients that begin in the k places up to it. There are ⌊k·M/N⌋ of them or one more: as even as
//! possible. A pod that leaves or joins moves the ring by at most one place, so each window loses at most one pod, and
//! at most two if a pod is replaced. We considered two other ways:
//!
//! - The deterministic subsetting of *Site Reliability Engineering* (ch. 20) shuffles the pods anew for each round of N/k clients:
//!   when N/k changes, everything moves.
//! - Rocksteadier Subsetting (Ward et al., *Reinventing Backend Subsetting at Google*, 2022) spreads the load of a pod
//!   that fails over more of the others. But it needs numbers that stay with pods and clients, which a Deployment's
//!   pods don't have. With numbers assigned by hashing, replacing one pod of 300 costs a client 0.35 of 20 entries on
//!   average and at most 3 (here: 0.41 and 2), and pods have 64 to 71 clients of 1,000 (here: 66 or 67).
//!
//! When a pod fails, its share goes to the other pods of its clients: up to 2·k neighbours, which get up to 1/(k − 1)
//! more.

use std::{borrow::Cow, collections::HashMap};

use crate::{
    endpoint::{Counted, Endpoint},
    stable_hash::seeded_hash,
};

/// The seed of the pods' places on the ring: any number, but it must never change.
const RING: u64 = 0x7375_6273_6574;

/// What decides a client's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// It knows nothing of other clients, and has this seed.
    Random(u64),
    /// Its place among its peers.
    Ranked { rank: usize, of: usize },
    /// It isn't among its peers, and begins this far round the ring, in units of 2⁻⁶⁴.
    Apart(u64),
}

/// The order in which `client` uses `set`, by indices; the first `size` are its subset.
///
/// `near`, if given, says which pods are near, and which share of the subset they should have.
pub(crate) fn order(
    set: &[Endpoint],
    near: Option<(&[bool], f64)>,
    client: Client,
    size: usize,
) -> Vec<usize> {
    let names = names(set);
    let counted = Counted::of(set.iter().map(Endpoint::weight));
    let is_last = |index: usize| set[index].is_terminating() || !counted.has(set[index].weight());
    let is_near = |index: usize| near.is_none_or(|(is_near, _)| is_near[index]);
    let group = |which: &dyn Fn(usize) -> bool| {
        let group = (0..set.len()).filter(|&index| which(index));
        client.order(group.collect(), &names)
    };
    let near_ones = group(&|index| !is_last(index) && is_near(index));
    let far_ones = group(&|index| !is_last(index) && !is_near(index));
    let share = near.map_or(1.0, |(_, share)| share);
    let mut order = merged(near_ones, far_ones, share, size);
    order.extend(group(&is_last));
    order
}

/// The near ones' share of the first `size`, then the others', then each in turn.
fn merged(near: Vec<usize>, far: Vec<usize>, share: f64, size: usize) -> Vec<usize> {
    let quota = match share < 1.0 {
        // At least one near and one far pod, if there is room: the shares assume that each client uses some of both.
        true => ((size as f64 * share).round() as usize).clamp(1, (size - 1).max(1)),
        false => size,
    };
    let from_near = quota.max(size.saturating_sub(far.len())).min(near.len());
    let from_far = (size - from_near).min(far.len());
    let (mut near, mut far) = (near.into_iter(), far.into_iter());
    let mut order: Vec<_> = near.by_ref().take(from_near).collect();
    order.extend(far.by_ref().take(from_far));
    loop {
        let before = order.len();
        order.extend(near.next().into_iter().chain(far.next()));
        if order.len() == before {
            return order;
        }
    }
}

impl Client {
    /// The pods at `indices` in this client's order.
    fn order(self, mut indices: Vec<usize>, names: &[Cow<'_, str>]) -> Vec<usize> {
        let seed = match self {
            Self::Random(seed) => seed,
            Self::Ranked { .. } | Self::Apart(_) => RING,
        };
        // Equal hashes leave names, which are all different.
        indices.sort_by_cached_key(|&index| {
            let name = &*names[index];
            (seeded_hash(seed, name.as_bytes()), name)
        });
        let start = self.start(indices.len());
        indices.rotate_left(start);
        indices
    }

    /// Where the client begins in the order of `pods` pods.
    fn start(self, pods: usize) -> usize {
        let start = match self {
            Self::Random(_) => 0,
            Self::Ranked { rank, of } => rank as u128 * pods as u128 / (of as u128).max(1),
            Self::Apart(turn) => (u128::from(turn) * pods as u128) >> 64,
        };
        (start as usize).min(pods)
    }
}

/// The pods' stable names, made unique. Pods may share a name: those of a Deployment with a hostname, or a pod and its
/// successor for a moment. One of them keeps the name, rather one that doesn't terminate; the others get their address
/// added.
fn names(set: &[Endpoint]) -> Vec<Cow<'_, str>> {
    let mut names: Vec<_> = set.iter().map(Endpoint::stable_name).collect();
    let standing = |index: usize| (set[index].is_terminating(), set[index].identity());
    let mut holders = HashMap::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let holder = holders.entry(name.clone()).or_insert(index);
        if standing(index) < standing(*holder) {
            *holder = index;
        }
    }
    for (index, name) in names.iter_mut().enumerate() {
        if holders[&*name] != index {
            *name = format!("{name} {}", set[index].identity()).into();
        }
    }
    names
}

#[cfg(test)]
mod tests;
