//! Which endpoints are near the client.
//!
//! Kubernetes' control plane hints at it: with `spec.trafficDistribution: PreferSameZone`, and with the older annotation
//! for topology aware routing, each endpoint of an EndpointSlice has the zones whose clients it is meant for
//! (`hints.forZones`), with `PreferSameNode` the nodes as well (`hints.forNodes`). Hints are taken as kube-proxy takes them:
//! all or none, for an endpoint without any says that the slices are being rewritten, and none where no endpoint is meant
//! for this client. Where there are none, the zones or nodes that the pods are in may serve instead, by choice.

mod split;

pub(crate) use split::{Before, LocalitySplit};

use std::collections::HashSet;

use crate::endpoint::Endpoint;

/// Where the client is, and what to make of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalityPreference {
    zone: Place,
    node: Place,
}

#[derive(Clone, Debug, Default)]
struct Place {
    /// Empty if not known.
    name: Box<str>,
    /// Whether the endpoints there are near if there are no hints.
    without_hints: bool,
}

/// The endpoints that are near, one of them at least.
#[derive(Debug)]
pub(crate) struct Nearest {
    /// Of each endpoint, whether it is one of them.
    pub(crate) is_near: Box<[bool]>,
    /// How many zones, or nodes, the endpoints are for. One of them is the client's.
    pub(crate) places: usize,
}

impl LocalityPreference {
    pub(crate) fn zone(&mut self, name: impl Into<Box<str>>) {
        self.zone.name = name.into();
    }

    pub(crate) fn node(&mut self, name: impl Into<Box<str>>) {
        self.node.name = name.into();
    }

    pub(crate) fn prefer_zone(&mut self, name: impl Into<Box<str>>) {
        self.zone = Place::preferred(name);
    }

    pub(crate) fn prefer_node(&mut self, name: impl Into<Box<str>>) {
        self.node = Place::preferred(name);
    }

    /// The near ones of `endpoints`; none if nothing tells which they are, or none is.
    pub(crate) fn nearest(&self, endpoints: &[Endpoint]) -> Option<Nearest> {
        let (zone, node) = (&self.zone, &self.node);
        None.or_else(|| node.hinted(endpoints, |endpoint| endpoint.node_hints()))
            .or_else(|| zone.hinted(endpoints, |endpoint| endpoint.zone_hints()))
            .or_else(|| node.preferred_among(endpoints, Endpoint::node))
            .or_else(|| zone.preferred_among(endpoints, Endpoint::zone))
    }
}

impl Place {
    fn preferred(name: impl Into<Box<str>>) -> Self {
        Self {
            name: name.into(),
            without_hints: true,
        }
    }

    /// Those that are hinted to be for this place, if all have hints.
    fn hinted<'a, I: Iterator<Item = &'a str>>(
        &self,
        endpoints: &'a [Endpoint],
        hints: impl Fn(&'a Endpoint) -> I,
    ) -> Option<Nearest> {
        let has_hints = |endpoint| hints(endpoint).next().is_some();
        let all = !self.name.is_empty() && endpoints.iter().all(has_hints);
        all.then(|| self.among(endpoints, hints))?
    }

    /// Those in this place, if that is enough.
    fn preferred_among<'a>(
        &self,
        endpoints: &'a [Endpoint],
        place: impl Fn(&'a Endpoint) -> Option<&'a str>,
    ) -> Option<Nearest> {
        let wanted = self.without_hints && !self.name.is_empty();
        wanted.then(|| self.among(endpoints, |endpoint| place(endpoint).into_iter()))?
    }

    fn among<'a, I: Iterator<Item = &'a str>>(
        &self,
        endpoints: &'a [Endpoint],
        places: impl Fn(&'a Endpoint) -> I,
    ) -> Option<Nearest> {
        let is_here = |endpoint| places(endpoint).any(|place| *place == *self.name);
        let is_near: Box<[bool]> = endpoints.iter().map(is_here).collect();
        let any = is_near.contains(&true);
        any.then(|| Nearest {
            is_near,
            places: endpoints
                .iter()
                .flat_map(places)
                .collect::<HashSet<_>>()
                .len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, host], 80).into())
    }

    fn hinted(host: u8, zone: &str, node: &str) -> Endpoint {
        endpoint(host)
            .with_zone_hints([zone])
            .with_node_hints([node])
    }

    fn near(
        change: impl Fn(&mut LocalityPreference),
        endpoints: &[Endpoint],
    ) -> Option<(Vec<bool>, usize)> {
        let mut near = LocalityPreference::default();
        change(&mut near);
        let nearest = near.nearest(endpoints)?;
        Some((nearest.is_near.into(), nearest.places))
    }

    #[test]
    fn hints_for_the_node_come_before_those_for_the_zone() {
        let set = [
            hinted(1, "a", "x"),
            hinted(2, "a", "y"),
            hinted(3, "b", "z"),
        ];
        let zone = near(|near| near.zone("a"), &set);
        assert_eq!(zone, Some((vec![true, true, false], 2)));
        let both = |node: &'static str| {
            near(
                |near| {
                    near.zone("a");
                    near.node(node);
                },
                &set,
            )
        };
        assert_eq!(both("y"), Some((vec![false, true, false], 3)));
        assert_eq!(both("w"), zone, "no pod is for this node");
        assert_eq!(near(|near| near.node("w"), &set), None);
        assert_eq!(near(|near| near.zone("c"), &set), None);
    }

    #[test]
    fn hints_are_for_all_or_count_for_nothing() {
        let mut set = vec![hinted(1, "a", "x"), hinted(2, "b", "y")];
        assert!(near(|near| near.zone("a"), &set).is_some());
        set.push(endpoint(3).with_zone("a"));
        assert_eq!(near(|near| near.zone("a"), &set), None);
    }

    #[test]
    fn an_endpoint_may_be_for_several_zones() {
        let shared = endpoint(2).with_zone_hints(["a", "b", "c"]);
        let set = [endpoint(1).with_zone_hints(["a"]), shared];
        let nearest = near(|near| near.zone("b"), &set);
        assert_eq!(nearest, Some((vec![false, true], 3)));
    }

    #[test]
    fn where_pods_are_counts_only_by_choice_and_without_hints() {
        let zoned = |host, zone: &str| endpoint(host).with_zone(zone).with_node(format!("n{host}"));
        let mut set = vec![zoned(1, "a"), zoned(2, "b"), zoned(3, "b"), endpoint(4)];
        assert_eq!(near(|near| near.zone("b"), &set), None);
        let preferred = near(|near| near.prefer_zone("b"), &set);
        assert_eq!(preferred, Some((vec![false, true, true, false], 2)));
        let preferred = near(|near| near.prefer_node("n3"), &set);
        assert_eq!(preferred, Some((vec![false, false, true, false], 3)));
        set.truncate(2);
        let set: Vec<_> = set
            .into_iter()
            .map(|it| it.with_zone_hints(["a"]))
            .collect();
        let hinted = near(|near| near.prefer_zone("a"), &set);
        assert_eq!(hinted, Some((vec![true, true], 1)));
    }

    #[test]
    fn what_is_not_known_is_no_place() {
        let set = [endpoint(1).with_zone(""), endpoint(2)];
        assert_eq!(near(|near| near.prefer_zone(""), &set), None);
        assert_eq!(near(|_| {}, &set), None);
        assert_eq!(near(|near| near.prefer_zone("a"), &[]), None);
    }
}
