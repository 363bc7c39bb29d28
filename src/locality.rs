//! Which endpoints are near the client.
//!
//! Kubernetes' control plane gives hints. With `spec.trafficDistribution: PreferSameZone`, and with the older
//! annotation for topology aware routing, each endpoint of an EndpointSlice names the zones whose clients it is meant
//! for (`hints.forZones`). With `PreferSameNode` it names the nodes as well (`hints.forNodes`).
//!
//! Hints are used as kube-proxy uses them: only if every endpoint has some, because a missing one means that the slices
//! are mid-update, and only if some endpoint is meant for this client. Without usable hints, the zone or node that each
//! pod is in may be used instead, if the user chose so.

mod split;

pub(crate) use split::{Before, LocalitySplit};

use std::collections::HashSet;

use crate::endpoint::{Counted, Endpoint};

/// Where the client is, and whether pods there are preferred even without hints.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalityPreference {
    zone: Location,
    node: Location,
}

#[derive(Clone, Debug, Default)]
struct Location {
    /// Empty if not known.
    name: Box<str>,
    /// Whether endpoints there count as near without hints.
    without_hints: bool,
}

/// Which endpoints are near; at least one is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nearest {
    /// For each endpoint, whether it is near.
    pub(crate) is_near: Box<[bool]>,
    /// How many zones (or nodes) the endpoints are for, the client's included.
    places: usize,
    /// In a subset: the near endpoints' fraction of the whole set, divided by their fraction of the subset. Otherwise
    /// 1.
    scale: f64,
}

/// How the writer of a set learns which endpoints are near.
#[derive(Debug)]
pub(crate) enum Proximities {
    /// By looking at the set.
    Look,
    /// The set is a subset of one that has been looked at.
    Known(Option<Nearest>),
}

impl Nearest {
    /// The share of requests for the near endpoints, given the available weight of the near ones and of all.
    fn share(&self, near: u64, all: u64) -> f64 {
        if all == 0 {
            return 0.0;
        }
        if near == all {
            // Of the far ones, only some without weight are available at most.
            return 1.0;
        }
        (near as f64 * self.places as f64 * self.scale / all as f64).min(1.0)
    }

    /// The share of requests for the near endpoints while all of `endpoints` are available.
    pub(crate) fn full_share(&self, endpoints: &[Endpoint]) -> f64 {
        let (near, all) = weights(endpoints, &self.is_near);
        self.share(near, all)
    }

    /// The near endpoints of `part`, the endpoints of `whole` at `indices`; none if none is near. They get the share
    /// that the near endpoints have in the whole.
    pub(crate) fn part(
        &self,
        whole: &[Endpoint],
        indices: &[usize],
        part: &[Endpoint],
    ) -> Option<Self> {
        let is_near: Box<[bool]> = indices.iter().map(|&index| self.is_near[index]).collect();
        let (near, all) = weights(whole, &self.is_near);
        let (part_near, part_all) = weights(part, &is_near);
        let scale = match near > 0 && part_near > 0 {
            true => (near as f64 / all as f64) / (part_near as f64 / part_all as f64),
            false => 1.0,
        };
        is_near.contains(&true).then_some(Self {
            is_near,
            places: self.places,
            scale,
        })
    }
}

/// The weight of the near endpoints, and of all. If none has weight, each counts as one, as in picks.
fn weights(endpoints: &[Endpoint], is_near: &[bool]) -> (u64, u64) {
    let counted = Counted::of(endpoints.iter().map(Endpoint::weight));
    let weight = |weight: u32| match counted.has(weight) {
        true => u64::from(weight.max(1)),
        false => 0,
    };
    let weights = endpoints.iter().map(|endpoint| weight(endpoint.weight()));
    let near = weights
        .clone()
        .zip(is_near)
        .filter(|(_, is_near)| **is_near);
    (near.map(|(weight, _)| weight).sum(), weights.sum())
}

impl LocalityPreference {
    pub(crate) fn zone(&mut self, name: impl Into<Box<str>>) {
        self.zone.name = name.into();
    }

