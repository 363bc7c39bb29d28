//! The endpoints to use, from a Service's slices. Pure.
//!
//! The rules are those of the API (`discovery.k8s.io/v1`), and where that leaves a choice, of kube-proxy:
//!
//! - A missing `ready` means true; a missing `serving` means the value of `ready`.
//! - Ready pods are used. If there are none, terminating pods that still serve are used.
//! - A pod may be in two slices while the controller moves it: it counts once.
//! - Only the first of an endpoint's addresses is used.
//! - An octet may have leading zeros, and is still decimal.
//! - If there are usable pods but none has an address of its slice's kind, or none has the port, that is an error, not
//!   an empty set. A family with such trouble gives way to the other one.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use k8s_openapi::api::discovery::v1::{Endpoint as Entry, EndpointSlice};

use super::{error::Reason, ports, ports::UnknownPort, target::Port};
use crate::endpoint::Endpoint;

/// The `addressType`s. FQDN slices have no addresses.
pub(super) const IPV4: &str = "IPv4";
pub(super) const IPV6: &str = "IPv6";
pub(super) const FQDN: &str = "FQDN";

/// A slice's `endpoints`: a `Vec` in the types of some API versions, and an `Option<Vec>` in others.
trait Entries {
    fn entries(&self) -> &[Entry];
}

impl Entries for Vec<Entry> {
    fn entries(&self) -> &[Entry] {
        self
    }
}

impl Entries for Option<Vec<Entry>> {
    fn entries(&self) -> &[Entry] {
        self.as_deref().unwrap_or_default()
    }
}

/// An endpoint's rank: only those of the highest rank are used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    LastResort,
    Ready,
}

/// The endpoints to use, of the first of `families` that has any. Ready ones of the other family go before the last
/// resort.
pub(super) fn endpoints<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    families: [&str; 2],
    port: &Port,
) -> Result<Vec<Endpoint>, Reason> {
    let (mut trouble, mut last_resort) = (None, None);
    for family in families {
        let slices = of_family(slices.clone(), family);
        match joined(&slices, port) {
            Some((Rank::Ready, found)) => return Ok(found),
            found => last_resort = last_resort.or(found),
        }
        trouble = trouble.or_else(|| trouble_with(&slices, port));
    }
    match (last_resort, trouble) {
        (Some((_, found)), _) => Ok(found),
        (None, Some(trouble)) => Err(trouble),
        (None, None) => names_only(slices).map_or(Ok(Vec::new()), Err),
    }
}

/// The ready endpoints of one family.
pub(super) fn ready<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    family: &str,
    port: &Port,
) -> Vec<Endpoint> {
    match joined(&of_family(slices, family), port) {
        Some((Rank::Ready, found)) => found,
        _ => Vec::new(),
    }
}

/// A family's slices. Those without endpoints are left out: they have no ports either.
fn of_family<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    family: &str,
) -> Vec<&'a EndpointSlice> {
    let is_used = |slice: &&EndpointSlice| {
        slice.address_type == family && !slice.endpoints.entries().is_empty()
    };
    slices.filter(is_used).collect()
}

/// Why pods in a family's slices can't be used, if that is wrong with some: no slice has the port, or an address is
/// invalid.
fn trouble_with(slices: &[&EndpointSlice], port: &Port) -> Option<Reason> {
    let wanted: Vec<_> = slices
        .iter()
        .filter(|slice| ports::number(port, slice).is_some())
        .collect();
    if wanted.is_empty() && !slices.is_empty() {
        let slices = slices.iter().copied();
        return Some(Reason::UnknownPort(UnknownPort::new(port, slices)));
    }
    let text = wanted.into_iter().find_map(|slice| unreadable(slice))?;
    Some(Reason::Unreadable(text.to_owned()))
}

/// The error if usable pods are only in slices of names.
fn names_only<'a>(mut slices: impl Iterator<Item = &'a EndpointSlice>) -> Option<Reason> {
    let text = slices.find_map(|slice| match &*slice.address_type {
        IPV4 | IPV6 => None,
        _ => unreadable(slice),
    })?;
    Some(Reason::Unreadable(text.to_owned()))
}

