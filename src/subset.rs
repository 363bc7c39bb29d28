//! Which part of a large set a client uses: its subset.
//!
//! A client puts the pods in an order of its own ([`order`]) and uses the first of it, as many as it wants ([`extent`]): the
//! order says who comes next when pods go, and who takes the place of those that don't accept requests. Pure, but for the
//! source of the client's peers, which the balancer's background task polls.

mod extent;
mod order;
mod peers;

pub(crate) use extent::{Extent, Fitting};
pub(crate) use order::{Client, order};
pub(crate) use peers::rank;

use std::{fmt, sync::Arc};

use crate::{discovery::Discovery, stable_hash::stable_hash, sync::Mutex};

/// How many of the pods a client uses, and which: for services with so many clients and pods that not every client should
/// have connections to every pod. Off by default: a client uses all of them.
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
/// | | it takes | clients a pod, 1,000 clients × 300 pods × 20 | choose it when |
/// | --- | --- | --- | --- |
/// | no subset | nothing | 1,000 each | up to some 100,000 connections in all: the best balance there is |
/// | [`of`](Self::of) | nothing | 66.7 on average, about 40 to 93 | clients are many, or not the pods of one Service |
/// | [`of`](Self::of) with [`peers`](Self::peers) | a headless Service of the clients | 66 or 67 | pods have to be used evenly |
///
/// Connections fall from 300,000 to 20,000 either way. The random way is [gRFC A68]'s, by rendezvous hashing: how evenly
/// it uses pods is a matter of luck, as above, and the fewer the clients of each pod the worse: with 100 clients × 300 pods ×
/// 20, from none to 19 clients a pod. With peers, two pods' numbers of clients never differ by more than one.
///
/// | what changes (1,000 × 300 × 20) | entries a client loses, at random | with peers |
/// | --- | --- | --- |
/// | a pod is replaced | 0.13 on average, 1 at most | 0.4, 2 at most |
/// | a pod more | 0.07, 1 at most | 0.4, 2 at most |
/// | a client more, or one replaced | none | 0.1, 1 at most |
///
/// With peers, a client more moves the others by pods ÷ clients entries at most: more than one if the pods are more than the
/// clients, and all of them if there are pods that no client uses anyway.
///
/// # What it does
///
/// - **The subset is the balancer's set**: [`Balance::endpoints`](crate::Balance::endpoints), `watch`, the policy, outlier
///   detection and health checks know of nothing else. Where discovery finds no more pods than the subset has room for, it is
///   all of them. Zero is taken as one.
/// - **Pods go by their [stable names](crate::Endpoint::stable_name)**: a StatefulSet's pods come back to their clients under
///   another address, where the source tells names. The order is the same in each process and version of this crate.
/// - **Substitutes**: when fewer than half of the subset accept requests, the next pods in the client's order join it, as many as
///   don't accept, and if those refuse, the next ones, to the last. They leave when three quarters of the subset accept again,
///   and those that haven't been needed for 10 s leave before.
///   gRFC A68 knows none; but a request should not fail while most of the service is well. A pod that is ejected,
///   or fails its checks, doesn't accept, also while a panic has it used, nor does one that would be ejected if it weren't one too
///   many ([`max_ejection_ratio`](crate::OutlierDetection::max_ejection_ratio)): with substitutes there, it isn't. While all of the service is down, each client tries all of it, as it does without
///   a subset.
/// - **Terminating pods**, and those of weight zero, are taken only if there are no others. Other weights don't count in the
///   choice, and do in the subset.
/// - **Near pods**: with [`zone`](crate::BalanceBuilder::zone), `prefer_zone` and the like, the subset is of the near pods, if
///   those have their [fair part](crate::guide::near_pods) of all. If they are fewer, the share of it is near that they get of the
///   requests, and the rest is of all the others. If all near pods don't fill it, others do, and get requests if the near
///   ones don't accept them. Of the substitutes, every other one is far. With peers whose zones are known, as
///   EndpointSlices tell them, each zone's clients share out its pods evenly among themselves; where they aren't, as with DNS,
///   near pods are used as evenly as at random.
/// - **A pod that is asked for** ([`Balance::pod`](crate::Balance::pod), [`Route::pod`](crate::Route::pod)), by its name, number or
///   address, is reached though it isn't in the subset. It joins the set with weight zero, for as long as there is such a pod: it
///   gets the requests for it, and others if no pod with a weight accepts them. Until one has asked,
///   [`Balance::endpoint`](crate::Balance::endpoint) doesn't know of it. Whether a [number](crate::PodId::ordinal) is ambiguous
///   is judged by the pods of the set.
/// - **A pod that is left out** ([`Balance::others`](crate::Balance::others)) may be one of the subset, which then has one fewer
///   for these requests. Once one of them has found no other pod, the one that is left out doesn't count as accepting requests,
///   and there are substitutes if there would be for that; until ten minutes after the last such request.
/// - **Requests that [never wait](crate::BalanceBuilder::fail_fast)** don't wait for pods. But before one fails, it has the
///   background task take in the pods that it may: for a turn of that task.
/// - **A [broadcast](crate::Balance::broadcast)** reaches all pods. Those outside of the subset join the set with weight zero
///   while it runs, and leave after: there are connections to all of them for that time.
/// - **With [`ConsistentHash`](crate::ConsistentHash)**, clients with different subsets send one key to different pods: the pod of
///   a key is one of the client's own. Where all clients have to agree, have no subset.
///
/// [gRFC A68]: https://github.com/grpc/proposal/blob/master/A68-random-subsetting.md
#[derive(Clone)]
pub struct Subset {
    size: usize,
    seed: Option<u64>,
    peers: Option<Peers>,
}

