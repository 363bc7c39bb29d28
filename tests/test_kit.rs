//! Tests of the test kit itself, on which all other tests rely.

mod support;

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{future::join, stream};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
        rr::{Name, RData, RecordType},
    },
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower::{BoxError, Service, ServiceExt};
use tower_headless::{Unsent, test_util};

use support::{
    cluster::{Cluster, SERVICE},
    dns::{DnsServer, Fault, Glue, Srv, Transport},
    http::{Connections, PodBody},
    pod::{Mode, Pod},
    within,
};

/// The second chunk comes an hour after the first.
const LONG_BODY: &str = "/stream/2/3600000";
const NAME: &str = "web.svc.";
const SRV_NAME: &str = "_http._tcp.web.default.svc.cluster.local.";
/// The wait for something that must *not* come: long enough for anything on loopback.
const NOTHING: Duration = Duration::from_millis(200);
/// For something that must come later than something else: long enough for a busy machine.
const LATE: Duration = Duration::from_secs(1);

// ---------------------------------------------------------------- DNS: records

#[tokio::test]
async fn records_come_as_given_whatever_the_case_of_the_name() {
    let dns = DnsServer::start().await;
    let given = [v4(3), v4(1), v4(3)];
    dns.set_a("Web.SVC", 7, given);
    dns.set_aaaa(NAME, 9, [Ipv6Addr::LOCALHOST]);

    let answer = ask_udp(&dns, "wEB.svc.", RecordType::A, Some(1232)).await;
    assert_eq!(addresses(&answer), given.map(IpAddr::V4));
    assert!(answer.answers.iter().all(|record| record.ttl == 7));
    assert!(answer.edns.is_some(), "an OPT is answered by an OPT");
    let asked = Name::from_ascii("wEB.svc.").expect("a name");
    assert!(answer.queries[0].name().eq_case(&asked));

    let answer = ask_udp(&dns, NAME, RecordType::AAAA, None).await;
    assert_eq!(addresses(&answer), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    assert!(answer.edns.is_none());
}

#[tokio::test]
async fn absent_names_and_absent_families_differ() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, [v4(1)]);
    let nodata = ask_udp(&dns, NAME, RecordType::AAAA, None).await;
    assert_eq!(nodata.response_code, ResponseCode::NoError);
    assert_eq!(negative_ttl(&nodata), Some(5));

    dns.set_negative_ttl(11);
    let emptied = |dns: &DnsServer| dns.set_a(NAME, 5, []);
    let removed = |dns: &DnsServer| dns.remove(NAME);
    for absence in [emptied as fn(&DnsServer), removed] {
        dns.set_a(NAME, 5, [v4(1)]);
        absence(&dns);
        let nxdomain = ask_udp(&dns, NAME, RecordType::A, None).await;
        assert_eq!(nxdomain.response_code, ResponseCode::NXDomain);
        assert_eq!(negative_ttl(&nxdomain), Some(11));
    }
}

#[tokio::test]
async fn shuffled_answers_hold_the_same_records() {
    let dns = DnsServer::start().await;
    let given: Vec<_> = many(20).map(IpAddr::V4).collect();
    dns.set_a(NAME, 5, many(20));
    dns.shuffle(true);
    let first = addresses(&ask_udp(&dns, NAME, RecordType::A, None).await);
    let second = addresses(&ask_udp(&dns, NAME, RecordType::A, None).await);
    assert_ne!(first, second);
    for mut answer in [first, second] {
        answer.sort();
        assert_eq!(answer, given);
    }
}

#[tokio::test]
async fn udp_answers_keep_to_the_payload_size() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, many(200));
    // 12 bytes of header, 13 of question ("web.svc." takes 9), 16 a record, 11 of OPT.
    for (payload, fit) in [(None, 30), (Some(100), 29), (Some(1232), 74)] {
        let answer = ask_udp(&dns, NAME, RecordType::A, payload).await;
        assert!(answer.truncation, "payload {payload:?}");
        assert_eq!(answer.answers.len(), fit, "payload {payload:?}");
    }
    let answer = ask_udp(&dns, NAME, RecordType::A, Some(4096)).await;
    assert!(!answer.truncation);
    assert_eq!(answer.answers.len(), 200);
}

#[tokio::test]
async fn tcp_answers_hold_what_a_message_can() {
    let dns = DnsServer::start().await;
    let name = "web.default.svc.cluster.local.";
    dns.set_a(name, 5, many(4_091));
    let answer = ask_tcp(&dns, name, RecordType::A).await;
    assert!(!answer.truncation);
    assert_eq!(
        addresses(&answer),
        many(4_091).map(IpAddr::V4).collect::<Vec<_>>()
    );

    dns.set_a(name, 5, many(5_000));
    let answer = ask_tcp(&dns, name, RecordType::A).await;
    assert!(answer.truncation);
    // 65,535 bytes, less 12 of header, 35 of question and 11 of OPT: 4,092.3 records.
    assert_eq!(answer.answers.len(), 4_092);
}

#[tokio::test]
async fn hickory_follows_truncation_to_tcp() {
    for size in [1_000, 4_091] {
        let dns = DnsServer::start().await;
        dns.set_a(SERVICE, 30, many(size));
        let lookup = resolver(&dns).lookup(SERVICE, RecordType::A).await;
        let answers = lookup.expect("the whole answer").answers().len();
        assert_eq!(answers, usize::from(size));
        assert_eq!(transports(&dns), [Transport::Udp, Transport::Tcp]);
    }
}

#[tokio::test]
async fn one_tcp_connection_takes_several_queries() {
    let dns = DnsServer::start().await;
    dns.set_a("slow.svc", 5, [v4(1)]);
    dns.set_a("fast.svc", 5, [v4(2)]);
    dns.fault("slow.svc", RecordType::A, Fault::Delay(LATE));
    let mut stream = connect(dns.addr()).await;
    for name in ["slow.svc.", "fast.svc."] {
        send_tcp(&mut stream, &question(name, RecordType::A, None)).await;
    }
    let first = receive_tcp(&mut stream).await;
    let second = receive_tcp(&mut stream).await;
    assert_eq!(addresses(&first), [IpAddr::V4(v4(2))]);
    assert_eq!(addresses(&second), [IpAddr::V4(v4(1))]);
}

// ---------------------------------------------------------------- DNS: SRV, glue, CNAME

#[tokio::test]
async fn srv_records_come_as_given() {
    let dns = DnsServer::start().await;
    let full = Srv {
        priority: 3,
        weight: 7,
        port: 65_535,
        target: "Pod-0.web.svc.".to_owned(),
    };
    let short = Srv::new(80, "pod-1.web.svc");
    assert_eq!((short.priority, short.weight), (0, 100));
    let nowhere = Srv::new(0, ".");
    let given = [full, short, nowhere];
    dns.set_srv("_HTTP._tcp.web.default.svc.cluster.local", 7, given.clone());

    for answer in [
        ask_udp(&dns, SRV_NAME, RecordType::SRV, None).await,
        ask_tcp(&dns, SRV_NAME, RecordType::SRV).await,
    ] {
        assert!(answer.answers.iter().all(|record| record.ttl == 7));
        assert!(!answer.truncation && answer.additionals.is_empty());
        let mut fqdns = given.clone();
        fqdns[1].target.push('.');
        assert_eq!(services(&answer), fqdns);
    }
    let lookup = resolver(&dns).lookup(SRV_NAME, RecordType::SRV).await;
    assert_eq!(lookup.expect("an answer").answers().len(), 3);
    let nodata = ask_udp(&dns, SRV_NAME, RecordType::A, None).await;
    assert_eq!(nodata.response_code, ResponseCode::NoError);
    assert_eq!(negative_ttl(&nodata), Some(5));
}

