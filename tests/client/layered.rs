//! Layers of tower and tower-http around the client.

use std::{
    convert::Infallible,
    fmt,
    future::IntoFuture,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{LOCATION, USER_AGENT},
};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpStream;
use tower::{
    Service, ServiceBuilder, ServiceExt, layer::layer_fn, limit::ConcurrencyLimitLayer,
    timeout::error::Elapsed, util::MapRequestLayer,
};
use tower_headless::{
    BoxError, Endpoint, StaticEndpoints,
    http::{Client, Error, RequestBody, ResponseBody},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    decompression::DecompressionLayer,
    follow_redirect::{
        FollowRedirectLayer,
        policy::{Action, PolicyExt, clone_body_fn},
    },
    propagate_header::PropagateHeaderLayer,
    set_header::SetRequestHeaderLayer,
    timeout::TimeoutLayer,
    trace::TraceLayer,
};

use super::kit::{OK, Peer, client, get, know, losing, pod, stream_of, text};
use crate::support::within;

/// "hello, gzip", compressed.
const GZIP: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0xd7,
    0x51, 0x48, 0xaf, 0xca, 0x2c, 0x00, 0x00, 0x4a, 0x9b, 0xb1, 0x5c, 0x0b, 0x00, 0x00, 0x00,
];

/// The heads of the requests that pods have had.
#[derive(Clone, Default)]
struct Heads(Arc<Mutex<Vec<String>>>);

impl Heads {
    fn push(&self, head: String) {
        self.0.lock().expect("no panic").push(head);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }

    fn paths(&self) -> Vec<String> {
        let heads = self.take();
        let path = |head: &String| head.split(' ').nth(1).expect("a path").to_owned();
        heads.iter().map(path).collect()
    }
}

/// A pod that has redirects and a compressed answer.
async fn site() -> (SocketAddr, Heads) {
    let heads = Heads::default();
    let seen = heads.clone();
    let answer = move |mut peer: Peer<TcpStream>| {
        let seen = seen.clone();
        async move {
            while let Some(head) = peer.try_head().await {
                let path = head.split(' ').nth(1).expect("a path").to_owned();
                seen.push(head.clone());
                if head.starts_with("POST") {
                    peer.bytes::<4>().await;
                }
                match &*path {
                    "/old" => peer.write(redirect("302 Found", "/new")).await,
                    "/kept" => peer.write(redirect("307 Temporary Redirect", "/new")).await,
                    "/away" => {
                        peer.write(redirect("302 Found", "http://other.default/"))
                            .await
                    }
                    "/round" => peer.write(redirect("302 Found", "/round")).await,
                    "/silent" => {}
                    "/gzip" => {
                        let length = GZIP.len();
                        let head = format!(
                            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n"
                        );
                        peer.write([head.as_bytes(), GZIP].concat()).await;
                    }
                    _ => peer.write(OK).await,
                }
            }
        }
    };
    (pod(answer).await, heads)
}

