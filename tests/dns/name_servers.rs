//! Which name server is asked, how, and whose negative answer ("no") is believed: field cases D1, D2, D6 to D9 and D15,
//! and similar ones.

use super::*;

/// A public name server: it answers NXDOMAIN to every name of the cluster.
async fn public() -> DnsServer {
    DnsServer::start().await
}

/// Shortens timeouts, so that silence is noticed sooner and the tests take less time.
const IMPATIENT: &str = "options timeout:1 attempts:1\n";

/// Discovery with `OnEmpty::Believe`, so that a "no" that it shouldn't believe shows at once.
struct Believing {
    watch: MembershipStream,
    _conf: TempFile,
}

fn believing(first: &DnsServer, second: &DnsServer) -> Believing {
    let conf = resolv_conf(IMPATIENT);
    let dns = ask(first, WEB).name_servers([first.addr(), second.addr()]);
    let dns = dns.resolv_conf(&conf.0).refresh_interval(FAST);
    Believing {
        watch: MembershipStream::new(dns.on_empty(OnEmpty::Believe)),
        _conf: conf,
    }
}

/// Lets discovery run until `event`; the set must not change.
async fn unchanged(watch: &mut MembershipStream, event: impl Future<Output = ()>) {
    tokio::select! {
        change = watch.next() => panic!("{change:?}"),
        () = event => {}
    }
}

// ---------------------------------------------------------------- whose "no" is believed (D1, D2)

#[tokio::test]
async fn a_second_servers_no_empties_nothing_while_the_first_one_fails_for_aaaa() {
    let faults = [
        Fault::SERVFAIL,
        Fault::Rcode(ResponseCode::NotImp.into()),
        Fault::REFUSED,
        Fault::Silent,
    ];
    let stories = faults.map(async |fault| {
        let (own, public) = (web(3).await, public().await);
        own.fault("*", RecordType::AAAA, fault.clone());
        let mut discovery = believing(&own, &public);
        let watch = &mut discovery.watch;
        assert_eq!(change(watch).await.joined.len(), 3, "{fault:?}");
        own.forget();
        let both = async {
            public.wait_for_queries(1).await;
            own.wait_for_queries(20).await;
        };
        unchanged(watch, both).await;
        assert_eq!(public.count(WEB, RecordType::A), 0, "{fault:?}: needlessly");
        // Changes are still seen.
        own.set_a(WEB, 30, [pod_v4(7)]);
        assert_eq!(hosts(&change(watch).await.joined), [pod(7)].into());
    });
    join_all(stories).await;
}

#[tokio::test]
async fn a_second_servers_no_empties_nothing_while_the_first_one_fails_altogether() {
    let faults = [
        (Fault::SERVFAIL, 1),
        (Fault::SERVFAIL, 8),
        // For longer than a question takes.
        (Fault::Silent, 8),
    ];
    let stories = faults.map(async |(fault, failures)| {
        let (own, public) = (web(3).await, public().await);
        let mut discovery = believing(&own, &public);
        let watch = &mut discovery.watch;
        assert_eq!(change(watch).await.joined.len(), 3);
        own.fault("*", RecordType::ANY, fault.clone().times(failures));
        unchanged(watch, public.wait_for_queries(2)).await;
        own.clear_faults();
        own.forget();
        unchanged(watch, own.wait_for_queries(10)).await;
        own.set_a(WEB, 30, [pod_v4(7)]);
        let moved = change(watch).await;
        assert_eq!(hosts(&moved.joined), [pod(7)].into(), "{fault:?}");
        assert_eq!(moved.left.len(), 3, "{fault:?}");
    });
    join_all(stories).await;
}

#[tokio::test]
async fn a_scale_to_zero_is_believed_from_the_server_that_had_returned_the_pods() {
    for named_by_second in [false, true] {
        let (first, second) = (web(2).await, web(2).await);
        if named_by_second {
            let fault = Fault::SERVFAIL;
            first.fault("*", RecordType::ANY, fault);
        }
        let mut discovery = believing(&first, &second);
        let watch = &mut discovery.watch;
        assert_eq!(change(watch).await.joined.len(), 2);
        first.remove(WEB);
        second.remove(WEB);
        let emptied = change(watch).await;
        assert_eq!(emptied.left.len(), 2, "{named_by_second}");
    }
}