#[tokio::test]
async fn srv_targets_are_whole_names_and_the_owners_of_glue_point_to_them() {
    let dns = DnsServer::start().await;
    dns.set_srv(NAME, 5, [Srv::new(80, NAME), Srv::new(80, "pod.web.svc")]);
    dns.set_a(NAME, 5, [v4(1)]);
    dns.set_a("pod.web.svc", 5, [v4(2)]);
    let udp = udp_client(&dns).await;
    send_udp(&udp, &question(NAME, RecordType::SRV, None)).await;
    let bytes = receive_udp_bytes(&udp).await;
    let count = |name: &[u8]| bytes.windows(name.len()).filter(|it| *it == name).count();
    // The question and both targets are written in full, and the second target ends like the first. The glue has
    // pointers.
    assert_eq!(count(b"\x03web\x03svc\x00"), 3);
    assert_eq!(count(b"\x03pod\x03web\x03svc\x00"), 1);
    let answer = Message::from_vec(&bytes).expect("a DNS message");
    let glue = [(NAME, v4(1)), ("pod.web.svc.", v4(2))];
    assert_eq!(
        glued(&answer),
        glue.map(|(name, ip)| (name.to_owned(), ip.into()))
    );
}

#[tokio::test]
async fn glue_has_the_zone_s_records_of_each_target() {
    let dns = DnsServer::start().await;
    let named = ["a.svc", "B.svc.", "none.svc", "b.svc"];
    dns.set_srv(SRV_NAME, 5, named.map(|target| Srv::new(80, target)));
    dns.set_a("a.svc", 77, [v4(1), v4(2)]);
    dns.set_a("b.svc", 77, [v4(3)]);
    dns.set_aaaa("b.svc", 77, [Ipv6Addr::LOCALHOST]);
    let whole = [
        ("a.svc.", IpAddr::V4(v4(1))),
        ("a.svc.", IpAddr::V4(v4(2))),
        ("B.svc.", IpAddr::V4(v4(3))),
        ("B.svc.", IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ]
    .map(|(name, ip)| (name.to_owned(), ip));
    for (glue, count) in [
        (None, 4), // the default
        (Some(Glue::None), 0),
        (Some(Glue::Partial(3)), 3),
        (Some(Glue::Partial(9)), 4),
        (Some(Glue::Whole), 4),
    ] {
        if let Some(glue) = glue {
            dns.set_glue(glue);
        }
        let answer = ask_udp(&dns, SRV_NAME, RecordType::SRV, Some(1232)).await;
        assert_eq!(services(&answer).len(), 4, "{glue:?}");
        assert_eq!(glued(&answer), whole[..count], "{glue:?}");
        assert!(!answer.truncation, "{glue:?}");
        assert!(answer.edns.is_some());
        assert!(answer.additionals.iter().all(|record| record.ttl == 77));
    }
    let lookup = resolver(&dns).lookup(SRV_NAME, RecordType::SRV).await;
    assert_eq!(lookup.expect("an answer").additionals().len(), 4);
    let address = ask_udp(&dns, "a.svc.", RecordType::A, None).await;
    assert!(address.additionals.is_empty(), "only SRV has glue");
}

#[tokio::test]
async fn missing_glue_truncates_only_if_the_glue_must_be_whole() {
    let dns = DnsServer::start().await;
    publish_srv(&dns, 10);
    // 58 bytes of header and question and 11 of OPT, 57 an SRV and 16 an address.
    let bare = 58 + 11 + 10 * 57;
    let whole = bare + 10 * 16;
    for (glue, payload, truncated, count) in [
        (Glue::Whole, whole, false, 10),
        (Glue::Whole, whole - 1, true, 9),
        (Glue::Whole, bare, true, 0),
        (Glue::Partial(8), whole - 1, false, 8),
        (Glue::Partial(8), bare + 16, false, 1),
        (Glue::None, bare, false, 0),
    ] {
        dns.set_glue(glue);
        let answer = ask_udp(&dns, SRV_NAME, RecordType::SRV, Some(payload)).await;
        assert_eq!(services(&answer).len(), 10, "{glue:?} {payload}");
        assert_eq!(glued(&answer).len(), count, "{glue:?} {payload}");
        assert_eq!(answer.truncation, truncated, "{glue:?} {payload}");
    }
    for glue in [Glue::Whole, Glue::Partial(10), Glue::None] {
        dns.set_glue(glue);
        // Room for 9 SRV and 3 addresses.
        let answer = ask_udp(&dns, SRV_NAME, RecordType::SRV, Some(bare - 1)).await;
        assert!(answer.truncation, "{glue:?}");
        assert_eq!(services(&answer).len(), 9, "{glue:?}");
        assert!(glued(&answer).is_empty(), "{glue:?}");
    }
}

#[tokio::test]
async fn a_thousand_srv_are_whole_over_tcp_as_coredns_gives_them_glue_cut_and_tc_set() {
    let dns = DnsServer::start().await;
    publish_srv(&dns, 1_000);
    let answer = ask_tcp(&dns, SRV_NAME, RecordType::SRV).await;
    assert!(answer.truncation);
    let whole: Vec<_> = (0..1_000).map(|i| Srv::new(8080, pod_name(i))).collect();
    assert_eq!(services(&answer), whole);
    // 65,535 bytes, less 69 of header, question and OPT, and 57 an SRV, leave 8,466. The first 287 targets stand below
    // 16,384, where their glue can point to (16 bytes each); the other glue has its owner written out (53 bytes each).
    let glue = (0..).zip(many(287 + 73));
    let glue: Vec<_> = glue.map(|(i, ip)| (pod_name(i), ip.into())).collect();
    assert_eq!(glued(&answer), glue);

    for (glue, count) in [(Glue::None, 0), (Glue::Partial(7), 7)] {
        dns.set_glue(glue);
        let answer = ask_tcp(&dns, SRV_NAME, RecordType::SRV).await;
        assert!(!answer.truncation, "{glue:?}");
        assert_eq!(services(&answer), whole, "{glue:?}");
        assert_eq!(glued(&answer).len(), count, "{glue:?}");
    }
}

#[tokio::test]
async fn hickory_gives_nothing_of_a_truncated_answer_on_tcp() {
    let dns = DnsServer::start().await;
    publish_srv(&dns, 1_000);
    let lookup = resolver(&dns).lookup(SRV_NAME, RecordType::SRV).await;
    assert!(matches!(lookup, Err(NetError::Truncated)), "{lookup:?}");
    assert_eq!(transports(&dns), [Transport::Udp, Transport::Tcp]);
    dns.set_glue(Glue::None);
    let lookup = resolver(&dns).lookup(SRV_NAME, RecordType::SRV).await;
    assert_eq!(lookup.expect("the whole answer").answers().len(), 1_000);
}

#[tokio::test]
async fn an_alias_answers_with_its_target() {
    let dns = DnsServer::start().await;
    dns.set_cname("alias.svc", 9, "Middle.svc");
    dns.set_cname("middle.svc", 8, NAME);
    dns.set_a("alias.svc", 5, [v4(9)]); // hidden by the CNAME
    dns.set_a(NAME, 7, [v4(1), v4(2)]);
    let answer = ask_udp(&dns, "Alias.svc.", RecordType::A, None).await;
    assert_eq!(answer.response_code, ResponseCode::NoError);
    let aliases = [("Middle.svc.", 9), (NAME, 8)];
    assert_eq!(
        cnames(&answer),
        aliases.map(|(name, ttl)| (name.to_owned(), ttl))
    );
    assert_eq!(addresses(&answer), [v4(1), v4(2)].map(IpAddr::V4));
    assert_eq!(answer.answers[3].name.to_string(), NAME);
    assert_eq!(answer.answers[3].ttl, 7);
    dns.forget();
    let lookup = resolver(&dns).lookup("alias.svc.", RecordType::A).await;
    assert_eq!(lookup.expect("an answer").answers().len(), 4);
    assert_eq!(dns.exchanges(), 1, "hickory needs to ask nothing else");
    let itself = ask_udp(&dns, "alias.svc.", RecordType::CNAME, None).await;
    assert_eq!(cnames(&itself).len(), 1);
}

#[tokio::test]
async fn an_alias_of_nothing_is_a_bare_cname_and_a_circular_alias_ends() {
    let dns = DnsServer::start().await;
    dns.set_cname("alias.svc", 9, NAME);
    dns.set_aaaa(NAME, 5, [Ipv6Addr::LOCALHOST]);
    for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
        if code == ResponseCode::NXDomain {
            dns.remove(NAME);
        }
        let answer = ask_udp(&dns, "alias.svc.", RecordType::A, None).await;
        assert_eq!(answer.response_code, ResponseCode::NoError);
        assert_eq!(cnames(&answer), [(NAME.to_owned(), 9)]);
        assert_eq!((answer.answers.len(), answer.authorities.len()), (1, 0));
        // A resolver asks for the target itself, and so learns that it doesn't exist.
        let lookup = resolver(&dns).lookup("alias.svc.", RecordType::A).await;
        assert_eq!(absence(&lookup), Some(code), "{lookup:?}");
    }
    dns.set_cname(NAME, 9, "alias.svc");
    let circle = ask_udp(&dns, NAME, RecordType::A, None).await;
    assert_eq!(cnames(&circle).len(), 8);
    let lookup = resolver(&dns).lookup(NAME, RecordType::A).await;
    assert!(absence(&lookup).is_some(), "{lookup:?}");

    dns.remove("alias.svc");
    let answer = ask_udp(&dns, "alias.svc.", RecordType::A, None).await;
    assert_eq!(answer.response_code, ResponseCode::NXDomain);
}

