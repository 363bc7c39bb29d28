//! The endpoint with the fewest requests in flight.
//!
//! In a set of up to [`EXACT`] endpoints, a pick reads every counter and takes the minimum; ties are broken uniformly
//! at random. Reading costs 0.2 to 0.4 ns an endpoint, because the counters are packed ([`crate::member`]). In a larger
//! set, it takes the best of [`SAMPLE`] distinct endpoints, at a constant cost: that has most of the benefit of the
//! full scan (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use rand::{Rng, RngExt, seq::IteratorRandom};

use super::{
    any_available, begin_or_any, shares,
    stateless::Stateless,
    weights::{Weighted, Weights},
};
use crate::member::{FLAGGED, Members};

/// The largest set that is scanned whole. By `cargo bench --bench pick`, the scan costs as much as the sample at about
/// 190 endpoints on one machine and about 300 on another. At 256 it costs 25 ns more on the first. Its exactness is
/// worth that: a spread of 1 in flight instead of 3.
const EXACT: usize = 256;

/// How many endpoints are looked at in a larger set.
const SAMPLE: usize = 16;

/// How many random endpoints are tried before all ties are counted.
const TIE_DRAWS: usize = 4;

/// How often to look again if another thread took the endpoint first. A pick that loses this often takes what it saw
/// last: by then dozens of threads are picking at once, and one request more or less is noise.
const ATTEMPTS: usize = 8;

/// Each request goes to the endpoint with the fewest requests in flight from this balancer.
///
/// If [weights](crate::Endpoint::weight) differ, the requests in flight are divided by the weight, and ties are broken
/// in proportion to the weights: so an idle set shares out its requests in proportion.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastConnections(());

impl LeastConnections {
    /// The policy; it has no settings.
    pub const fn new() -> Self {
        Self(())
    }
}

pub(crate) type Picker = Stateless<LeastConnections>;

impl Stateless<LeastConnections> {
    /// Chooses an endpoint, and counts one more request in.
    #[inline]
    pub(super) fn pick(&self, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        if !members.are_packed() {
            return self.pick_unpacked(members, rng);
        }
        if let Some(weights) = &self.weights {
            return pick_weighted(weights, members, rng);
        }
        let exact = members.len() <= EXACT;
        let look = || {
            if exact {
                least(members, rng)
            } else {
                least_of_sample(members, rng).or_else(|| least(members, rng))
            }
        };
        take(members, look).or_else(|| any_available(members, None, rng))
    }

    /// The least loaded endpoint by the members' own counters. The status words don't count requests if a policy from
    /// outside wraps this one.
    #[cold]
    fn pick_unpacked(&self, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        let is_open = |&index: &usize| members.is_available(index) && self.weight(index) > 0;
        let part = |index| f64::from(members.load(index)) / f64::from(self.weight(index));
        let open = (0..members.len()).filter(is_open);
        let least = open.clone().map(part).fold(f64::INFINITY, f64::min);
        let is_least = |index| self.weight(index) > 0 && part(index) <= least;
        let chosen = match self.weights.as_deref() {
            Some(weights) => weights.choose(members, rng, is_least),
            None => open.filter(|&index| is_least(index)).choose(rng),
        };
        begin_or_any(chosen, members, self.weights.as_deref(), rng)
    }

    /// How likely it chooses each endpoint; `None` if the set is so large that it has too many samples to go through.
    pub(super) fn shares(&self, members: &Members) -> Option<Vec<f64>> {
        let Some(weights) = self.available_weights(members) else {
            return Some(shares::any_available(members));
        };
        let load = |index| f64::from(members.load(index)) / f64::from(self.weight(index));
        let load = |index| (weights[index] > 0.0).then(|| load(index));
        let loads: Vec<_> = (0..members.len()).map(load).collect();
        let is_exact = members.len() <= EXACT || !members.are_packed();
        let (mut shares, of_all) = match &self.weights {
            _ if is_exact => (vec![0.0; loads.len()], 1.0),
            // The draws include endpoints that are out.
            Some(_) => {
                let drawn: Vec<_> = members.weights().iter().copied().map(f64::from).collect();
                shares::of_many(&drawn, &loads, SAMPLE as i32)
            }
            None if loads.len() <= COUNTED => of_samples(&loads),
            None => return None,
        };
        let least = loads
            .iter()
            .flatten()
            .copied()
            .fold(f64::INFINITY, f64::min);
        let is_least = |index: usize| loads[index].is_some_and(|load| load <= least);
        let weight = |index| if is_least(index) { weights[index] } else { 0.0 };
        let least = shares::in_proportion((0..loads.len()).map(weight).collect());
        let both = shares.iter_mut().zip(least);
        both.for_each(|(share, least)| *share += of_all * least);
        Some(shares)
    }
}

/// The largest set whose samples are all gone through: their number grows with its square.
const COUNTED: usize = 1_024;

