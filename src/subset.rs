//! Which part of a large set a client uses: its subset.
//!
//! A client puts the pods in its own order ([`order`]) and uses the first of them, as many as it wants ([`extent`]).
//! The order decides which pod comes next when one leaves, and which replaces one that doesn't accept requests. Pure,
//! except for the source of the client's peers, which the balancer's background task polls.

mod extent;
mod order;
mod peers;

pub(crate) use extent::{Extent, Fitting};
pub(crate) use order::{Client, order};
pub(crate) use peers::rank;

use std::{fmt, sync::Arc};

use crate::{discovery::Discovery, stable_hash::stable_hash, sync::Mutex};

/// How many of the pods a client uses, and which. Off by default: a client uses all of them.
///
/// For services with so many clients and pods that not every client should have connections to every pod.
///
/// ```
/// # use tower_headless::{Balance, Endpoint, StaticEndpoints, Subset};
/// # let discovery = StaticEndpoints::new([]);
/// let balance = Balance::builder(discovery)
///     .subset(Subset::of(20))
///     .build(|endpoint: &Endpoint| endpoint.address());
/// ```
///
/// # Which one when
///
/// | | it needs | clients of each pod, 1,000 clients × 300 pods × 20 | choose it when |
/// | --- | --- | --- | --- |
/// | no subset | nothing | 1,000 | there are up to some 100,000 connections in all: the best balance there is |
/// | [`of`](Self::of) | nothing | 66.7 on average, about 40 to 93 | clients are many, or not the pods of one Service |
/// | [`of`](Self::of) with [`peers`](Self::peers) | a headless Service of the clients | 66 or 67 | pods have to be used evenly |
///
/// Connections fall from 300,000 to 20,000 either way. The random way is that of [gRFC A68], by rendezvous hashing. How
/// evenly it uses pods is a matter of luck, as above, and gets worse with fewer clients for each pod: with 100 clients
/// × 300 pods × 20, pods have from none to 19 clients. With peers, two pods' numbers of clients never differ by more
/// than one.
///
/// | what changes (1,000 × 300 × 20) | entries that a client loses, at random | with peers |
/// | --- | --- | --- |
/// | a pod is replaced | 0.13 on average, 1 at most | 0.4, 2 at most |
/// | a pod is added | 0.07, 1 at most | 0.4, 2 at most |
/// | a client is added or replaced | none | 0.1, 1 at most |
///
/// With peers, an added client moves the others by at most pods ÷ clients entries: by more than one if there are more
/// pods than clients, and by all if there are so many pods that some have no client anyway.
///
/// # What it does
///
/// - **The subset is the balancer's set**: [`Balance::endpoints`](crate::Balance::endpoints), `watch`, the policy,
///   outlier detection and health checks don't know of other pods. If discovery finds no more pods than the subset has
///   room for, it is all of them. A size of zero counts as one.
/// - **Pods go by their [stable names](crate::Endpoint::stable_name)**: if the source reports names, a StatefulSet's
///   pod comes back to its clients even with another address. The order is the same in every process and version of
///   this crate.
/// - **Substitutes**: when fewer than half of the subset accept requests, the next pods in the client's order join it,
///   as many as don't accept. If those refuse, the next ones join, down to the last. They leave when three quarters of
///   the subset accept again; those that haven't been needed for 10 s leave earlier. gRFC A68 has no substitutes, but a
///   request should not fail while most of the service is well. Three kinds of pods don't count as accepting: ejected
///   ones, ones that fail their checks (both even while a panic uses them), and ones that would be ejected if
///   [`max_ejection_ratio`](crate::OutlierDetection::max_ejection_ratio) allowed it, because with substitutes it will.
///   While the whole service is down, each client tries all of it, as it does without a subset.
/// - **Terminating pods**, and those of weight zero, are taken only if there are no others. Other weights don't matter
///   for which pods are chosen, only within the subset.
/// - **Near pods**: with [`zone`](crate::BalanceBuilder::zone), `prefer_zone` and the like, the subset consists of near
///   pods, if there are enough of them for their [fair share](crate::guide::near_pods). If they are fewer, they have
///   the same share of the subset as of the requests, and the rest of it comes from all other pods. If all near pods
///   together don't fill the subset, others do; those get requests if the near ones don't accept them. Of the
///   substitutes, every second one is far. With peers whose zones are known, as from EndpointSlices, each zone's
///   clients share out its pods evenly among themselves. If the zones are unknown, as with DNS, near pods are used as
///   evenly as at random.
/// - **A pod that is asked for** ([`Balance::pod`](crate::Balance::pod), [`Route::pod`](crate::Route::pod)), by its
///   name, number or address, is reached even if it isn't in the subset. It joins the set with weight zero, for as long
///   as the pod exists. It gets the requests for it, and others only if no pod with a weight accepts them. Until a
///   request asks for it, [`Balance::endpoint`](crate::Balance::endpoint) doesn't know of it. Whether a
///   [number](crate::PodId::ordinal) is ambiguous depends on the pods of the set only.
/// - **A pod that is left out** ([`Balance::others`](crate::Balance::others)) may be in the subset, which then has one
///   pod fewer for these requests. If such a request finds no other pod, the left-out pod counts as not accepting,
///   which may bring in substitutes, until ten minutes after the last such request.
/// - **Requests that [never wait](crate::BalanceBuilder::fail_fast)** don't wait for pods. But before one fails, it
///   waits once for the background task, which takes in the pods that the request may go to.
/// - **A [broadcast](crate::Balance::broadcast)** reaches all pods. Those outside of the subset join the set with weight zero
///   while it runs, and leave afterwards: so for that time there are connections to all of them.
/// - **With [`ConsistentHash`](crate::ConsistentHash)**, clients with different subsets send one key to different pods,
///   because the pod of a key is one of the client's own. If all clients have to agree, don't use a subset.
///
/// [gRFC A68]: https://github.com/grpc/proposal/blob/master/A68-random-subsetting.md
#[derive(Clone)]
pub struct Subset {
    size: usize,
    seed: Option<u64>,
    peers: Option<Peers>,
}

