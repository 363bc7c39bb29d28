//! The counters of a set of endpoints, or of a part of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::latency::Latency;

use super::{
    Load,
    word::{FLAGGED, LANES, Line, REMOVED, lane_of, line_of},
};

/// The counters of one snapshot's endpoints, in the order of their identities.
#[derive(Debug)]
pub struct Loads {
    loads: Box<[Arc<Load>]>,
    /// All lines there are, or those of a part; other endpoints may have words in them too.
    lines: Arc<[Arc<Line>]>,
    /// How many of the lines, and how many lanes of each, hold any endpoint's word.
    used: (usize, usize),
    /// In a part of a set: what makes the words of the other endpoints as large as those with a flag, line by line.
    masks: Box<[[u32; LANES]]>,
}

impl Loads {
    /// `loads`, whose words are in `lines`.
    pub(crate) fn new(loads: Vec<Arc<Load>>, lines: Arc<[Arc<Line>]>) -> Self {
        let slots = loads.iter().filter_map(|load| load.slot);
        let used = slots.fold((0, 0), |(lines, lanes), slot| {
            (lines.max(line_of(slot) + 1), lanes.max(lane_of(slot) + 1))
        });
        Self {
            loads: loads.into_boxed_slice(),
            lines,
            used,
            masks: Box::default(),
        }
    }

    /// Those of `members`, by index.
    pub(crate) fn part(&self, members: &[usize]) -> Self {
        let loads: Box<[_]> = members.iter().map(|&at| self.loads[at].clone()).collect();
        let mut masks = BTreeMap::new();
        for slot in loads.iter().filter_map(|load| load.slot) {
            let mask = masks.entry(line_of(slot)).or_insert([REMOVED; LANES]);
            mask[lane_of(slot)] = 0;
        }
        Self {
            loads,
            // The few lines of a small part of a large set, and not all there are.
            lines: masks.keys().map(|&line| self.lines[line].clone()).collect(),
            used: (masks.len(), self.used.1),
            masks: masks.into_values().collect(),
        }
    }

    /// The counters, by index.
    #[inline]
    pub(crate) fn all(&self) -> &[Arc<Load>] {
        &self.loads
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.loads.len()
    }

    /// The smallest word. In the moment of an update it may be that of an endpoint of the next set.
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

    /// The same of a part.
    // Not inlined: whole sets should not carry it.
    #[inline(never)]
    fn masked_min(&self) -> u32 {
        let lines = self.lines.iter().zip(&self.masks);
        let words = lines.flat_map(|(line, mask)| {
            let pairs = line.words(self.used.1).zip(mask);
            pairs.map(|(word, mask)| word | mask)
        });
        words.fold(u32::MAX, u32::min)
    }

    #[inline]
    pub(crate) fn word(&self, index: usize) -> u32 {
        self.loads[index].word().load(Relaxed)
    }

    /// The word with the requests in it, whether or not it counts them itself.
    #[inline]
    pub(crate) fn busy(&self, index: usize) -> u32 {
        self.loads[index].busy()
    }

    /// The average latency in nanoseconds; zero if it isn't known.
    #[inline]
    pub(crate) fn average(&self, index: usize) -> f64 {
        self.loads[index].latency().map_or(0.0, Latency::average)
    }

    pub(crate) fn is_available(&self, index: usize) -> bool {
        self.word(index) < FLAGGED
    }

    /// Counts one more request in, if the endpoint may be picked.
    #[inline]
    pub(crate) fn begin(&self, index: usize) -> bool {
        self.loads[index].begin()
    }

    /// Counts one more request in, if the endpoint's word still is `seen`.
    #[inline]
    pub(crate) fn begin_if(&self, index: usize, seen: u32) -> bool {
        let word = self.loads[index].word();
        word.compare_exchange(seen, seen + 1, Relaxed, Relaxed)
            .is_ok()
    }
}
