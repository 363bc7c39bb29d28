//! The full texts of errors, and the `is_*` methods of each kind: for fake errors, and for real failures.

#[allow(dead_code)]
#[path = "client/frames.rs"]
mod frames;
#[allow(dead_code)]
#[path = "client/kit.rs"]
mod kit;
mod support;
#[allow(dead_code)]
#[path = "client/tls_kit.rs"]
mod tls_kit;

use std::{
    error::Error as StdError,
    future::{IntoFuture, pending},
    io::{self, Write},
    iter::successors,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use frames::Frames;
use hickory_resolver::proto::rr::RecordType;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use kit::{Peer, losing, pod, refusing, silent};
use support::{
    dns::{DnsServer, Fault},
    within,
};
use tls_kit::{Authority, H2, NAME};
use tower_headless::{
    Balance, Dns, Endpoint, Error, StaticEndpoints,
    http::{self as client, Client, ClientBuilder, Protocol},
};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(50);

fn web_0() -> Endpoint {
    Endpoint::new(([10, 1, 2, 3], 80).into()).with_hostname("web-0")
}

fn refused() -> io::Error {
    io::Error::from_raw_os_error(111)
}

/// What anyhow's `{:#}`, and others that print chains, print.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let errors = successors(Some(error), |&error| error.source());
    errors
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

type Questions<E> = &'static [(&'static str, fn(&E) -> bool)];