    pub(crate) fn node(&mut self, name: impl Into<Box<str>>) {
        self.node.name = name.into();
    }

    pub(crate) fn prefer_zone(&mut self, name: impl Into<Box<str>>) {
        self.zone = Location::preferred(name);
    }

    pub(crate) fn prefer_node(&mut self, name: impl Into<Box<str>>) {
        self.node = Location::preferred(name);
    }

    /// The near ones of `endpoints`; none if it isn't known which are near, or none is.
    pub(crate) fn nearest(&self, endpoints: &[Endpoint]) -> Option<Nearest> {
        let (zone, node) = (&self.zone, &self.node);
        None.or_else(|| node.hinted(endpoints, |endpoint| endpoint.node_hints()))
            .or_else(|| zone.hinted(endpoints, |endpoint| endpoint.zone_hints()))
            .or_else(|| node.preferred_among(endpoints, Endpoint::node))
            .or_else(|| zone.preferred_among(endpoints, Endpoint::zone))
    }
}

impl Location {
    fn preferred(name: impl Into<Box<str>>) -> Self {
        Self {
            name: name.into(),
            without_hints: true,
        }
    }

    /// The endpoints with a hint for this place, if all endpoints have hints.
    fn hinted<'a, I: Iterator<Item = &'a str>>(
        &self,
        endpoints: &'a [Endpoint],
        hints: impl Fn(&'a Endpoint) -> I,
    ) -> Option<Nearest> {
        let has_hints = |endpoint| hints(endpoint).next().is_some();
        let all = !self.name.is_empty() && endpoints.iter().all(has_hints);
        all.then(|| self.among(endpoints, hints))?
    }

    /// The endpoints in this place, if they count without hints.
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
            scale: 1.0,
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
    fn hints_count_only_if_every_endpoint_has_some() {
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
    fn the_pods_own_zone_or_node_counts_only_by_choice_and_without_hints() {
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
    fn the_near_share_gives_each_endpoint_its_fair_part() {
        for (near, all, places, expected) in [
            (10, 30, 3, 1.0),
            (10, 25, 3, 1.0),
            (5, 25, 3, 0.6),
            (1, 100, 10, 0.1),
            (0, 20, 3, 0.0),
            (4, 4, 3, 1.0),
            (0, 0, 3, 0.0),
            (4_096, 4_096, 4_096, 1.0),
            (1, 1, 1, 1.0),
        ] {
            let nearest = Nearest {
                is_near: Box::default(),
                places,
                scale: 1.0,
            };
            let share = nearest.share(near, all);
            assert!((share - expected).abs() < 1e-9, "{near} of {all}: {share}");
        }
    }

    #[test]
    fn a_subset_keeps_the_near_share_of_the_whole_set() {
        let zoned = |host, zone: &str| endpoint(host).with_zone(zone);
        let zone = |host| {
            if host < 10 {
                "a"
            } else if host < 20 {
                "b"
            } else {
                "c"
            }
        };
        let whole: Vec<_> = (0..25).map(|host| zoned(host, zone(host))).collect();
        let mut preference = LocalityPreference::default();
        preference.prefer_zone("c");
        let nearest = preference.nearest(&whole).expect("five near ones");
        for indices in [
            vec![0, 1, 2, 20, 21, 22],
            vec![0, 24],
            vec![5, 15, 20, 21, 22, 23],
        ] {
            let part: Vec<_> = indices.iter().map(|&at| whole[at].clone()).collect();
            let of_part = nearest
                .part(&whole, &indices, &part)
                .expect("some near ones");
            let share = of_part.full_share(&part);
            assert!((share - 0.6).abs() < 1e-9, "{share} in {indices:?}");
        }
        assert_eq!(nearest.part(&whole, &[3], &whole[3..4]), None);
    }

    #[test]
    fn an_unknown_zone_is_near_to_nothing() {
        let set = [endpoint(1).with_zone(""), endpoint(2)];
        assert_eq!(near(|near| near.prefer_zone(""), &set), None);
        assert_eq!(near(|_| {}, &set), None);
        assert_eq!(near(|near| near.prefer_zone("a"), &[]), None);
    }
}
