//! Every endpoint in turn.
//!
//! One cursor serves all clones of a balancer, so that shares are exact: after any number of requests, two endpoints
//! that were both available differ by at most one. A pick that finds an endpoint out moves the cursor past it, so the
//! next endpoint gets only its own turn. When the set changes, the cursor stays at the endpoint whose turn it is.
//!
//! If weights differ, a round has several turns for an endpoint, in an order that is prepared with the set.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rand::{Rng, RngExt};

use super::{
    AnyPicker, CachePadded, Previous, any_available, shares, turns::interleave, weights::Weights,
};
use crate::member::Members;

/// Each request goes to the next endpoint in the order of their addresses, beginning at a random one.
///
/// If [weights](crate::Endpoint::weight) differ, each endpoint has turns in proportion, spread evenly over a round of
/// at most 4,096 turns, or four for each endpoint of a large set.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin(());

impl RoundRobin {
    /// The policy; it has no settings.
    pub const fn new() -> Self {
        Self(())
    }
}

/// The picker of a set. The cursor counts the turns taken; its remainder by the number of turns is the next turn.
#[derive(Debug)]
pub(crate) struct Picker {
    cursor: CachePadded<AtomicUsize>,
    /// How many turns a round has.
    len: usize,
    weighted: Option<Box<Turns>>,
}

/// The turns of endpoints with weights.
#[derive(Debug)]
struct Turns {
    order: Box<[u32]>,
    weights: Box<Weights>,
}

impl Picker {
    /// The next turn, and its endpoint.
    fn turn(&self) -> Option<(usize, usize)> {
        let turn = self.cursor.0.load(Relaxed).checked_rem(self.len)?;
        Some((turn, self.endpoint(turn)))
    }

    fn endpoint(&self, turn: usize) -> usize {
        match &self.weighted {
            None => turn,
            Some(turns) => turns.order[turn] as usize,
        }
    }

    /// The next turn of `endpoint`, if `turn` of the `many` turns of the old round have been taken. In integers,
    /// because a fraction might come out one turn early.
    fn next(&self, endpoint: usize, turn: usize, many: usize) -> usize {
        let Some(turns) = &self.weighted else {
            return endpoint;
        };
        let start = turn * self.len / many;
        let mut turns_from = (start..self.len).chain(0..start);
        let found = turns_from.find(|&turn| turns.order[turn] as usize == endpoint);
        found.unwrap_or(start)
    }

    // Not inlined, to keep it out of the picks of sets without weights.
    #[inline(never)]
    fn pick_weighted(&self, turns: &Turns, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        for _ in 0..self.len {
            let turn = self.cursor.0.fetch_add(1, Relaxed) % self.len;
            let index = turns.order[turn] as usize;
            if members.begin(index) {
                return Some(index);
            }
        }
        any_available(members, Some(&turns.weights), rng)
    }
}

impl Picker {
    /// A picker for `endpoints` endpoints with these weights, which replaces `previous`.
    pub(super) fn new(
        endpoints: usize,
        weights: &[u32],
        previous: Option<Previous<'_>>,
        rng: &mut impl Rng,
    ) -> Self {
        let weighted = Weights::of(weights).map(|differing| {
            let order = interleave(weights);
            Box::new(Turns {
                order,
                weights: differing,
            })
        });
        let len = weighted.as_ref().map_or(endpoints, |it| it.order.len());
        let mut picker = Picker {
            cursor: CachePadded(AtomicUsize::new(0)),
            len,
            weighted,
        };
        let turn = previous.and_then(|previous| {
            let before = Self::before(&previous)?;
            let (turn, endpoint) = before.turn()?;
            Some(picker.next(previous.place(endpoint), turn, before.len))
        });
        let turn = turn.unwrap_or_else(|| rng.random_range(0..len.max(1)));
        *picker.cursor.0.get_mut() = turn;
        picker
    }

    /// The picker that this one replaces, if it is a round robin, too.
    fn before<'a>(previous: &Previous<'a>) -> Option<&'a Self> {
        match previous.picker::<AnyPicker>()? {
            AnyPicker::RoundRobin(before) => Some(before),
            _ => None,
        }
    }

    /// Takes the next turn, and counts one more request in.
    #[inline]
    pub(super) fn pick(&self, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        if let Some(turns) = &self.weighted {
            return self.pick_weighted(turns, members, rng);
        }
        for _ in 0..self.len {
            let index = self.cursor.0.fetch_add(1, Relaxed) % self.len;
            if members.begin(index) {
                return Some(index);
            }
        }
        // Nothing found in a whole round: none is available, or other threads moved the cursor past the few that are.
        any_available(members, None, rng)
    }

    /// Each available endpoint's part of the turns; the others have none.
    pub(super) fn shares(&self, members: &Members) -> Vec<f64> {
        let mut turns = vec![0.0; members.len()];
        for endpoint in (0..self.len).map(|turn| self.endpoint(turn)) {
            turns[endpoint] += f64::from(u8::from(members.is_available(endpoint)));
        }
        match turns.iter().any(|&turns| turns > 0.0) {
            true => shares::in_proportion(turns),
            false => shares::any_available(members),
        }
    }
}