/// How likely each endpoint is the least loaded of a sample, ties broken uniformly; and how likely a sample has none
/// that is available. It goes through all samples that [`least_of_sample`] may draw.
fn of_samples(loads: &[Option<f64>]) -> (Vec<f64>, f64) {
    let len = loads.len();
    let (mut shares, mut none) = (vec![0.0; len], 0.0);
    let each = 1.0 / (len * (len / SAMPLE)) as f64;
    for start in 0..len {
        for stride in 1..=len / SAMPLE {
            let sample = sample(len, start, stride);
            let loads = sample.map(|index| loads[index]);
            let min = loads.into_iter().flatten().fold(f64::INFINITY, f64::min);
            let is_least = |at: &usize| loads[*at].is_some_and(|load| load <= min);
            let tied = (0..SAMPLE).filter(is_least).count();
            if tied == 0 {
                none += each;
            }
            for at in (0..SAMPLE).filter(is_least) {
                shares[sample[at]] += each / tied as f64;
            }
        }
    }
    (shares, none)
}

/// The endpoints of a sample.
#[inline]
fn sample(len: usize, start: usize, stride: usize) -> [usize; SAMPLE] {
    std::array::from_fn(|step| {
        let index = start + step * stride;
        if index < len { index } else { index - len }
    })
}

#[inline(never)]
fn pick_weighted(weights: &Weights, members: &Members, rng: &mut impl Rng) -> Option<usize> {
    let exact = members.len() <= EXACT;
    let look = || {
        if exact {
            least_weighted(weights, members, rng)
        } else {
            least_of_drawn(weights, members, rng).or_else(|| least_weighted(weights, members, rng))
        }
    };
    take(members, look).or_else(|| any_available(members, Some(weights), rng))
}

/// Takes the endpoint that `look` finds, unless another thread was faster; then looks again.
#[inline]
fn take(members: &Members, mut look: impl FnMut() -> Option<Least>) -> Option<usize> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let Some(Least { index, word }) = look() else {
            break;
        };
        if members.begin_if(index, word) {
            return Some(index);
        }
        last = Some(index);
    }
    last.filter(|&index| members.begin(index))
}

/// The endpoint with the smallest word, and that word.
struct Least {
    index: usize,
    word: u32,
}

/// The least loaded of all; ties are broken uniformly.
fn least(members: &Members, rng: &mut impl Rng) -> Option<Least> {
    let min = members.min();
    if min >= FLAGGED {
        return None;
    }
    // Usually there are many ties, so a few draws find one, and each is as likely to be found.
    for _ in 0..TIE_DRAWS {
        let index = rng.random_range(0..members.len());
        if members.word(index) == min {
            return Some(Least { index, word: min });
        }
    }
    let tied = (0..members.len()).filter(|&index| members.word(index) == min);
    let index = tied.choose(rng)?;
    Some(Least { index, word: min })
}

/// The least loaded of [`SAMPLE`] distinct endpoints, at a random stride from a random start. The stride keeps
/// them within one turn of the set, hence distinct; the random start makes all endpoints equally likely.
fn least_of_sample(members: &Members, rng: &mut impl Rng) -> Option<Least> {
    let len = members.len();
    let start = rng.random_range(0..len);
    let stride = rng.random_range(1..=len / SAMPLE);
    let indices = sample(len, start, stride);
    let words = indices.map(|index| members.word(index));
    let min = words.iter().fold(FLAGGED, |min, &word| min.min(word));
    if min == FLAGGED {
        return None;
    }
    let ties = words.iter().filter(|&&word| word == min).count();
    let nth = if ties > 1 {
        rng.random_range(0..ties)
    } else {
        0
    };
    let mut tied = (0..SAMPLE).filter(|&at| words[at] == min);
    Some(Least {
        index: indices[tied.nth(nth)?],
        word: min,
    })
}

/// The least loaded of all for its weight; ties are broken in proportion to the weights.
fn least_weighted(weights: &Weights, members: &Members, rng: &mut impl Rng) -> Option<Least> {
    let load = |index| weights.load(index, members.word(index));
    let less = |least: Weighted, index| {
        let load = load(index);
        if load.is_less(least) { load } else { least }
    };
    let least = (0..members.len()).fold(Weighted::MAX, less);
    let index = weights.choose(members, rng, |index| load(index).is_equal(least))?;
    let word = members.word(index);
    Some(Least { index, word })
}

/// The least loaded for its weight of [`SAMPLE`] endpoints, drawn in proportion to their weights; the first one if
/// tied.
fn least_of_drawn(weights: &Weights, members: &Members, rng: &mut impl Rng) -> Option<Least> {
    let mut least = None;
    let mut member = Weighted::MAX;
    for _ in 0..SAMPLE {
        let index = weights.draw(rng);
        let word = members.word(index);
        let drawn = weights.load(index, word);
        if drawn.is_less(member) {
            (least, member) = (Some(Least { index, word }), drawn);
        }
    }
    least
}
