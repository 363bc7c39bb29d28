//! The page over HTTP: its paths, its headers, its JSON, and its cost.

mod support;

use std::{
    collections::BTreeMap,
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use rand::Rng;
use serde_json::Value;
use support::within;
use tokio::{net::TcpListener, time::advance};
use tower::{Service, ServiceExt, service_fn};
use tower_headless::{
    Balance, Balancers, BoxError, Endpoint, Explanation, Members, Picker, Policy, Previous, Route,
    StaticEndpoints, Verdict, http::Client, inspect::Page,
};

/// A name that an attacker who names pods could choose.
const HOSTILE: &str = "</script><img src=x onerror=alert(1)>&quot;";

fn balance() -> Balance<impl Clone + Send + Sync + 'static> {
    let endpoint = Endpoint::new(([10, 0, 0, 1], 80).into()).with_hostname(HOSTILE);
    Balance::builder(StaticEndpoints::from_iter([endpoint]))
        .build(|_: &Endpoint| service_fn(|request: u32| async move { Ok::<_, BoxError>(request) }))
}

async fn ask(page: &Page, method: Method, path: &str) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(()).expect("a request");
    let response = page.clone().oneshot(request).await;
    let (head, body) = response.unwrap_or_else(|never| match never {}).into_parts();
    let body = body.collect().await.unwrap_or_else(|never| match never {});
    Response::from_parts(head, body.to_bytes())
}

async fn get(page: &Page, path: &str) -> Response<Bytes> {
    ask(page, Method::GET, path).await
}

fn header(response: &Response<Bytes>, name: header::HeaderName) -> &str {
    let value = response.headers().get(&name);
    let value = value.unwrap_or_else(|| panic!("no {name}"));
    value.to_str().expect("text")
}

fn kind(response: &Response<Bytes>) -> &str {
    match (response.status(), header(response, header::CONTENT_TYPE)) {
        (StatusCode::OK, "text/html; charset=utf-8") => "page",
        (StatusCode::OK, "application/json") => "json",
        (StatusCode::NOT_FOUND, _) => "none",
        (status, other) => panic!("{status} {other}"),
    }
}

#[tokio::test]
async fn each_path_has_one_answer_under_any_prefix() {
    let page = Page::new(Balancers::new());
    for (path, what) in [
        ("/", "page"),
        ("/?some=query", "page"),
        ("/json", "json"),
        ("/json?x", "json"),
        ("/.json", "json"),
        ("/json/", "none"),
        ("//", "none"),
        ("/debug/tower-headless", "none"),
        ("/favicon.ico", "none"),
        ("/../etc/passwd", "none"),
    ] {
        assert_eq!(kind(&get(&page, path).await), what, "{path}");
    }
    for prefix in [
        "/debug/tower-headless",
        "debug/tower-headless",
        "/debug/tower-headless/",
    ] {
        let page = page.clone().mounted_at(prefix);
        for (path, what) in [
            ("/debug/tower-headless", "page"),
            ("/debug/tower-headless/", "page"),
            ("/debug/tower-headless/json", "json"),
            ("/debug/tower-headless.json", "json"),
            ("/debug/tower-headless2", "none"),
            ("/debug/tower-headlessjson", "none"),
            ("/", "none"),
            ("/json", "none"),
        ] {
            assert_eq!(kind(&get(&page, path).await), what, "{path} under {prefix}");
        }
    }
    let page = page.mounted_at("/debug").mounted_at("/");
    assert_eq!(kind(&get(&page, "/json").await), "json");
}

