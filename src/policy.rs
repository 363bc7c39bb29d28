//! Which endpoint gets the next request.
//!
//! | policy | choose it when | cost of a pick |
//! | --- | --- | --- |
//! | [`RoundRobin`] | requests cost about the same; shares must be exact | constant |
//! | [`Random`] | many clients of few requests each, where round robin's order would synchronise them | constant |
//! | [`LeastConnections`] | requests differ in cost, or pods in speed: load moves away from the slow ones | grows to 256 endpoints, constant above |
//! | [`PowerOfTwo`] | the same, where the set is large: it is a little less even, and as cheap for any size | constant |
//! | [`PeakEwma`] | pods differ in speed, and latency counts: those that answer late get next to nothing, before requests pile up there | constant |
//!
//! Every policy passes over the endpoints that are unreachable, ejected or gone. A policy is prepared into a picker whenever
//! the set changes; a pick then reads the counters, draws from the caller's generator, and does nothing else.

mod least_connections;
mod pair;
mod peak_ewma;
mod power_of_two;
mod random;
mod round_robin;
mod split;
#[cfg(test)]
mod suite;
mod turns;
mod weights;

pub use least_connections::LeastConnections;
pub use peak_ewma::PeakEwma;
pub use power_of_two::PowerOfTwo;
pub use random::Random;
pub use round_robin::RoundRobin;
pub(crate) use split::{Before, Split};
pub(crate) use weights::are_equal;

use rand::{Rng, seq::IteratorRandom};

use self::weights::Weights;
use crate::load::Loads;

/// A way to choose the endpoint of a request.
///
/// Sealed: choose one of [`RoundRobin`], [`Random`], [`LeastConnections`], [`PowerOfTwo`] and [`PeakEwma`]. The trait will open
/// once policies from outside have shown what it must offer.
pub trait Policy: sealed::Prepare + Clone + Send + Sync + 'static {}

impl<T: sealed::Prepare + Clone + Send + Sync + 'static> Policy for T {}

pub(crate) mod sealed {
    use std::time::Duration;

    use rand::Rng;

    use crate::load::Loads;

    pub trait Prepare {
        type Picker: Pick;

        /// How fast the averages of the endpoints' latencies decay, if the picker reads them.
        fn decay(&self) -> Option<Duration> {
            None
        }

        /// A picker for a set of endpoints with these weights, which takes the place of `previous`.
        fn prepare(
            &self,
            weights: &[u32],
            previous: Option<Previous<'_, Self::Picker>>,
            rng: &mut impl Rng,
        ) -> Self::Picker;
    }

    /// What a picker reads of the requests that the endpoints have.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Reads {
        Nothing,
        /// How many they are at a few endpoints; their counters say it.
        Few,
        /// How many they are at all, for which the endpoints' words are packed and count them again.
        All,
    }

    /// The picker of the set before.
    pub struct Previous<'a, K> {
        pub picker: &'a K,
        /// Where the endpoint of an old index stands now; the next one in order, if it is gone.
        pub place: &'a dyn Fn(usize) -> usize,
    }

    impl<K> Clone for Previous<'_, K> {
        fn clone(&self) -> Self {
            *self
        }
    }

    impl<K> Copy for Previous<'_, K> {}

    pub trait Pick: Send + Sync + 'static {
        /// Whether shares are exact: then so is the split of the requests between near and far endpoints.
        const EXACT: bool;

        const READS: Reads;

        /// Chooses an endpoint, and tells those who scan of one more request; none if none is available.
        fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize>;
    }
}

/// On cache lines of its own (processors fetch them in pairs): what every pick of every thread writes should not take from
/// the others what they only read.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// Counts a request in at the endpoint that was chosen, or else, as when a flag has come up there since, at any that is available.
#[inline]
fn begin_or_any(
    chosen: Option<usize>,
    loads: &Loads,
    weights: Option<&Weights>,
    rng: &mut impl Rng,
) -> Option<usize> {
    chosen
        .filter(|&index| loads.begin(index))
        .or_else(|| any_available(loads, weights, rng))
}

/// Any of the available endpoints, each as likely as the other or as its weight says, however few they are.
fn any_available(loads: &Loads, weights: Option<&Weights>, rng: &mut impl Rng) -> Option<usize> {
    if let Some(weights) = weights {
        return weights.any_available(loads, rng);
    }
    let available = (0..loads.len()).filter(|&index| loads.is_available(index));
    let chosen = available.choose(rng)?;
    loads.begin(chosen).then_some(chosen)
}
