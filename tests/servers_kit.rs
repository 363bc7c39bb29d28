//! Tests of the real DNS servers that other tests use: they start, answer, change and stop as promised. Also how they
//! differ from each other and from the kit's own server.

mod support;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use futures::future::join_all;
use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};

use support::{
    dns::Transport,
    servers::{Server, Software, Zone},
    within,
};

const BOTH: [Software; 2] = [Software::Knot, Software::CoreDns];
const TRANSPORTS: [Transport; 2] = [Transport::Udp, Transport::Tcp];
const SERVICE: &str = "nginx-headless.default.svc.cluster.local.";
const PORT: &str = "_http._tcp.nginx-headless.default.svc.cluster.local.";

#[tokio::test]
async fn records_come_as_given() {
    for server in started().await {
        let (v4, v6) = (address(1), Ipv6Addr::LOCALHOST);
        server.set_a(SERVICE, 7, &[v4]).await;
        server.set_aaaa(SERVICE, 8, &[v6]).await;
        server.set_srv(PORT, 9, &[(80, "web-0.example.")]).await;
        for transport in TRANSPORTS {
            let ask = async |name, record_type| ask(&server, transport, name, record_type).await;
            let a = ask(SERVICE, RecordType::A).await;
            assert_eq!((addresses(&a.answers), ttl(&a)), (vec![v4.into()], 7));
            let aaaa = ask(SERVICE, RecordType::AAAA).await;
            assert_eq!((addresses(&aaaa.answers), ttl(&aaaa)), (vec![v6.into()], 8));
            let srv = ask(PORT, RecordType::SRV).await;
            let given = vec![(80, "web-0.example.".to_owned())];
            assert_eq!((targets(&srv), ttl(&srv)), (given, 9));
        }
    }
}

#[tokio::test]
async fn names_match_whatever_their_case_and_last_dot() {
    for server in started().await {
        let name = "Web.Default.SVC.cluster.local";
        server.set_a(name, 5, &[address(1)]).await;
        server.set_a(&name.to_lowercase(), 5, &[address(2)]).await;
        let answer = ask(&server, Transport::Udp, name, RecordType::A).await;
        assert_eq!(addresses(&answer.answers), ips(2..=2));
    }
}

#[tokio::test]
async fn a_change_has_arrived_when_its_call_returns() {
    for server in started().await {
        for last in 1..=20 {
            let given: Vec<_> = (last..last + 3).map(address).collect();
            server.set_a(SERVICE, 5, &given).await;
            for transport in TRANSPORTS {
                let answer = ask(&server, transport, SERVICE, RecordType::A).await;
                assert_eq!(addresses(&answer.answers), ips(last..last + 3));
            }
        }
    }
}

#[tokio::test]
async fn a_ttl_changes_alone() {
    for server in started().await {
        for given in [7, 60, 1] {
            server.set_a(SERVICE, given, &[address(1)]).await;
            let answer = ask(&server, Transport::Udp, SERVICE, RecordType::A).await;
            let expected = match server.software() {
                Software::Knot => given,
                Software::CoreDns => given.clamp(5, 30),
            };
            assert_eq!(ttl(&answer), expected);
        }
    }
}

#[tokio::test]
async fn absent_names_and_absent_families_differ() {
    for server in started().await {
        let code = async |record_type| {
            let answer = ask(&server, Transport::Udp, SERVICE, record_type).await;
            assert!(answer.answers.is_empty());
            assert_eq!(negative_ttl(&answer), Some(5));
            answer.response_code
        };
        assert_eq!(code(RecordType::A).await, ResponseCode::NXDomain);
        server.set_aaaa(SERVICE, 5, &[Ipv6Addr::LOCALHOST]).await;
        assert_eq!(code(RecordType::A).await, ResponseCode::NoError);
        server.set_aaaa(SERVICE, 5, &[]).await;
        assert_eq!(code(RecordType::AAAA).await, ResponseCode::NXDomain);

        server.set_a(SERVICE, 5, &[address(1)]).await;
        server.set_aaaa(SERVICE, 5, &[Ipv6Addr::LOCALHOST]).await;
        server.remove(SERVICE).await;
        assert_eq!(code(RecordType::A).await, ResponseCode::NXDomain);
    }
}

#[tokio::test]
async fn srv_records_bring_their_targets_addresses() {
    for server in started().await {
        server.change(|zone| pods(zone, 10)).await;
        for transport in TRANSPORTS {
            let answer = ask(&server, transport, PORT, RecordType::SRV).await;
            assert_eq!(targets(&answer).len(), 10);
            assert_eq!(addresses(&answer.additionals), ips(0..10));
        }
    }
}

#[tokio::test]
async fn a_thousand_addresses_fit_into_tcp_only() {
    for server in started().await {
        server.change(|zone| pods(zone, 1_000)).await;
        let answer = ask(&server, Transport::Udp, SERVICE, RecordType::A).await;
        assert!(answer.truncation);
        let answer = ask(&server, Transport::Tcp, SERVICE, RecordType::A).await;
        assert!(!answer.truncation);
        assert_eq!(addresses(&answer.answers), ips(0..1_000));
        server.change(|zone| pods(zone, 10)).await;
        let answer = ask(&server, Transport::Udp, SERVICE, RecordType::A).await;
        assert_eq!(addresses(&answer.answers), ips(0..10));
    }
}