// ---------------------------------------------------------------- DNS: faults

#[tokio::test]
async fn faults_that_answer_have_their_code_and_no_records() {
    use ResponseCode::{NXDomain, NoError, Refused, ServFail};
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, [v4(1)]);
    dns.set_aaaa(NAME, 5, [Ipv6Addr::LOCALHOST]);
    for (fault, code, soa) in [
        (Fault::SERVFAIL, ServFail, None),
        (Fault::REFUSED, Refused, None),
        (Fault::NxDomain, NXDomain, Some(5)),
        (Fault::EmptyNoError, NoError, Some(5)),
    ] {
        dns.fault("WEB.svc", RecordType::A, fault.clone());
        for answer in [
            ask_udp(&dns, NAME, RecordType::A, None).await,
            ask_tcp(&dns, NAME, RecordType::A).await,
        ] {
            assert_eq!(answer.response_code, code, "{fault:?}");
            assert_eq!(negative_ttl(&answer), soa, "{fault:?}");
            assert!(answer.answers.is_empty());
        }
        let other = ask_udp(&dns, NAME, RecordType::AAAA, None).await;
        assert_eq!(other.answers.len(), 1, "the other family is untouched");
    }
    dns.clear_faults();
    let answer = ask_udp(&dns, NAME, RecordType::A, None).await;
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn a_silent_server_sends_no_reply() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, [v4(1)]);
    dns.fault("*", RecordType::ANY, Fault::Silent);
    let udp = udp_client(&dns).await;
    let query = question(NAME, RecordType::A, None);
    send_udp(&udp, &query).await;
    assert_eq!(dns.next_query().await.transport, Transport::Udp);
    let mut tcp = connect(dns.addr()).await;
    send_tcp(&mut tcp, &query).await;
    assert_eq!(dns.next_query().await.transport, Transport::Tcp);
    let replies = futures::future::select(Box::pin(receive_udp(&udp)), Box::pin(tcp.read_u8()));
    assert!(timeout(NOTHING, replies).await.is_err());
}

#[tokio::test]
async fn a_delayed_answer_is_the_one_at_the_time_of_the_query() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, [v4(1)]);
    dns.fault(NAME, RecordType::A, Fault::Delay(LATE).times(1));
    let udp = udp_client(&dns).await;
    let delayed = question(NAME, RecordType::A, None);
    send_udp(&udp, &delayed).await;
    dns.wait_for_queries(1).await;
    dns.set_a(NAME, 5, [v4(2)]);
    let fast = question(NAME, RecordType::A, None);
    send_udp(&udp, &fast).await;
    let first = receive_udp(&udp).await;
    let second = receive_udp(&udp).await;
    assert_eq!(addresses(&first), [IpAddr::V4(v4(2))]);
    assert_eq!(first.id, fast.id);
    assert_eq!(addresses(&second), [IpAddr::V4(v4(1))]);
    assert_eq!(second.id, delayed.id);
}

#[tokio::test]
async fn answers_are_truncated_on_udp_only_or_on_both() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, [v4(1)]);
    dns.fault(NAME, RecordType::A, Fault::TruncateUdp);
    let lookup = resolver(&dns).lookup(NAME, RecordType::A).await;
    assert_eq!(lookup.expect("TCP has it").answers().len(), 1);
    assert_eq!(transports(&dns), [Transport::Udp, Transport::Tcp]);

    dns.fault(NAME, RecordType::A, Fault::TruncateAll);
    let answer = ask_tcp(&dns, NAME, RecordType::A).await;
    assert!(answer.truncation);
    assert!(answer.answers.is_empty());
    let lookup = resolver(&dns).lookup(NAME, RecordType::A).await;
    assert!(matches!(lookup, Err(NetError::Truncated)), "{lookup:?}");
}

#[tokio::test]
async fn garbage_is_no_message() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, [v4(1)]);
    let query = question(NAME, RecordType::A, None);
    for right_id in [true, false] {
        dns.fault(NAME, RecordType::A, Fault::Garbage { right_id });
        let udp = udp_client(&dns).await;
        send_udp(&udp, &query).await;
        let bytes = receive_udp_bytes(&udp).await;
        assert!(Message::from_vec(&bytes).is_err());
        assert_eq!(bytes.starts_with(&query.id.to_be_bytes()), right_id);
    }
}

#[tokio::test]
async fn hickory_treats_garbage_as_an_error_or_as_silence() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, [v4(1)]);
    dns.fault(NAME, RecordType::A, Fault::Garbage { right_id: true });
    let lookup = resolver(&dns).lookup(NAME, RecordType::A).await;
    assert!(matches!(lookup, Err(NetError::Proto(_))), "{lookup:?}");
    dns.fault(NAME, RecordType::A, Fault::Garbage { right_id: false });
    let lookup = resolver(&dns).lookup(NAME, RecordType::A).await;
    assert!(matches!(lookup, Err(NetError::Timeout)), "{lookup:?}");
}

#[tokio::test]
async fn raw_bytes_come_with_the_query_s_id() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, [v4(1)]);
    let query = question(NAME, RecordType::A, None);
    let id = query.id.to_be_bytes();
    let raw = |bytes: &[u8]| dns.fault(NAME, RecordType::A, Fault::Raw(bytes.into()));
    let udp = udp_client(&dns).await;
    for (bytes, reply) in [
        (&b"\xFF\xFFand more"[..], [&id[..], b"and more"].concat()),
        (b"\xFF\xFF", id.to_vec()),
        (b"\xFF", vec![0xFF]),
        (b"", vec![]),
    ] {
        raw(bytes);
        send_udp(&udp, &query).await;
        assert_eq!(receive_udp_bytes(&udp).await, reply);
    }

    // A reply to another query, as long as TCP can carry. The header's counts don't cover all that follows.
    let mut long = question("other.svc.", RecordType::AAAA, None)
        .to_vec()
        .expect("encodable");
    long.resize(65_535, 0xAB);
    raw(&long);
    let mut tcp = connect(dns.addr()).await;
    send_tcp(&mut tcp, &query).await;
    let bytes = receive_tcp_bytes(&mut tcp).await;
    assert_eq!(bytes[..2], id);
    assert_eq!(bytes[2..], long[2..]);
}