fn redirect(status: &str, to: &str) -> String {
    format!("HTTP/1.1 {status}\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

/// A client of two pods with hostnames, and the heads that the pods have had.
async fn two() -> (Client, [Heads; 2]) {
    let [(one, first), (other, second)] = [site().await, site().await];
    let named = |(name, address): (&str, SocketAddr)| Endpoint::new(address).with_hostname(name);
    let pods: StaticEndpoints = [("web-0", one), ("web-1", other)]
        .map(named)
        .into_iter()
        .collect();
    let uri = format!("http://{}", super::kit::SERVICE);
    let client = Client::builder(uri.parse().expect("a URI")).discovery(pods);
    let client = client.build().expect("a client");
    know(&client).await;
    (client, [first, second])
}

#[tokio::test]
async fn a_redirect_within_the_service_is_followed() {
    let (address, heads) = site().await;
    let client = client([address]).layer(FollowRedirectLayer::new());
    let response = within("a response", client.get("/old").into_future()).await;
    let response = response.expect("it is followed");
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.body().endpoint().expect("a pod").address(),
        address
    );
    assert_eq!(text(response).await, "ok");
    assert_eq!(heads.paths(), ["/old", "/new"]);
}

#[tokio::test]
async fn a_redirect_to_another_service_is_a_foreign_error() {
    let (address, heads) = site().await;
    let client = client([address]).layer(FollowRedirectLayer::new());
    let error = get(&client, "/away").await.expect_err("it is foreign");
    assert!(error.is_foreign() && !error.is_layer(), "{error}");
    assert_eq!(heads.paths(), ["/away"]);
}

#[tokio::test]
async fn a_redirect_stays_with_the_pod_that_the_request_is_for() {
    let (client, [first, second]) = two().await;
    let client = client.layer(FollowRedirectLayer::new());
    for _ in 0..10 {
        let response = client.pod("web-1").get("/old").await.expect("a response");
        assert_eq!(
            response.body().endpoint().expect("a pod").hostname(),
            Some("web-1")
        );
        text(response).await;
        let response = client
            .others("web-1")
            .get("/old")
            .await
            .expect("a response");
        assert_eq!(
            response.body().endpoint().expect("a pod").hostname(),
            Some("web-0")
        );
        text(response).await;
    }
    let expected = ["/old", "/new"].repeat(10);
    assert_eq!(
        [first.paths(), second.paths()],
        [expected.clone(), expected]
    );
}

#[tokio::test]
async fn a_redirect_stays_with_its_pod_through_several_layers_that_forget_it() {
    let (client, [first, second]) = two().await;
    let forget = || {
        MapRequestLayer::new(|mut request: Request<RequestBody>| {
            request.extensions_mut().clear();
            request
        })
    };
    let client = client.layer(forget()).layer(FollowRedirectLayer::new());
    let client = client.layer(forget());
    for _ in 0..10 {
        let response = client.pod("web-1").get("/old").await.expect("a response");
        text(response).await;
    }
    assert_eq!(first.paths(), [""; 0]);
    assert_eq!(second.paths(), ["/old", "/new"].repeat(10));
}

#[tokio::test]
async fn a_redirect_that_keeps_the_method_sends_the_body_again() {
    let (address, heads) = site().await;
    let again = clone_body_fn::<_, RequestBody>(RequestBody::try_clone);
    let policy = again.and::<_, RequestBody, Error>(Action::Follow);
    let client = client([address]).layer(FollowRedirectLayer::with_policy(policy));
    let response = client.post("/kept").body("body").await.expect("a response");
    assert_eq!(text(response).await, "ok");
    assert_eq!(heads.paths(), ["/kept", "/new"]);
}

#[tokio::test]
async fn a_redirect_inherits_what_its_request_says_to_the_client() {
    let (lost, lost_count) = losing().await;
    // The first pod redirects, the second loses its request, the third answers.
    let (one, heads) = site().await;
    let client = client([one, lost]);
    know(&client).await;
    let again = clone_body_fn::<_, RequestBody>(RequestBody::try_clone);
    let policy = again.and::<_, RequestBody, Error>(Action::Follow);
    let client = client.layer(FollowRedirectLayer::with_policy(policy));
    for _ in 0..4 {
        let request = client.post("/kept").body("body").idempotent();
        let response = within("a response", request.into_future()).await;
        assert_eq!(text(response.expect("sent again")).await, "ok");
    }
    assert!(lost_count.get() > 0, "nothing was lost");
    assert!(heads.paths().len() >= 8);
}

#[tokio::test]
async fn another_service_gets_neither_the_default_headers_nor_the_host_of_this_one() {
    let (address, heads) = site().await;
    let secrets = ["authorization", "cookie", "x-team"].map(|name| {
        let value = HeaderValue::from_static("secret");
        (HeaderName::from_static(name), value)
    });
    let client = super::kit::builder([address])
        .allow_foreign_authority(true)
        .default_headers(secrets.into_iter().collect());
    let client = client.build().expect("a client");
    let client = client.layer(FollowRedirectLayer::new());
    let away = client.get("/away").header("host", "web-0.web.default");
    let response = within("a response", away.into_future()).await;
    assert_eq!(text(response.expect("a response")).await, "ok");
    let [own, other] = heads.take().try_into().expect("two requests");
    assert_eq!(own.matches("secret").count(), 3, "{own}");
    assert!(own.contains("host: web-0.web.default\r\n"), "{own}");
    assert!(!other.contains("secret"), "{other}");
    assert!(other.contains("host: other.default\r\n"), "{other}");
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    let (address, heads) = site().await;
    let client = client([address]).layer(FollowRedirectLayer::new());
    let response = within("a response", client.get("/round").into_future()).await;
    assert_eq!(response.expect("the last one").status(), 302);
    assert!(heads.paths().len() > 1);
}

#[tokio::test]
async fn gzip_is_decompressed_and_the_response_still_names_its_pod() {
    let (address, heads) = site().await;
    let client = client([address]).layer(DecompressionLayer::new());
    let response = client.get("/gzip").await.expect("a response");
    assert_eq!(response.body().endpoint(), Some(&Endpoint::new(address)));
    assert_eq!(text(response).await, "hello, gzip");
    let heads = heads.take();
    assert!(heads[0].contains("accept-encoding: gzip"), "{heads:?}");
}

#[tokio::test(start_paused = true)]
async fn a_response_made_by_a_layer_names_no_pod() {
    let never = Client::from_fn(|_| std::future::pending::<Result<Response<()>, Error>>());
    let status = StatusCode::GATEWAY_TIMEOUT;
    let timeout = TimeoutLayer::with_status_code(status, Duration::from_secs(2));
    let client = never.layer(timeout);
    let response = client.get("/").await.expect("the layer's response");
    assert_eq!(response.status(), status);
    assert_eq!(response.body().endpoint(), None);
    let error = response.error_for_status_ref().expect_err("a 504");
    let words = "request to from-fn.test: GET / was answered with 504 Gateway Timeout";
    assert_eq!(
        (error.to_string().as_str(), error.endpoint()),
        (words, None)
    );
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn an_error_of_reading_a_layer_s_response_names_no_pod() {
    let own = Client::from_fn(async |_| Ok(Response::new("hello")));
    let response = own.get("/").await.expect("a response");
    let error = response.json::<u32>().await.expect_err("no number");
    let words = "request to from-fn.test: the response is not the JSON of `u32`";
    assert!(error.to_string().starts_with(words), "{error}");
    assert_eq!(error.endpoint(), None);

    let response = own.get("/").response_limit(1).await.expect("a response");
    let error = response.text().await.expect_err("too much");
    let words = "request to from-fn.test: the response is more than this client reads";
    assert!(error.to_string().starts_with(words), "{error}");
    assert_eq!(error.endpoint(), None);
}

#[tokio::test]
async fn a_layer_s_timeout_answers_for_a_silent_pod() {
    let (address, _) = site().await;
    let status = StatusCode::GATEWAY_TIMEOUT;
    let timeout = TimeoutLayer::with_status_code(status, Duration::from_millis(20));
    let client = client([address]).layer(timeout);
    let response = within("a response", client.get("/silent").into_future()).await;
    assert_eq!(response.expect("the layer's").status(), status);
}

#[tokio::test]
async fn a_request_s_own_timeout_names_the_late_pod() {
    let (address, _) = site().await;
    let client = client([address]).layer(TraceLayer::new_for_http());
    let request = client.get("/silent").timeout(Duration::from_millis(20));
    let error = within("an error", request.into_future()).await;
    let error = error.expect_err("it is late");
    assert!(error.is_timeout());
    assert_eq!(error.endpoint(), Some(&Endpoint::new(address)));
}

/// Above and below the layers the same timeout passes: whichever is seen first, the error must be the more precise one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_timeouts_each_name_their_pod() {
    let (address, _) = site().await;
    let client = client([address]).layer(TraceLayer::new_for_http());
    let requests = (0..64).map(|number| {
        let timeout = Duration::from_micros(100_000 + 77 * number);
        let request = client.get("/silent").timeout(timeout);
        tokio::spawn(request.into_future())
    });
    let requests: Vec<_> = requests.collect();
    for request in requests {
        let error = within("an end", request).await.expect("no panic");
        let error = error.expect_err("it is late");
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.endpoint(), Some(&Endpoint::new(address)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_s_own_timeout_also_covers_a_layer_s_wait() {
    let (address, heads) = site().await;
    let wait = layer_fn(|inner: Client| {
        tower::service_fn(move |request: Request<RequestBody>| {
            let inner = inner.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                inner.oneshot(request).await
            }
        })
    });
    let client = client([address]).layer(wait);
    let request = client.get("/").timeout(Duration::from_secs(1));
    let error = request.await.expect_err("it is late");
    assert!(error.is_timeout(), "{error}");
    assert_eq!(error.endpoint(), None);
    assert_eq!(heads.paths(), [""; 0]);
}

/// A layer that appends its name to a header.
fn mark(name: &'static str) -> impl tower::Layer<Client, Service = Marked<Client>> + Clone {
    layer_fn(move |inner| Marked { inner, name })
}

#[derive(Clone)]
struct Marked<S> {
    inner: S,
    name: &'static str,
}

impl<S: Service<Request<RequestBody>>> Service<Request<RequestBody>> for Marked<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> S::Future {
        let name = HeaderValue::from_static(self.name);
        request.headers_mut().append("x-mark", name);
        self.inner.call(request)
    }
}

fn marks(heads: &Heads) -> Vec<String> {
    let heads = heads.take();
    let lines = heads.iter().flat_map(|head| head.lines());
    let marks = lines.filter_map(|line| line.strip_prefix("x-mark: "));
    marks.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_last_layer_added_is_outermost_and_in_a_service_builder_the_first() {
    let (address, heads) = site().await;
    let layered = client([address]).layer(mark("first")).layer(mark("second"));
    get(&layered, "/").await.expect("a response");
    assert_eq!(marks(&heads), ["second", "first"]);
    let inner = |inner| Marked {
        inner,
        name: "second",
    };
    let stack = ServiceBuilder::new()
        .layer(layer_fn(|inner| Marked {
            inner,
            name: "first",
        }))
        .layer(layer_fn(inner));
    let layered = client([address]).layer(stack);
    get(&layered, "/").await.expect("a response");
    assert_eq!(marks(&heads), ["first", "second"]);
}

#[tokio::test]
async fn layers_see_the_whole_uri_of_a_path_and_pods_get_the_path() {
    let (address, heads) = site().await;
    let seen = Arc::new(Mutex::new(String::new()));
    let trace = TraceLayer::new_for_http().on_request({
        let seen = seen.clone();
        move |request: &Request<RequestBody>, _: &_| {
            *seen.lock().expect("no panic") = request.uri().to_string();
        }
    });
    let client = client([address]).layer(trace);
    get(&client, "/a?b").await.expect("a response");
    let service = super::kit::SERVICE;
    assert_eq!(
        *seen.lock().expect("no panic"),
        format!("http://{service}/a?b")
    );
    let heads = heads.take();
    assert!(heads[0].starts_with("GET /a?b HTTP/1.1\r\n"), "{heads:?}");
    assert!(
        heads[0].contains(&format!("host: {service}\r\n")),
        "{heads:?}"
    );
}

#[tokio::test]
async fn a_header_is_set_for_every_request_whichever_way_it_comes() {
    let (client, [first, second]) = two().await;
    let agent = SetRequestHeaderLayer::overriding(USER_AGENT, HeaderValue::from_static("shop/1"));
    let client = client.layer(agent);
    get(&client, "/").await.expect("a response");
    client.pod("web-0").get("/").await.expect("a response");
    let all = client.get("/").broadcast().all().await.expect("all answer");
    assert_eq!(all.answered.len(), 2);
    let request = Request::get("/").body(Full::<Bytes>::default());
    let response = client.oneshot(request.expect("a request")).await;
    response.expect("a response");
    let heads = [first.take(), second.take()].concat();
    assert_eq!(heads.len(), 5);
    let is_set = |head: &String| head.contains("user-agent: shop/1\r\n");
    assert!(heads.iter().all(is_set), "{heads:?}");
}

#[tokio::test]
async fn a_broadcast_goes_through_the_layers_once_for_each_pod_and_stays_there() {
    let (client, [first, second]) = two().await;
    let client = client.layer(FollowRedirectLayer::new());
    let all = client
        .get("/old")
        .broadcast()
        .all()
        .await
        .expect("all answer");
    let mut pods: Vec<_> = all
        .answered
        .iter()
        .map(|(pod, response)| {
            assert_eq!(response.body().endpoint().expect("a pod"), pod);
            pod.hostname().expect("a name").to_owned()
        })
        .collect();
    pods.sort();
    assert_eq!(pods, ["web-0", "web-1"]);
    assert_eq!([first.paths(), second.paths()], [["/old", "/new"]; 2]);
    let stream = Request::post("/")
        .body(stream_of(&["body"]))
        .expect("a request");
    let error = client
        .broadcast(stream)
        .all()
        .await
        .expect_err("not to all");
    assert!(error.to_string().contains("stream"), "{error}");
    let each = client.broadcast_with(|_| {
        let request = Request::post("/").header("content-length", "4");
        request.body(stream_of(&["bo", "dy"])).expect("a request")
    });
    assert_eq!(each.all().await.expect("all answer").answered.len(), 2);
}

#[tokio::test]
async fn a_layered_client_shows_its_pods() {
    let (client, _) = two().await;
    let layered = client.layer(TraceLayer::new_for_http());
    know(&layered).await;
    assert_eq!(layered.endpoints().len(), 2);
    assert!(layered.staleness().is_some());
    assert!(layered.endpoint("web-1").is_some());
}

#[tokio::test(start_paused = true)]
async fn the_client_s_own_errors_pass_through_layers_unchanged() {
    let client = client([]).layer(ServiceBuilder::new().timeout(Duration::from_secs(60)));
    let error = client.get("/").await.expect_err("there are no pods");
    assert!(!error.is_layer() && error.is_no_endpoints() && error.is_unexecuted());
    let error = client.get("no path").await.expect_err("it is no path");
    assert!(error.is_request());
}

#[tokio::test(start_paused = true)]
async fn a_layer_s_own_error_is_a_layer_error() {
    let never = Client::from_fn(|_| std::future::pending::<Result<Response<()>, Error>>());
    let client = never.layer(ServiceBuilder::new().timeout(Duration::from_secs(1)));
    let error = client.get("/").await.expect_err("it is late");
    assert!(error.is_layer() && !error.is_unexecuted(), "{error}");
    let source = std::error::Error::source(&error).expect("the layer's");
    assert!(source.is::<Elapsed>());
    assert!(error.to_string().contains(&source.to_string()), "{error}");
}

/// A layer's error, which wraps the client's.
#[derive(Debug)]
struct Worse(Error);

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is worse than that")
    }
}

impl std::error::Error for Worse {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_s_error_around_the_client_s_answers_for_it() {
    let worse =
        layer_fn(|client: Client| ServiceExt::<Request<RequestBody>>::map_err(client, Worse));
    let client = client([]).layer(worse).layer(worse);
    let error = client.get("/").await.expect_err("there are no pods");
    assert!(error.is_layer() && error.is_no_endpoints() && error.is_unexecuted());
    assert!(
        error.to_string().contains("it is worse than that"),
        "{error}"
    );
}

#[tokio::test]
async fn the_text_of_a_layer_s_error_appears_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("authentication failed")]
    struct Unknown(#[source] BoxError);
    let broken = layer_fn(|_: Client| {
        tower::service_fn(async |_: Request<RequestBody>| {
            Err::<Response<ResponseBody>, _>(Unknown("the token is old".into()))
        })
    });
    let client = client([]).layer(broken);
    let error = client.get("/").await.expect_err("no token");
    let text = format!("{error:#}");
    assert_eq!(text.matches("authentication failed").count(), 1, "{text}");
    assert!(
        text.ends_with("authentication failed: the token is old"),
        "{text}"
    );
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_panic_in_a_layer_becomes_a_response() {
    let (address, _) = site().await;
    let panic = MapRequestLayer::new(|request: Request<RequestBody>| {
        assert_ne!(request.uri().path(), "/panic");
        request
    });
    let client = client([address]).layer(panic).layer(CatchPanicLayer::new());
    let response = client.get("/panic").await.expect("the layer's response");
    assert_eq!(response.status(), 500);
    assert_eq!(get(&client, "/").await.expect("a response"), "ok");
}

#[tokio::test]
async fn a_header_is_propagated() {
    let (address, _) = site().await;
    let id = HeaderName::from_static("x-request-id");
    let client = client([address]).layer(PropagateHeaderLayer::new(id));
    let response = client.get("/").header("x-request-id", "7").await;
    assert_eq!(response.expect("a response").headers()["x-request-id"], "7");
}

#[tokio::test]
async fn a_concurrency_limit_is_shared_by_all_clones_and_pods() {
    let limited = Arc::new(tokio::sync::Semaphore::new(1));
    let answer = {
        let limited = limited.clone();
        move |_: Request<RequestBody>| {
            let permit = limited.clone().try_acquire_owned();
            async move {
                let _permit = permit.expect("one at a time");
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(Response::new(ResponseBody::from("ok")))
            }
        }
    };
    let client = Client::from_service(tower::service_fn(answer));
    let client = client.layer(ConcurrencyLimitLayer::new(1));
    let requests = (0..10).map(|i| {
        let request = match i % 2 {
            0 => client.get("/"),
            _ => client.pod("web-0").get("/"),
        };
        request.into_future()
    });
    let answers = futures::future::join_all(requests).await;
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_stream_s_declared_length_is_checked_below_layers_too() {
    let (address, _) = site().await;
    let layered = client([address]).layer(TraceLayer::new_for_http());
    for (length, is_ok) in [("4", true), ("5", false), ("3", false)] {
        let request = Request::post("/").header("content-length", length);
        let request = request.body(stream_of(&["bo", "dy"])).expect("a request");
        let answer = within("an answer", layered.clone().oneshot(request)).await;
        let is_body = |error: &Error| error.is_request_body();
        assert_eq!(
            answer.as_ref().err().is_some_and(is_body),
            !is_ok,
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_redirect_of_from_fn_is_followed() {
    let moved = Client::from_fn(async |request: Request<RequestBody>| {
        let is_new = request.uri().path() == "/new";
        let mut response = Response::new(request.method().to_string());
        if !is_new {
            *response.status_mut() = StatusCode::FOUND;
            let location = HeaderValue::from_static("http://from-fn.test/new");
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    });
    let client = moved.layer(FollowRedirectLayer::new());
    let response = client.request(Method::POST, "/old").body("body").await;
    let body = response.expect("a response").into_body().collect().await;
    assert_eq!(body.expect("a body").to_bytes(), "GET");
    let error: Result<_, BoxError> = get(&client, "no path").await.map_err(Into::into);
    assert!(error.is_err());
}
