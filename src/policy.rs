//! Which endpoint gets the next request.
//!
//! A policy prepares a [`Picker`] whenever the set of endpoints changes. A pick then reads the counters, draws from the
//! generator that it is given, and does nothing else: it never blocks, allocates, or reads a clock.
//!
//! The policies of this crate are one enum, so that a pick is a direct call. A policy from outside is a boxed picker.

mod any;
mod built_in;
mod consistent_hash;
mod least_connections;
mod pair;
mod peak_ewma;
mod power_of_two;
mod random;
mod round_robin;
mod shares;
mod stateless;
mod turns;
mod weights;

pub(crate) use any::{AnyPicker, AnyPolicy};
pub use built_in::{BuiltInPolicy, ParsePolicyError};
pub use consistent_hash::ConsistentHash;
pub(crate) use consistent_hash::{Passed, Picker as Ring};
pub use least_connections::LeastConnections;
pub use peak_ewma::PeakEwma;
pub use power_of_two::PowerOfTwo;
pub use random::Random;
pub use round_robin::RoundRobin;

use std::{any::Any, time::Duration};

use rand::{Rng, seq::IteratorRandom};

use self::weights::Weights;
use crate::{member::Members, route::Route};

/// A way to choose the endpoint of a request: one of this crate's, or one of your own.
///
/// This crate's policies are [`RoundRobin`], [`Random`], [`LeastConnections`], [`PowerOfTwo`], [`PeakEwma`] and
/// [`ConsistentHash`]: [the guide](crate::guide::policies) says when to choose which. A [`BuiltInPolicy`] is any of
/// these, chosen at run time, for example from a configuration file.
///
/// # A policy of your own
///
/// It prepares a [`Picker`] for each set of endpoints. The balancer does the rest, for any policy: it passes
/// over endpoints that refuse, are ejected or fail their checks, tries them again, sends requests to near endpoints first, and
/// gives new ones a growing share (slow start).
///
/// ```
/// use rand::{Rng, RngExt};
/// use tower_headless::{Balance, Endpoint, Members, Picker, Policy, Previous, Route, StaticEndpoints};
///
/// /// Of `0` endpoints at random, the one with the fewest requests.
/// struct BestOf(usize);
///
/// impl Policy for BestOf {
///     fn prepare(&self, _: &Members, _: Option<Previous<'_>>, _: &mut dyn Rng) -> Box<dyn Picker> {
///         Box::new(BestOf(self.0))
///     }
/// }
///
/// impl Picker for BestOf {
///     fn pick(&self, members: &Members, _: &Route, rng: &mut dyn Rng) -> Option<usize> {
///         let drawn = (0..self.0).map(|_| rng.random_range(0..members.len()));
///         drawn.filter(|&index| members.is_available(index)).min_by_key(|&index| members.load(index))
///     }
/// }
///
/// let balance = Balance::builder(StaticEndpoints::new(["10.244.1.7:80".parse()?]))
///     .policy(BestOf(5))
///     .build(|endpoint: &Endpoint| endpoint.address());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a policy",
    label = "this doesn't say which pod gets a request",
    note = "the policies are `RoundRobin::new()`, `LeastConnections::new()`, `PowerOfTwo::new()`, `PeakEwma::new()`, `Random::new()` and `ConsistentHash::new()`",
    note = "parse one that is named in a configuration: `name.parse::<BuiltInPolicy>()?`"
)]
pub trait Policy: Any + Send + Sync {
    /// Prepares a picker for a set of endpoints. `previous` is the picker of the set before, if there was one: a
    /// cursor, for example, can go on from there.
    ///
    /// The balancer's background task calls it when endpoints join, leave or change. It is also called once, with
    /// no endpoints, when the balancer is built. With [near pods first](crate::guide::near_pods) there are pickers for the whole
    /// set, for the near endpoints and for the far ones.
    fn prepare(
        &self,
        members: &Members,
        previous: Option<Previous<'_>>,
        rng: &mut dyn Rng,
    ) -> Box<dyn Picker>;

    /// How fast [`Members::latency`] forgets: after this time a past latency counts by 1/e. `None`, the default, if the
    /// pickers don't read latencies: then none are measured.
    fn latency_decay(&self) -> Option<Duration> {
        None
    }
}