/// The `is_*` methods that return `true`.
fn yes<E>(error: &E, questions: Questions<E>) -> String {
    let yes = questions.iter().filter(|(_, asks)| asks(error));
    yes.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

const BALANCE: Questions<Error> = &[
    ("no_endpoints", Error::is_no_endpoints),
    ("unreachable", Error::is_unreachable),
    ("absent", Error::is_absent),
    ("gone", Error::is_gone),
    ("timeout", Error::is_timeout),
    ("endpoint", Error::is_endpoint),
    ("closed", Error::is_closed),
    ("no_runtime", Error::is_no_runtime),
    ("unsent", Error::is_unsent),
];

const HTTP: Questions<client::Error> = &[
    ("request", client::Error::is_request),
    ("foreign", client::Error::is_foreign),
    ("no_endpoints", client::Error::is_no_endpoints),
    ("unreachable", client::Error::is_unreachable),
    ("absent", client::Error::is_absent),
    ("session_lost", client::Error::is_session_lost),
    ("gone", client::Error::is_gone),
    ("timeout", client::Error::is_timeout),
    ("endpoint", client::Error::is_endpoint),
    ("closed", client::Error::is_closed),
    ("no_runtime", client::Error::is_no_runtime),
    ("request_body", client::Error::is_request_body),
    ("body", client::Error::is_body),
    ("limit", client::Error::is_limit),
    ("status", client::Error::is_status),
    ("unsent", client::Error::is_unsent),
    ("unexecuted", client::Error::is_unexecuted),
];

/// Each of the balancer's errors, its `is_*` methods, and its text.
fn of_the_balancer() -> [(Error, &'static str, &'static str); 10] {
    [
        (
            Error::fake_no_endpoints(),
            "no_endpoints unsent",
            "no endpoints: the service has none at the moment (scaled to zero?)",
        ),
        (
            Error::fake_unreachable(3, web_0(), refused()),
            "unreachable unsent",
            "none of 3 endpoints accepts requests; pod web-0 (10.1.2.3:80) refused last: \
             Connection refused (os error 111)",
        ),
        (
            Error::fake_pod_unreachable(web_0(), refused()),
            "unreachable unsent",
            "pod web-0 accepts no requests at 10.1.2.3:80: Connection refused (os error 111)",
        ),
        (
            Error::fake_absent("web-7"),
            "unreachable absent unsent",
            "pod web-7 isn't there; there are no endpoints",
        ),
        (
            Error::fake_gone(web_0()),
            "gone unsent",
            "pod web-0 (10.1.2.3:80) left the set before it got the request",
        ),
        (
            Error::fake_timeout(web_0(), SECOND, false),
            "timeout",
            "pod web-0 (10.1.2.3:80) has not answered within 1s (the broadcast's `endpoint_timeout`)",
        ),
        (
            Error::fake_timeout(web_0(), SECOND, true),
            "timeout unsent",
            "pod web-0 (10.1.2.3:80) has not got the request within 1s (the broadcast's `endpoint_timeout`)",
        ),
        (
            Error::fake_endpoint(web_0(), "out of memory"),
            "endpoint",
            "pod web-0 (10.1.2.3:80) failed: out of memory",
        ),
        (
            Error::fake_closed(),
            "closed unsent",
            "the balancer is closed: its last handle was dropped, or its runtime has ended",
        ),
        (
            Error::fake_no_runtime(),
            "no_runtime unsent",
            "no tokio runtime: await the request in a task of one",
        ),
    ]
}

#[test]
fn each_error_of_the_balancer_can_be_made_and_says_what_it_is() {
    for (error, is, says) in of_the_balancer() {
        assert_eq!(yes(&error, BALANCE), is, "{says}");
        assert_eq!(error.to_string(), says);
        let opening = match error.is_unsent() {
            true => "request to web.default was not sent: ",
            false => "request to web.default: ",
        };
        let error = error.with_service("web.default");
        assert_eq!(error.service(), Some("web.default"));
        assert_eq!(error.to_string(), format!("{opening}{says}"));
    }
}

/// Except for methods that only the HTTP client has.
#[test]
fn questions_of_one_name_mean_the_same_of_both_errors() {
    for (error, is, says) in of_the_balancer() {
        let is_unsent = error.is_unsent();
        let error = client::Error::fake_balance(error);
        let is = match is_unsent {
            true => format!("{is} unexecuted"),
            false => is.to_owned(),
        };
        assert_eq!(yes(&error, HTTP), is, "{says}");
        assert!(!error.is_endpoint() || error.to_string().contains("may have been executed"));
    }
}

/// The client's own `fake_*` make the balancer's errors, too.
#[test]
fn the_client_can_make_every_error_of_the_balancer() {
    type E = client::Error;
    for (made, of) in [
        (E::fake_no_endpoints(), Error::fake_no_endpoints()),
        (
            E::fake_unreachable(3, web_0(), refused()),
            Error::fake_unreachable(3, web_0(), refused()),
        ),
        (
            E::fake_pod_unreachable(web_0(), refused()),
            Error::fake_pod_unreachable(web_0(), refused()),
        ),
        (E::fake_absent("web-7"), Error::fake_absent("web-7")),
        (E::fake_gone(web_0()), Error::fake_gone(web_0())),
        (E::fake_closed(), Error::fake_closed()),
        (E::fake_no_runtime(), Error::fake_no_runtime()),
    ] {
        let of = E::fake_balance(of);
        assert_eq!(yes(&made, HTTP), yes(&of, HTTP));
        assert_eq!(
            made.with_service("web").to_string(),
            of.with_service("web").to_string()
        );
    }
}

#[test]
fn each_error_of_the_client_can_be_made_and_says_what_it_is() {
    type E = client::Error;
    let errors = [
        (
            E::fake_request("a path begins with '/'"),
            "request unsent unexecuted",
            "invalid request to web.default: a path begins with '/'",
        ),
        (
            E::fake_foreign("http://other", "http://web.default"),
            "request foreign unsent unexecuted",
            "http://other is not this client's service, http://web.default: write a path alone, or set \
             `allow_foreign_authority`",
        ),
        (
            E::fake_session_lost("web-7"),
            "unreachable absent session_lost unsent unexecuted",
            "request to web.default was not sent: its strict session needs pod web-7: pod web-7 isn't there; \
             there are no endpoints",
        ),
        (
            E::fake_endpoint(web_0(), true, "the stream was refused"),
            "endpoint unexecuted",
            "request to web.default: pod web-0 (10.1.2.3:80) failed; the request was not executed: the stream was refused",
        ),
        (
            E::fake_endpoint(web_0(), false, "reset"),
            "endpoint",
            "request to web.default: pod web-0 (10.1.2.3:80) failed; the request may have been executed: reset",
        ),
        (
            E::fake_first_byte_timeout(web_0(), SECOND),
            "timeout endpoint",
            "request to web.default: pod web-0 (10.1.2.3:80) failed; the request may have been executed: no response \
             within 1s (`first_byte_timeout`)",
        ),
        (
            E::fake_timeout(web_0(), SECOND),
            "timeout",
            "request to web.default: no answer of pod web-0 (10.1.2.3:80) within 1s (`timeout`)",
        ),
        (
            E::fake_unsent_timeout(SECOND, Error::fake_unreachable(3, web_0(), refused())),
            "timeout unsent unexecuted",
            "request to web.default: not sent within 1s (`timeout`): none of 3 endpoints accepts requests; pod web-0 \
             (10.1.2.3:80) refused last: Connection refused (os error 111)",
        ),
        (
            E::fake_body_timeout(web_0(), SECOND),
            "timeout",
            "request to web.default: no end of pod web-0 (10.1.2.3:80)'s response within 1s (`timeout`)",
        ),
        (
            E::fake_request_body("no such file"),
            "request_body",
            "request to web.default: the request's own body failed: no such file",
        ),
        (
            E::fake_body(web_0(), "reset"),
            "body",
            "request to web.default: pod web-0 (10.1.2.3:80) failed while it sent its response: reset",
        ),
        (
            E::fake_cut_off(web_0()),
            "body",
            "request to web.default: the response of pod web-0 (10.1.2.3:80) was cut off: the runtime that drove the \
             connection has ended",
        ),
        (
            E::fake_limit(web_0(), "its head is larger than 9 bytes"),
            "limit",
            "request to web.default: the response of pod web-0 (10.1.2.3:80) is more than this client reads: its head is \
             larger than 9 bytes",
        ),
        (
            E::fake_status(web_0(), StatusCode::SERVICE_UNAVAILABLE),
            "status",
            "request to web.default: pod web-0 (10.1.2.3:80) answered 503 Service Unavailable",
        ),
    ];
    for (error, is, says) in errors {
        let error = error.with_service("web.default");
        assert_eq!(yes(&error, HTTP), is, "{says}");
        assert_eq!(error.to_string(), says);
        assert_eq!(error.service(), Some("web.default"));
    }
}

/// A cause of several lines, of which the first is enough for the error's one line.
#[derive(Debug)]
struct Remedy;

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it may not:\n\nkind: Role\n")
    }
}

