//! The order in which a client uses the pods: the first of it are its subset.
//!
//! **At random**, each client by a seed of its own: rendezvous hashing (Thaler and Ravishankar 1998; gRFC A68). A pod that goes
//! takes one entry of those clients that use it, and no other one moves.
//!
//! **By rank**, where the client knows its place among its peers: the pods stand on a ring, and the client of rank c of M
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
//! A pod is used by the clients that begin in the k places up to it, and multiples of N/M are that many, ⌊k·M/N⌋ or one more: as
//! even as can be. A pod that goes or comes moves the ring by one place at most, so a window loses one pod for each, and one
//! that is replaced costs two at most. Of the other ways there are:
//!
//! - The deterministic subsetting of *Site Reliability Engineering* (ch. 20) shuffles the pods anew for each round of N/k clients:
//!   when N/k changes, everything moves.
//! - Rocksteadier Subsetting (Ward et al., *Reinventing Backend Subsetting at Google*, 2022) spreads the load of a pod that fails
//!   over more of the others. But it needs numbers that stay with pods and clients, as tasks have them and a Deployment's pods
//!   don't. With numbers that are assigned by hashing, a pod replaced of 300 costs a client 0.35 of 20 entries on average and 3 at
//!   most (here: 0.41 and 2), and pods have 64 to 71 clients of 1,000 (here: 66 or 67).
//!
//! When a pod fails, its share goes to those that its clients use as well: up to 2·k neighbours, which get up to 1/(k − 1) more.

use std::{borrow::Cow, collections::HashMap};

use crate::{
    endpoint::{Counted, Endpoint},
    stable_hash::seeded_hash,
};

/// Where pods stand on the ring: any number, as long as it stays.
const RING: u64 = 0x7375_6273_6574;

/// What decides on a client's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// It knows nothing of others, and has this seed.
    Random(u64),
    /// Its place among its peers.
    Ranked { rank: usize, of: usize },
    /// It isn't among its peers: this far round the ring, in 2⁻⁶⁴.
    Apart(u64),
}

/// The order in which `client` uses `set`, by indices; the first `size` are its subset.
///
/// If some are `near`, and which ones, that share of the subset is of those.
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
        // Of each some, if there is room: who uses none of the near ones leaves them to others, who count on it.
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
    /// Those at `indices` in this client's order.
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

    /// Where in the order of so many it begins.
    fn start(self, pods: usize) -> usize {
        let start = match self {
            Self::Random(_) => 0,
            Self::Ranked { rank, of } => rank as u128 * pods as u128 / (of as u128).max(1),
            Self::Apart(turn) => (u128::from(turn) * pods as u128) >> 64,
        };
        (start as usize).min(pods)
    }
}

/// The pods' stable names. Of several with the same, as the pods of a Deployment with a hostname have, and for a moment a pod
/// and its successor, one has it and addresses are added to the others': one that doesn't terminate.
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