/// SRV records name their targets in full (RFC 2782): 68 bytes each here, too many for the 64 KiB of a message.
#[tokio::test]
async fn a_thousand_srv_records_fit_into_no_message() {
    for server in started().await {
        server.change(|zone| pods(zone, 1_000)).await;
        let answer = ask(&server, Transport::Tcp, PORT, RecordType::SRV).await;
        match server.software() {
            Software::Knot => assert_eq!(answer.response_code, ResponseCode::ServFail),
            Software::CoreDns => {
                assert_eq!(answer.response_code, ResponseCode::NoError);
                assert!(answer.truncation);
                assert!((900..1_000).contains(&answer.answers.len()));
            }
        }
    }
}

/// The answer has all SRV records, but not all of their targets' addresses.
#[tokio::test]
async fn nine_hundred_srv_records_lack_addresses() {
    for server in started().await {
        server.change(|zone| pods(zone, 900)).await;
        let answer = ask(&server, Transport::Tcp, PORT, RecordType::SRV).await;
        assert_eq!(targets(&answer).len(), 900);
        assert!((1..900).contains(&addresses(&answer.additionals).len()));
        // RFC 2181 §9 wants no TC if only additional records are left out.
        assert_eq!(answer.truncation, server.software() == Software::CoreDns);
    }
}

#[tokio::test]
async fn coredns_shuffles() {
    let Some(server) = Server::start(Software::CoreDns).await else {
        return;
    };
    server.change(|zone| pods(zone, 10)).await;
    let order = async || {
        let answer = ask(&server, Transport::Udp, SERVICE, RecordType::A).await;
        answer
            .answers
            .iter()
            .map(|record| record.data.clone())
            .collect::<Vec<_>>()
    };
    let first = order().await;
    within("another order", async { while order().await == first {} }).await;
}

#[tokio::test]
async fn servers_are_independent() {
    let servers: Vec<_> = join_all([started(), started()])
        .await
        .into_iter()
        .flatten()
        .collect();
    for (number, server) in (1..).zip(&servers) {
        server.set_a(SERVICE, 5, &[address(number)]).await;
    }
    for (number, server) in (1..).zip(&servers) {
        let answer = ask(server, Transport::Udp, SERVICE, RecordType::A).await;
        assert_eq!(addresses(&answer.answers), ips(number..=number));
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_dropped_server() {
    for server in started().await {
        let process = format!("/proc/{}", server.process_id());
        let folder = server.folder().to_owned();
        assert!(Path::new(&process).exists() && folder.exists());
        drop(server);
        assert!(!Path::new(&process).exists(), "no zombie either");
        assert!(!folder.exists());
    }
}

// ---------------------------------------------------------------- helpers

/// Starts one server of each kind that is installed.
async fn started() -> Vec<Server> {
    join_all(BOTH.map(Server::start))
        .await
        .into_iter()
        .flatten()
        .collect()
}

/// A service as Kubernetes publishes a StatefulSet's: its addresses, and its port with a target for each pod.
fn pods(zone: &mut Zone, count: u16) {
    let addresses: Vec<_> = (0..count).map(address).collect();
    let names: Vec<_> = (0..count)
        .map(|pod| format!("web-{pod}.{SERVICE}"))
        .collect();
    for (name, address) in names.iter().zip(&addresses) {
        zone.set_a(name, 5, &[*address]);
    }
    let targets: Vec<_> = names.iter().map(|name| (80, name.as_str())).collect();
    zone.set_a(SERVICE, 5, &addresses);
    zone.set_srv(PORT, 5, &targets);
}

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 1, high, low)
}

fn ips(numbers: impl Iterator<Item = u16>) -> Vec<IpAddr> {
    numbers.map(|number| address(number).into()).collect()
}

async fn ask(
    server: &Server,
    transport: Transport,
    name: &str,
    record_type: RecordType,
) -> Message {
    let answer = server.ask(transport, name, record_type).await;
    answer.unwrap_or_else(|error| panic!("{:?} is silent: {error}", server.software()))
}

/// The addresses, sorted, because servers may give any order.
fn addresses(records: &[Record]) -> Vec<IpAddr> {
    let address = |record: &Record| match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    };
    let mut addresses: Vec<_> = records.iter().filter_map(address).collect();
    addresses.sort();
    addresses
}

fn targets(answer: &Message) -> Vec<(u16, String)> {
    let target = |record: &Record| match &record.data {
        RData::SRV(srv) => Some((srv.port, srv.target.to_string())),
        _ => None,
    };
    answer.answers.iter().filter_map(target).collect()
}

fn ttl(answer: &Message) -> u32 {
    answer.answers[0].ttl
}

fn negative_ttl(answer: &Message) -> Option<u32> {
    answer
        .authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
            _ => None,
        })
}