impl StdError for Remedy {}

#[test]
fn a_text_is_one_line_and_its_alternate_all_causes() {
    let error = Error::fake_endpoint(web_0(), Remedy);
    assert_eq!(
        error.to_string(),
        "pod web-0 (10.1.2.3:80) failed: it may not"
    );
    let all = "pod web-0 (10.1.2.3:80) failed: it may not:\n\nkind: Role\n";
    assert_eq!(format!("{error:#}"), all);

    let inner = Error::fake_endpoint(web_0(), refused());
    let outer = tower_headless::Unsent::new((), inner);
    let outer = Error::fake_endpoint(Endpoint::new(([10, 9, 9, 9], 80).into()), outer);
    let outer = outer.with_service("outer");
    let all = "request to outer: pod 10.9.9.9:80 failed: the request was not sent: pod web-0 (10.1.2.3:80) failed: \
               Connection refused (os error 111)";
    assert_eq!(format!("{outer:#}"), all);
    // An error whose own text contains its cause is printed whole.
    let short = "request to outer: pod 10.9.9.9:80 failed: pod web-0 (10.1.2.3:80) failed: Connection refused (os error 111)";
    assert_eq!(outer.to_string(), short);
}

#[tokio::test]
async fn a_balancer_s_service_is_named_by_its_builder_or_else_by_discovery() {
    let names = |discovery: Dns| [None, Some("by-hand")].map(|name| (discovery.clone(), name));
    let target = "dns://127.0.0.1:1/nginx-headless.default.:80";
    for (discovery, name) in names(Dns::new(target.parse().expect("a target"))) {
        let builder = Balance::builder(discovery).fail_fast();
        let builder = match name {
            Some(name) => builder.name(name),
            None => builder,
        };
        let balance = builder
            .build(|_: &Endpoint| tower::service_fn(|_: ()| pending::<Result<(), io::Error>>()));
        let error = balance.call_with((), tower_headless::Route::new()).await;
        let error = error.expect_err("no name server");
        assert_eq!(
            error.service(),
            Some(name.unwrap_or("nginx-headless.default"))
        );
        let all = balance.broadcast(()).await.expect_err("no name server");
        assert_eq!(all.service(), error.service());
    }
}

