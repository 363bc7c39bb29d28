//! What part of the next requests each endpoint gets: the probabilities of a pick, computed instead of drawn.
//!
//! The policy gives its own shares. This adds what picks do around the policy: near endpoints first, slow start
//! (`warm_up.rs`), and the last resort if no endpoint is available.

use super::{Snapshot, warm_up::ATTEMPTS};
use crate::{
    policy::{Picker, Ring},
    route::Route,
};

impl<S> Snapshot<S> {
    /// What part of the next requests each endpoint gets, if that is known. Under a keyed policy, of the requests with
    /// keys.
    pub(crate) fn shares(&self) -> Option<Vec<f64>> {
        let shares = match &self.pickers.split {
            None => self.pickers.whole.shares(&self.members),
            Some(split) => split.shares(self.members.len(), |picker, members, _| {
                picker.shares(members)
            }),
        }?;
        if shares.iter().all(|&share| share <= 0.0) {
            return self.last_shares();
        }
        let is_slow_start = self
            .members()
            .iter()
            .any(|member| member.slow_start_share() < 1.0);
        // Also a policy from outside. As picks do, it asks with a route that has a key.
        let is_keyed = self.pickers.whole.is_keyed(&Route::new().key(0_u64));
        Some(match is_slow_start && !is_keyed {
            false => shares,
            true if self.pickers.whole.is_load_aware() => self.slow_start_by_load(&shares),
            true => self.slow_start_by_turns(shares),
        })
    }

    /// The shares if no endpoint is available: those that are only ejected get the requests.
    fn last_shares(&self) -> Option<Vec<f64>> {
        let members = self.members().iter();
        let are_ejected: Vec<_> = members.map(|member| member.is_only_ejected()).collect();
        let ejected = are_ejected.iter().filter(|is_ejected| **is_ejected).count();
        if ejected > 0 && self.pickers.whole.as_ring().is_some() {
            return self.key_shares(|ring, indices| {
                let are_ejected: Vec<_> = indices.iter().map(|&at| are_ejected[at]).collect();
                ring.shares_among(&are_ejected)
            });
        }
        let share = |is_ejected| f64::from(u8::from(is_ejected)) / ejected.max(1) as f64;
        Some(are_ejected.into_iter().map(share).collect())
    }

    /// Each endpoint's part of all keys if all are well, and in how many ranges; `None` unless the policy is
    /// `ConsistentHash`.
    pub(crate) fn key_homes(&self) -> Option<Vec<(f64, usize)>> {
        let mut ranges = vec![0; self.members.len()];
        let counted = std::cell::RefCell::new(&mut ranges);
        let shares = self.key_shares(|ring, indices| {
            let homes = ring.homes();
            let mut counted = counted.borrow_mut();
            let each = homes.iter().zip(indices);
            each.for_each(|((_, ranges), &index)| counted[index] = *ranges);
            Some(homes.iter().map(|home| home.0).collect())
        })?;
        Some(shares.into_iter().zip(ranges).collect())
    }

    /// Each endpoint's part of all keys, by what `of_ring` returns for a ring of these endpoints.
    fn key_shares(
        &self,
        of_ring: impl Fn(&Ring, &[usize]) -> Option<Vec<f64>>,
    ) -> Option<Vec<f64>> {
        let all: Vec<_> = (0..self.members.len()).collect();
        match &self.pickers.split {
            None => of_ring(self.pickers.whole.as_ring()?, &all),
            Some(split) => split.shares(self.members.len(), |picker, _, indices| {
                of_ring(picker.as_ring()?, indices)
            }),
        }
    }

    /// Slow start under a policy that is asked again if a new endpoint isn't drawn, up to [`ATTEMPTS`] times.
    fn slow_start_by_turns(&self, mut shares: Vec<f64>) -> Vec<f64> {
        let slow_start_share = |index: usize| self.members()[index].slow_start_share().min(1.0);
        let kept = |(index, share): (usize, &f64)| share * slow_start_share(index);
        let again = 1.0 - shares.iter().enumerate().map(kept).sum::<f64>();
        let last = again.max(0.0).powi(ATTEMPTS as i32);
        let factor = (1.0 - last) / (1.0 - again).max(f64::MIN_POSITIVE);
        for (index, share) in shares.iter_mut().enumerate() {
            *share *= slow_start_share(index) * factor + last;
        }
        shares
    }

