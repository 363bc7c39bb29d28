//! Packets as met in the field: which of them count as answers, and how those are interpreted.

use tokio::{net::UdpSocket, sync::watch, task::JoinHandle};

use super::*;

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const AAAA: u16 = 28;

/// A name server that answers with what a test makes of each question, over UDP only. It ends when dropped.
struct Packets {
    address: SocketAddr,
    /// How many questions for AAAA records it got.
    asked: watch::Receiver<u32>,
    task: JoinHandle<()>,
}

impl Packets {
    /// `answers` makes the packets that are sent to a question, in this order; a stranger's packets come from another
    /// port.
    async fn start(answers: impl Fn(&Asked) -> Vec<Packet> + Send + 'static) -> Self {
        let bind = async || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let own = bind().await.expect("a socket");
        let stranger = bind().await.expect("a socket");
        let address = own.local_addr().expect("its address");
        let (count, count_of_aaaa) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 1500];
            while let Ok((length, client)) = own.recv_from(&mut buffer).await {
                let asked = Asked::read(&buffer[..length]);
                count.send_modify(|count| *count += u32::from(asked.record_type == AAAA));
                for packet in answers(&asked) {
                    let (socket, bytes) = match packet {
                        Packet::Own(bytes) => (&own, bytes),
                        Packet::Strangers(bytes) => (&stranger, bytes),
                    };
                    // The client may be gone already.
                    let _ = socket.send_to(&bytes, client).await;
                }
            }
        });
        Self {
            address,
            asked: count_of_aaaa,
            task,
        }
    }

    /// Waits until AAAA records were asked for `n` times.
    async fn wait_for_aaaa(&self, n: u32) {
        let mut asked = self.asked.clone();
        let enough = within("the questions", asked.wait_for(|count| *count >= n));
        enough.await.expect("the server runs");
    }

    fn ask(&self, name: &str) -> Dns {
        let target = format!("{name}:80").parse().expect("a target");
        Dns::new(target).name_servers([self.address])
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Packet {
    Own(Vec<u8>),
    Strangers(Vec<u8>),
}

/// A question as it arrived.
#[derive(Clone)]
struct Asked {
    id: [u8; 2],
    /// As labels.
    name: Vec<u8>,
    record_type: u16,
}

impl Asked {
    fn read(packet: &[u8]) -> Self {
        let name = 12
            + packet[12..]
                .iter()
                .position(|byte| *byte == 0)
                .expect("a name");
        Self {
            id: [packet[0], packet[1]],
            name: packet[12..=name].to_vec(),
            record_type: u16::from_be_bytes([packet[name + 1], packet[name + 2]]),
        }
    }

    /// A response with this code, the question and these records.
    fn answer(&self, code: u8, records: &[Vec<u8>]) -> Vec<u8> {
        self.answer_of(None, code, records)
    }

    /// A response with this code, the question, these records, and the SOA record of a zone.
    fn answer_of(&self, zone: Option<&str>, code: u8, records: &[Vec<u8>]) -> Vec<u8> {
        let count = u8::try_from(records.len()).expect("few");
        let header = [
            0x81,
            0x80 | code,
            0,
            1,
            0,
            count,
            0,
            u8::from(zone.is_some()),
            0,
            0,
        ];
        let soa = zone.map(|zone| record(&labels(zone), SOA, 30, &[0; 22]));
        let record_type = self.record_type.to_be_bytes();
        let question = [&self.name[..], &record_type, &[0, 1]].concat();
        let records = [&records.concat()[..], &soa.unwrap_or_default()].concat();
        [&self.id[..], &header, &question, &records].concat()
    }

    /// Pod `host`'s address, if that was asked for.
    fn pod(&self, host: u8) -> Vec<u8> {
        let records = match self.record_type {
            A => vec![record(&self.name, A, 30, &pod_v4(host).octets())],
            _ => Vec::new(),
        };
        self.answer(0, &records)
    }
}

fn record(name: &[u8], record_type: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("short").to_be_bytes();
    let record_type = record_type.to_be_bytes();
    [
        name,
        &record_type,
        &[0, 1],
        &ttl.to_be_bytes(),
        &length,
        data,
    ]
    .concat()
}

fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes = Vec::new();
    for label in labels {
        bytes.push(u8::try_from(label.len()).expect("short"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[tokio::test]
async fn only_an_answer_to_the_question_from_the_server_counts() {
    let server = Packets::start(|asked| {
        let strange = asked.pod(66);
        let with = |change: fn(&mut Asked)| {
            let mut other = asked.clone();
            change(&mut other);
            other.pod(66)
        };
        let mut a_question = strange.clone();
        a_question[2] = 0x01;
        let mut without_question = asked.id.to_vec();
        without_question.extend([0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]);
        vec![
            Packet::Strangers(strange),
            Packet::Own(with(|asked| asked.id[1] ^= 1)),
            Packet::Own(with(|asked| asked.name = labels("other.example"))),
            Packet::Own(with(|asked| asked.record_type ^= A ^ AAAA)),
            Packet::Own(a_question),
            Packet::Own(without_question),
            Packet::Own(Vec::new()),
            Packet::Own(asked.id[..1].to_vec()),
            Packet::Own(asked.pod(1)),
        ]
    });
    let server = server.await;
    let found = server.ask(WEB).resolve().await.expect("a pod");
    assert_eq!(hosts(found.endpoints()), [pod(1)].into());
    let dns = server.ask(WEB).refresh_interval(FAST);
    let mut watch = MembershipStream::new(dns.on_empty(OnEmpty::Believe));
    assert_eq!(hosts(&change(&mut watch).await.endpoints), [pod(1)].into());
}

/// Some servers answer with the names as they have them, or in mixed case.
#[tokio::test]
async fn names_are_compared_without_case() {
    let server = Packets::start(|asked| {
        let upper = |name: &[u8]| name.to_ascii_uppercase();
        let mut other = asked.clone();
        other.name = upper(&asked.name);
        let (alias, target) = (labels("Pods.Other.example"), labels("pODS.oTHER.EXAMPLE"));
        let records = [
            record(&asked.name, CNAME, 30, &alias),
            record(&target, A, 30, &pod_v4(1).octets()),
        ];
        vec![Packet::Own(match asked.record_type {
            A => other.answer(0, &records),
            _ => other.answer(0, &[]),
        })]
    });
    let found = server.await.ask(WEB).resolve().await.expect("a pod");
    assert_eq!(hosts(found.endpoints()), [pod(1)].into());
}

/// The chain may pass through other zones, with its records in any order. The shortest TTL counts.
#[tokio::test]
async fn a_chain_of_aliases_is_followed_in_any_order_of_its_records() {
    let server = Packets::start(|asked| {
        let names = ["a.one.example", "b.two.test", "c.three.invalid"].map(labels);
        let alias = |from: &[u8], to: &[u8], ttl| record(from, CNAME, ttl, to);
        let records = [
            record(&names[2], A, 30, &pod_v4(1).octets()),
            alias(&names[1], &names[2], 0),
            record(&labels("d.example"), A, 30, &pod_v4(66).octets()),
            alias(&asked.name, &names[0], 86_400),
            alias(&names[0], &names[1], u32::MAX),
        ];
        vec![Packet::Own(match asked.record_type {
            A => asked.answer(0, &records),
            _ => asked.answer(0, &records[3..]),
        })]
    });
    let server = server.await;
    let found = server.ask(WEB).resolve().await.expect("a pod");
    assert_eq!(hosts(found.endpoints()), [pod(1)].into());
    assert_eq!(found.ttl(), Some(Duration::ZERO));
    let mut watch = MembershipStream::new(server.ask(WEB).refresh_interval(FAST));
    assert_eq!(hosts(&change(&mut watch).await.endpoints), [pod(1)].into());
}

/// Such servers exist (RFC 4074 §4.2). The walk must not go past the name that has A records.
#[tokio::test]
async fn nxdomain_for_aaaa_is_ignored_for_a_name_with_ipv4_addresses() {
    let server = Packets::start(|asked| {
        vec![Packet::Own(match asked.record_type {
            A if asked.name == labels(WEB) => asked.pod(1),
            A => asked.pod(66),
            _ => asked.answer(3, &[]),
        })]
    });
    let server = server.await;
    let conf = pods_resolv_conf();
    let dns = server.ask("web").resolv_conf(&conf.0);
    for prefer_ipv6 in [false, true] {
        let dns = dns.clone().prefer_ipv6(prefer_ipv6);
        let dns = dns.refresh_interval(FAST).on_empty(OnEmpty::Believe);
        let mut watch = MembershipStream::new(dns);
        assert_eq!(hosts(&change(&mut watch).await.endpoints), [pod(1)].into());
        let asked = *server.asked.borrow();
        tokio::select! {
            change = watch.next() => panic!("{change:?}"),
            () = server.wait_for_aaaa(asked + 6) => {}
        }
    }
}

/// It has no records that were asked for, but isn't a negative answer either.
#[tokio::test]
async fn an_answer_with_only_other_names_records_is_a_failure() {
    let server = Packets::start(|asked| {
        let records = [record(
            &labels("other.example"),
            A,
            30,
            &pod_v4(66).octets(),
        )];
        vec![Packet::Own(match asked.record_type {
            A => asked.answer(0, &records),
            _ => asked.answer(0, &[]),
        })]
    });
    let server = server.await;
    let error = server.ask(WEB).resolve().await.expect_err("no pod of ours");
    assert!(!error.is_not_found(), "{error}");
}

/// The alias may be all that the server knows; only its target's zone knows what the target has (RFC 2308 §2.2).
#[tokio::test]
async fn an_aliass_missing_target_is_believed_only_from_its_own_zone() {
    let zones = [
        (Some("Shop.example"), true),
        (Some("example"), true),
        (Some("pods.shop.example"), true),
        (Some("elsewhere.test"), false),
        (Some("."), false),
        (None, false),
    ];
    let stories = zones.map(async |(zone, is_believed)| {
        let server = Packets::start(move |asked| {
            let alias = record(&asked.name, CNAME, 30, &labels("pods.shop.example"));
            vec![Packet::Own(asked.answer_of(zone, 0, &[alias]))]
        });
        let error = server.await.ask(WEB).resolve().await.expect_err("no pod");
        assert_eq!(error.is_not_found(), is_believed, "{zone:?}: {error}");
    });
    join_all(stories).await;
}

#[tokio::test]
async fn an_alias_of_a_name_without_ipv6_is_never_a_failure() {
    let server = Packets::start(|asked| {
        let alias = record(&asked.name, CNAME, 30, &labels("pods.shop.example"));
        let address = record(&labels("pods.shop.example"), A, 30, &pod_v4(1).octets());
        vec![Packet::Own(match asked.record_type {
            A => asked.answer(0, &[alias, address]),
            _ => asked.answer_of(Some("shop.example"), 0, &[alias]),
        })]
    });
    let server = server.await;
    let mut dns = server.ask(WEB).refresh_interval(FAST);
    let answers = async {
        loop {
            let answer = std::future::poll_fn(|cx| dns.poll_next(cx)).await;
            let set = answer.expect("a set");
            assert_eq!(hosts(&set), [pod(1)].into());
        }
    };
    tokio::select! {
        () = answers => {}
        () = server.wait_for_aaaa(6) => {}
    }
}

/// A server that neither has the zone nor asks others says nothing, which isn't a "no".
#[tokio::test]
async fn an_empty_answer_of_a_server_that_does_not_know_is_a_failure() {
    let lame = Packets::start(|asked| {
        let mut blank = asked.answer(0, &[]);
        blank[3] = 0; // no recursion
        vec![Packet::Own(blank)]
    });
    let (lame, server) = (lame.await, web(3).await);
    let error = lame.ask(WEB).resolve().await.expect_err("nobody knows");
    assert!(!error.is_not_found(), "{error}");
    assert!(
        error.to_string().contains("neither has the zone"),
        "{error}"
    );
    let dns = lame.ask(WEB).name_servers([lame.address, server.addr()]);
    let found = dns.resolve().await.expect("pods");
    assert_eq!(found.endpoints().len(), 3);
    // With either flag it is an answer.
    for (byte, flag) in [(2, 0x85), (3, 0x80)] {
        let knowing = Packets::start(move |asked| {
            let mut blank = asked.answer(0, &[]);
            blank[3] = 0;
            blank[byte] = flag;
            vec![Packet::Own(blank)]
        });
        let error = knowing.await.ask(WEB).resolve().await.expect_err("no pods");
        assert!(error.is_not_found(), "{error}");
    }
}