/// A client of pods that have names.
fn builder(pods: impl IntoIterator<Item = SocketAddr>) -> ClientBuilder<StaticEndpoints> {
    let pods = pods.into_iter().zip(0..);
    let pods = pods.map(|(pod, n)| Endpoint::new(pod).with_hostname(format!("web-{n}")));
    kit::unresolved("http").discovery(pods.collect()).retries(0)
}

async fn post(client: &Client) -> client::Error {
    let request = client.request(Method::POST, "/").into_future();
    let response = within("an answer", request).await;
    response.expect_err("no answer")
}

/// Checks what an error prints: alone, with all causes, and by code that prints chains.
#[track_caller]
fn says(error: &client::Error, short: &str, long: &str, chained: &str) {
    let start = |text: &str| text.replace("{to}", "request to web.default.svc.cluster.local");
    assert_eq!(error.to_string(), start(short));
    assert_eq!(format!("{error:#}"), start(long));
    assert_eq!(chain(error), start(chained));
}

#[tokio::test]
async fn refused_connections_say_how_many_pods_and_the_last_refusal() {
    let pods = [refusing().await, refusing().await];
    let client = builder(pods).ready_timeout(TICK).build();
    let error = post(&client.expect("a client")).await;
    let text = |n: usize| {
        format!(
            "{{to}} was not sent: none of 2 endpoints accepts requests; pod web-{n} ({}) refused last: \
             Connection refused (os error 111)",
            pods[n]
        )
    };
    let n = usize::from(error.to_string().contains("web-1"));
    let twice = format!("{}: Connection refused (os error 111)", text(n));
    says(&error, &text(n), &text(n), &twice);
}

#[tokio::test]
async fn a_connection_that_takes_too_long_names_its_setting() {
    let (pod, _) = silent().await;
    let client = builder([pod]).protocol(Protocol::Http2);
    let client = client.connect_timeout(TICK).ready_timeout(TICK).build();
    let error = post(&client.expect("a client")).await;
    let text = format!(
        "{{to}} was not sent: the only endpoint accepts no requests; pod web-0 ({pod}) refused last: \
         no connection within 50ms (`connect_timeout`)"
    );
    let twice = format!("{text}: no connection within 50ms (`connect_timeout`)");
    says(&error, &text, &text, &twice);
}

#[tokio::test]
async fn a_late_answer_names_its_setting() {
    let (pod, _) = silent().await;
    let client = builder([pod]).first_byte_timeout(TICK).build();
    let error = post(&client.expect("a client")).await;
    let text = format!(
        "{{to}}: pod web-0 ({pod}) failed; the request may have been executed: \
         no response within 50ms (`first_byte_timeout`)"
    );
    let twice = format!("{text}: no response within 50ms (`first_byte_timeout`)");
    says(&error, &text, &text, &twice);

    let client = builder([pod]).timeout(TICK).build();
    let error = post(&client.expect("a client")).await;
    let text = format!("{{to}}: no answer of pod web-0 ({pod}) within 50ms (`timeout`)");
    says(&error, &text, &text, &text);
}

#[tokio::test]
async fn a_connection_that_the_pod_closes_is_named_in_plain_words() {
    let (pod, _) = losing().await;
    let error = post(&builder([pod]).build().expect("a client")).await;
    let text = format!("{{to}}: pod web-0 ({pod}) failed; the request may have been executed: ");
    let own = "connection closed before message completed";
    let short = format!("{text}it closed the connection before the end of its response");
    says(
        &error,
        &short,
        &format!("{text}{own}"),
        &format!("{short}: {own}"),
    );
}