#[tokio::test]
async fn a_server_that_is_silent_on_tcp_answers_on_udp() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, many(100));
    // UDP queries don't use up the fault.
    dns.fault(NAME, RecordType::A, Fault::SilentTcp.times(1));
    let cut = ask_udp(&dns, NAME, RecordType::A, Some(1232)).await;
    assert!(cut.truncation && !cut.answers.is_empty());
    let mut tcp = connect(dns.addr()).await;
    send_tcp(&mut tcp, &question(NAME, RecordType::A, None)).await;
    dns.wait_for_queries(2).await;
    assert!(timeout(NOTHING, tcp.read_u8()).await.is_err());
    // The connection still works, and the fault is over.
    send_tcp(&mut tcp, &question(NAME, RecordType::A, None)).await;
    assert_eq!(receive_tcp(&mut tcp).await.answers.len(), 100);

    dns.fault(NAME, RecordType::A, Fault::SilentTcp);
    let lookup = resolver(&dns).lookup(NAME, RecordType::A).await;
    assert!(matches!(lookup, Err(NetError::Timeout)), "{lookup:?}");
}

#[tokio::test]
async fn a_fault_for_n_queries_ends_after_them() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, [v4(1)]);
    // TCP queries don't use up a UDP fault.
    dns.fault(NAME, RecordType::A, Fault::TruncateUdp.times(2));
    assert!(!ask_tcp(&dns, NAME, RecordType::A).await.truncation);
    for truncated in [true, true, false] {
        let answer = ask_udp(&dns, NAME, RecordType::A, None).await;
        assert_eq!(answer.truncation, truncated);
    }
}

// ---------------------------------------------------------------- DNS: log, stop

#[tokio::test]
async fn queries_are_logged_in_order() {
    let dns = DnsServer::start().await;
    let before = tokio::time::Instant::now();
    let asked = async {
        ask_udp(&dns, "A.svc", RecordType::A, None).await;
        ask_tcp(&dns, "b.svc", RecordType::AAAA).await;
        ask_udp(&dns, "a.svc", RecordType::A, None).await;
    };
    let (_, ()) = join(asked, dns.wait_for_queries(3)).await;
    let log = dns.queries();
    let names: Vec<_> = log.iter().map(|query| query.name.as_str()).collect();
    assert_eq!(names, ["a.svc.", "b.svc.", "a.svc."]);
    assert_eq!(log[1].transport, Transport::Tcp);
    assert_eq!(log[1].record_type, support::dns::RecordType::AAAA);
    assert!(before <= log[0].at && log.is_sorted_by_key(|query| query.at));
    assert_eq!(dns.count("A.SVC", RecordType::A), 2);
    assert_eq!(dns.count("a.svc.", RecordType::AAAA), 0);
    for name in names {
        assert_eq!(dns.next_query().await.name, name);
    }
    assert!(timeout(NOTHING, dns.next_query()).await.is_err());
}

#[tokio::test]
async fn the_log_of_queries_begins_anew_after_forget() {
    let dns = DnsServer::start().await;
    ask_udp(&dns, "a.svc", RecordType::A, None).await;
    ask_tcp(&dns, "b.svc", RecordType::A).await;
    dns.fault("c.svc", RecordType::A, Fault::Silent);
    let udp = udp_client(&dns).await;
    send_udp(&udp, &question("c.svc", RecordType::A, None)).await;
    dns.wait_for_queries(3).await;
    assert_eq!(dns.exchanges(), 3, "the unanswered count too");
    assert_eq!(dns.next_query().await.name, "a.svc.");

    dns.forget();
    assert_eq!((dns.exchanges(), dns.queries().len()), (0, 0));
    assert_eq!(dns.count("a.svc", RecordType::A), 0);
    let waiting = dns.wait_until(|queries| queries.iter().any(|query| query.name == "d.svc."));
    let asking = async {
        dns.forget();
        ask_udp(&dns, "d.svc", RecordType::A, None).await;
    };
    join(waiting, asking).await;
    assert_eq!(dns.exchanges(), 1);
    assert_eq!(dns.next_query().await.name, "d.svc.");
}

#[tokio::test]
async fn servers_listen_on_the_address_that_the_test_chooses() {
    let first = DnsServer::start().await;
    assert_eq!(first.addr().ip(), Ipv4Addr::LOCALHOST);
    let ip = Ipv4Addr::new(127, 0, 0, 53);
    let [second, third] = [DnsServer::start_at(ip).await, DnsServer::start_at(ip).await];
    assert_eq!(second.addr().ip(), ip);
    assert_ne!(second.addr(), third.addr());
    for (n, dns) in (1..).zip([&first, &second, &third]) {
        dns.set_a(NAME, 5, [v4(n)]);
    }
    second.restart().await;
    for (n, dns) in (1..).zip([&first, &second, &third]) {
        let udp = ask_udp(dns, NAME, RecordType::A, None).await;
        let tcp = ask_tcp(dns, NAME, RecordType::A).await;
        for answer in [udp, tcp] {
            assert_eq!(addresses(&answer), [IpAddr::V4(v4(n))]);
        }
    }
    second.stop().await;
    assert_refused(second.addr()).await;
}

#[tokio::test]
async fn the_condition_of_a_wait_may_use_the_server() {
    let dns = DnsServer::start().await;
    let asking = ask_udp(&dns, NAME, RecordType::A, None);
    let waiting = dns.wait_until(|_| dns.count(NAME, RecordType::A) == 1 && dns.exchanges() == 1);
    join(waiting, asking).await;
}

#[tokio::test]
async fn a_stopped_server_refuses_and_comes_back() {
    let dns = DnsServer::start().await;
    dns.set_a(NAME, 5, [v4(1)]);
    let mut open = connect(dns.addr()).await;
    // The query is answered, so the connection was accepted. An unaccepted one would be reset by the kernel, while the
    // server closes an accepted one in order.
    send_tcp(&mut open, &question(NAME, RecordType::A, None)).await;
    receive_tcp(&mut open).await;
    for _ in 0..3 {
        dns.stop().await;
        let udp = udp_client(&dns).await;
        send_udp(&udp, &question(NAME, RecordType::A, None)).await;
        let refused = within("ICMP", udp.recv(&mut [0; 1])).await;
        assert_eq!(
            refused.expect_err("nobody").kind(),
            ErrorKind::ConnectionRefused
        );
        assert_refused(dns.addr()).await;
        dns.restart().await;
        let answer = ask_udp(&dns, NAME, RecordType::A, None).await;
        assert_eq!(answer.answers.len(), 1);
        let answer = ask_tcp(&dns, NAME, RecordType::A).await;
        assert_eq!(answer.answers.len(), 1);
    }
    assert_eq!(open.read(&mut [0; 1]).await.expect("no reset"), 0);
}

