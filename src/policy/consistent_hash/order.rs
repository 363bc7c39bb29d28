//! The order of endpoints of one key, and why a request of that key passes one over.

use super::{Picker, STEPS};
use crate::member::Members;

/// Why an endpoint is passed over for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It accepts no requests now.
    Out,
    /// It has no weight.
    Weightless,
    /// It is new, and this key hasn't moved to it yet.
    NotYet,
    /// It has as many requests as it may have.
    Full { load: u32, bound: u32 },
}

/// A key's endpoints on one ring.
pub(crate) struct Order {
    /// All of them in the order of the key, each with the reason why it is passed over now, if it is.
    pub(crate) all: Vec<(usize, Option<Passed>)>,
    /// The one that a request of the key would get now, as [`Picker::pick_key`] chooses.
    pub(crate) chosen: Option<usize>,
}

impl Picker {
    /// The order of a key. The bound is counted once, so that it is the same for all endpoints.
    pub(crate) fn order(&self, key: u64, members: &Members) -> Order {
        let allowance = self.allowance(members);
        let passed = |index: usize| self.passed(key, members, index, allowance);
        let mut is_new = vec![true; self.nodes.len()];
        let mut all = Vec::with_capacity(self.nodes.len());
        // As picks go: some way along the ring, then the others by their times in the race.
        for index in self.ring.onwards(key).take(STEPS * self.nodes.len()) {
            if std::mem::replace(&mut is_new[index], false) {
                all.push((index, passed(index)));
            }
            if all.len() == self.nodes.len() {
                break;
            }
        }
        let mut others: Vec<_> = (0..self.nodes.len()).filter(|&at| is_new[at]).collect();
        others.sort_by_key(|&index| self.time_in_race(key, index));
        all.extend(others.into_iter().map(|index| (index, passed(index))));
        let chosen = self.choose(key, |index| passed(index).is_none());
        let chosen = chosen.or_else(|| self.choose(key, |index| members.is_available(index)));
        Order { all, chosen }
    }

    fn passed(&self, key: u64, members: &Members, index: usize, allowance: f64) -> Option<Passed> {
        let weight = self.nodes[index].weight;
        if !members.is_available(index) {
            Some(Passed::Out)
        } else if weight == 0 {
            Some(Passed::Weightless)
        } else if !self.has_moved(key, members, index) {
            Some(Passed::NotYet)
        } else if !self.has_room(index, members, || allowance) {
            Some(Passed::Full {
                load: members.load_of(index),
                bound: (allowance * f64::from(weight)).ceil() as u32,
            })
        } else {
            None
        }
    }
}
