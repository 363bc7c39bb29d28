//! The endpoint with the fewest requests in flight.
//!
//! Up to [`EXACT`] endpoints every counter is read and the minimum is taken, ties broken uniformly at random. Reading
//! costs about 0.4 ns an endpoint, because the counters are packed ([`crate::load`]). Above that, the best of [`SAMPLE`]
//! distinct endpoints is taken, at a constant cost: more choices than the usual two bring most of what the full scan does
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use rand::{Rng, RngExt, seq::IteratorRandom};

use super::{
    any_available,
    sealed::{self, Previous},
};
use crate::load::{FLAGGED, Loads};

/// The largest set that is scanned whole. By `cargo bench --bench pick` the scan costs as much as the sample at about 190
/// endpoints, and 25 ns more at 256, which its exactness is worth: a spread of 1 in flight instead of 3.
const EXACT: usize = 256;

/// How many endpoints are looked at in a larger set.
const SAMPLE: usize = 16;

/// How many random endpoints are tried before all that are tied are counted.
const TIE_DRAWS: usize = 4;

/// How often to look again when another thread took the endpoint first. A pick that loses this often takes what it saw
/// last: by then dozens of threads are picking at once, and one request more or less is noise.
const ATTEMPTS: usize = 8;

/// Each request goes to the endpoint with the fewest requests in flight from this balancer.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastConnections(());

impl LeastConnections {
    /// The policy; it has no settings.
    pub const fn new() -> Self {
        Self(())
    }
}

/// Nothing is kept from one pick to the next, so the policy is its own picker.
impl sealed::Prepare for LeastConnections {
    type Picker = Self;

    const SCANS: bool = true;

    fn prepare(&self, _: usize, _: Option<Previous<'_, Self>>, _: &mut impl Rng) -> Self {
        *self
    }
}

impl sealed::Pick for LeastConnections {
    const EXACT: bool = false;

    #[inline]
    fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        let exact = loads.len() <= EXACT;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let least = if exact {
                least(loads, rng)
            } else {
                least_of_sample(loads, rng).or_else(|| least(loads, rng))
            };
            let Some(Least { index, word }) = least else {
                break;
            };
            if loads.begin_if(index, word) {
                return Some(index);
            }
            last = Some(index);
        }
        last.filter(|&index| loads.begin(index))
            .or_else(|| any_available(loads, rng))
    }
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