#[tokio::test]
async fn a_dropped_server_closes_its_sockets() {
    let dns = DnsServer::start().await;
    let addr = dns.addr();
    let mut stream = connect(addr).await;
    drop(dns);
    let end = within("the connection's end", stream.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_refused(addr).await;
}

// ---------------------------------------------------------------- pods

#[tokio::test]
async fn a_healthy_pod_s_answer_names_the_pod() {
    let pod = pod().await;
    let mut http = Http::new(pod.addr());
    let response = within("a response", send(&mut http, "/"))
        .await
        .expect("200");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-pod"], pod.name());
    assert_eq!(response.headers()["x-version"], "HTTP/1.1");
    assert_eq!(response.headers()["x-method"], "GET");
    assert_eq!(response.headers()["x-host"], "pod");
    assert_eq!(pod.name(), pod.addr().ip().to_string());
    assert_eq!(
        text(response).await,
        format!("200 OK from {}\n", pod.name())
    );
    let stats = pod.wait_until(|stats| stats.in_flight == 0).await;
    assert_eq!(
        (stats.requests, stats.accepted, stats.connections),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn modes_change_what_a_pod_does() {
    let pod = pod().await;
    let mut http = Http::new(pod.addr());
    pod.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    let response = send(&mut http, "/").await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(response);

    pod.set(Mode::Slow(Duration::from_millis(1)));
    let response = send(&mut http, "/").await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    drop(response);

    pod.set(Mode::CloseWithoutAnswer);
    let error = send(&mut http, "/").await.expect_err("closed");
    assert!(
        error
            .downcast_ref::<Unsent<Request<Empty<Bytes>>>>()
            .is_none()
    );
    assert!(
        error
            .downcast::<hyper::Error>()
            .expect("hyper's")
            .is_incomplete_message()
    );

    pod.set(Mode::Hung);
    tokio::select! {
        _ = send(&mut http, "/") => panic!("a hung pod answered"),
        _ = pod.wait_until(|stats| stats.in_flight == 1) => {}
    }
    // The client has closed the connection, which ends the request here, too.
    let stats = pod.wait_until(|stats| stats.in_flight == 0).await;
    assert_eq!(stats.requests, 4);
}

#[tokio::test]
async fn a_test_can_set_its_own_answers() {
    let pod = Pod::builder()
        .name("echo")
        .answer(|pod, request| async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await?.to_bytes();
            let text = format!("{pod} {path} {}", body.len());
            match path.as_str() {
                "/broken" => Err(BoxError::from("told to")),
                _ => Ok(Response::new(Full::from(text))),
            }
        })
        .start()
        .await
        .expect("a free port");
    let mut http = Http::new(pod.addr());
    let answer = send(&mut http, "/cart").await.expect("200");
    assert_eq!(answer.headers()["x-pod"], "echo");
    assert_eq!(text(answer).await, "echo /cart 0");
    assert!(send(&mut http, "/broken").await.is_err());

    // A fault replaces the test's answer, and a delay comes before it.
    pod.set(Mode::Status(StatusCode::NOT_FOUND));
    let answer = send(&mut http, "/cart").await.expect("404");
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    pod.set(Mode::Slow(NOTHING));
    let answer = send(&mut http, "/cart").await.expect("200");
    assert_eq!(text(answer).await, "echo /cart 0");
    pod.set(Mode::Grpc(14));
    let answer = send(&mut http, "/cart").await.expect("trailers only");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    assert_eq!(text(answer).await, "");
    assert_eq!(pod.stats().in_flight, 0);
}

#[tokio::test]
async fn a_pod_name_that_is_not_valid_in_a_header_is_an_error() {
    let error = Pod::builder().name("a\nb").start().await.err();
    assert_eq!(error.map(|it| it.kind()), Some(ErrorKind::InvalidInput));
}

#[tokio::test]
#[should_panic(expected = "labels have 63 bytes at most")]
async fn a_target_too_long_for_a_message_is_in_the_panic() {
    let dns = DnsServer::start().await;
    dns.set_srv(NAME, 5, [Srv::new(80, "a".repeat(64))]);
}

#[tokio::test]
async fn a_streamed_body_is_in_flight_to_its_end() {
    let pod = pod().await;
    let mut http = Http::new(pod.addr());
    let response = send(&mut http, "/stream/3/50").await.expect("headers");
    assert_eq!(text(response).await, "chunk 0\nchunk 1\nchunk 2\n");
    pod.wait_until(|stats| stats.in_flight == 0).await;

    let response = send(&mut http, LONG_BODY).await.expect("headers");
    assert_eq!(pod.in_flight(), 1);
    drop(response);
    pod.wait_until(|stats| stats.in_flight == 0).await;
}

#[tokio::test]
async fn a_killed_pod_resets_its_connections() {
    let pod = pod().await;
    pod.set(Mode::Hung);
    let mut idle = connect(pod.addr()).await;
    let mut busy = connect(pod.addr()).await;
    busy.write_all(b"GET / HTTP/1.1\r\nhost: pod\r\n\r\n")
        .await
        .expect("written");
    pod.wait_until(|stats| (stats.connections, stats.in_flight) == (2, 1))
        .await;
    pod.kill().await;
    assert_eq!((pod.connections(), pod.in_flight()), (0, 0));
    for stream in [&mut idle, &mut busy] {
        let reset = stream.read(&mut [0; 1]).await.expect_err("a reset");
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    }
    assert_refused(pod.addr()).await;

    pod.restart().await.expect("the address is free");
    pod.set(Mode::Healthy);
    let response = send(&mut Http::new(pod.addr()), "/").await;
    assert_eq!(response.expect("an answer").status(), StatusCode::OK);
}

#[tokio::test]
async fn a_killed_pod_s_port_is_given_to_nobody_else() {
    let pod = pod().await;
    pod.kill().await;
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let bound = other.expect("a socket").bind(&pod.addr().into());
    assert_eq!(bound.expect_err("taken").kind(), ErrorKind::AddrInUse);
    assert_refused(pod.addr()).await;
    pod.restart().await.expect("the address is free");
    assert!(send(&mut Http::new(pod.addr()), "/").await.is_ok());
}

#[tokio::test]
async fn a_mode_counts_for_requests_that_come_after_it() {
    let pod = pod().await;
    let mut requests = Http::new(pod.addr());
    let asking = send(&mut requests, "/wait/200");
    let changing = async {
        pod.wait_until(|stats| stats.requests == 1).await;
        pod.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    };
    let (response, ()) = join(asking, changing).await;
    assert_eq!(response.expect("an answer").status(), StatusCode::OK);
    let response = send(&mut requests, "/").await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_pod_that_stops_gracefully_finishes_first() {
    let pod = pod().await;
    let mut http = Http::new(pod.addr());
    let mut idle = connect(pod.addr()).await;
    let response = send(&mut http, "/stream/4/50").await.expect("headers");
    pod.wait_until(|stats| stats.connections == 2).await;
    let client = async {
        assert_eq!(idle.read(&mut [0; 1]).await.expect("no reset"), 0);
        assert_refused(pod.addr()).await;
        text(response).await
    };
    let ((), body) = join(within("the end", pod.stop_gracefully()), client).await;
    assert_eq!(body, "chunk 0\nchunk 1\nchunk 2\nchunk 3\n");
    assert_eq!((pod.connections(), pod.in_flight()), (0, 0));
    pod.restart().await.expect("the address is free");
    assert!(send(&mut http, "/").await.is_ok());
}

#[tokio::test]
async fn a_pod_that_cannot_finish_can_be_killed() {
    let pod = pod().await;
    pod.set(Mode::Hung);
    let mut http = Http::new(pod.addr());
    let stopping = async {
        pod.wait_until(|stats| stats.in_flight == 1).await;
        assert!(timeout(NOTHING, pod.stop_gracefully()).await.is_err());
        assert_eq!(pod.in_flight(), 1);
        pod.kill().await;
    };
    let (answer, ()) = join(send(&mut http, "/"), stopping).await;
    assert!(answer.is_err());
}

#[tokio::test]
async fn a_black_hole_answers_no_syn_until_restarted() {
    let pod = pod().await;
    let mut open = connect(pod.addr()).await;
    pod.wait_until(|stats| stats.connections == 1).await;
    pod.black_hole().await.expect("a full backlog");
    assert!(open.read(&mut [0; 1]).await.is_err());
    for _ in 0..3 {
        assert!(
            timeout(NOTHING, TcpStream::connect(pod.addr()))
                .await
                .is_err()
        );
    }
    pod.restart().await.expect("the address is free");
    assert!(send(&mut Http::new(pod.addr()), "/").await.is_ok());
}

#[tokio::test]
async fn a_pod_speaks_http2_and_sends_goaway() {
    let pod = pod().await;
    let stream = TokioIo::new(connect(pod.addr()).await);
    let handshake = http2::handshake(TokioExecutor::new(), stream).await;
    let (mut http, connection) = handshake.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let mut ask = async |path: &str| {
        let uri = format!("http://web.svc:80{path}");
        let request = Request::get(uri).body(Empty::<Bytes>::new());
        within("a response", http.send_request(request.expect("a request"))).await
    };
    let response = ask("/").await.expect("an answer");
    let headers = response.headers();
    assert_eq!(headers["x-version"], "HTTP/2.0");
    assert_eq!(headers["x-method"], "GET");
    assert_eq!(headers["x-host"], "web.svc:80");

    let response = ask("/stream/4/50").await.expect("headers");
    let body = response.into_body().collect();
    let ((), body) = join(within("the end", pod.stop_gracefully()), body).await;
    assert_eq!(body.expect("a whole body").to_bytes().len(), 4 * 8);
    let ended = within("the connection's end", connection).await;
    ended.expect("no panic").expect("GOAWAY, no error");
    assert!(ask("/").await.is_err());
}

#[tokio::test]
async fn a_pod_that_is_killed_ends_its_http2_streams() {
    let pod = pod().await;
    pod.set(Mode::Hung);
    let stream = TokioIo::new(connect(pod.addr()).await);
    let handshake = http2::handshake(TokioExecutor::new(), stream).await;
    let (mut http, connection) = handshake.expect("HTTP/2");
    tokio::spawn(connection);
    let killed = async {
        pod.wait_until(|stats| stats.in_flight == 1).await;
        pod.kill().await;
    };
    let (lost, ()) = join(http.send_request(get("/")), killed).await;
    assert!(lost.is_err());
    pod.wait_until(|stats| stats.in_flight == 0).await;
}

#[tokio::test]
async fn pods_with_tls_speak_what_the_client_prefers() {
    let cluster = Cluster::start_tls(1).await;
    let pod = cluster.pod(0);
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let stream = handshake(&cluster, alpn).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        if alpn == b"http/1.1" {
            assert!(exchange(stream).await.starts_with("HTTP/1.1 200"));
        } else {
            let http = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (mut http, connection) = http.expect("HTTP/2");
            tokio::spawn(connection);
            let response = within("a response", http.send_request(get("/"))).await;
            assert_eq!(response.expect("an answer").status(), StatusCode::OK);
        }
    }
    within("the end", pod.stop_gracefully()).await;
    pod.restart().await.expect("the address is free");
    assert!(handshake(&cluster, b"h2").await.is_ok());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let cluster = Cluster::start_tls_as("other.svc", 1).await;
    assert!(handshake(&cluster, b"h2").await.is_err());
    cluster
        .pod(0)
        .wait_until(|stats| stats.connections == 0)
        .await;
}

// ---------------------------------------------------------------- the HTTP client

#[tokio::test]
async fn a_connection_is_free_when_the_body_has_ended() {
    fn is_shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
    let pod = pod().await;
    let mut http = Http::new(pod.addr());
    is_shareable(&http);
    for _ in 0..10 {
        let response = send(&mut http.clone(), "/").await.expect("an answer");
        text(response).await;
    }
    assert_eq!(pod.stats().accepted, 1);
    let long = send(&mut http, LONG_BODY).await.expect("headers");
    for _ in 0..10 {
        text(send(&mut http, "/").await.expect("an answer")).await;
    }
    assert_eq!(pod.stats().accepted, 2, "headers don't free a connection");
    drop(long);
    let stats = pod.wait_until(|stats| stats.connections == 1).await;
    assert_eq!(stats.in_flight, 0, "half a body closes its connection");
}

#[tokio::test]
async fn a_reserved_connection_goes_back_unused() {
    let pod = pod().await;
    let mut http = Http::new(pod.addr());
    within("readiness", http.ready())
        .await
        .expect("a connection");
    drop(http.clone());
    let mut other = http.clone();
    drop(http);
    text(send(&mut other, "/").await.expect("an answer")).await;
    assert_eq!(pod.stats().accepted, 1);
}

#[tokio::test]
async fn a_request_that_was_not_written_comes_back() {
    let pod = pod().await;
    let mut http = Http::new(pod.addr());
    within("readiness", http.ready())
        .await
        .expect("a connection");
    let mut canary = connect(pod.addr()).await;
    pod.wait_until(|stats| stats.connections == 2).await;
    pod.kill().await;
    // When the runtime reports our reset, it has reported hyper's, too. hyper's task runs while we yield.
    canary.read_u8().await.expect_err("a reset");
    tokio::task::yield_now().await;

    let error = within("an error", http.call(get("/back")))
        .await
        .expect_err("closed");
    let unsent = error
        .downcast::<Unsent<Request<Empty<Bytes>>>>()
        .expect("unsent");
    let (request, source) = unsent.into_parts();
    assert_eq!(request.uri().path(), "/back");
    assert!(source.is::<hyper::Error>());
    let refused = within("a refusal", http.ready())
        .await
        .err()
        .expect("closed");
    assert!(refused.is::<io::Error>());
}

#[tokio::test]
async fn dead_idle_connections_are_passed_over() {
    let pod = pod().await;
    let mut http = Http::new(pod.addr());
    text(send(&mut http, "/").await.expect("an answer")).await;
    pod.stop_gracefully().await;
    pod.restart().await.expect("the address is free");
    let mut canary = connect(pod.addr()).await;
    canary
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .await
        .expect("written");
    canary.read_u8().await.expect("an answer");
    tokio::task::yield_now().await;
    text(send(&mut http, "/").await.expect("an answer")).await;
}

#[tokio::test]
async fn a_connection_that_still_sends_is_passed_over() {
    // Answers at the head of a request, and never reads its body.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let mut http = Connections::new(listener.local_addr().expect("bound"));
    let answering = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.read_u8().await.expect("a request");
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.expect("written");
        stream
    };
    let endless = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BoxError>>());
    let request = Request::post("/").header("host", "pod").body(endless);
    let asking = async {
        http.ready().await.expect("a connection");
        let response = http.call(request.expect("a request")).await;
        let body = response.expect("an answer").into_body();
        body.collect().await.expect("an empty body");
    };
    let (_open, ()) = within("an early answer", join(answering, asking)).await;
    let other = within("another connection", join(listener.accept(), http.ready())).await;
    assert!(other.0.is_ok() && other.1.is_ok());
}

