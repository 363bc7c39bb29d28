//! A set of members, or a part of one, as policies see it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    Member,
    flags::{COUNT, FLAGGED, REMOVED},
    slots::{LANES, Line, Slots, lane_of, line_of},
};
use crate::{endpoint::Endpoint, latency::Latency};

/// The endpoints that a [`Picker`](crate::Picker) chooses from, with their counters.
///
/// They have indices from zero, in the order of their addresses. A set never changes: when endpoints join, leave or
/// change their weights, the policy prepares a new picker for a new set. The counters change all the time.
#[derive(Debug)]
pub struct Members {
    /// What is known of the endpoints now.
    endpoints: Box<[Endpoint]>,
    members: Box<[Arc<Member>]>,
    /// Empty if all are equal.
    weights: Box<[u32]>,
    /// All lines, or those of a part; they may also have words of other endpoints.
    lines: Arc<[Arc<Line>]>,
    /// How many of the lines, and how many lanes of each, hold any endpoint's word.
    used: (usize, usize),
    /// For a part of a set, line by line: masks that make other endpoints' words look flagged.
    masks: Box<[[u32; LANES]]>,
}

impl Members {
    /// How many endpoints there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no endpoint.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The endpoint at `index`: its address, names, zone and node.
    ///
    /// # Panics
    ///
    /// Panics, like all methods with an index, if the index is not below [`len`](Self::len).
    pub fn endpoint(&self, index: usize) -> &Endpoint {
        &self.endpoints[index]
    }

    /// The endpoint's [weight](Endpoint::weight); 1 if all weights are equal.
    pub fn weight(&self, index: usize) -> u32 {
        self.weights.get(index).copied().unwrap_or(1)
    }

    /// Whether the endpoint counts as a part of the set, by its weight: see [`Counted`](crate::endpoint::Counted).
    pub(crate) fn counts(&self, index: usize) -> bool {
        // If all weights are zero, they are equal, and `weight` is 1.
        self.weight(index) > 0
    }

    /// Whether the endpoint gets requests now: it doesn't refuse them, isn't ejected, and doesn't fail its checks.
    #[inline]
    pub fn is_available(&self, index: usize) -> bool {
        self.word(index) < FLAGGED
    }

    /// How many requests of this balancer are in flight at the endpoint, up to the ends of their responses.
    pub fn in_flight(&self, index: usize) -> u32 {
        self.members[index].in_flight()
    }

    /// The requests in flight, plus, for a while, those that failed. So an endpoint that fails fast doesn't look idle.
    pub fn load(&self, index: usize) -> u32 {
        let member = &self.members[index];
        member
            .in_flight()
            .saturating_add(member.stats().penalties())
    }

    /// What part of its share the endpoint gets: below 1 while it is new ([slow start](crate::BalanceBuilder::slow_start)).
    #[inline]
    pub fn slow_start_share(&self, index: usize) -> f64 {
        self.members[index].slow_start_share()
    }

    /// How long the endpoint takes to begin its answers: a moving average in which peaks count at once (peak EWMA).
    ///
    /// `None` while nothing is known, or if the policy has no [`latency_decay`](crate::Policy::latency_decay).
    pub fn latency(&self, index: usize) -> Option<Duration> {
        match self.average(index) {
            0.0 => None,
            nanos => Some(Duration::from_nanos(nanos as u64)),
        }
    }
}

impl Members {
    /// A set of `endpoints` and their `members`, in the same order, whose slots are in `slots`.
    pub(crate) fn new(endpoints: Vec<Endpoint>, members: Vec<Arc<Member>>, slots: &Slots) -> Self {
        let taken = members.iter().filter_map(|member| member.word.slot());
        let used = taken.fold((0, 0), |(lines, lanes), slot| {
            (lines.max(line_of(slot) + 1), lanes.max(lane_of(slot) + 1))
        });
        Self {
            weights: weights(&endpoints),
            endpoints: endpoints.into_boxed_slice(),
            members: members.into_boxed_slice(),
            lines: slots.lines(),
            used,
            masks: Box::default(),
        }
    }

    /// The part of the set at `indices`.
    pub(crate) fn part(&self, indices: &[usize]) -> Self {
        let members: Box<[_]> = indices.iter().map(|&at| self.members[at].clone()).collect();
        let mut masks = BTreeMap::new();
        for slot in members.iter().filter_map(|member| member.word.slot()) {
            let mask = masks.entry(line_of(slot)).or_insert([REMOVED; LANES]);
            mask[lane_of(slot)] = 0;
        }
        Self {
            endpoints: indices
                .iter()
                .map(|&at| self.endpoints[at].clone())
                .collect(),
            weights: match self.weights.is_empty() {
                true => Box::default(),
                false => indices.iter().map(|&at| self.weights[at]).collect(),
            },
            members,
            // Only the lines of this part: a small part of a large set has few.
            lines: masks.keys().map(|&line| self.lines[line].clone()).collect(),
            used: (masks.len(), self.used.1),
            masks: masks.into_values().collect(),
        }
    }

