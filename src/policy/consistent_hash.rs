//! Requests of one key go to one endpoint.
//!
//! Endpoints have points on a [ring](ring), by their names, and a key belongs to the next point. Further on along the
//! ring are its second choice, its third, and so on, so each key has its own order of preference. A pick goes along it
//! past endpoints that are out, that are new and don't have this key yet, or that have more than their share of the
//! requests.
//!
//! # Why a ring
//!
//! We chose it by `cargo bench --bench keyed`, with a million keys. Times are the fastest of four runs on a busy
//! machine.
//!
//! | | look-up with 3, 30, 1,000, 10,000 | to build 1,000 | memory of 1,000 | largest share of 10, 100, 1,000, to the mean | keys that move where one of 10, 100, 1,000 leaves, times n |
//! | --- | --- | --- | --- | --- | --- |
//! | this ring | 22, 26, 50, 117 ns | 32 ms, to update 5 ms | 4.4 MiB | 1.06, 1.14, 1.18 | 1.00, 0.98, 1.02 |
//! | ketama with 160 points (pingora's) | 24, 34, 80, 458 ns | 6 ms | 1.3 MiB | 1.09, 1.21, 1.26 | 1.00, 1.01, 1.01 |
//! | rendezvous | 9, 53, 1,660, 16,354 ns | 0.08 ms | 16 KiB | 1.00, 1.03, 1.11 | 1.00, 1.00, 1.03 |
//! | maglev | 5, 5, 6, 28 ns | 12 ms | 408 KiB | 1.01, 1.02, 1.09 | 1.22, 2.45, 6.79 |
//! | anchor | 26, 26, 28, 31 ns | 0.03 ms | 46 KiB | 1.03, 1.03, 1.09 | 1.01, 1.01, 1.01 |
//! | jump | 25, 44, 73, 88 ns | 0 | 8 KiB | 1.00, 1.02, 1.10 | 5.39, 50.5, 500 |
//!
//! Rendezvous hashing is the simplest, and exact with weights, but asks all endpoints: above some fifty it is slower.
//! Maglev moves keys between endpoints that stay. Anchor depends on the order in which endpoints came and went, so two
//! clients disagree. Jump depends on their numbers, so that only the last one may leave. Neither has weights. A ring
//! has them, and gives the order of preference for free.
//!
//! A pick that goes past endpoints costs more than a look-up, because each endpoint that it asks is elsewhere in
//! memory. If 1,000 endpoints have four requests each and may have five, a pick takes 0.3 to 2 µs; if all requests have
//! one key, it asks hundreds and takes longer.

mod order;
mod parts;
mod ring;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

pub(crate) use self::order::Passed;

use rand::Rng;

use self::ring::{Node, Ring};
use super::{AnyPicker, CachePadded, Previous, random};
use crate::{
    endpoint::Endpoint,
    member::Members,
    route::Route,
    stable_hash::{mix, stable_hash},
};

/// Mirrokni, Thorup and Zadimoghaddam's example; HAProxy's and Envoy's documentation name 1.25 to 1.5.
const LOAD_FACTOR: f64 = 1.25;

/// How many points a pick passes on the ring, for each endpoint of the set, before it asks all endpoints. If it has
/// found none by then, nearly all endpoints are out, and it would walk the whole ring.
const STEPS: usize = 4;

/// How many endpoints' requests are summed up for each pick, on average. In a larger set only some picks do the sum, in
/// proportion: one of 31 for 1,000 endpoints.
const COUNTED_BY_EACH: usize = 32;