// ---------------------------------------------------------------- the cluster

#[tokio::test]
async fn a_cluster_s_pods_are_those_in_dns() {
    let cluster = Cluster::start(3).await;
    let target = cluster.service_target();
    let expected = format!(
        "dns://{}/web.default.svc.cluster.local:{}",
        cluster.dns().addr(),
        cluster.port()
    );
    assert_eq!(target, expected);
    assert_eq!(published(&cluster).await, ips(&cluster));
    for pod in cluster.pods() {
        assert_eq!(pod.addr().port(), cluster.port());
        assert!(!pod.ip().to_string().starts_with("127.0."));
        assert!(send(&mut Http::new(pod.addr()), "/").await.is_ok());
    }
    cluster.wait_for_requests(3).await;
    let other = Cluster::start(1).await;
    assert!(!ips(&cluster).contains(&ips(&other)[0]));

    cluster.set_ttl(77);
    cluster.set_ready(1, false);
    let answer = ask_udp(cluster.dns(), SERVICE, RecordType::A, None).await;
    assert_eq!(answer.answers[0].ttl, 77);
    assert_eq!(addresses(&answer), [ips(&cluster)[0], ips(&cluster)[2]]);
}

#[tokio::test]
async fn a_cluster_scales_both_ways() {
    let cluster = Cluster::start(0).await;
    assert_ne!(cluster.port(), 0);
    let nobody = ask_udp(cluster.dns(), SERVICE, RecordType::A, None).await;
    assert_eq!(nobody.response_code, ResponseCode::NXDomain);
    cluster.scale(4).await;
    assert_eq!(published(&cluster).await.len(), 4);

    let leaving = cluster.pod(3);
    let mut http = Http::new(leaving.addr());
    let response = send(&mut http, "/stream/3/50").await.expect("headers");
    let ((), body) = join(cluster.scale(2), text(response)).await;
    assert_eq!(body, "chunk 0\nchunk 1\nchunk 2\n");
    assert_refused(leaving.addr()).await;
    assert_eq!(published(&cluster).await, ips(&cluster));
    assert_eq!(ips(&cluster).len(), 2);

    let added = cluster.add_pod().await;
    assert_ne!(
        added.addr(),
        leaving.addr(),
        "addresses rest before they come again"
    );
    let removed = cluster.remove_pod(0).await;
    assert_refused(removed.addr()).await;
    assert_eq!(published(&cluster).await, ips(&cluster));
    assert_eq!(ips(&cluster).len(), 2);
}