/// The clients among which the pods are shared out.
#[derive(Clone)]
struct Peers {
    me: Box<str>,
    source: Arc<dyn Fn() -> Box<dyn Discovery> + Send + Sync>,
}

impl Subset {
    /// A subset of this many pods, chosen at random. Each balancer draws anew, unless it has a [seed](Self::seed).
    pub const fn of(pods: usize) -> Self {
        Self {
            size: if pods == 0 { 1 } else { pods },
            seed: None,
            peers: None,
        }
    }

    /// Chooses the pods by this number, so that the choice is the same after a restart. Each client should have another
    /// number.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Chooses the pods by this text, such as the name of a StatefulSet's pod, so that the choice is the same after a
    /// restart.
    ///
    /// Each client should have another text. Empty: not known.
    pub fn client_id(mut self, id: impl AsRef<str>) -> Self {
        let id = id.as_ref();
        self.seed = (!id.is_empty()).then(|| stable_hash(id.as_bytes()));
        self
    }

    /// Shares out the pods evenly among the clients that `source` finds.
    ///
    /// `me` says which of them this client is: its IP address, pod name or hostname. Empty: not known.
    ///
    /// Give the clients a headless Service of their own, and each of them its address from the downward API:
    ///
    /// ```yaml
    /// env:
    ///   - name: POD_IP
    ///     valueFrom: { fieldRef: { fieldPath: status.podIP } }
    /// ```
    ///
    /// ```
    /// # use tower_headless::{Dns, Subset};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let me = std::env::var("POD_IP").unwrap_or_default();
    /// let subset = Subset::of(20).peers(Dns::new("checkout-headless.shop:80".parse()?), me);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// An address always works. DNS knows only addresses or, with [`Dns::srv`](crate::Dns::srv), hostnames. The port
    /// doesn't matter. Each client looks up its peers as often as the pods.
    ///
    /// Peers are put in an order, and the pods on a ring. The client's place in the order decides where on the ring its
    /// subset begins. Clients that see the same peers and pods agree on which client uses which pods. While they don't,
    /// as for some seconds after a change, a few pods have a few clients more or less.
    ///
    /// While the client isn't among its peers, because it isn't ready yet or its peers can't be found, its place on the
    /// ring is random, by `me`. Once it has been among them, the last answer that had it counts. So no request fails if
    /// this source fails. [`seed`](Self::seed) counts only if `me` is empty.
    pub fn peers(mut self, source: impl Discovery + Clone, me: impl Into<Box<str>>) -> Self {
        let source = Mutex::new(source);
        let source = move || source.lock().clone();
        self.peers = Some(Peers {
            me: me.into(),
            source: Arc::new(move || Box::new(source())),
        });
        self
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The client's identity while nothing is known of its peers; `draw` draws a seed if none is set.
    pub(crate) fn client(&self, draw: impl FnOnce() -> u64) -> Client {
        match &self.peers {
            Some(peers) if !peers.me.is_empty() => Client::Apart(stable_hash(peers.me.as_bytes())),
            Some(_) => Client::Apart(self.seed.unwrap_or_else(draw)),
            None => Client::Random(self.seed.unwrap_or_else(draw)),
        }
    }

    /// The source of the client's peers, and which of them the client is.
    pub(crate) fn into_peers(self) -> Option<(Box<dyn Discovery>, Box<str>)> {
        let peers = self.peers?;
        Some(((peers.source)(), peers.me))
    }
}

impl fmt::Debug for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subset")
            .field("size", &self.size)
            .field("seed", &self.seed)
            .field("me", &self.peers.as_ref().map(|peers| &peers.me))
            .finish_non_exhaustive()
    }
}