/// The clients that the pods are shared out among.
#[derive(Clone)]
struct Peers {
    me: Box<str>,
    source: Arc<dyn Fn() -> Box<dyn Discovery> + Send + Sync>,
}

impl Subset {
    /// So many pods, chosen at random. Each balancer draws anew, unless it is told [how](Self::seed).
    pub const fn of(pods: usize) -> Self {
        Self {
            size: if pods == 0 { 1 } else { pods },
            seed: None,
            peers: None,
        }
    }

    /// The choice that belongs to this number: the same after a restart. Each client should have another one.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The choice that belongs to this text, such as the name of a StatefulSet's pod: the same after a restart. Each client
    /// should have another one. Empty: not known.
    pub fn client_id(mut self, id: impl AsRef<str>) -> Self {
        let id = id.as_ref();
        self.seed = (!id.is_empty()).then(|| stable_hash(id.as_bytes()));
        self
    }

    /// Shares the pods out evenly among these clients: `source` finds them, and this client is the one of them that `me` names,
    /// by the IP address, the pod name or the hostname. Empty: not known.
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
    /// DNS knows addresses only, or with [`Dns::srv`](crate::Dns::srv) hostnames: an address is right in any case. The port
    /// doesn't matter. Each client asks for its peers as often as it asks for the pods.
    ///
    /// Peers are put in an order, and the pods on a ring; the client's place in the order is where on the ring its subset
    /// begins. Clients that see the same peers and pods agree on who uses which; while they don't, as for some seconds after a
    /// change, a few pods have a few clients more or less.
    ///
    /// As long as the client isn't among its peers, because it isn't ready yet or because they can't be found, its place on the
    /// ring is a random one, by `me`. Once it has been, the last answer that it was in counts. So a source that fails fails no
    /// request. [`seed`](Self::seed) counts only
    /// if `me` is empty.
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

    /// Who the client is as long as nothing is known of its peers; `draw` draws a seed, should there be none.
    pub(crate) fn client(&self, draw: impl FnOnce() -> u64) -> Client {
        match &self.peers {
            Some(peers) if !peers.me.is_empty() => Client::Apart(stable_hash(peers.me.as_bytes())),
            Some(_) => Client::Apart(self.seed.unwrap_or_else(draw)),
            None => Client::Random(self.seed.unwrap_or_else(draw)),
        }
    }

    /// What finds the client's peers, and which of them it is.
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
