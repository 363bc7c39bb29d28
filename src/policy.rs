//! Which endpoint gets the next request.
//!
//! A policy prepares a [`Picker`] whenever the set of endpoints changes. A pick then reads the counters, draws from the
//! generator that it is given, and does nothing else: it never blocks, allocates, or looks at a clock.
//!
//! The policies of this crate are one enum, so that a pick knows which code it runs; one from outside is a boxed picker.

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
/// This crate's are [`RoundRobin`], [`Random`], [`LeastConnections`], [`PowerOfTwo`], [`PeakEwma`] and [`ConsistentHash`]:
/// [policies](crate::guide::policies) says when to choose which. A [`BuiltInPolicy`] is any of these, chosen at run time, as
/// from a configuration file.
///
/// # A policy of your own
///
/// It prepares a [`Picker`] for each set of endpoints. What the balancer does around it, it does for any policy: it passes
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
    message = "`{Self}` is no policy",
    label = "this says nothing of which pod gets a request",
    note = "the policies are `RoundRobin::new()`, `LeastConnections::new()`, `PowerOfTwo::new()`, `PeakEwma::new()`, `Random::new()` and `ConsistentHash::new()`",
    note = "one that is named in a configuration is parsed: `name.parse::<BuiltInPolicy>()?`"
)]
pub trait Policy: Any + Send + Sync {
    /// Prepares a picker for a set of endpoints. `previous` is the picker of the set before it, if there was one: a cursor,
    /// say, goes on from there.
    ///
    /// Called in the balancer's background task when endpoints join, leave, or change what is known of them, and once, with
    /// no endpoints, when the balancer is built. With [near pods first](crate::guide::near_pods) there are pickers for the whole
    /// set, for the near endpoints and for the far ones.
    fn prepare(
        &self,
        members: &Members,
        previous: Option<Previous<'_>>,
        rng: &mut dyn Rng,
    ) -> Box<dyn Picker>;

    /// How fast [`Members::latency`] forgets: after this time a past latency counts by 1/e. None, the default: the pickers
    /// don't look at latencies, and none are kept.
    fn latency_decay(&self) -> Option<Duration> {
        None
    }
}

/// Chooses endpoints of one set; prepared by a [`Policy`].
///
/// All threads share it. Whatever it counts, it counts in atomics, and not by locking.
pub trait Picker: Any + Send + Sync {
    /// Chooses an endpoint of `members`, the set that this was prepared for, by its index.
    ///
    /// - An endpoint that is not [available](Members::is_available), or none: any available endpoint gets the request. The
    ///   same goes for an index that is out of range.
    /// - `route` is what the request says of where it wants to go: its [key](Route::requested_key), if it has one. Whom it
    ///   wants is settled without the policy, and so is whom it avoids unless the picker [is keyed](Self::is_keyed).
    /// - `rng` is the balancer's generator: with a [seed](crate::BalanceBuilder::seed), what is drawn from it can be repeated.
    ///
    /// There is at least one endpoint, though it may not be available.
    ///
    /// Called for each request, again where the endpoint refuses, and again where it is new and has had its part (slow start).
    fn pick(&self, members: &Members, route: &Route, rng: &mut dyn Rng) -> Option<usize>;

    /// Whether it looks at how many requests the endpoints have. True, unless this says otherwise.
    ///
    /// A picker that takes turns or draws says false: where it has chosen a new endpoint out of turn (slow start), it is
    /// asked again, and chooses another one.
    fn is_load_aware(&self) -> bool {
        true
    }

    /// Whether the request's [key](Route::requested_key) decides where it goes. False, unless this says otherwise.
    ///
    /// Then nobody else chooses for this request: the picker itself passes over endpoints that the request
    /// [avoids](Route::avoids), and gives new ones their [part](Members::slow_start_share) of the keys. Whether the request stays
    /// with the [near endpoints](crate::guide::near_pods) is the key's matter, too. Only the one request that tries an ejected
    /// endpoint may be any.
    fn is_keyed(&self, route: &Route) -> bool {
        let _ = route;
        false
    }

    /// How likely [`pick`](Self::pick) chooses each of `members` for the next request, from 0 to 1, for
    /// [`Balance::explain`](crate::Balance::explain). None, the default, where that can't be told.
    ///
    /// It is asked about the present loads and the endpoints that are available now. The balancer adds what it does around
    /// any policy: near endpoints first, and slow start.
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

/// The picker of the set before, for one that takes its place.
#[derive(Clone, Copy)]
pub struct Previous<'a> {
    picker: &'a dyn Picker,
    place: &'a dyn Fn(usize) -> usize,
}

impl<'a> Previous<'a> {
    /// `place` tells where the endpoint of an old index stands now, or the next one in order if it is gone.
    pub(crate) fn new(picker: &'a dyn Picker, place: &'a dyn Fn(usize) -> usize) -> Self {
        Self { picker, place }
    }

    /// The picker, if it is of this type.
    pub fn picker<K: Picker>(&self) -> Option<&'a K> {
        (self.picker as &dyn Any).downcast_ref()
    }

    /// The same for another picker of that set, such as one within the picker that this has.
    pub fn within(self, picker: &'a dyn Picker) -> Self {
        Self { picker, ..self }
    }

    /// Where the endpoint at this index of the set before stands now; if it is gone, the next one in order does.
    pub fn place(&self, index: usize) -> usize {
        (self.place)(index)
    }
}

/// What a picker reads of the requests that the endpoints have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Nothing,
    /// How many they are at a few endpoints; their counters say it.
    Few,
    /// How many they are at all, for which the endpoints' words are packed and count them again.
    All,
}

/// On cache lines of its own (processors fetch them in pairs): what every pick of every thread writes should not take from
/// the others what they only read.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);

/// Counts a request in at the chosen endpoint, or else, as when a flag has come up there since, at any that is available.
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

/// Any of the available endpoints, each as likely as the other or as its weight says, however few they are.
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