/// The client takes the scheme from the URI; a wrong one is a usual mistake.
#[tokio::test]
async fn a_pod_that_speaks_another_protocol_says_what_to_change() {
    let authority = Authority::new();
    let (secure, _) = tls_kit::secure(authority.server(&[NAME], &[], false)).await;
    let error = post(&builder([secure]).build().expect("a client")).await;
    let advice = "its answer is not HTTP/1.1 (does the port want `https`, or `Protocol::Http2`?)";
    assert!(error.to_string().ends_with(advice), "{error}");

    let plain = pod(|mut peer: Peer<_>| async move {
        peer.arrived().await;
        peer.write("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        pending().await
    });
    let client = tls_kit::builder([plain.await], authority.tls()).fail_fast();
    let client = client.build().expect("a client");
    kit::know(&client).await;
    let error = post(&client).await;
    let advice = "InvalidContentType (does the pod speak TLS at this port?)";
    assert!(error.to_string().ends_with(advice), "{error}");
}

/// If the pod has closed nothing, the same words in another error are printed unchanged.
#[test]
fn an_error_blames_a_connection_s_end_on_the_pod_only_if_its_connection_has_ended() {
    type E = client::Error;
    let end = || io::Error::new(io::ErrorKind::UnexpectedEof, "the file is short");
    for error in [
        E::fake_request_body(end()),
        E::fake_layer(end()),
        E::fake_limit(web_0(), end()),
        E::fake_balance(Error::fake_unreachable(1, web_0(), end())),
    ] {
        assert!(error.to_string().ends_with("the file is short"), "{error}");
    }
    for error in [
        E::fake_body(web_0(), end()),
        E::fake_endpoint(web_0(), false, end()),
    ] {
        let words = "it closed the connection before the end of its response";
        assert!(error.to_string().ends_with(words), "{error}");
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_says_so() {
    let cut = |mut peer: Peer<_>| async move {
        peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab")
            .await;
    };
    let pod = pod(cut).await;
    let client = builder([pod]).build().expect("a client");
    let response = within("a head", client.get("/").into_future()).await;
    let body = within("an end", response.expect("a head").into_body().collect()).await;
    let error = body.expect_err("seven bytes are missing");
    assert_eq!(yes(&error, HTTP), "body");
    let text = format!("{{to}}: pod web-0 ({pod}) failed while it sent its response: ");
    let short = format!("{text}it closed the connection before the end of its response");
    let own = "end of file before message length reached";
    let long = format!("{text}error reading a body from connection: {own}");
    let chained = format!("{short}: error reading a body from connection: {own}");
    says(&error, &short, &long, &chained);
}

#[tokio::test]
async fn an_http2_refusal_is_named_in_plain_words() {
    let goes_away = |peer: Peer<_>| async move {
        let mut frames = Frames::greet(peer, None).await;
        let stream = frames.stream().await;
        frames.go_away(stream, 11).await;
        frames.reset(stream, 11).await;
        frames.0.closed().await;
    };
    let pod = pod(goes_away).await;
    let client = builder([pod]).protocol(Protocol::Http2).build();
    let error = post(&client.expect("a client")).await;
    assert_eq!(
        error.to_string(),
        format!(
            "request to web.default.svc.cluster.local: pod web-0 ({pod}) failed; the request may have been executed: \
             it reset the HTTP/2 stream (RST_STREAM: ENHANCE_YOUR_CALM)"
        )
    );

    let closes = |peer: Peer<_>| async move {
        let mut frames = Frames::greet(peer, None).await;
        frames.stream().await;
        frames.go_away(0, 0).await;
        frames.0.closed().await;
    };
    let pod = kit::pod(closes).await;
    let client = builder([pod]).protocol(Protocol::Http2).build();
    let error = post(&client.expect("a client")).await;
    assert_eq!(
        error.to_string(),
        format!(
            "request to web.default.svc.cluster.local: pod web-0 ({pod}) failed; the request was not executed: \
             it closed the HTTP/2 connection (GOAWAY: NO_ERROR)"
        )
    );
}

#[tokio::test]
async fn a_response_above_a_limit_names_its_setting() {
    let talks = |mut peer: Peer<_>| async move {
        let large = "a".repeat(20_000);
        let head = format!("HTTP/1.1 200 OK\r\nx: {large}\r\n\r\n");
        peer.answer(&head).await;
    };
    let pod = pod(talks).await;
    let client = builder([pod]).max_response_header_size(10_000).build();
    let error = post(&client.expect("a client")).await;
    assert_eq!(yes(&error, HTTP), "limit");
    assert_eq!(
        error.to_string(),
        format!(
            "request to web.default.svc.cluster.local: the response of pod web-0 ({pod}) is more than this client reads: \
             its head is larger than 10000 bytes (`max_response_header_size`) or has more than 256 headers \
             (`http1_max_headers`)"
        )
    );
}

#[tokio::test]
async fn a_name_that_doesn_t_exist_is_named_with_the_server_that_says_so() {
    let server = DnsServer::start().await;
    let service = |ready: Duration| {
        let target = format!("dns://{}/web.default.svc.:80", server.addr());
        let discovery = Dns::new(target.parse().expect("a target")).refresh_interval(TICK);
        let builder = Client::builder("http://web.default.svc".parse().expect("a URI"));
        let client = builder.discovery(discovery).ready_timeout(ready).build();
        client.expect("a client")
    };
    let error = post(&service(10 * TICK)).await;
    let at = server.addr();
    assert_eq!(yes(&error, HTTP), "no_endpoints unsent unexecuted");
    assert_eq!(
        error.to_string().replace("(AAAA)", "(A)"),
        format!(
            "request to web.default.svc was not sent: no endpoints: discovery has found none within 500ms \
             (`ready_timeout`): DNS lookup of web.default.svc. (A) at {at} failed: the name does not exist (NXDOMAIN): \
             no pod is ready, or the service or its name is wrong"
        )
    );

    server.fault("*", RecordType::ANY, Fault::Silent);
    let error = post(&service(TICK)).await;
    assert_eq!(yes(&error, HTTP), "no_endpoints unsent unexecuted");
    assert_eq!(
        error.to_string(),
        "request to web.default.svc was not sent: no endpoints: discovery has found none within 50ms (`ready_timeout`)"
    );
}

async fn tls_error(tls: client::Tls, pod: SocketAddr) -> String {
    let pod = Endpoint::new(pod).with_hostname("web-0");
    let builder = kit::unresolved("https").discovery(StaticEndpoints::from_iter([pod]));
    let client = builder.tls(tls).ready_timeout(TICK).build();
    post(&client.expect("a client")).await.to_string()
}

#[tokio::test]
async fn certificate_errors_say_what_is_wrong_with_the_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let opening = |pod: SocketAddr| {
        format!(
            "request to {NAME} was not sent: the only endpoint accepts no requests; pod web-0 ({pod}) refused last: TLS: "
        )
    };
    let (pod, _) = tls_kit::secure(theirs.server(&[NAME], &[H2], false)).await;
    // The two authorities have the same name.
    let why = "invalid peer certificate: BadSignature (the client trusts no authority that has signed it: see \
               `Tls::trust_pem`)";
    assert_eq!(tls_error(ours.tls(), pod).await, opening(pod) + why);

    let (pod, _) = tls_kit::secure(ours.server(&["db.default"], &[H2], false)).await;
    let why = format!(
        "invalid peer certificate: certificate not valid for name \"{NAME}\"; certificate is only valid for \
         DnsName(\"db.default\")"
    );
    assert_eq!(tls_error(ours.tls(), pod).await, opening(pod) + &why);
}

/// Everything that has been logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_error_is_one_line_in_a_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .finish();
    let error = Error::fake_unreachable(3, web_0(), refused()).with_service("web.default");
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(error = &error as &dyn StdError, "no answer");
    });
    let log = String::from_utf8(log.0.lock().expect("no panic").clone());
    assert_eq!(
        log.expect("text"),
        " WARN no answer error=request to web.default was not sent: none of 3 endpoints accepts requests; pod web-0 \
         (10.1.2.3:80) refused last: Connection refused (os error 111) error.sources=[Connection refused (os error 111)]\n"
    );
}
