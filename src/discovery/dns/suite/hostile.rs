//! Whatever comes over the wire, nothing panics, nothing hangs, and no impossible address gets into a set.
//!
//! Messages are made from records of all kinds, good and bad, then damaged byte by byte. They go all the way from the
//! parser to the believed set. `PROPTEST_CASES=1000000 cargo test --release hostile` is the long run.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, LazyLock, Mutex},
};

use futures_util::{FutureExt, future::BoxFuture};
use hickory_proto::{
    op::{Message, OpCode, Query as Question, ResponseCode},
    rr::{Name, RData, Record, RecordType as Type, rdata},
};
use proptest::{collection::vec, prelude::*, sample::Index};
use tokio::{runtime::Runtime, time::Instant};

use super::*;
use crate::discovery::{
    dns::{
        client,
        look::{Kind, look},
        lookup::{Answer, Family, LookupError, Query, RecordType, Resolve, Transport, Via},
        name,
        pod_names::PodNames,
        question,
    },
    filter::{CAP, Filter},
    schedule::{OnEmpty, Pace},
};

const SERVICE: &str = "web.svc";
const PORT: &str = "_http._tcp.web.svc";

/// A resolver that gets the same bytes as every answer.
#[derive(Clone)]
struct Wire(Arc<Mutex<Vec<u8>>>);

impl Resolve for Wire {
    fn candidates(&self, name: &name::Name) -> Result<Vec<Arc<str>>, LookupError> {
        Ok(vec![name.text().into()])
    }

    fn ask(&self, query: Query, _: Transport, _: Instant) -> BoxFuture<'static, Answer> {
        let bytes = self.0.lock().expect("no panic").clone();
        let via = Via {
            name_server: ([127, 0, 0, 1], 53).into(),
            transport: Transport::Tcp,
        };
        std::future::ready(client::read(&query, bytes, via)).boxed()
    }
}

/// A question of each kind, with the name to ask about.
fn questions(on_empty: OnEmpty) -> Vec<(&'static str, question::Question)> {
    let pace = Pace {
        on_empty,
        ..Pace::default()
    };
    let question = |kind| question::Question::new(kind, pace);
    vec![
        (SERVICE, question(Kind::Addresses(Family::V4, 80))),
        (SERVICE, question(Kind::Addresses(Family::V6, 80))),
        (PORT, question(Kind::Services(Family::V4))),
    ]
}

fn full(name: &str) -> Name {
    let mut name = Name::from_ascii(name).expect("a name");
    name.set_fqdn(true);
    name
}

fn names() -> impl Strategy<Value = Name> {
    let pods = ["web-0.web.svc", "10-0-0-1.web.svc"];
    let names = [&pods[..], &[SERVICE, PORT, "a.b", "."]].concat();
    prop::sample::select(names).prop_map(full)
}

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        any::<u32>().prop_map(Ipv4Addr::from_bits),
        (0..9_u8).prop_map(|host| Ipv4Addr::new(10, 0, 0, host)),
        Just(Ipv4Addr::new(169, 254, 169, 254)),
        Just(Ipv4Addr::UNSPECIFIED),
        Just(Ipv4Addr::LOCALHOST),
        Just(Ipv4Addr::BROADCAST),
    ]
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    let metadata = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    prop_oneof![
        any::<u128>().prop_map(Ipv6Addr::from_bits),
        v4().prop_map(|address| address.to_ipv6_mapped()),
        Just(metadata),
        Just(Ipv6Addr::LOCALHOST),
    ]
}

fn data() -> impl Strategy<Value = RData> {
    let srv = (0..3_u16, any::<u16>(), 79..82_u16, names()).prop_map(
        |(priority, weight, port, target)| {
            RData::SRV(rdata::SRV::new(priority, weight, port, target))
        },
    );
    prop_oneof![
        3 => v4().prop_map(|address| RData::A(rdata::A(address))),
        2 => v6().prop_map(|address| RData::AAAA(rdata::AAAA(address))),
        3 => srv,
        1 => names().prop_map(|target| RData::CNAME(rdata::CNAME(target))),
        1 => names().prop_map(|target| RData::NS(rdata::NS(target))),
    ]
}