    /// Slow start under a load-aware policy: a new endpoint that isn't drawn, or has its part of the load, leaves its
    /// request to another one.
    fn slow_start_by_load(&self, shares: &[f64]) -> Vec<f64> {
        let mut warmed = shares.to_vec();
        let new: Vec<_> = (0..shares.len())
            .filter(|&index| shares[index] > 0.0 && self.members()[index].slow_start_share() < 1.0)
            .collect();
        // Near endpoints leave requests to near ones, and far to far.
        for is_near in [Some(true), Some(false), None] {
            let mut new = new.iter().filter(|&&new| self.is_near(new) == is_near);
            let Some(&one) = new.clone().next() else {
                continue;
            };
            let others = self.others(one);
            // What is given to all others, and what more to those from each index on.
            let (mut to_all, mut from_here) = (0.0, vec![0.0; others.len()]);
            let mut likely_from: Vec<_> = others.iter().map(|other| other.likely).collect();
            for at in (1..others.len()).rev() {
                likely_from[at - 1] += likely_from[at];
            }
            let likely_from = |at: usize| likely_from.get(at).copied().unwrap_or(0.0);
            new.by_ref().for_each(|&index| {
                let (share, slow_start_share) =
                    (shares[index], self.members()[index].slow_start_share());
                let load = self.load(index);
                // The largest load is first: from this index on, the new endpoint is full beside them.
                let full = others.partition_point(|other| load <= other.load * slow_start_share);
                to_all += share * (1.0 - slow_start_share);
                if let Some(more) = from_here.get_mut(full) {
                    *more += share * slow_start_share;
                }
                let given = (1.0 - slow_start_share) * likely_from(0)
                    + slow_start_share * likely_from(full);
                warmed[index] -= share * given;
            });
            let mut given = to_all;
            for (other, more) in others.iter().zip(from_here) {
                given += more;
                warmed[other.index] += given * other.likely;
            }
        }
        warmed
    }

    /// The endpoints that may get a request instead of a new one, the largest load first, and how likely
    /// [`other`](Self::other) draws each.
    fn others(&self, new: usize) -> Vec<Other> {
        let mut others: Vec<_> = (0..self.members.len())
            .filter(|index| self.may_be_instead(new, *index))
            .map(|index| Other {
                index,
                load: self.load(index),
                likely: 0.0,
            })
            .collect();
        others.sort_by(|one, other| other.load.total_cmp(&one.load));
        let (all, count) = (self.members.len() as f64, others.len() as f64);
        let (miss, miss_second) = (1.0 - count / all, 1.0 - (count - 1.0) / all);
        let first_at = |draw: i32| miss.powi(draw) * (1.0 - miss);
        let draws = 0..ATTEMPTS as i32;
        let alone = |draw| first_at(draw) * miss_second.powi(ATTEMPTS as i32 - 1 - draw);
        let is_alone: f64 = draws.clone().map(alone).sum();
        let is_drawn: f64 = draws.map(first_at).sum();
        let pair = (is_drawn - is_alone) / (count * (count - 1.0)).max(1.0);
        let mut above = 0.0;
        for alike in others.chunk_by_mut(|one, other| one.load == other.load) {
            // If drawn first, they also win against those with the same load; if drawn second, only against those
            // above.
            let others_alike = alike.len() as f64 - 1.0;
            let wins = (above + others_alike) + above;
            for other in &mut *alike {
                other.likely = is_alone / count + pair * wins;
            }
            above += alike.len() as f64;
        }
        others
    }
}

/// An endpoint that may get a request instead of a new one.
struct Other {
    index: usize,
    load: f64,
    likely: f64,
}