/// Chooses endpoints of one set; prepared by a [`Policy`].
///
/// All threads share it, so it should count in atomics rather than take a lock.
pub trait Picker: Any + Send + Sync {
    /// Chooses an endpoint of `members`, the set that this was prepared for, by its index.
    ///
    /// - If it returns `None`, an index out of range, or an endpoint that is not [available](Members::is_available),
    ///   any available endpoint gets the request.
    /// - `route` is the request's [`Route`], for its [key](Route::requested_key), if it has one. The balancer handles
    ///   requested pods by itself, and also avoided ones, unless the picker [is keyed](Self::is_keyed).
    /// - `rng` is the balancer's generator: with a [seed](crate::BalanceBuilder::seed), its draws can be repeated.
    ///
    /// There is at least one endpoint, but it may not be available.
    ///
    /// Called for each request, again if the endpoint refuses, and again if it is new and has had its share (slow
    /// start).
    fn pick(&self, members: &Members, route: &Route, rng: &mut dyn Rng) -> Option<usize>;

    /// Whether it reads how many requests the endpoints have; true by default.
    ///
    /// Return false for a picker that takes turns or draws. If it chooses a new endpoint that has had its share (slow
    /// start), it is then simply asked again, because it will choose another one.
    fn is_load_aware(&self) -> bool {
        true
    }

    /// Whether the request's [key](Route::requested_key) decides where it goes; false by default.
    ///
    /// If true, the picker alone chooses for this request: it has to pass over endpoints that the request
    /// [avoids](Route::avoids), and give new ones their [share](Members::slow_start_share) of the keys. The key also
    /// decides whether the request stays with the [near endpoints](crate::guide::near_pods). One exception: any request
    /// may be the trial of an ejected endpoint.
    fn is_keyed(&self, route: &Route) -> bool {
        let _ = route;
        false
    }

    /// How likely [`pick`](Self::pick) chooses each of `members` for the next request, from 0 to 1, for
    /// [`Balance::explain`](crate::Balance::explain). `None`, the default, if that isn't known.
    ///
    /// Go by the present loads, and by which endpoints are available now. The balancer itself accounts for near
    /// endpoints and slow start.
    fn shares(&self, members: &Members) -> Option<Vec<f64>> {
        let _ = members;
        None
    }
}

impl Policy for Box<dyn Policy> {
    fn prepare(
        &self,
        members: &Members,
        previous: Option<Previous<'_>>,
        rng: &mut dyn Rng,
    ) -> Box<dyn Picker> {
        (**self).prepare(members, previous, rng)
    }

    fn latency_decay(&self) -> Option<Duration> {
        (**self).latency_decay()
    }
}

/// The picker of the set before, for the picker that replaces it.
#[derive(Clone, Copy)]
pub struct Previous<'a> {
    picker: &'a dyn Picker,
    place: &'a dyn Fn(usize) -> usize,
}

impl<'a> Previous<'a> {
    /// `place` maps an old index to the new one, or to that of the next endpoint in order if it is gone.
    pub(crate) fn new(picker: &'a dyn Picker, place: &'a dyn Fn(usize) -> usize) -> Self {
        Self { picker, place }
    }

    /// The picker, if it is of this type.
    pub fn picker<K: Picker>(&self) -> Option<&'a K> {
        (self.picker as &dyn Any).downcast_ref()
    }

    /// Wraps another picker of that set, such as one inside of this one.
    pub fn within(self, picker: &'a dyn Picker) -> Self {
        Self { picker, ..self }
    }

    /// The index, in the new set, of the endpoint at this index of the set before; if it is gone, that of the next one
    /// in order.
    pub fn place(&self, index: usize) -> usize {
        (self.place)(index)
    }
}

/// How many endpoints' request counts a pick reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Nothing,
    /// Those of a few endpoints, from their own counters.
    Few,
    /// Those of all endpoints. So the status words are packed, and count requests, too.
    All,
}

/// A value on its own cache lines, which processors fetch in pairs. Every pick of every thread writes it, and that
/// shouldn't evict what others only read.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);

/// Counts a request in at the chosen endpoint. If that isn't available any more, or none was chosen, at any that is.
#[inline]
fn begin_or_any(
    chosen: Option<usize>,
    members: &Members,
    weights: Option<&Weights>,
    rng: &mut impl Rng,
) -> Option<usize> {
    chosen
        .filter(|&index| members.begin(index))
        .or_else(|| any_available(members, weights, rng))
}

/// Draws one of the available endpoints, uniformly or by weight, and counts a request in there.
fn any_available(
    members: &Members,
    weights: Option<&Weights>,
    rng: &mut impl Rng,
) -> Option<usize> {
    if let Some(weights) = weights {
        return weights.any_available(members, rng);
    }
    let available = (0..members.len()).filter(|&index| members.is_available(index));
    let chosen = available.choose(rng)?;
    members.begin(chosen).then_some(chosen)
}
