//! The endpoint with the fewest requests in flight.
//!
//! Up to [`EXACT`] endpoints every counter is read and the minimum is taken, ties broken uniformly at random. Reading
//! costs 0.2 to 0.4 ns an endpoint, because the counters are packed ([`crate::load`]). Above that, the best of [`SAMPLE`]
//! distinct endpoints is taken, at a constant cost: more choices than the usual two bring most of what the full scan does
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use rand::{Rng, RngExt, seq::IteratorRandom};

use super::{
    any_available,
    sealed::{self, Previous, Reads},
    weights::{Weighted, Weights},
};
use crate::load::{FLAGGED, Loads};

/// The largest set that is scanned whole. By `cargo bench --bench pick` the scan costs as much as the sample at about 190
/// endpoints on one machine and at about 300 on another, and 25 ns more at 256 on the first, which its exactness is worth: a
/// spread of 1 in flight instead of 3.
const EXACT: usize = 256;

/// How many endpoints are looked at in a larger set.
const SAMPLE: usize = 16;

/// How many random endpoints are tried before all that are tied are counted.
const TIE_DRAWS: usize = 4;

/// How often to look again when another thread took the endpoint first. A pick that loses this often takes what it saw
/// last: by then dozens of threads are picking at once, and one request more or less is noise.
const ATTEMPTS: usize = 8;

/// Each request goes to the endpoint with the fewest requests in flight from this balancer.
///
/// Where [weights](crate::Endpoint::weight) differ, they are divided by the weight, and of endpoints that are tied each is as
/// likely as its weight says: an idle set shares out its requests in proportion.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastConnections(());

impl LeastConnections {
    /// The policy; it has no settings.
    pub const fn new() -> Self {
        Self(())
    }
}

/// Nothing is kept from one pick to the next.
#[derive(Debug)]
pub struct Picker {
    weights: Option<Box<Weights>>,
}

impl sealed::Prepare for LeastConnections {
    type Picker = Picker;

    fn prepare(
        &self,
        weights: &[u32],
        _: Option<Previous<'_, Picker>>,
        _: &mut impl Rng,
    ) -> Picker {
        Picker {
            weights: Weights::of(weights),
        }
    }
}

impl sealed::Pick for Picker {
    const EXACT: bool = false;
    const READS: Reads = Reads::All;

    #[inline]
    fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        if let Some(weights) = &self.weights {
            return pick_weighted(weights, loads, rng);
        }
        let exact = loads.len() <= EXACT;
        let look = || {
            if exact {
                least(loads, rng)
            } else {
                least_of_sample(loads, rng).or_else(|| least(loads, rng))
            }
        };
        take(loads, look).or_else(|| any_available(loads, None, rng))
    }
}

#[inline(never)]
fn pick_weighted(weights: &Weights, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
    let exact = loads.len() <= EXACT;
    let look = || {
        if exact {
            least_weighted(weights, loads, rng)
        } else {
            least_of_drawn(weights, loads, rng).or_else(|| least_weighted(weights, loads, rng))
        }
    };
    take(loads, look).or_else(|| any_available(loads, Some(weights), rng))
}

/// Takes what a look has found, if no other thread was faster; else looks again.
#[inline]
fn take(loads: &Loads, mut look: impl FnMut() -> Option<Least>) -> Option<usize> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let Some(Least { index, word }) = look() else {
            break;
        };
        if loads.begin_if(index, word) {
            return Some(index);
        }
        last = Some(index);
    }
    last.filter(|&index| loads.begin(index))
}

/// An endpoint and its word when it was the smallest.
struct Least {
    index: usize,
    word: u32,
}

/// The least loaded of all, each of several as likely as the other.
fn least(loads: &Loads, rng: &mut impl Rng) -> Option<Least> {
    let min = loads.min();
    if min >= FLAGGED {
        return None;
    }
    // The ties are many, as a rule, and a few draws find one; of those that it may find, each is as likely.
    for _ in 0..TIE_DRAWS {
        let index = rng.random_range(0..loads.len());
        if loads.word(index) == min {
            return Some(Least { index, word: min });
        }
    }
    let tied = (0..loads.len()).filter(|&index| loads.word(index) == min);
    let index = tied.choose(rng)?;
    Some(Least { index, word: min })
}

/// The least loaded of [`SAMPLE`] distinct endpoints: those at a random stride from a random start. The stride keeps
/// them within one turn of the set, hence distinct; the start makes each endpoint as likely as the other.
fn least_of_sample(loads: &Loads, rng: &mut impl Rng) -> Option<Least> {
    let len = loads.len();
    let start = rng.random_range(0..len);
    let stride = rng.random_range(1..=len / SAMPLE);
    let indices: [usize; SAMPLE] = std::array::from_fn(|step| {
        let index = start + step * stride;
        if index < len { index } else { index - len }
    });
    let words = indices.map(|index| loads.word(index));
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

/// The least loaded of all for its weight, each of several in proportion to its own.
fn least_weighted(weights: &Weights, loads: &Loads, rng: &mut impl Rng) -> Option<Least> {
    let load = |index| weights.load(index, loads.word(index));
    let less = |least: Weighted, index| {
        let load = load(index);
        if load.is_less(least) { load } else { least }
    };
    let least = (0..loads.len()).fold(Weighted::MAX, less);
    let index = weights.choose(loads, rng, |index| load(index).is_equal(least))?;
    let word = loads.word(index);
    Some(Least { index, word })
}

/// The least loaded of [`SAMPLE`] endpoints for its weight, which are drawn in proportion to theirs; the first of several.
fn least_of_drawn(weights: &Weights, loads: &Loads, rng: &mut impl Rng) -> Option<Least> {
    let mut least = None;
    let mut load = Weighted::MAX;
    for _ in 0..SAMPLE {
        let index = weights.draw(rng);
        let word = loads.word(index);
        let drawn = weights.load(index, word);
        if drawn.is_less(load) {
            (least, load) = (Some(Least { index, word }), drawn);
        }
    }
    least
}
