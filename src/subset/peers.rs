//! Finds which of its peers a client is.

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

use super::order::Client;
use crate::{endpoint::Endpoint, stable_hash::stable_hash};

/// The place of the client `me` among its `peers`; if `in_zone` and its zone is known, among those of its zone. `None`
/// if it isn't among its peers.
///
/// The order is by hash, because neighbours by name or address, such as the pods of one node, often have similar load,
/// and should not use the same pods.
pub(crate) fn rank(peers: &[Endpoint], me: &str, in_zone: bool) -> Option<Client> {
    let address: Option<IpAddr> = me.parse().ok();
    let is_me = |peer: &&Endpoint| address == Some(host(peer)) || peer.is_called(me);
    let own = peers.iter().find(is_me)?;
    let is_peer = |peer: &&Endpoint| !in_zone || own.zone().is_none() || peer.zone() == own.zone();
    let place = |peer| {
        let name = name(peer);
        (stable_hash(name.as_bytes()), name, host(peer))
    };
    // Several ports of one client count once; several clients of one name count each.
    let order: BTreeSet<_> = peers.iter().filter(is_peer).map(place).collect();
    Some(Client::Ranked {
        rank: order.range(..place(own)).count(),
        of: order.len(),
    })
}

fn name(peer: &Endpoint) -> Cow<'_, str> {
    let name = peer.name();
    name.map_or_else(|| host(peer).to_string().into(), Cow::from)
}

fn host(peer: &Endpoint) -> IpAddr {
    peer.identity().ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8) -> Endpoint {
        Endpoint::new(([10, 1, 0, host], 80).into())
    }

    fn ranks(peers: &[Endpoint], names: impl Iterator<Item = String>, in_zone: bool) -> Vec<usize> {
        let place = |name: String| match rank(peers, &name, in_zone) {
            Some(Client::Ranked { rank, .. }) => rank,
            _ => panic!("{name} is not among its peers"),
        };
        let mut ranks: Vec<_> = names.map(place).collect();
        ranks.sort_unstable();
        ranks
    }

    #[test]
    fn each_client_has_its_own_place_by_name_or_address() {
        let peers: Vec<_> = (0..50)
            .map(|host| peer(host).with_pod_name(format!("c-{host}")))
            .collect();
        let all: Vec<_> = (0..50).collect();
        let names = (0..50).map(|host| format!("c-{host}"));
        assert_eq!(ranks(&peers, names, false), all);
        let addresses = (0..50).map(|host| format!("10.1.0.{host}"));
        assert_eq!(ranks(&peers, addresses, false), all);
        assert_eq!(rank(&peers, "c-50", false), None);
        assert_eq!(rank(&peers, "", false), None);
        assert_eq!(
            rank(&peers, "c-7", false),
            rank(&peers, "10.1.0.7", false),
            "whatever it is called by"
        );
    }

    #[test]
    fn the_order_of_the_answer_and_repetitions_do_not_matter() {
        let peers: Vec<_> = (0..50).map(peer).collect();
        let mut other: Vec<_> = peers.iter().rev().cloned().collect();
        other.extend((0..50).map(|host| Endpoint::new(([10, 1, 0, host], 443).into())));
        for host in 0..50 {
            let me = format!("10.1.0.{host}");
            assert_eq!(rank(&peers, &me, false), rank(&other, &me, false));
        }
    }

    #[test]
    fn clients_of_one_name_are_told_apart_by_their_addresses() {
        let peers: Vec<_> = (0..50)
            .map(|host| peer(host).with_hostname("shop"))
            .collect();
        let names = (0..50).map(|host| format!("10.1.0.{host}"));
        assert_eq!(ranks(&peers, names, false), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn each_zone_has_its_own_places_if_zones_are_known() {
        let zoned = |host: u8| peer(host).with_zone(if host < 20 { "a" } else { "b" });
        let peers: Vec<_> = (0..50).map(zoned).collect();
        let names = |hosts: std::ops::Range<u8>| hosts.map(|host| format!("10.1.0.{host}"));
        assert_eq!(
            ranks(&peers, names(0..20), true),
            (0..20).collect::<Vec<_>>()
        );
        assert_eq!(
            ranks(&peers, names(20..50), true),
            (0..30).collect::<Vec<_>>()
        );
        let peers: Vec<_> = (0..50).map(peer).collect();
        assert_eq!(
            ranks(&peers, names(0..50), true),
            (0..50).collect::<Vec<_>>()
        );
    }
}