/// The first invalid address of a usable pod in a slice.
pub(super) fn unreadable(slice: &EndpointSlice) -> Option<&str> {
    let used = slice
        .endpoints
        .entries()
        .iter()
        .filter(|entry| rank(entry).is_some());
    let mut texts = used.map(|entry| entry.addresses.first().map_or("", String::as_str));
    texts.find(|text| address(text).is_none())
}

/// Parses an address as kube-proxy does: octets with leading zeros are decimal, as before Go 1.17.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (prefix, octets) = match text.rfind(':') {
        Some(colon) => text.split_at(colon + 1),
        None => ("", text),
    };
    let octets: Vec<_> = octets.split('.').map(without_zeros).collect();
    IpAddr::from_str(&format!("{prefix}{}", octets.join("."))).ok()
}

fn without_zeros(octet: &str) -> &str {
    match octet.trim_start_matches('0') {
        "" if !octet.is_empty() => "0",
        rest => rest,
    }
}

/// The endpoints of slices of one family: each address once, and only those of the highest rank, which comes with them.
fn joined(slices: &[&EndpointSlice], port: &Port) -> Option<(Rank, Vec<Endpoint>)> {
    let mut found = BTreeMap::new();
    for slice in slices {
        let Some(port) = ports::number(port, slice) else {
            continue;
        };
        for entry in slice.endpoints.entries() {
            if let Some(candidate) = endpoint(entry, port) {
                let best = found
                    .entry(candidate.1.address())
                    .or_insert_with(|| candidate.clone());
                if welcome(&candidate) > welcome(best) {
                    *best = candidate;
                }
            }
        }
    }
    let best = found.values().map(|(rank, _)| *rank).max()?;
    let of_best = found.into_values().filter(|(rank, _)| *rank == best);
    Some((best, of_best.map(|(_, endpoint)| endpoint).collect()))
}

/// Orders two entries with the same address: the greater one is the pod that has it now.
fn welcome((rank, endpoint): &(Rank, Endpoint)) -> (Rank, bool) {
    (*rank, !endpoint.is_terminating())
}

/// The endpoint of a slice's entry, unless it is unusable.
fn endpoint(entry: &Entry, port: u16) -> Option<(Rank, Endpoint)> {
    let rank = rank(entry)?;
    let address = address(entry.addresses.first()?)?;
    let mut endpoint =
        Endpoint::new((address, port).into()).with_terminating(is_terminating(entry));
    if let Some(hostname) = &entry.hostname {
        endpoint = endpoint.with_hostname(hostname.as_str());
    }
    if let Some(node) = &entry.node_name {
        endpoint = endpoint.with_node(node.as_str());
    }
    if let Some(zone) = &entry.zone {
        endpoint = endpoint.with_zone(zone.as_str());
    }
    Some((rank, with_hints(with_pod(endpoint, entry), entry)))
}

fn rank(entry: &Entry) -> Option<Rank> {
    let conditions = entry.conditions.as_ref();
    let ready = conditions
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true);
    let serving = conditions
        .and_then(|conditions| conditions.serving)
        .unwrap_or(ready);
    match ready {
        true => Some(Rank::Ready),
        false if serving && is_terminating(entry) => Some(Rank::LastResort),
        false => None,
    }
}

fn is_terminating(entry: &Entry) -> bool {
    let conditions = entry.conditions.as_ref();
    conditions
        .and_then(|conditions| conditions.terminating)
        .unwrap_or(false)
}

fn with_pod(mut endpoint: Endpoint, entry: &Entry) -> Endpoint {
    let target = entry.target_ref.as_ref();
    let Some(pod) = target.filter(|target| target.kind.as_deref() == Some("Pod")) else {
        return endpoint;
    };
    if let Some(name) = &pod.name {
        endpoint = endpoint.with_pod_name(name.as_str());
    }
    if let Some(uid) = &pod.uid {
        endpoint = endpoint.with_pod_uid(uid.as_str());
    }
    endpoint
}

fn with_hints(mut endpoint: Endpoint, entry: &Entry) -> Endpoint {
    let Some(hints) = &entry.hints else {
        return endpoint;
    };
    if let Some(zones) = &hints.for_zones {
        endpoint = endpoint.with_zone_hints(zones.iter().map(|zone| zone.name.as_str()));
    }
    if let Some(nodes) = &hints.for_nodes {
        endpoint = endpoint.with_node_hints(nodes.iter().map(|node| node.name.as_str()));
    }
    endpoint
}

#[cfg(test)]
mod tests;
