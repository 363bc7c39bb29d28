//! One pod, as discovery names it.

mod counted;

pub(crate) use counted::Counted;

use std::{
    borrow::Cow,
    fmt,
    net::{AddrParseError, SocketAddr},
    str::FromStr,
    sync::Arc,
};

/// One pod behind the service: where it is, and what is known of it.
///
/// Two endpoints are the same pod when their addresses are equal, unless both have hostnames, pod names or pod UIDs and
/// those differ: then the address has been given to another pod. A pod that stays in the set from one answer to the next
/// keeps its service, its connections and its counters, whatever else is learnt of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    address: SocketAddr,
    hostname: Option<Arc<str>>,
    /// The hostname is true only as long as each answer says so.
    is_leased: bool,
    /// What DNS seldom tells; shared, because endpoints are cloned often.
    details: Option<Arc<Details>>,
}

/// What may be known beside the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Details {
    pod_name: Option<Box<str>>,
    pod_uid: Option<Box<str>>,
    node: Option<Box<str>>,
    zone: Option<Box<str>>,
    zone_hints: Vec<Box<str>>,
    node_hints: Vec<Box<str>>,
    is_terminating: bool,
    /// 1 if none.
    weight: Option<u32>,
}

impl Endpoint {
    /// The endpoint at `address`.
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            hostname: None,
            is_leased: false,
            details: None,
        }
    }

    /// The same endpoint with the hostname of its pod.
    pub fn with_hostname(mut self, hostname: impl Into<Arc<str>>) -> Self {
        self.hostname = Some(hostname.into());
        self.is_leased = false;
        self
    }

    /// Gives it a hostname that is true only as long as each answer says so: what doesn't, takes it away.
    #[cfg(any(feature = "dns", test))]
    pub(crate) fn lease_hostname(&mut self, hostname: Arc<str>) {
        self.hostname = Some(hostname);
        self.is_leased = true;
    }

    /// The same endpoint with the name of its pod.
    pub fn with_pod_name(self, name: impl Into<Box<str>>) -> Self {
        self.with(|details| details.pod_name = Some(name.into()))
    }

    /// The same endpoint with the UID of its pod.
    pub fn with_pod_uid(self, uid: impl Into<Box<str>>) -> Self {
        self.with(|details| details.pod_uid = Some(uid.into()))
    }

    /// The same endpoint with the name of the node that its pod runs on.
    pub fn with_node(self, node: impl Into<Box<str>>) -> Self {
        self.with(|details| details.node = Some(node.into()))
    }

    /// The same endpoint with the zone that its node stands in.
    pub fn with_zone(self, zone: impl Into<Box<str>>) -> Self {
        self.with(|details| details.zone = Some(zone.into()))
    }

    /// The same endpoint with the zones that it is meant to serve.
    pub fn with_zone_hints<Z: Into<Box<str>>>(self, zones: impl IntoIterator<Item = Z>) -> Self {
        let zones = zones.into_iter().map(Into::into).collect();
        self.with(|details| details.zone_hints = zones)
    }

    /// The same endpoint with the nodes that it is meant to serve.
    pub fn with_node_hints<N: Into<Box<str>>>(self, nodes: impl IntoIterator<Item = N>) -> Self {
        let nodes = nodes.into_iter().map(Into::into).collect();
        self.with(|details| details.node_hints = nodes)
    }

    /// The same endpoint, terminating or not.
    pub fn with_terminating(self, is_terminating: bool) -> Self {
        self.with(|details| details.is_terminating = is_terminating)
    }

    /// The same endpoint with a [weight](Self::weight).
    pub fn with_weight(self, weight: u32) -> Self {
        if weight == self.weight() {
            return self;
        }
        self.with(|details| details.weight = (weight != 1).then_some(weight))
    }

    fn with(mut self, change: impl FnOnce(&mut Details)) -> Self {
        change(Arc::make_mut(self.details.get_or_insert_default()));
        self
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The pod's hostname where it has one of its own, as a StatefulSet's pods have: `web-0`.
    ///
    /// SRV records tell it ([`Dns::srv`](crate::Dns::srv)). A and AAAA records don't, but pods that requests ask for by name are
    /// [looked up](crate::Dns#pods-own-names).
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }

    /// The name of the pod, where the source tells it, as EndpointSlices do.
    pub fn pod_name(&self) -> Option<&str> {
        self.details()?.pod_name.as_deref()
    }

    /// What the pod goes by over its lives: its hostname, else its own name, else its address with the port.
    ///
    /// A StatefulSet's pod is made anew under the same hostname and name, at another address. Other pods get another name each
    /// time. A [`Subset`](crate::Subset) chooses pods by it, and [`ConsistentHash`](crate::ConsistentHash) finds the pods of keys.
    ///
    /// A hostname that [`Dns`](crate::Dns#pods-own-names) has looked up because requests ask for it doesn't count: it is there
    /// while they ask, and other clients don't know it.
    pub fn stable_name(&self) -> Cow<'_, str> {
        let hostname = self.hostname().filter(|_| !self.is_leased);
        match hostname.or(self.pod_name()) {
            Some(name) => name.into(),
            None => self.address.to_string().into(),
        }
    }

    /// The UID of the pod, where the source tells it: a pod that is made anew has its predecessor's name, but not its UID.
    pub fn pod_uid(&self) -> Option<&str> {
        self.details()?.pod_uid.as_deref()
    }

    /// The node that the pod runs on, where the source tells it.
    pub fn node(&self) -> Option<&str> {
        self.details()?.node.as_deref()
    }

    /// The zone that the pod's node stands in (`topology.kubernetes.io/zone`), where the source tells it.
    pub fn zone(&self) -> Option<&str> {
        self.details()?.zone.as_deref()
    }

    /// The zones whose clients the pod is meant to serve, as the control plane has hinted (`hints.forZones`).
    pub fn zone_hints(&self) -> impl Iterator<Item = &str> {
        let hints = self.details().map(|details| &*details.zone_hints);
        hints.unwrap_or_default().iter().map(|zone| &**zone)
    }

    /// The nodes whose clients the pod is meant to serve, as the control plane has hinted (`hints.forNodes`).
    pub fn node_hints(&self) -> impl Iterator<Item = &str> {
        let hints = self.details().map(|details| &*details.node_hints);
        hints.unwrap_or_default().iter().map(|node| &**node)
    }

    /// Whether the pod is known to be on its way out.
    pub fn is_terminating(&self) -> bool {
        self.details().is_some_and(|details| details.is_terminating)
    }

    /// How much it is to get beside the others: with a weight of 3, three times as much as one with 1. 1 if nobody has said.
    ///
    /// Only the weights' proportion counts, and where all are equal they count for nothing. Zero: it gets requests when no
    /// endpoint with a weight accepts any. What a weight comes to is the policy's matter: [`RoundRobin`](crate::RoundRobin) and
    /// [`Random`](crate::Random) share out requests in proportion, [`ConsistentHash`](crate::ConsistentHash) keys; the others do
    /// so with requests in flight.
    ///
    /// SRV records tell weights ([`Dns::srv`](crate::Dns::srv)), and any [`Discovery`](crate::Discovery) may. A weight is as
    /// the last answer has it.
    pub fn weight(&self) -> u32 {
        self.details().and_then(|it| it.weight).unwrap_or(1)
    }

    fn details(&self) -> Option<&Details> {
        self.details.as_deref()
    }

    pub(crate) fn shared_hostname(&self) -> Option<Arc<str>> {
        self.hostname.clone()
    }

    pub(crate) fn forget_hostname(&mut self) {
        self.hostname = None;
    }

    /// The order in which a set is kept, in which no two pods are equal.
    pub(crate) fn identity(&self) -> SocketAddr {
        self.address
    }

    /// What the pod is called: its hostname, else its own name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.hostname().or(self.pod_name())
    }

    /// Whether it is the pod of this name: its hostname, or its own.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.hostname() == Some(name) || self.pod_name() == Some(name)
    }

    /// Whether both may be the same pod: what one side doesn't know is no difference.
    pub(crate) fn is_same_pod(&self, other: &Self) -> bool {
        fn agree(ours: Option<&str>, theirs: Option<&str>) -> bool {
            ours.is_none() || theirs.is_none() || ours == theirs
        }
        self.address == other.address
            && agree(self.hostname(), other.hostname())
            && agree(self.pod_name(), other.pod_name())
            && agree(self.pod_uid(), other.pod_uid())
    }
}