/// Each request with a [key](Route::key) goes to the endpoint of that key.
///
/// A request without a key goes to any endpoint, as with [`Random`](crate::Random).
///
/// ```
/// use tower_headless::{Balance, ConsistentHash, Dns, Endpoint, Route};
/// # use tower::service_fn;
/// # async fn send(_: std::net::SocketAddr, request: String) -> Result<String, std::io::Error> { Ok(request) }
/// # async fn get() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///
/// let cache = Balance::builder(Dns::srv("_cache._tcp.cache-headless.default")?)
///     .policy(ConsistentHash::new())
///     .build(|endpoint: &Endpoint| {
///         let address = endpoint.address();
///         service_fn(move |request: String| send(address, request))
///     });
/// let response = cache.call_with("GET /users/42".to_owned(), Route::new().key("user-42")).await?;
/// # drop(response);
/// # Ok(())
/// # }
/// ```
///
/// With the HTTP client, set the key with `.key("user-42")`, or let the client find it (`ClientBuilder::key_from`).
///
/// - **Pods are known by [name](Endpoint::stable_name)**, and a name alone decides which keys a pod gets: clients that
///   don't know of each other agree, on any platform and with any version of this crate. When a StatefulSet's pod comes
///   back, it has its keys again, wherever it runs. The source must report names: SRV records do for a StatefulSet's
///   pods, and EndpointSlices do for all. A Deployment's pods have new names each time, and A records have none.
///   Endpoints of the same name count as one; the second gets what the first doesn't accept.
///   [`hash_key`](Self::hash_key) sets other names.
/// - **While an endpoint is out** (ejected, refusing, failing its checks or gone), each of its keys goes to the key's
///   own second choice, and comes back afterwards. No other key moves. The [trial](crate::OutlierDetection) of an
///   ejected endpoint is a request of its own keys. A retry that [avoids](Route::avoid) an endpoint, and a request that
///   [leaves one out](Route::leave_out), also go to the key's next choice.
/// - **When one of n endpoints joins or leaves**, only its own keys move: 1/n of all.
/// - **No endpoint drowns** in a hot key: it takes at most `⌈1.25 × (requests in flight + 1) × its share⌉` requests,
///   where its share is its part of the weights of all available endpoints. The excess goes to its keys' next choices
///   ([`load_factor`](Self::load_factor)). Under little load that is one request at a time: a second request of a key
///   at the same time goes elsewhere. Requests in flight are counted as by [`Members::load`], without those at
///   endpoints of weight zero. With up to 32 endpoints the sum is exact; with n > 32, a pick uses one that is n/32
///   picks old, on average.
/// - **Weights**: shares are in proportion to [`Endpoint::weight`]. When one changes, at most about twice as many keys move as
///   have to. An endpoint with a weight of zero gets keys when no other accepts any.
/// - **Slow start**: the keys of a [new endpoint](crate::BalanceBuilder::slow_start) move to it one by one, each once, and until
///   then stay where they were.
/// - **[Near and far](crate::guide::near_pods)** endpoints are two rings: clients in different zones have different pods for a
///   key. The same keys always spill first, so that more spill moves only those that it has to.
/// - **With a [`Subset`](crate::Subset)**, a key's pod is one of the client's own: clients with different subsets send one key to
///   different pods. If all clients have to agree, don't use a subset.
///
/// A key never causes an error: while no endpoint accepts its request, the request waits as any other does
/// ([ready timeout](crate::BalanceBuilder::ready_timeout)). A cancelled request makes room at once.
///
/// Shares of keys are nearly even: of 1,000,000 keys, the endpoint with the most has 1.06 times the mean among 10
/// endpoints, and 1.18 times the mean among 1,000. A ring takes 4.5 KiB for each endpoint, and is built in the
/// background: 5 ms for a change among 1,000.
#[derive(Clone)]
pub struct ConsistentHash {
    load_factor: Option<f64>,
    name: Option<Arc<Name>>,
}

type Name = dyn Fn(&Endpoint) -> String + Send + Sync;

impl ConsistentHash {
    /// The policy with a load factor of 1.25, over the endpoints' [stable names](Endpoint::stable_name).
    pub const fn new() -> Self {
        Self {
            load_factor: Some(LOAD_FACTOR),
            name: None,
        }
    }

    /// The most requests that an endpoint gets by keys, as a multiple of its share of the requests in flight; 1.25 by
    /// default, at least 1. `None` for no limit.
    ///
    /// The closer to 1, the more keys are away from home under load. While there are fewer requests in flight than
    /// endpoints, an endpoint takes one at a time: a second one of the same key goes to its second choice. (Mirrokni,
    /// Thorup, Zadimoghaddam: "Consistent Hashing with Bounded Loads", 2016.)
    pub fn load_factor(mut self, factor: impl Into<Option<f64>>) -> Self {
        self.load_factor = factor.into().map(|factor| factor.max(1.0));
        self
    }

    /// The name that an endpoint is hashed by, in place of its [stable name](Endpoint::stable_name). Must be the same
    /// in all clients.
    ///
    /// ```
    /// use tower_headless::ConsistentHash;
    ///
    /// // Two StatefulSets behind one Service: hostnames alone could be the same.
    /// let policy = ConsistentHash::new().hash_key(|endpoint| {
    ///     format!("{}/{}", endpoint.zone().unwrap_or_default(), endpoint.stable_name())
    /// });
    /// ```
    pub fn hash_key(mut self, name: impl Fn(&Endpoint) -> String + Send + Sync + 'static) -> Self {
        self.name = Some(Arc::new(name));
        self
    }