    /// The endpoints as they are known now, by index.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The members, by index.
    #[inline]
    pub(crate) fn all(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// The weights, by index; empty if they are equal, even at zero.
    pub(crate) fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// Whether the words are packed and count requests.
    #[inline]
    pub(crate) fn are_packed(&self) -> bool {
        self.used.0 > 0
    }

    /// The smallest word. During an update it may belong to an endpoint of the next set.
    #[inline]
    pub(crate) fn min(&self) -> u32 {
        if !self.masks.is_empty() {
            return self.masked_min();
        }
        let (lines, lanes) = self.used;
        let words = self.lines[..lines]
            .iter()
            .flat_map(|line| line.words(lanes));
        words.fold(u32::MAX, u32::min)
    }

    /// The smallest word of a part.
    // Not inlined, to keep it out of picks of whole sets.
    #[inline(never)]
    fn masked_min(&self) -> u32 {
        self.masked_words().fold(u32::MAX, u32::min)
    }

    fn masked_words(&self) -> impl Iterator<Item = u32> {
        let lines = self.lines.iter().zip(&self.masks);
        lines.flat_map(|(line, mask)| {
            let pairs = line.words(self.used.1).zip(mask);
            pairs.map(|(word, mask)| word | mask)
        })
    }

    /// The load of the available endpoints, and their number.
    pub(crate) fn available_load(&self) -> (u64, usize) {
        if !self.are_packed() {
            return sum((0..self.len()).map(|index| self.loaded(index)));
        }
        if !self.masks.is_empty() {
            return sum(self.masked_words());
        }
        let (lines, lanes) = self.used;
        let add = |(load, count): (u64, usize), line: &Arc<Line>| {
            let (more, available) = sum(line.words(lanes));
            (load + more, count + available)
        };
        self.lines[..lines].iter().fold((0, 0), add)
    }

    /// The sum of the available endpoints' weights.
    pub(crate) fn available_weight(&self) -> u64 {
        let available = (0..self.len()).filter(|&index| self.is_available(index));
        available.map(|index| u64::from(self.weight(index))).sum()
    }

    /// The load of the available endpoints of weight zero, if others have weight.
    pub(crate) fn weightless_load(&self) -> u64 {
        let weights = self.weights.iter().enumerate();
        let weightless = weights.filter(|(_, weight)| **weight == 0);
        let available = weightless.filter(|&(index, _)| self.is_available(index));
        available
            .map(|(index, _)| u64::from(self.load_of(index)))
            .sum()
    }

    /// The load without the status flags, for either layout.
    #[inline]
    pub(crate) fn load_of(&self, index: usize) -> u32 {
        self.loaded(index) & COUNT
    }

    #[inline]
    pub(crate) fn word(&self, index: usize) -> u32 {
        self.members[index].word().load(Relaxed)
    }

    /// Status flags plus load, for either layout.
    #[inline]
    pub(crate) fn loaded(&self, index: usize) -> u32 {
        self.members[index].loaded()
    }

    /// The average latency in nanoseconds; zero if it isn't known.
    #[inline]
    pub(crate) fn average(&self, index: usize) -> f64 {
        self.members[index].latency().map_or(0.0, Latency::average)
    }

    /// Counts one more request in, if the endpoint may be picked.
    #[inline]
    pub(crate) fn begin(&self, index: usize) -> bool {
        self.members[index].begin()
    }

    /// Counts one more request in, if the endpoint's packed word still is `seen`.
    #[inline]
    pub(crate) fn begin_if(&self, index: usize, seen: u32) -> bool {
        let word = self.members[index].word();
        word.compare_exchange(seen, seen + 1, Relaxed, Relaxed)
            .is_ok()
    }
}

/// The sum of the words without a flag, and their number.
#[inline]
fn sum(words: impl Iterator<Item = u32>) -> (u64, usize) {
    // Without a branch: sixteen are added in a few nanoseconds.
    words.fold((0, 0), |(load, count), word| {
        let is_available = u32::from(word < FLAGGED);
        let load = load + u64::from(word & is_available.wrapping_neg());
        (load, count + is_available as usize)
    })
}

fn weights(endpoints: &[Endpoint]) -> Box<[u32]> {
    let mut pairs = endpoints.windows(2);
    match pairs.all(|two| two[0].weight() == two[1].weight()) {
        true => Box::default(),
        false => endpoints.iter().map(Endpoint::weight).collect(),
    }
}