fn records(names: impl Strategy<Value = Name>) -> impl Strategy<Value = Vec<Record>> {
    let record = (names, any::<u32>(), data())
        .prop_map(|(name, ttl, data)| Record::from_rdata(name, ttl, data));
    vec(record, 0..6)
}

/// The question in a message: usually the one that was asked.
fn asked() -> impl Strategy<Value = (Name, Type)> {
    let sane = [(SERVICE, Type::A), (SERVICE, Type::AAAA), (PORT, Type::SRV)];
    let any_type = prop::sample::select(vec![Type::A, Type::AAAA, Type::SRV, Type::ANY]);
    prop_oneof![
        9 => prop::sample::select(sane.to_vec()).prop_map(|(name, asked)| (full(name), asked)),
        1 => (names(), any_type),
    ]
}

/// A message as a server might send it, though not a sane one.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    asked().prop_flat_map(|(name, asked)| {
        let codes = prop_oneof![
            9 => Just(ResponseCode::NoError),
            1 => Just(ResponseCode::NXDomain),
            1 => any::<u8>().prop_map(|code| ResponseCode::from(0, code & 15)),
        ];
        let owners = prop_oneof![3 => Just(name.clone()), 1 => names()];
        let sections = (records(owners), records(names()), records(names()));
        let truncation = prop::bool::weighted(0.2);
        (codes, truncation, sections).prop_map(
            move |(code, truncation, (answers, authorities, additionals))| {
                let mut message = Message::response(1, OpCode::Query);
                message.metadata.response_code = code;
                message.metadata.truncation = truncation;
                message.add_query(Question::query(name.clone(), asked));
                message.add_answers(answers);
                message.add_authorities(authorities);
                message.add_additionals(additionals);
                message.to_vec().expect("short enough")
            },
        )
    })
}

/// Damage: bytes overwritten, and the end cut off.
fn damage() -> impl Strategy<Value = (Vec<(Index, u8)>, Option<Index>)> {
    (
        vec((any::<Index>(), any::<u8>()), 0..3),
        prop::option::weighted(0.05, any::<Index>()),
    )
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (messages(), damage()).prop_map(|(mut bytes, (overwritten, cut))| {
        for (at, byte) in overwritten {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    });
    prop_oneof![
        9 => damaged,
        1 => vec(any::<u8>(), 0..600),
    ]
}

/// A runtime, because questions have timers.
static CLOCK: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().expect("a runtime")
});

/// Whether every endpoint could be a pod's, and there are no more than [`CAP`].
fn is_sane(endpoints: &[Endpoint]) -> bool {
    let mut allowed = endpoints.to_vec();
    endpoints.len() <= CAP
        && Filter::new(false).apply(&mut allowed).is_ok()
        && allowed.len() == endpoints.len()
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 4_000;
    }
    config.failure_persistence = None;
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_message_causes_no_panic_no_hang_and_no_impossible_endpoint(answers in vec(bytes(), 1..4)) {
        let _clock = CLOCK.enter();
        for on_empty in [OnEmpty::Confirm, OnEmpty::Believe] {
            for (name, mut question) in questions(on_empty) {
                for bytes in &answers {
                    let wire = Wire(Arc::new(Mutex::new(bytes.clone())));
                    let looked = look(&wire, &Filter::new(false), &PodNames::default(), name.into(), question.kind()).now_or_never();
                    let before = question.endpoints().to_vec();
                    let answer = looked.expect("there is nothing to wait for");
                    let failed = answer.is_err();
                    question.answered(answer);
                    prop_assert!(is_sane(question.endpoints()), "{:?}", question.endpoints());
                    if failed {
                        prop_assert_eq!(question.endpoints(), before, "a failure changes nothing");
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_thousand_addresses_the_same_4096_are_used() {
    let script = Script::new();
    let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n));
    let say = |addresses: Vec<IpAddr>| {
        script.say("web.svc", RecordType::A, Say::Addresses(addresses));
    };
    say((0..100_000).map(address).collect());
    let mut watch = Watch::new(discovery("web.svc.:80", &script));
    assert_eq!(change(&mut watch).await.joined.len(), CAP);
    say((0..100_000).rev().map(address).collect());
    let churn = timeout(60 * SECOND, watch.next()).await;
    assert!(churn.is_err(), "another order, the same choice");
}