    /// Whether it reads the requests in flight.
    pub(super) fn is_bounded(&self) -> bool {
        self.load_factor.is_some()
    }

    fn name(&self, endpoint: &Endpoint) -> String {
        match &self.name {
            Some(name) => name(endpoint),
            None => endpoint.stable_name().into_owned(),
        }
    }
}

impl Default for ConsistentHash {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ConsistentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsistentHash")
            .field("load_factor", &self.load_factor)
            .finish_non_exhaustive()
    }
}

/// The ring of a set.
#[derive(Debug)]
pub(crate) struct Picker {
    ring: Ring,
    /// The endpoints, by index.
    nodes: Box<[Node]>,
    bound: Option<Bound>,
    unkeyed: random::Picker,
    /// Each endpoint's part of all keys, and in how many ranges; computed on demand, for `explain`.
    homes: OnceLock<Box<[(f64, usize)]>>,
}

impl Picker {
    /// A picker for these endpoints, which replaces `previous`.
    pub(super) fn new(
        policy: &ConsistentHash,
        members: &Members,
        previous: Option<Previous<'_>>,
    ) -> Self {
        let endpoints = members.endpoints();
        let names: Vec<_> = endpoints.iter().map(|it| policy.name(it)).collect();
        let node = |(index, name): (usize, &String)| Node {
            hash: stable_hash(name.as_bytes()),
            weight: members.weight(index),
        };
        let nodes: Box<[_]> = names.iter().enumerate().map(node).collect();
        // Of two with the same name, as while a pod is rescheduled, the one that doesn't terminate comes first.
        let mut order: Vec<_> = (0..nodes.len()).collect();
        order.sort_by_key(|&index| (&names[index], endpoints[index].is_terminating(), index));
        let before = previous.and_then(|previous| match previous.picker::<AnyPicker>()? {
            AnyPicker::ConsistentHash(before) => Some((&before.ring, &*before.nodes)),
            _ => None,
        });
        Self {
            ring: Ring::new(&nodes, &order, before),
            bound: policy.load_factor.map(|factor| Bound::new(factor, &nodes)),
            nodes,
            unkeyed: random::Picker::new(members.weights()),
            homes: OnceLock::new(),
        }
    }

    /// Chooses an endpoint, and counts one more request in.
    #[inline]
    pub(super) fn pick(
        &self,
        members: &Members,
        route: &Route,
        rng: &mut impl Rng,
    ) -> Option<usize> {
        match route.requested_key() {
            Some(key) => self.pick_key(key.stable_hash(), members, route, rng),
            None => self.unkeyed.pick(members, rng),
        }
    }

    /// The first endpoint in the order of the request's key that `which` allows; `None` without a key.
    pub(super) fn first(&self, route: &Route, which: impl Fn(usize) -> bool) -> Option<usize> {
        self.choose(route.requested_key()?.stable_hash(), which)
    }

    #[inline]
    fn pick_key(
        &self,
        key: u64,
        members: &Members,
        route: &Route,
        rng: &mut impl Rng,
    ) -> Option<usize> {
        let mut allowance = None;
        let mut has_room = |index: usize| {
            let Some(bound) = &self.bound else {
                return true;
            };
            let count = || *allowance.get_or_insert_with(|| bound.allowance(members, rng));
            self.has_room(index, members, count)
        };
        // Endpoints of weight zero aren't bounded; `pick_any` asks them when no other accepts the request.
        let chosen = self.choose(key, |index| {
            self.nodes[index].weight > 0
                && members.is_available(index)
                && !route.avoids(members.endpoint(index))
                && self.has_moved(key, members, index)
                && has_room(index)
        });
        chosen
            .filter(|&index| members.begin(index))
            .or_else(|| self.pick_any(key, members, route))
    }

    /// How many requests one unit of weight may have now. For `explain`; picks use [`Bound::allowance`].
    fn allowance(&self, members: &Members) -> f64 {
        let bound = self.bound.as_ref();
        bound.map_or(f64::INFINITY, |bound| bound.count(members))
    }

    /// Whether an endpoint may have one more request, if one unit of weight may have `allowance`.
    #[inline]
    fn has_room(&self, index: usize, members: &Members, allowance: impl FnOnce() -> f64) -> bool {
        let load = members.load_of(index);
        // `load < x` is `load + 1 <= ⌈x⌉`: with one more request it is within the bound, rounded up.
        load == 0 || f64::from(load) < allowance() * f64::from(self.nodes[index].weight)
    }