#[tokio::test]
async fn a_draining_pod_serves_outside_of_dns() {
    let cluster = Cluster::start(2).await;
    cluster.set_drain(Duration::from_secs(3600));
    let leaving = cluster.pod(1);
    let looking = async {
        assert_eq!(published(&cluster).await, ips(&cluster));
        assert_eq!(ips(&cluster).len(), 1);
        send(&mut Http::new(leaving.addr()), "/").await
    };
    tokio::select! {
        biased;
        () = cluster.scale(1) => panic!("the drain is an hour"),
        answer = looking => assert!(answer.is_ok()),
    }
}

#[tokio::test]
async fn dns_still_names_a_killed_pod() {
    let cluster = Cluster::start(2).await;
    cluster.kill(0).await;
    assert_refused(cluster.pod(0).addr()).await;
    assert_eq!(published(&cluster).await, ips(&cluster));
    cluster.pod(0).restart().await.expect("the address is free");
    assert!(
        send(&mut Http::new(cluster.pod(0).addr()), "/")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_replaced_set_is_published_late() {
    let cluster = Cluster::start(3).await;
    let old = ips(&cluster);
    let looking = async {
        // The new pods exist, but aren't in DNS.
        while ips(&cluster).len() < 3 || ips(&cluster) == old {
            tokio::task::yield_now().await;
        }
        published(&cluster).await
    };
    let ((), seen) = join(cluster.replace_all(LATE), looking).await;
    assert_eq!(seen, old);
    assert_eq!(published(&cluster).await, ips(&cluster));
    assert!(ips(&cluster).iter().all(|ip| !old.contains(ip)));
}

#[tokio::test]
async fn a_dropped_cluster_ends_its_pods_and_its_dns() {
    let cluster = Cluster::start(1).await;
    let (held, dns) = (cluster.pod(0), cluster.dns().addr());
    let mut stream = connect(held.addr()).await;
    drop(cluster);
    let end = within("the connection's end", stream.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_refused(held.addr()).await;
    assert_refused(dns).await;
}

#[tokio::test]
async fn pods_of_a_stateful_set_keep_their_names() {
    let cluster = test_util::Cluster::builder()
        .service("kv.default")
        .port_name("http")
        .stateful_set("kv")
        .start()
        .await;
    let names = || {
        cluster
            .pods()
            .iter()
            .map(|it| it.name().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(), ["kv-0", "kv-1", "kv-2"]);
    let targets = async || {
        let answer = ask_tcp(cluster.dns(), "_http._tcp.kv.default", RecordType::SRV).await;
        let own = glued(&answer);
        let services = services(&answer);
        assert!(services.iter().all(|it| it.port == cluster.port()));
        assert_eq!(services.len(), own.len());
        own
    };
    let own = |pod: usize| (format!("kv-{pod}.kv.default."), cluster.pod(pod).ip());
    assert_eq!(targets().await, [own(0), own(1), own(2)]);

    let old = cluster.pod(1);
    let new = cluster.replace(1).await;
    assert_refused(old.addr()).await;
    assert_ne!(new.addr(), old.addr());
    assert_eq!(names(), ["kv-0", "kv-1", "kv-2"]);
    assert_eq!(targets().await, [own(0), own(1), own(2)]);
    let answer = send(&mut Http::new(new.addr()), "/").await.expect("200");
    assert_eq!(answer.headers()["x-pod"], "kv-1");

    cluster.scale(1).await;
    assert_eq!(names(), ["kv-0"]);
    assert_eq!(targets().await, [own(0)]);
    let gone = ask_udp(cluster.dns(), "kv-1.kv.default", RecordType::A, None).await;
    assert_eq!(gone.response_code, ResponseCode::NXDomain);

    // A client that uses the port's name knows the pods' names.
    cluster.scale(2).await;
    let client = cluster.client().build().expect("a client");
    let answer = client.pod("kv-1").get("/").await.expect("an answer");
    assert_eq!(answer.headers()["x-pod"], "kv-1");
    assert_eq!(
        answer.body().endpoint().expect("a pod").hostname(),
        Some("kv-1")
    );
}

#[tokio::test]
async fn a_rolling_restart_goes_pod_by_pod() {
    for stateful in [false, true] {
        let builder = test_util::Cluster::builder();
        let builder = match stateful {
            true => builder.stateful_set("web"),
            false => builder,
        };
        let cluster = builder.start().await;
        // The set while a pod drains is checked below.
        cluster.set_drain(Duration::from_millis(20));
        let old = cluster.pods();
        let alive = |pods: &[IpAddr]| old.iter().filter(|it| pods.contains(&it.ip())).count();
        let mut seen = Vec::new();
        let looking = async {
            loop {
                let now: Vec<_> = cluster.pods().iter().map(|it| it.ip()).collect();
                let counts = (now.len(), alive(&now));
                if seen.last() != Some(&counts) {
                    seen.push(counts);
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = looking => {}
            () = cluster.rolling_restart() => {}
        }
        // The number of pods, and how many of them are old.
        let expected = match stateful {
            true => [(3, 3), (2, 2), (2, 1), (2, 0)],
            false => [(3, 3), (3, 2), (3, 1), (3, 0)],
        };
        assert_eq!(seen, expected);
        assert_eq!(alive(&published(&cluster).await), 0);
        assert_eq!(published(&cluster).await.len(), 3);
        for pod in old {
            assert_refused(pod.addr()).await;
        }
    }
}

#[tokio::test]
async fn a_pod_of_a_stateful_set_is_replaced_by_one_with_its_name() {
    let builder = test_util::Cluster::builder().pods(4);
    let cluster = builder.stateful_set("kv").start().await;
    let names = || {
        let pods = cluster.pods();
        pods.iter()
            .map(|it| it.name().to_owned())
            .collect::<Vec<_>>()
    };
    cluster.remove_pod(0).await;
    let _ = cluster.remove_pod(1).await;
    assert_eq!(names(), ["kv-1", "kv-3"]);
    assert_eq!(cluster.replace(1).await.name(), "kv-3");
    assert_eq!(names(), ["kv-1", "kv-3"]);
    cluster.rolling_restart().await;
    assert_eq!(names(), ["kv-1", "kv-3"]);
    cluster.replace_all(Duration::ZERO).await;
    assert_eq!(names(), ["kv-1", "kv-3"]);
    let _ = cluster.add_pod().await;
    assert_eq!(names(), ["kv-0", "kv-1", "kv-3"], "the lowest that is free");
}

#[tokio::test]
async fn replaced_pods_get_new_addresses_even_if_all_others_have_been_used() {
    let cluster = Cluster::start(2).await;
    let old = ips(&cluster);
    // Until all other addresses have been used.
    for _ in 0..252 {
        cluster.next_address();
    }
    cluster.replace_all(Duration::ZERO).await;
    assert!(ips(&cluster).iter().all(|ip| !old.contains(ip)));
    for _ in 0..252 {
        cluster.next_address();
    }
    let old = cluster.pod(1).ip();
    assert_ne!(cluster.replace(1).await.ip(), old);
}

#[tokio::test]
async fn wait_for_requests_includes_pods_that_start_later() {
    let cluster = test_util::Cluster::builder().pods(0).start().await;
    let asking = async {
        for _ in 0..2 {
            let pod = cluster.add_pod().await;
            assert!(send(&mut Http::new(pod.addr()), "/").await.is_ok());
        }
    };
    within("two requests", join(cluster.wait_for_requests(2), asking)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "tests/test_kit.rs:")]
async fn wait_for_requests_panics_if_none_come() {
    let cluster = test_util::Cluster::builder().pods(0).start().await;
    cluster.wait_for_requests(1).await;
}

#[tokio::test]
async fn the_builder_panics_with_the_invalid_name() {
    let builder = test_util::Cluster::builder;
    let long = "a".repeat(62);
    let cases = [
        (
            builder().service("web..default"),
            "\"web..default\" is no name of a Service",
        ),
        (
            builder().service("127.0.0.1"),
            "\"127.0.0.1\" is no name of a Service",
        ),
        (
            builder().port_name("grpc.web"),
            "\"grpc.web\" is no name of a port",
        ),
        (builder().port_name(""), "\"\" is no name of a port"),
        (
            builder().stateful_set("kv.0"),
            "\"kv.0\" is no name of a StatefulSet",
        ),
        (
            builder().stateful_set(&*long),
            "is no name of a StatefulSet",
        ),
    ];
    for (builder, expected) in cases {
        let panic = tokio::spawn(builder.start()).await.expect_err("a panic");
        let text = panic.into_panic().downcast::<String>().expect("a text");
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
#[should_panic(expected = "no pod 3: the cluster has 3, counted from 0")]
async fn a_missing_pod_s_number_is_in_the_panic() {
    let _ = Cluster::start(3).await.pod(3);
}

#[tokio::test]
#[should_panic(expected = "\"web default\" is no name")]
async fn an_invalid_name_is_in_the_panic() {
    let _ = test_util::Cluster::builder()
        .service("web default")
        .start()
        .await;
}

// ---------------------------------------------------------------- helpers

type Http = Connections<Empty<Bytes>>;

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn many(n: u16) -> impl Iterator<Item = Ipv4Addr> {
    (0..n).map(|i| Ipv4Addr::from(0x0A00_0000 + u32::from(i)))
}

fn question(name: &str, record_type: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::new(fresh_id(), MessageType::Query, OpCode::Query);
    let mut name = Name::from_ascii(name).expect("a name");
    name.set_fqdn(true);
    message.add_query(Query::query(name, record_type));
    if let Some(payload) = payload {
        message
            .set_edns(Edns::new())
            .edns
            .as_mut()
            .expect("just set")
            .set_max_payload(payload);
    }
    message
}

fn fresh_id() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

async fn udp_client(dns: &DnsServer) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a socket");
    socket.connect(dns.addr()).await.expect("connected");
    socket
}

async fn send_udp(socket: &UdpSocket, query: &Message) {
    let bytes = query.to_vec().expect("encodable");
    socket.send(&bytes).await.expect("sent");
}

async fn receive_udp_bytes(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let received = within("a UDP reply", socket.recv(&mut buffer)).await;
    buffer.truncate(received.expect("a reply"));
    buffer
}

async fn receive_udp(socket: &UdpSocket) -> Message {
    Message::from_vec(&receive_udp_bytes(socket).await).expect("a DNS message")
}

async fn ask_udp(
    dns: &DnsServer,
    name: &str,
    record_type: RecordType,
    payload: Option<u16>,
) -> Message {
    let socket = udp_client(dns).await;
    send_udp(&socket, &question(name, record_type, payload)).await;
    receive_udp(&socket).await
}

async fn send_tcp(stream: &mut TcpStream, query: &Message) {
    let bytes = query.to_vec().expect("encodable");
    let length = u16::try_from(bytes.len()).expect("short");
    stream.write_u16(length).await.expect("sent");
    stream.write_all(&bytes).await.expect("sent");
}

async fn receive_tcp_bytes(stream: &mut TcpStream) -> Vec<u8> {
    let message = async {
        let mut bytes = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
        stream.read_exact(&mut bytes).await.expect("a message");
        bytes
    };
    within("a TCP reply", message).await
}

async fn receive_tcp(stream: &mut TcpStream) -> Message {
    Message::from_vec(&receive_tcp_bytes(stream).await).expect("a DNS message")
}

async fn ask_tcp(dns: &DnsServer, name: &str, record_type: RecordType) -> Message {
    let mut stream = connect(dns.addr()).await;
    send_tcp(&mut stream, &question(name, record_type, Some(1232))).await;
    receive_tcp(&mut stream).await
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer
        .answers
        .iter()
        .filter_map(|record| address(&record.data))
        .collect()
}

fn glued(answer: &Message) -> Vec<(String, IpAddr)> {
    let glue = answer.additionals.iter();
    glue.map(|record| {
        let ip = address(&record.data).expect("glue is addresses");
        (record.name.to_string(), ip)
    })
    .collect()
}

fn services(answer: &Message) -> Vec<Srv> {
    let service = |data: &RData| match data {
        RData::SRV(srv) => Some(Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_string(),
        }),
        _ => None,
    };
    let records = answer.answers.iter();
    records.filter_map(|it| service(&it.data)).collect()
}

/// The targets and TTLs of the answer's CNAMEs.
fn cnames(answer: &Message) -> Vec<(String, u32)> {
    let target = |data: &RData| match data {
        RData::CNAME(target) => Some(target.0.to_string()),
        _ => None,
    };
    let records = answer.answers.iter();
    records
        .filter_map(|it| Some((target(&it.data)?, it.ttl)))
        .collect()
}

/// A pod's name, of 39 bytes on the wire for every `i` of up to three digits.
fn pod_name(i: u16) -> String {
    format!("pod-{i:03}.web.default.svc.cluster.local.")
}

/// Publishes `n` SRV records at `SRV_NAME`, each with a target of its own, whose only address is one of `many(n)`.
fn publish_srv(dns: &DnsServer, n: u16) {
    dns.set_srv(SRV_NAME, 5, (0..n).map(|i| Srv::new(8080, pod_name(i))));
    for (i, ip) in (0..n).zip(many(n)) {
        dns.set_a(&pod_name(i), 5, [ip]);
    }
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

/// The code that hickory gives for records that don't exist.
fn absence(lookup: &Result<Lookup, NetError>) -> Option<ResponseCode> {
    match lookup {
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Some(none.response_code),
        _ => None,
    }
}

fn transports(dns: &DnsServer) -> Vec<Transport> {
    dns.queries().iter().map(|query| query.transport).collect()
}

fn resolver(dns: &DnsServer) -> TokioResolver {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = dns.addr().port();
    }
    let server = NameServerConfig::new(dns.addr().ip(), true, connections);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.cache_size = 0;
    options.attempts = 0;
    options.edns0 = true;
    options.timeout = Duration::from_secs(2);
    options.use_hosts_file = ResolveHosts::Never;
    builder.build().expect("a resolver")
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("somebody listens")
}

async fn assert_refused(address: SocketAddr) {
    let refused = within("a refusal", TcpStream::connect(address)).await;
    assert_eq!(
        refused.expect_err("nobody listens").kind(),
        ErrorKind::ConnectionRefused
    );
}

/// Does a TLS handshake with a cluster's only pod, for the Service's name.
async fn handshake(cluster: &Cluster, alpn: &[u8]) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(cluster.trust_pem().as_bytes()) {
        let added = roots.add(certificate.expect("PEM"));
        added.expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from(SERVICE.trim_end_matches('.')).expect("a name");
    let stream = connect(cluster.pod(0).addr()).await;
    let connector = TlsConnector::from(Arc::new(config));
    within("the handshake", connector.connect(name, stream)).await
}

/// Sends one request, and returns its answer, both as text.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let request = b"GET / HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = String::new();
    let read = within("the answer's end", stream.read_to_string(&mut answer)).await;
    read.expect("text and close_notify");
    answer
}

/// Starts a pod in a network of its own, so that no other test takes its port while it is down.
async fn pod() -> Pod {
    let address = Cluster::start(0).await.next_address();
    Pod::start(address).await.expect("an address of its own")
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(path).header("host", "pod");
    request.body(Empty::new()).expect("a request")
}

async fn send(http: &mut Http, path: &str) -> Result<Response<PodBody<Empty<Bytes>>>, BoxError> {
    http.ready().await?.call(get(path)).await
}

async fn text(response: Response<PodBody<Empty<Bytes>>>) -> String {
    let body = within("the body's end", response.into_body().collect()).await;
    let bytes = body.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn published(cluster: &test_util::Cluster) -> Vec<IpAddr> {
    addresses(&ask_udp(cluster.dns(), SERVICE, RecordType::A, Some(4096)).await)
}

fn ips(cluster: &test_util::Cluster) -> Vec<IpAddr> {
    cluster.pods().iter().map(|pod| pod.ip()).collect()
}