#[tokio::test]
async fn only_get_and_head_are_allowed() {
    let page = Page::new(Balancers::new());
    for path in ["/", "/json"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let response = ask(&page, method, path).await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(header(&response, header::ALLOW), "GET, HEAD");
        }
        let response = ask(&page, Method::HEAD, path).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.body().is_empty());
        let length = get(&page, path).await.body().len().to_string();
        assert_eq!(header(&response, header::CONTENT_LENGTH), length);
    }
    let response = ask(&page, Method::POST, "/elsewhere").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nothing_is_cached_framed_sniffed_or_loaded_from_elsewhere() {
    let page = Page::new(Balancers::new());
    for path in ["/", "/json", "/elsewhere"] {
        let response = get(&page, path).await;
        assert_eq!(header(&response, header::CACHE_CONTROL), "no-store");
        assert_eq!(header(&response, header::X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert_eq!(header(&response, header::X_FRAME_OPTIONS), "DENY");
        assert_eq!(header(&response, header::REFERRER_POLICY), "no-referrer");
        let policy = header(&response, header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    let nonces = [get(&page, "/").await, get(&page, "/").await].map(|response| {
        let policy = header(&response, header::CONTENT_SECURITY_POLICY);
        let nonce = policy.split("script-src 'nonce-").nth(1);
        let nonce = nonce.and_then(|rest| rest.split('\'').next());
        let nonce = nonce.expect("a nonce").to_owned();
        let text = String::from_utf8(response.into_body().into()).expect("text");
        assert_eq!(text.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        nonce
    });
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn the_json_is_each_balancers_explanation_by_its_name() {
    let (first, second) = (balance(), balance());
    let balancers = Balancers::new();
    let page = Page::new(balancers.clone());
    assert_eq!(&get(&page, "/json").await.body()[..], b"{}");
    balancers.add_as("web", &first).add_as(HOSTILE, &second);
    let page = Page::new(balancers);
    let response = get(&page, "/json").await;
    let all: BTreeMap<String, Explanation> =
        serde_json::from_slice(response.body()).expect("explanations");
    assert_eq!(all.keys().collect::<Vec<_>>(), [HOSTILE, "web"]);
    let pod = &all["web"].endpoints[0];
    assert_eq!(pod.name.as_deref(), Some(HOSTILE));
    assert_eq!(pod.verdict, Verdict::Picked);
    let json: Value = serde_json::from_slice(response.body()).expect("JSON");
    let web = &json["web"];
    assert!(web["at_unix_ms"].is_u64() && web["endpoints"][0]["in_flight"].is_u64());
    let html = get(&page, "/").await;
    let html = std::str::from_utf8(html.body()).expect("text");
    assert!(!html.contains("onerror"), "the page itself has no data");
}

/// Counts how often a balancer is asked to explain itself.
#[derive(Clone, Default)]
struct Explained(Arc<AtomicUsize>);

impl Policy for Explained {
    fn prepare(&self, _: &Members, _: Option<Previous<'_>>, _: &mut dyn Rng) -> Box<dyn Picker> {
        Box::new(self.clone())
    }
}

impl Picker for Explained {
    fn pick(&self, _: &Members, _: &Route, _: &mut dyn Rng) -> Option<usize> {
        None
    }

    fn shares(&self, members: &Members) -> Option<Vec<f64>> {
        self.0.fetch_add(1, Relaxed);
        Some(vec![1.0; members.len()])
    }
}

fn counted(balancers: &Balancers) -> (Explained, impl Sized + use<>) {
    let explained = Explained::default();
    let balance = Balance::builder(StaticEndpoints::new([([10, 0, 0, 1], 80).into()]))
        .policy(explained.clone())
        .build(|_: &Endpoint| service_fn(|request: u32| async move { Ok::<_, BoxError>(request) }));
    balancers.add(&balance);
    (explained, balance)
}

#[tokio::test(start_paused = true)]
async fn requests_within_a_quarter_of_a_second_get_the_same_json() {
    let balancers = Balancers::new();
    let (explained, _balance) = counted(&balancers);
    support::scripted::settle().await;
    let page = Page::new(balancers);
    let answers = join_all((0..1_000).map(|_| get(&page, "/json"))).await;
    assert!(answers.iter().all(|it| it.body() == answers[0].body()));
    let other = page.clone().mounted_at("/other");
    get(&other, "/other/json").await;
    advance(Duration::from_millis(249)).await;
    get(&page, "/json").await;
    assert_eq!(explained.0.load(Relaxed), 1);
    advance(Duration::from_millis(1)).await;
    get(&page, "/json").await;
    assert_eq!(explained.0.load(Relaxed), 2);
    get(&page, "/").await;
    advance(Duration::from_secs(1)).await;
    get(&page, "/").await;
    assert_eq!(explained.0.load(Relaxed), 2, "the HTML asks nobody");
}

#[test]
fn json_whose_client_has_gone_is_not_given_to_later_clients() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .max_blocking_threads(1)
        .build();
    runtime.expect("a runtime").block_on(async {
        let balancers = Balancers::new();
        let (explained, _balance) = counted(&balancers);
        support::scripted::settle().await;
        let mut page = Page::new(balancers);
        let mut request = Request::new(());
        *request.uri_mut() = "/json".parse().expect("a path");
        drop(page.call(request));
        // The only blocking thread runs one task after the other.
        let done = tokio::task::spawn_blocking(|| {});
        within("its making", done).await.expect("no panic");
        assert_eq!(explained.0.load(Relaxed), 1);
        advance(Duration::from_secs(60)).await;
        get(&page, "/json").await;
        assert_eq!(explained.0.load(Relaxed), 2);
    });
}

#[test]
fn the_page_works_without_a_runtime() {
    let page = Page::new(Balancers::new());
    let response = futures::executor::block_on(get(&page, "/json"));
    assert_eq!(&response.body()[..], b"{}");
}

#[tokio::test]
async fn the_page_works_in_axum_under_a_prefix() {
    let balance = balance();
    let balancers = Balancers::new();
    balancers.add(&balance);
    let nested = Page::new(balancers.clone());
    let whole = Page::new(balancers).mounted_at("/whole");
    let app: Router = Router::new()
        .nest_service("/debug/tower-headless", nested)
        .route_service("/whole/{*rest}", whole);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(axum::serve(listener, app).into_future());
    let client = Client::builder("http://inspected".parse().expect("a URI"))
        .discovery(StaticEndpoints::new([address]))
        .build()
        .expect("a client");
    for (path, what) in [
        ("/debug/tower-headless", "text/html; charset=utf-8"),
        ("/debug/tower-headless/", "text/html; charset=utf-8"),
        ("/debug/tower-headless/json", "application/json"),
        ("/whole/json", "application/json"),
    ] {
        let answer = within(path, client.get(path).into_future()).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], what, "{path}");
        assert!(
            !within(path, answer.bytes())
                .await
                .expect("all of it")
                .is_empty()
        );
    }
    server.abort();
}