    /// The first in the key's order that accepts the request, if none has room, or the chosen one has just become
    /// unavailable.
    #[cold]
    fn pick_any(&self, key: u64, members: &Members, route: &Route) -> Option<usize> {
        let accepts =
            |index: usize| members.is_available(index) && !route.avoids(members.endpoint(index));
        // Ends, because in each turn but the last an endpoint became unavailable.
        while (0..members.len()).any(accepts) {
            let chosen = self.choose(key, accepts)?;
            if members.begin(chosen) {
                return Some(chosen);
            }
        }
        None
    }

    /// The first endpoint in a key's order that `which` allows.
    #[inline]
    fn choose(&self, key: u64, mut which: impl FnMut(usize) -> bool) -> Option<usize> {
        let mut order = self.ring.onwards(key).take(STEPS * self.nodes.len());
        order
            .find(|&index| which(index))
            .or_else(|| self.choose_of_all(key, which))
    }

    /// Of all endpoints that `which` allows, the one with the shortest time, a hash of key and endpoint (weighted
    /// rendezvous hashing; Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005).
    #[cold]
    fn choose_of_all(&self, key: u64, mut which: impl FnMut(usize) -> bool) -> Option<usize> {
        let allowed = (0..self.nodes.len()).filter(|&index| which(index));
        allowed.min_by_key(|&index| self.time_in_race(key, index))
    }

    /// The endpoint's time in the race for a key, which the shortest wins. Endpoints of weight zero come last.
    fn time_in_race(&self, key: u64, index: usize) -> (bool, u64) {
        let Node { hash, weight } = self.nodes[index];
        let time = time(mix(!key, hash)) / f64::from(weight.max(1));
        // The bits of positive numbers are in the numbers' order.
        (weight == 0, time.to_bits())
    }

    /// Whether a key has moved to its endpoint: the keys of a new endpoint move one after another.
    #[inline]
    fn has_moved(&self, key: u64, members: &Members, index: usize) -> bool {
        let share = members.slow_start_share(index);
        share >= 1.0 || fraction(mix(key, self.nodes[index].hash)) < share
    }
}

/// The most requests that endpoints take by keys.
#[derive(Debug)]
struct Bound {
    factor: f64,
    /// How many requests one unit of weight may have, as the bits of an `f64`; of some picks ago, if the set is large.
    allowance: CachePadded<AtomicU64>,
    /// The probability that a pick counts anew, in units of 2⁻³².
    counts: u64,
    /// The sum of all weights.
    weight: u64,
}

impl Bound {
    fn new(factor: f64, nodes: &[Node]) -> Self {
        let of_each = COUNTED_BY_EACH.min(nodes.len()) as u64;
        Self {
            factor,
            allowance: CachePadded(AtomicU64::new(0)),
            counts: (of_each << 32) / (nodes.len() as u64).max(1),
            weight: nodes.iter().map(|node| u64::from(node.weight)).sum(),
        }
    }

    /// How many requests one unit of weight may have, with one more request than there are now.
    fn allowance(&self, members: &Members, rng: &mut impl Rng) -> f64 {
        let last = f64::from_bits(self.allowance.0.load(Relaxed));
        if last > 0.0 && u64::from(rng.next_u32()) >= self.counts {
            return last;
        }
        let allowance = self.count(members);
        self.allowance.0.store(allowance.to_bits(), Relaxed);
        allowance
    }

    /// [`allowance`](Self::allowance), counted now.
    fn count(&self, members: &Members) -> f64 {
        let (requests, available) = members.available_load();
        // Requests at endpoints without weight were for them by name, or no other took them. Saturating, because the
        // two sums are read at different times.
        let requests = requests.saturating_sub(members.weightless_load());
        let weight = if available == members.len() {
            self.weight
        } else {
            members.available_weight()
        };
        self.factor * (requests + 1) as f64 / weight.max(1) as f64
    }
}

/// A hash as a number from 0 to 1, 1 excluded.
fn fraction(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// An exponentially distributed time, from a hash: −ln of a fraction, to within a millionth. Only by arithmetic that
/// gives the same result on every platform; std's logarithm doesn't.
fn time(hash: u64) -> f64 {
    let zeros = hash.leading_zeros().min(63);
    // Between 1 and 2.
    let mantissa = 1.0 + fraction(hash << zeros << 1);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = 1.0 / 9.0 + square / 11.0;
    let series = 1.0 / 7.0 + square * series;
    let series = 1.0 / 5.0 + square * series;
    let series = 1.0 / 3.0 + square * series;
    let ln = 2.0 * s * (1.0 + square * series);
    f64::from(zeros + 1) * std::f64::consts::LN_2 - ln
}
