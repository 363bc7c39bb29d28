//! The order of endpoints of one key, and why a request of that key passes one over.

use super::Picker;
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
    /// It has as many requests as it may have: so many.
    Full { load: u32, bound: u32 },
}

impl Picker {
    /// All endpoints in the order of a key, with what speaks against each now.
    pub(crate) fn order(&self, key: u64, members: &Members) -> Vec<(usize, Option<Passed>)> {
        let mut is_new = vec![true; self.nodes.len()];
        let mut order = Vec::with_capacity(self.nodes.len());
        let behind = (0..self.nodes.len()).filter(|&index| self.nodes[index].weight == 0);
        for index in self.ring.onwards(key).chain(behind) {
            if std::mem::replace(&mut is_new[index], false) {
                order.push((index, self.passed(key, members, index)));
            }
            if order.len() == self.nodes.len() {
                break;
            }
        }
        order
    }

    /// Whom a request of a key would get now, as [`pick_key`](Self::pick_key) chooses.
    pub(crate) fn chosen(&self, key: u64, members: &Members) -> Option<usize> {
        let chosen = self.choose(key, |index| self.passed(key, members, index).is_none());
        chosen.or_else(|| self.choose(key, |index| members.is_available(index)))
    }

    fn passed(&self, key: u64, members: &Members, index: usize) -> Option<Passed> {
        let weight = self.nodes[index].weight;
        let allowance = || match &self.bound {
            Some(bound) => bound.count(members),
            None => f64::INFINITY,
        };
        if !members.is_available(index) {
            Some(Passed::Out)
        } else if weight == 0 {
            Some(Passed::Weightless)
        } else if !self.has_moved(key, members, index) {
            Some(Passed::NotYet)
        } else if !self.has_room(index, members, allowance) {
            Some(Passed::Full {
                load: members.load_of(index),
                bound: (allowance() * f64::from(weight)).ceil() as u32,
            })
        } else {
            None
        }
    }
}