impl Endpoint {
    /// Fills in what is known of the same pod from before: where it runs and what it is called stays true when the next
    /// answer doesn't say so, as DNS doesn't. Hints, its weight, and whether it is
    /// terminating, are as the last answer has them.
    pub(crate) fn recall(&mut self, older: &Self) {
        if older.hostname.is_some() && !older.is_leased {
            self.hostname.clone_from(&older.hostname);
            self.is_leased = false;
        }
        let Some(older) = &older.details else { return };
        if self.details.is_none() && older.is_lasting() {
            self.details = Some(older.clone());
            return;
        }
        let details = Arc::make_mut(self.details.get_or_insert_default());
        let recall = |name: &mut Option<Box<str>>, older: &Option<Box<str>>| {
            *name = name.take().or_else(|| older.clone());
        };
        recall(&mut details.pod_name, &older.pod_name);
        recall(&mut details.pod_uid, &older.pod_uid);
        recall(&mut details.node, &older.node);
        recall(&mut details.zone, &older.zone);
    }
}

impl Details {
    /// Whether all of it stays true for as long as the pod lives.
    fn is_lasting(&self) -> bool {
        self.zone_hints.is_empty()
            && self.node_hints.is_empty()
            && !self.is_terminating
            && self.weight.is_none()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

/// An address: `10.244.1.7:80`.
impl FromStr for Endpoint {
    type Err = AddrParseError;

    fn from_str(address: &str) -> Result<Self, AddrParseError> {
        address.parse().map(Self::new)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.address),
            None => self.address.fmt(f),
        }
    }
}