#[tokio::test]
async fn a_first_server_without_data_empties_nothing_that_the_second_one_returns() {
    let (first, second) = (public().await, web(2).await);
    let fault = Fault::SERVFAIL;
    first.fault(WEB, RecordType::A, fault.clone().times(1));
    let mut discovery = believing(&first, &second);
    let watch = &mut discovery.watch;
    assert_eq!(change(watch).await.joined.len(), 2);
    // The first one gets its turn again, and says "no".
    second.fault(WEB, RecordType::A, fault.times(1));
    first.forget();
    let asked = |queries: &[LoggedQuery]| {
        let mut of_type = queries.iter().filter(|it| it.record_type == RecordType::A);
        of_type.nth(4).is_some()
    };
    unchanged(watch, first.wait_until(asked)).await;
}

#[tokio::test]
async fn the_first_servers_failure_is_the_error_not_the_second_ones_no() {
    let (own, public) = (web(1).await, public().await);
    let fault = Fault::SERVFAIL;
    own.fault("*", RecordType::ANY, fault);
    let dns = ask(&own, WEB).name_servers([own.addr(), public.addr()]);
    let error = dns.resolve().await.expect_err("nobody knows");
    assert!(!error.is_not_found(), "{error}");
    assert!(
        error.to_string().contains(&own.addr().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn a_second_server_is_not_asked_if_the_first_one_says_no() {
    let (own, other) = (DnsServer::start().await, web(1).await);
    let dns = ask(&own, WEB).name_servers([own.addr(), other.addr()]);
    let error = dns.resolve().await.expect_err("nothing there");
    assert!(error.is_not_found(), "{error}");
    assert_eq!(other.exchanges(), 0);
}

/// NXDOMAIN without an SOA record, as some servers send it that pass on the root's answer.
fn denial() -> Fault {
    Fault::Rcode(ResponseCode::NXDomain.into())
}

#[tokio::test]
async fn the_second_server_finds_a_name_if_the_first_one_is_dead_from_the_start() {
    let stories = [false, true].map(async |is_closed| {
        let (dead, other) = (DnsServer::start().await, DnsServer::start().await);
        if is_closed {
            dead.stop().await;
        } else {
            dead.fault("*", RecordType::ANY, Fault::Silent);
        }
        other.set_a("api.shop.", 30, [pod_v4(1)]);
        // So many domains that each must not cost the dead server's full share of the time.
        let domains = [1, 2, 3, 4, 5, 6, 7, 8].map(|n| format!("d{n}.example"));
        for domain in &domains {
            let name = format!("api.shop.{domain}");
            other.fault(&name, RecordType::ANY, denial());
        }
        let search = domains.join(" ");
        let conf = resolv_conf(&format!("search {search}\noptions ndots:5\n"));
        let dns = ask(&dead, "api.shop").resolv_conf(&conf.0);
        let dns = dns.name_servers([dead.addr(), other.addr()]);
        if is_closed {
            // In a single look, because a second one would be too late for many callers.
            let found = dns.resolve().await.expect("a pod");
            assert_eq!(found.name(), Some("api.shop"));
        }
        let mut watch = MembershipStream::new(dns);
        assert_eq!(hosts(&change(&mut watch).await.joined), [pod(1)].into());
    });
    join_all(stories).await;
}

/// A node-local cache restarts just as a client starts, and the public server in the second line knows a name with the
/// same text.
#[tokio::test]
async fn a_public_name_found_while_the_first_server_was_closed_gives_way_soon() {
    let (own, public) = (DnsServer::start().await, DnsServer::start().await);
    own.set_a("api.dev.svc.cluster.local.", 30, [pod_v4(1)]);
    own.stop().await;
    public.set_a("api.dev.", 30, [pod_v4(99)]);
    let conf = pods_resolv_conf();
    let dns = ask(&own, "api.dev").resolv_conf(&conf.0);
    let dns = dns.name_servers([own.addr(), public.addr()]);
    let mut watch = MembershipStream::new(dns);
    assert_eq!(hosts(&change(&mut watch).await.joined), [pod(99)].into());
    own.restart().await;
    assert_eq!(hosts(&change(&mut watch).await.joined), [pod(1)].into());
}

/// Whether a server has been asked for more than 8 s, well above the 4 s after which a failing one counts as away.
fn for_a_while(queries: &[LoggedQuery]) -> bool {
    match queries {
        [first, .., last] => last.at - first.at > 8 * SECOND,
        _ => false,
    }
}

#[tokio::test]
async fn a_server_that_answers_failures_never_counts_as_dead() {
    let stories = [ResponseCode::ServFail, ResponseCode::Refused].map(async |code| {
        let (own, public) = (web(1).await, public().await);
        own.fault("*", RecordType::ANY, Fault::Rcode(code.into()));
        public.fault("*", RecordType::ANY, denial());
        let dns = ask(&own, "web").name_servers([own.addr(), public.addr()]);
        let conf = pods_resolv_conf();
        let mut watch = MembershipStream::new(dns.resolv_conf(&conf.0));
        unchanged(&mut watch, own.wait_until(for_a_while)).await;
        let asked = public.queries();
        assert!(asked.iter().all(|query| query.name == WEB), "{asked:?}");
    });
    join_all(stories).await;
}

#[tokio::test]
async fn a_second_servers_no_empties_nothing_after_the_first_one_has_died() {
    let stories = [false, true].map(async |has_soa| {
        let (own, public) = (web(3).await, public().await);
        if !has_soa {
            public.fault("*", RecordType::ANY, denial());
        }
        let mut discovery = believing(&own, &public);
        let watch = &mut discovery.watch;
        assert_eq!(change(watch).await.joined.len(), 3);
        own.stop().await;
        public.forget();
        unchanged(watch, public.wait_until(for_a_while)).await;
        own.restart().await;
        own.set_a(WEB, 30, [pod_v4(7)]);
        assert_eq!(hosts(&change(watch).await.joined), [pod(7)].into());
    });
    join_all(stories).await;
}

/// The second server is one that answers every name.
#[tokio::test]
async fn a_scale_to_zero_is_believed_from_the_first_server_though_the_second_one_answered_once() {
    let (own, foreign) = (web(2).await, DnsServer::start().await);
    foreign.set_a(WEB, 30, [pod_v4(99)]);
    let mut discovery = believing(&own, &foreign);
    let watch = &mut discovery.watch;
    assert_eq!(change(watch).await.joined.len(), 2);
    let fault = Fault::SERVFAIL;
    own.fault(WEB, RecordType::A, fault.times(1));
    own.remove(WEB);
    let strange = loop {
        let change = change(watch).await;
        if change.endpoints.is_empty() {
            // The other family's question was answered first.
            continue;
        }
        break hosts(&change.endpoints);
    };
    assert_eq!(strange, [pod(99)].into());
    // As soon as the first server gets its turn again.
    assert!(change(watch).await.endpoints.is_empty());
    own.forget();
    unchanged(watch, own.wait_for_queries(10)).await;
}

// ---------------------------------------------------------------- silence, and the time of a look

/// A silent first name server and an equal second one, which sends this much glue.
async fn a_silent_one_first(
    server: impl AsyncFn() -> DnsServer,
    glue: Glue,
) -> (DnsServer, DnsServer, Dns) {
    let (silent, good) = (server().await, server().await);
    silent.fault("*", RecordType::ANY, Fault::Silent);
    good.set_glue(glue);
    let dns = srv(&silent).name_servers([silent.addr(), good.addr()]);
    (silent, good, dns)
}

#[tokio::test]
async fn one_look_finds_srv_targets_though_the_first_server_is_silent() {
    let look = async |(_silent, _good, dns): (DnsServer, DnsServer, Dns)| {
        let found = dns.resolve().await.expect("its pods");
        assert_eq!(found.endpoints().len(), 3, "{found:?}");
    };
    // With partial glue, the question is asked over TCP as well.
    for glue in [Glue::None, Glue::Partial(1)] {
        let of_nodes = a_silent_one_first(async || nodes(glue).await, glue).await;
        let of_pods = a_silent_one_first(async || statefulset().await, glue).await;
        tokio::join!(look(of_nodes), look(of_pods));
    }
}

async fn statefulset() -> DnsServer {
    let server = DnsServer::start().await;
    stateful(&server, 3);
    server
}

/// A server with SRV records of `nodes` nodes, and nothing else yet.
async fn nodes_alone(nodes: u8) -> DnsServer {
    let server = DnsServer::start().await;
    server.set_glue(Glue::None);
    server.set_srv(PORT, 30, (1..=nodes).map(|n| Srv::new(8080, node(n))));
    server
}

fn node(n: u8) -> String {
    format!("node{n}.hosts.example.")
}

/// The SRV targets that a server has been asked for, including questions on their way.
async fn targets_asked_for(server: &DnsServer) -> BTreeSet<String> {
    real_answer(server).await;
    let names = server.queries().into_iter().map(|query| query.name);
    names.filter(|name| name.starts_with("node")).collect()
}

#[tokio::test]
async fn a_server_silent_about_16_srv_targets_is_asked_for_no_more() {
    let server = async || {
        let server = nodes_alone(20).await;
        (1..=20).for_each(|n| server.set_a(&node(n), 30, [pod_v4(n)]));
        server
    };
    let (silent, _good, dns) = a_silent_one_first(server, Glue::None).await;
    let found = dns.resolve().await.expect("all nodes");
    assert_eq!(found.endpoints().len(), 20, "{found:?}");
    silent.clear_faults();
    let asked_for = targets_asked_for(&silent).await;
    assert_eq!(asked_for.len(), 16, "{asked_for:?}");
}

#[tokio::test]
async fn srv_targets_whose_turn_comes_after_the_deadline_are_not_asked_for() {
    let server = nodes_alone(60).await;
    for n in 1..=60 {
        server.fault(&node(n), RecordType::ANY, Fault::Silent);
    }
    let error = srv(&server).resolve().await.expect_err("silence");
    assert!(error.is_timeout(), "{error}");
    let asked_for = targets_asked_for(&server).await;
    assert_eq!(asked_for.len(), 16, "{asked_for:?}");
}

// ---------------------------------------------------------------- EDNS (D6)

/// A reply that is only a header with this code, without question and OPT record.
fn bare_header(code: u8) -> Fault {
    let mut header = vec![0, 0, 0x80, code];
    header.extend([0; 8]);
    Fault::Raw(header.into())
}

#[tokio::test]
async fn a_name_server_without_edns_is_asked_without_it() {
    let faults = [
        Fault::Rcode(ResponseCode::FormErr.into()),
        bare_header(1),
        Fault::Rcode(ResponseCode::NotImp.into()),
        bare_header(4),
        bare_header(2),
        bare_header(5),
        Fault::Rcode(ResponseCode::BADVERS.into()),
        Fault::Silent,
    ];
    let stories = faults.map(async |fault| {
        let server = web(3).await;
        server.fault("*", RecordType::ANY, fault.clone().on_edns());
        let conf = resolv_conf(IMPATIENT);
        let dns = ask(&server, WEB).resolv_conf(&conf.0);
        let mut watch = MembershipStream::new(dns.refresh_interval(FAST));
        assert_eq!(change(&mut watch).await.joined.len(), 3, "{fault:?}");
        // Wait until both families have learnt it.
        let bare = |queries: &[LoggedQuery]| {
            let mut families = FAMILIES.iter();
            families.all(|family| {
                let mut of_family = queries.iter().filter(|it| it.record_type == *family);
                of_family.any(|query| !query.edns)
            })
        };
        unchanged(&mut watch, server.wait_until(bare)).await;
        server.forget();
        unchanged(&mut watch, server.wait_for_queries(20)).await;
        let queries = server.queries();
        let rich = queries.iter().filter(|query| query.edns).count();
        assert_eq!(rich, 0, "{fault:?}: {queries:?}");
    });
    join_all(stories).await;
}

#[tokio::test]
async fn an_answer_too_large_for_a_name_server_without_edns_comes_over_tcp() {
    let server = web(60).await;
    let fault = Fault::Rcode(ResponseCode::FormErr.into());
    server.fault("*", RecordType::ANY, fault.on_edns());
    let found = ask(&server, WEB).resolve().await.expect("pods");
    assert_eq!(found.endpoints().len(), 60);
    assert_eq!(found.transport(), Some(Transport::Tcp));
}

#[tokio::test]
async fn an_error_that_also_comes_without_edns_does_not_turn_it_off() {
    // The number of questions in one look: both families, with an OPT record, and if in doubt without.
    let codes = [
        (ResponseCode::ServFail, 2),
        (ResponseCode::Refused, 2),
        (ResponseCode::FormErr, 4),
        (ResponseCode::NotImp, 4),
    ];
    let stories = codes.map(async |(code, asked)| {
        let server = web(1).await;
        server.fault("*", RecordType::ANY, Fault::Rcode(code.into()).times(asked));
        let mut watch = MembershipStream::new(ask(&server, WEB).refresh_interval(FAST));
        change(&mut watch).await;
        server.forget();
        unchanged(&mut watch, server.wait_for_queries(4)).await;
        let queries = server.queries();
        assert!(
            queries.iter().all(|query| query.edns),
            "{code}: {queries:?}"
        );
    });
    join_all(stories).await;
}

#[tokio::test]
async fn the_error_names_badvers() {
    let server = web(1).await;
    server.fault("*", RecordType::ANY, Fault::Silent);
    let fault = Fault::Rcode(ResponseCode::BADVERS.into()).on_edns();
    server.fault(WEB, RecordType::ANY, fault);
    let conf = resolv_conf(IMPATIENT);
    let dns = ask(&server, WEB).resolv_conf(&conf.0);
    let error = dns.resolve().await.expect_err("no answer").to_string();
    assert!(
        error.contains("BADVERS") && !error.contains("TSIG"),
        "{error}"
    );
}

// ---------------------------------------------------------------- answers too large for UDP (D7, D8)

#[tokio::test]
async fn an_oversized_or_cut_udp_answer_is_asked_for_over_tcp() {
    // Larger than asked for, cut within a record, or cut within the header; never with TC.
    for length in [65_535, 2_758, 1_500, 1_232, 700, 13] {
        let server = DnsServer::start().await;
        server.set_a(WEB, 30, (0..200).map(many));
        server.fault("*", RecordType::ANY, Fault::CutUdp(length));
        let found = ask(&server, WEB).resolve().await.expect("pods");
        assert_eq!(found.endpoints().len(), 200, "{length}");
        assert_eq!(found.transport(), Some(Transport::Tcp), "{length}");
    }
}

#[tokio::test]
async fn a_packet_larger_than_asked_for_is_used_if_tcp_is_blocked() {
    let server = DnsServer::start().await;
    server.set_a(WEB, 30, (0..200).map(many));
    let relay = UdpRelay::start(server.addr()).await;
    server.fault("*", RecordType::ANY, Fault::CutUdp(65_535));
    let found = ask(&server, WEB).name_servers([relay.address]);
    let found = found.resolve().await.expect("pods");
    assert_eq!(found.endpoints().len(), 200);
    assert_eq!(found.transport(), Some(Transport::Udp));
}

#[tokio::test]
async fn a_shrunken_answer_comes_over_udp_again_if_tcp_is_blocked() {
    let server = DnsServer::start().await;
    server.set_a(WEB, 30, (0..500).map(many));
    let conf = resolv_conf(IMPATIENT);
    let dns = ask(&server, WEB).resolv_conf(&conf.0);
    let mut watch = MembershipStream::new(dns.refresh_interval(FAST));
    assert_eq!(change(&mut watch).await.joined.len(), 500);
    server.fault("*", RecordType::ANY, Fault::SilentTcp);
    server.set_a(WEB, 30, (0..3).map(many));
    assert_eq!(change(&mut watch).await.endpoints.len(), 3);
    server.forget();
    unchanged(&mut watch, server.wait_for_queries(6)).await;
    let queries = server.queries();
    let by_udp = |query: &LoggedQuery| query.transport == Transport::Udp;
    assert!(queries.iter().all(by_udp), "{queries:?}");
}

#[tokio::test]
async fn use_vc_means_tcp_only() {
    let server = web(3).await;
    let conf = resolv_conf("options use-vc\n");
    let dns = ask(&server, WEB).resolv_conf(&conf.0);
    let mut watch = MembershipStream::new(dns.refresh_interval(FAST));
    assert_eq!(change(&mut watch).await.joined.len(), 3);
    unchanged(&mut watch, server.wait_for_queries(12)).await;
    let by_tcp = |query: &LoggedQuery| query.transport == Transport::Tcp;
    assert!(
        server.queries().iter().all(by_tcp),
        "{:?}",
        server.queries()
    );
    // A changed file counts at the next look.
    std::fs::write(&conf.0, "options ndots:5\n").expect("a writable folder");
    let by_udp = |query: &LoggedQuery| query.transport == Transport::Udp;
    let back = server.wait_until(|queries| queries.iter().any(by_udp));
    unchanged(&mut watch, back).await;
}

/// A connection only works while the runtime that it was made in is driven.
#[test]
fn clones_in_two_runtimes_share_no_connection() {
    let current_thread = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let (outside, first, second) = (
        tokio::runtime::Runtime::new().expect("a runtime"),
        current_thread(),
        current_thread(),
    );
    let server = outside.block_on(DnsServer::start());
    stateful(&server, 3);
    let conf = resolv_conf("options use-vc\n");
    // SRV is one question, so there is one connection, which is idle once there is a set.
    let dns = srv(&server).resolv_conf(&conf.0);
    let dns = dns.refresh_interval(60 * SECOND);
    let mut watch = MembershipStream::new(dns.clone());
    first.block_on(change(&mut watch));
    server.forget();
    stateful(&server, 4);
    // With a delay, because an answer that is there at once could be read without driving the connection.
    server.fault(PORT, RecordType::SRV, Fault::Delay(FAST));
    second.block_on(async {
        let mut watch = MembershipStream::new(dns.clone());
        while change(&mut watch).await.endpoints.len() != 4 {}
    });
    // There would be two if the first runtime's connection had been tried.
    assert_eq!(server.exchanges(), 1, "{:?}", server.queries());
}

#[tokio::test]
async fn attempts_and_timeout_come_from_resolv_conf() {
    let (silent, good) = (web(1).await, web(1).await);
    silent.fault("*", RecordType::ANY, Fault::Silent);
    let conf = resolv_conf(IMPATIENT);
    let dns = ask(&silent, WEB).name_servers([silent.addr(), good.addr()]);
    let began = Instant::now();
    let found = dns.resolv_conf(&conf.0).resolve().await.expect("a pod");
    assert_eq!(found.name_server(), Some(good.addr()));
    assert!(began.elapsed() >= SECOND);
    // One question with an OPT record, and one without.
    assert_eq!(
        silent.count(WEB, RecordType::A),
        2,
        "{:?}",
        silent.queries()
    );
}

// ---------------------------------------------------------------- a closed port (D9)

#[tokio::test]
async fn a_closed_port_is_not_a_timeout() {
    let (closed, good) = (web(1).await, web(2).await);
    closed.stop().await;
    let error = ask(&closed, WEB).resolve().await.expect_err("nobody there");
    assert!(!error.is_timeout() && !error.is_not_found(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let dns = ask(&closed, WEB).name_servers([closed.addr(), good.addr()]);
    let found = dns.resolve().await.expect("pods");
    assert_eq!(found.name_server(), Some(good.addr()));
}

#[tokio::test]
async fn a_name_server_that_restarts_is_found_again() {
    let server = web(2).await;
    let mut watch = MembershipStream::new(ask(&server, WEB).refresh_interval(FAST));
    change(&mut watch).await;
    server.stop().await;
    unchanged(&mut watch, tokio::time::sleep(4 * FAST)).await;
    server.restart().await;
    server.set_a(WEB, 30, [pod_v4(7)]);
    assert_eq!(hosts(&change(&mut watch).await.joined), [pod(7)].into());
}

// ---------------------------------------------------------------- resolv.conf (D15)

#[tokio::test]
async fn ndots_counts_with_a_space_before_its_number() {
    let server = web(1).await;
    let conf = resolv_conf("search cluster.local # \u{e9}\noptions ndots: 5\n");
    let dns = ask(&server, "web.default.svc").resolv_conf(&conf.0);
    let found = dns.resolve().await.expect("a pod");
    assert_eq!(found.name(), WEB.strip_suffix('.'));
    let queries = server.queries();
    assert!(queries.iter().all(|query| query.name == WEB), "{queries:?}");
}

// ---------------------------------------------------------------- helpers

fn resolv_conf(text: &str) -> TempFile {
    let file = pods_resolv_conf();
    std::fs::write(&file.0, text).expect("a writable folder");
    file
}

/// Relays a server's UDP port at another address, where TCP is refused.
struct UdpRelay {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl UdpRelay {
    async fn start(server: SocketAddr) -> Self {
        let bind = || tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let front = bind().await.expect("a socket");
        let address = front.local_addr().expect("its address");
        let task = tokio::spawn(async move {
            let mut packet = vec![0; 65_535];
            while let Ok((length, client)) = front.recv_from(&mut packet).await {
                let back = bind().await.expect("a socket");
                let sent = back.send_to(&packet[..length], server).await;
                sent.expect("sent");
                let length = within("an answer", back.recv(&mut packet)).await;
                let length = length.expect("received");
                // The client may be gone already.
                let _ = front.send_to(&packet[..length], client).await;
            }
        });
        Self { address, task }
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// ---------------------------------------------------------------- servers that have only a part, or nothing to say

/// A forwarder may pass on a truncated answer even over TCP.
#[tokio::test]
async fn the_next_server_is_asked_if_an_answer_is_truncated_even_over_tcp() {
    let (cut, whole, public) = (web(3).await, web(3).await, public().await);
    cut.fault("*", RecordType::ANY, Fault::TruncateAll);
    let dns = |second: &DnsServer| ask(&cut, WEB).name_servers([cut.addr(), second.addr()]);
    let found = dns(&whole).resolve().await.expect("pods");
    assert_eq!(found.endpoints().len(), 3);
    assert_eq!(found.name_server(), Some(whole.addr()));
    // There are records, whatever another server says, and whatever it knew before.
    let error = dns(&public).resolve().await.expect_err("truncated");
    assert!(error.is_truncated(), "{error}");
    let dns = dns(&whole).refresh_interval(FAST);
    let mut watch = MembershipStream::new(dns.on_empty(OnEmpty::Believe));
    assert_eq!(change(&mut watch).await.joined.len(), 3);
    whole.remove(WEB);
    whole.forget();
    unchanged(&mut watch, whole.wait_for_queries(6)).await;
}

#[tokio::test]
async fn the_ttl_of_the_addresses_that_come_with_srv_records_counts() {
    let server = DnsServer::start().await;
    stateful(&server, 2);
    server.set_a(&format!("web-1.{WEB}"), 2, [pod_v4(1)]);
    let found = srv(&server).resolve().await.expect("pods");
    assert_eq!(found.endpoints().len(), 2);
    assert_eq!(found.ttl(), Some(2 * SECOND));
}

/// Network policies often allow DNS over UDP only. The Service's own addresses still fit into a packet.
#[tokio::test]
async fn pods_are_found_by_truncated_srv_records_if_tcp_is_blocked() {
    let server = DnsServer::start().await;
    stateful(&server, 40);
    let relay = UdpRelay::start(server.addr()).await;
    let dns = srv(&server).name_servers([relay.address]);
    let found = dns.resolve().await.expect("pods");
    assert_eq!(found.endpoints().len(), 40);
    assert!(
        found
            .endpoints()
            .iter()
            .all(|pod| pod.address().port() == 8080)
    );
    assert_eq!(found.transport(), Some(Transport::Udp));
    // Without them it isn't known which pods the packet lacks.
    server.remove(WEB);
    let error = dns.resolve().await.expect_err("some are missing");
    assert!(error.to_string().contains("TCP failed"), "{error}");
}
