//! The client's request methods: what pods get of their requests, and which requests are errors.

use std::{
    collections::{BTreeMap, HashMap},
    future::{Future, IntoFuture},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{join, join_all, try_join},
};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{AUTHORIZATION, HOST},
};
use http_body_util::Empty;
use serde::Serialize;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};
use tower_headless::{
    Endpoint, StaticEndpoints,
    http::{
        Client, ClientBuilder, Error, RequestBody, RequestBuilder, RequestTimeout, Response,
        SendFuture,
    },
};
use tracing::Instrument;

use crate::{
    kit::{
        OK, Peer, SERVICE, accept, answering, builder, client, in_flight, listen, losing, pod,
        refusing, silent, stream_of, text, unresolved, wait_until,
    },
    support::{pod::Pod, within},
};

/// What a pod gets of a request: its head, and `BODY` bytes of its body.
async fn received_by<const BODY: usize>(
    settings: impl FnOnce(ClientBuilder<StaticEndpoints>) -> ClientBuilder<StaticEndpoints>,
    request: impl FnOnce(&Client) -> RequestBuilder,
) -> (String, String) {
    let (listener, pod) = listen().await;
    let client = settings(builder([pod])).build().expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        let head = peer.head().await;
        let body = peer.bytes::<BODY>().await;
        peer.write(OK).await;
        (head, String::from_utf8(body.to_vec()).expect("text"))
    };
    let serve = serve.map(Ok);
    let sent = try_join(serve, request(&client).send()).await;
    sent.expect("a response").0
}

async fn head_of(request: impl FnOnce(&Client) -> RequestBuilder) -> String {
    received_by::<0>(|builder| builder, request).await.0
}

/// The target of a GET as a pod gets it.
async fn target_of(request: impl FnOnce(&Client) -> RequestBuilder) -> String {
    target(&head_of(request).await)
}

fn target(head: &str) -> String {
    head.split(' ').nth(1).expect("a target").to_owned()
}

#[track_caller]
fn assert_has(head: &str, line: &str) {
    let has = head.lines().any(|it| it.eq_ignore_ascii_case(line));
    assert!(has, "no {line:?} in {head}");
}

/// Asserts that a request fails before it is sent; returns the error.
async fn invalid(request: RequestBuilder) -> Error {
    let error = within("an error", request.send()).await;
    let error = error.expect_err("no such request can be sent");
    assert!(error.is_request() && error.is_unexecuted(), "{error}");
    assert!(error.endpoint().is_none(), "{error}");
    error
}

#[tokio::test]
async fn each_request_method_sends_its_http_method_to_any_pod_and_to_one() {
    let pod = Pod::start("127.0.0.1:0".parse().expect("an address")).await;
    let pod = pod.expect("a pod");
    let client = client([pod.addr()]);
    let one = client.pod(pod.addr());
    for (request, method) in [
        (client.get("/"), Method::GET),
        (client.head("/"), Method::HEAD),
        (client.post("/"), Method::POST),
        (client.put("/"), Method::PUT),
        (client.patch("/"), Method::PATCH),
        (client.delete("/"), Method::DELETE),
        (client.options("/"), Method::OPTIONS),
        (client.request(Method::TRACE, "/"), Method::TRACE),
        (one.get("/"), Method::GET),
        (one.head(String::from("/")), Method::HEAD),
        (one.post("/"), Method::POST),
        (one.put("/"), Method::PUT),
        (one.patch("/"), Method::PATCH),
        (one.delete("/"), Method::DELETE),
        (one.options("/"), Method::OPTIONS),
        (one.request(Method::TRACE, "/"), Method::TRACE),
    ] {
        let response = within("a response", request.send()).await;
        let response = response.expect("a response");
        assert_eq!(response.headers()["x-method"], method.as_str());
        assert_eq!(response.endpoint().expect("a pod").address(), pod.addr());
    }
}

#[tokio::test]
async fn a_query_is_added_to_what_the_path_has() {
    #[derive(Serialize)]
    struct Search {
        name: &'static str,
        page: Option<u32>,
        tags: Vec<&'static str>,
    }
    let search = Search {
        name: "Zoë & co",
        page: None,
        tags: vec!["a", "b"],
    };
    let target = target_of(|client| client.get("/u").query(&search));
    assert_eq!(target.await, "/u?name=Zo%C3%AB+%26+co&tags=a&tags=b");
    let pairs = target_of(|client| client.get("/u?q=1").query(&[("a", 1)]).query(&[("b", 2)]));
    assert_eq!(pairs.await, "/u?q=1&a=1&b=2");
    let map = BTreeMap::from([("/?#", "//")]);
    let escaped = target_of(|client| client.get("/u?").query(&map));
    assert_eq!(escaped.await, "/u?%2F%3F%23=%2F%2F");
    let none: [(&str, &str); 0] = [];
    let unchanged = target_of(|client| client.get("/u").query(&none));
    assert_eq!(unchanged.await, "/u");
    let whole = target_of(|client| client.get(format!("http://{SERVICE}")).query(&[("a", "b")]));
    assert_eq!(whole.await, "/?a=b");
}

#[tokio::test]
async fn forms_and_json_set_their_content_type() {
    let form = |client: &Client| client.post("/").form(&[("a", "b c"), ("d", "é")]);
    let (head, body) = received_by::<14>(|builder| builder, form).await;
    assert_eq!(body, "a=b+c&d=%C3%A9");
    assert_has(&head, "content-type: application/x-www-form-urlencoded");
    assert_has(&head, "content-length: 14");
    let json = |client: &Client| client.put("/").json(&BTreeMap::from([("a", [1, 2])]));
    let (head, body) = received_by::<11>(|builder| builder, json).await;
    assert_eq!(body, r#"{"a":[1,2]}"#);
    assert_has(&head, "content-type: application/json");
    let own = |client: &Client| {
        let patch = client
            .patch("/")
            .header("content-type", "application/merge-patch+json");
        patch.json(&1)
    };
    let (head, _) = received_by::<1>(|builder| builder, own).await;
    assert_has(&head, "content-type: application/merge-patch+json");
    assert_eq!(head.matches("content-type").count(), 1, "{head}");
}

#[tokio::test]
async fn headers_are_added_one_by_one_and_replaced_by_a_map() {
    let head = head_of(|client| {
        let more = HeaderMap::from_iter([(
            "accept".parse().expect("a name"),
            HeaderValue::from_static("c"),
        )]);
        let request = client.get("/").header("x-a", "1").header("x-a", "2");
        request.header("accept", "b").headers(more)
    });
    let head = head.await;
    for line in ["x-a: 1", "x-a: 2", "accept: c"] {
        assert_has(&head, line);
    }
    assert!(!head.contains("accept: b"), "{head}");
}

#[tokio::test]
async fn credentials_are_sent_but_never_shown() {
    let bearer = head_of(|client| client.get("/").bearer_auth("a").bearer_auth("t0ken"));
    let bearer = bearer.await;
    assert_has(&bearer, "authorization: Bearer t0ken");
    assert_eq!(bearer.matches("authorization").count(), 1, "{bearer}");
    // RFC 7617 §2
    let basic = head_of(|client| client.get("/").basic_auth("Aladdin", Some("open sesame")));
    let basic = basic.await;
    assert_has(&basic, "authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let alone = head_of(|client| client.get("/").basic_auth("a", None::<&str>));
    assert_has(&alone.await, "authorization: Basic YTo=");
    let client = client([refusing().await]);
    for request in [
        client.get("/").bearer_auth("t0ken"),
        client.get("/").basic_auth("Aladdin", Some("t0ken")),
    ] {
        assert!(!format!("{request:?}").contains("t0ken"), "{request:?}");
        let built = request.build().expect("a request");
        assert!(built.headers()[AUTHORIZATION].is_sensitive());
    }
}

#[tokio::test]
async fn an_invalid_request_fails_when_it_is_sent() {
    let client = client([refusing().await]);
    let no_key = HashMap::from([([1, 2], 3)]);
    for (request, why) in [
        (
            client.get("/").header("a b", "s3cret"),
            "the header name \"a b\": invalid",
        ),
        (client.get("/").header("x-a", "s3cret\n"), "the header x-a"),
        (
            client.get("/").bearer_auth("s3cret\r\nx: y"),
            "the Authorization",
        ),
        (client.get("/").basic_auth("s3cret:", Some("b")), "colon"),
        (client.get("/").query(&"s3cret"), "the query: "),
        (
            client.get("/").query(&[("a", "b".repeat(70_000))]),
            "the query: ",
        ),
        (client.post("/").form(&1), "the form: "),
        (
            client.post("/").json(&no_key),
            "the JSON: key must be a string",
        ),
        // The first error counts.
        (
            client.get("no path").query(&1).header("a b", "c"),
            "\"no path\"",
        ),
    ] {
        let error = invalid(request).await.to_string();
        assert!(error.contains(why), "{why:?} is not in {error:?}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn the_send_future_can_be_spawned_joined_and_instrumented() {
    fn is_a_task<T: Future + Send + Unpin + 'static>(task: T) -> T {
        task
    }
    let (pod, requests) = answering().await;
    let client = client([pod]);
    let unpolled: SendFuture = is_a_task(client.get("/").send());
    drop(unpolled);
    assert_eq!(requests.get(), 0, "nothing is sent before it is polled");
    let spawned = tokio::spawn(client.get("/").send());
    let response = within("a response", spawned).await.expect("no panic");
    assert_eq!(text(response.expect("a response")).await, "ok");
    let sends = (0..3).map(|_| client.get("/").send());
    for response in within("responses", join_all(sends)).await {
        assert_eq!(text(response.expect("a response")).await, "ok");
    }
    let span = tracing::info_span!("a request");
    let instrumented = is_a_task(client.get("/").send().instrument(span));
    within("a response", instrumented)
        .await
        .expect("a response");
    let awaited: Result<Response, Error> =
        within("a response", client.get("/").into_future()).await;
    awaited.expect("a response");
    assert_eq!(requests.get(), 6);
}

#[tokio::test]
async fn dropping_the_future_cancels_the_request() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let mut sent = client.get("/").send();
    let mut peer = tokio::select! {
        peer = async { let mut peer = accept(&listener).await; peer.head().await; peer } => peer,
        response = &mut sent => panic!("nobody answers: {response:?}"),
    };
    assert_eq!(in_flight(&client), 1);
    drop(sent);
    peer.closed().await;
    wait_until("the request's end", || in_flight(&client) == 0).await;
}

#[tokio::test]
async fn a_timeout_is_an_extension_that_layers_can_set() {
    let (pod, _) = silent().await;
    let mut client = client([pod]);
    let short = RequestTimeout(Duration::from_millis(20));
    let mut request = Request::new(Empty::<Bytes>::new());
    request.extensions_mut().insert(short);
    let error = within("the timeout", client.call(request)).await;
    assert!(error.expect_err("no answer").is_timeout());
    let error = within("the timeout", client.get("/").timeout(short.0).send()).await;
    assert!(error.expect_err("no answer").is_timeout());
    let built = client.get("/").timeout(short.0).build().expect("a request");
    assert_eq!(built.extensions().get(), Some(&short));
}

#[tokio::test]
async fn a_request_is_built_for_a_client_as_a_service() {
    let (first, second) = (answering().await, answering().await);
    let client = client([first.0, second.0]);
    let request = client.pod(second.0).post("/").body("hello").build();
    let response = client.clone().oneshot(request.expect("a request"));
    let response = within("a response", response).await.expect("a response");
    assert_eq!(
        response.body().endpoint().expect("a pod").address(),
        second.0
    );
    assert_eq!((first.1.get(), second.1.get()), (0, 1));
    let error = client.get("/").header("a b", "").build();
    assert!(error.expect_err("no header").is_request());
}

#[tokio::test]
async fn a_clone_is_the_same_request_unless_its_body_is_a_stream() {
    let (pod, requests) = answering().await;
    let client = client([pod]);
    let request = client.pod(pod).put("/a").header("x", "y").body("hello");
    let clone = request.try_clone().expect("a clone");
    let (built, clone_built) = (request.build(), clone.build());
    let (built, clone_built) = (built.expect("a request"), clone_built.expect("a request"));
    assert_eq!(built.headers(), clone_built.headers());
    assert_eq!(
        (built.method(), built.uri()),
        (clone_built.method(), clone_built.uri())
    );
    for request in [built, clone_built] {
        let sent = within("a response", client.clone().oneshot(request)).await;
        text(sent.expect("a response")).await;
    }
    assert!(requests.get() >= 2);
    let stream = client.put("/").body(RequestBody::new(stream_of(&["a"])));
    assert!(stream.try_clone().is_none());
    assert!(client.get("no path").try_clone().is_none());
}

/// A complete body is sent again, to another pod; a stream isn't.
#[tokio::test]
async fn a_stream_is_sent_once_and_bytes_again() {
    for (is_stream, is_answered) in [(true, false), (false, true)] {
        let (lost, answering) = (losing().await, answering().await);
        let client = builder([lost.0, answering.0]).build().expect("a client");
        let body = || match is_stream {
            true => RequestBody::new(stream_of(&["hello"])),
            false => "hello".into(),
        };
        let mut answers = Vec::new();
        // Round robin may begin anywhere, so one of two requests goes to the pod that loses it.
        for _ in 0..2 {
            let mut request = client.put("/").body(body());
            if !is_stream {
                request = request.idempotent();
            }
            answers.push(within("an end", request.send()).await.is_ok());
        }
        assert_eq!(lost.1.get(), 1);
        let all = answers.iter().all(|&it| it);
        assert_eq!(all, is_answered, "{answers:?}");
    }
}

#[tokio::test]
async fn a_stream_must_have_its_declared_length() {
    let (pod, _) = answering().await;
    let client = client([pod]);
    let body = RequestBody::new(stream_of(&["hello"]));
    let request = client.put("/").body(body).header("content-length", "4");
    let error = within("an error", request.send()).await;
    assert!(error.expect_err("it is longer").is_request_body());
}

#[tokio::test]
async fn request_methods_can_broadcast_but_no_stream() {
    let (pod, requests) = answering().await;
    let client = builder([pod]).base_path("/api").build().expect("a client");
    let request = client.post("/").query(&[("a", "b")]).json("hello");
    let all = within("the answers", request.broadcast().all()).await;
    for (_, answer) in all.expect("a pod").answered {
        let answer = answer.text().await;
        assert_eq!(answer.expect("text"), "ok");
    }
    assert_eq!(requests.get(), 1);
    let stream = client.post("/").body(RequestBody::new(stream_of(&["a"])));
    let error = within("an error", stream.broadcast().all()).await;
    assert!(error.expect_err("it can be sent once").is_request());
}

fn defaults(builder: ClientBuilder<StaticEndpoints>) -> ClientBuilder<StaticEndpoints> {
    let headers = [("x-team", "a"), ("accept", "text/html")].map(|(name, value)| {
        (
            name.parse().expect("a name"),
            HeaderValue::from_static(value),
        )
    });
    let builder = builder.default_headers(HeaderMap::from_iter(headers));
    builder.user_agent("test/1")
}

#[tokio::test]
async fn default_headers_fill_in_what_a_request_lacks() {
    let request = |client: &Client| {
        client
            .get("/")
            .header("accept", "own")
            .header("accept", "2")
    };
    let (head, _) = received_by::<0>(defaults, request).await;
    for line in [
        "x-team: a",
        "user-agent: test/1",
        "accept: own",
        "accept: 2",
    ] {
        assert_has(&head, line);
    }
    assert!(!head.contains("text/html"), "{head}");
    let plain = head_of(|client| client.get("/")).await;
    assert!(!plain.contains("user-agent"), "{plain}");
}

#[tokio::test]
async fn default_headers_apply_to_every_way_to_send() {
    let (listener, pod) = listen().await;
    let client = defaults(builder([pod])).build().expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        [
            peer.answer(OK).await,
            peer.answer(OK).await,
            peer.answer(OK).await,
        ]
    };
    let ask = async {
        let request = Request::new(Empty::<Bytes>::new());
        let response = client.clone().oneshot(request).await.expect("a response");
        text(response).await;
        let all = client.get("/").broadcast().all().await.expect("a pod");
        for (_, response) in all.answered {
            text(response).await;
        }
        text(client.pod(pod).get("/").await.expect("a response")).await;
    };
    let (heads, ()) = join(serve, ask).await;
    for head in heads {
        assert_has(&head, "user-agent: test/1");
        assert_has(&head, "x-team: a");
    }
}

#[tokio::test]
async fn paths_are_below_the_base_path() {
    let at = |base: &'static str| move |builder: ClientBuilder<_>| builder.base_path(base);
    for (base, path, whole) in [
        ("/api/v1", "/users", "/api/v1/users?a=b"),
        ("/api/v1/", "/", "/api/v1/?a=b"),
        ("/api/v1/", "", "/api/v1?a=b"),
        ("/", "/users?x", "/users?x&a=b"),
    ] {
        let request = |client: &Client| client.get(path).query(&[("a", "b")]);
        let (head, _) = received_by::<0>(at(base), request).await;
        assert_eq!(target(&head), whole);
        assert_has(&head, &format!("host: {SERVICE}"));
    }
    let uri = format!("http://{SERVICE}/users");
    let whole = |client: &Client| client.get(&uri);
    let (head, _) = received_by::<0>(at("/api"), whole).await;
    assert_eq!(target(&head), "/users", "a whole URI stays");
}

#[tokio::test]
async fn the_path_of_the_client_s_uri_is_its_base_path() {
    let (listener, pod) = listen().await;
    let uri = format!("http://{SERVICE}/api/v1/").parse().expect("a URI");
    let client = Client::builder(uri).discovery(StaticEndpoints::new([pod]));
    let client = client.build().expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        [peer.answer(OK).await, peer.answer(OK).await]
    };
    let ask = async {
        text(client.pod(pod).get("/users").await.expect("a response")).await;
        let service = client.clone().oneshot(Request::new(Empty::<Bytes>::new()));
        text(service.await.expect("a response")).await;
    };
    let (heads, ()) = join(serve, ask).await;
    assert_eq!(heads.map(|head| target(&head)), ["/api/v1/users", "/"]);
}

#[tokio::test]
async fn an_invalid_base_path_or_user_agent_fails_the_build() {
    for (builder, why) in [
        (unresolved("http").base_path("api"), "\"api\""),
        (unresolved("http").base_path("//evil"), "\"//evil\""),
        (unresolved("http").base_path("/a?b"), "\"/a\" has a query"),
        (unresolved("http").user_agent("a\nb"), "the user agent"),
    ] {
        let error = builder.build().expect_err("it is none").to_string();
        assert!(error.contains(why) && error.contains(SERVICE), "{error}");
    }
    let with_query = format!("http://{SERVICE}/?a=b").parse().expect("a URI");
    let error = Client::builder(with_query).build().expect_err("a query");
    assert!(error.to_string().contains("query"), "{error}");
}

#[tokio::test]
async fn no_request_method_reaches_another_service() {
    let pod = refusing().await;
    let plain = client([pod]);
    let based = builder([pod]).base_path("/api").build().expect("a client");
    for client in [&plain, &based] {
        for path in [
            "//evil",
            "//evil/x",
            "//evil:81/x?y",
            "///evil/x",
            "//evil?x",
            "http://evil/x",
            "HTTP://evil",
            &format!("https://{SERVICE}/x"),
        ] {
            for request in [
                client.get(path),
                client.post(path).query(&[("a", "b")]).form(&[("a", "b")]),
                client.put(path).header(HOST, SERVICE).json(&1),
                client.pod(pod).delete(path).query(&[("a", "//evil")]),
                client.others("web-0").options(path),
            ] {
                let error = invalid(request).await;
                assert!(error.is_foreign(), "{path}: {error}");
            }
        }
        for path in [
            "http:/x",
            "http:x",
            "http:///x",
            "evil/x",
            "evil",
            "evil:80",
            "?x",
            "//",
            "//?x",
            "/\\",
            "/\\evil/x",
            "*",
        ] {
            invalid(client.get(path)).await;
            invalid(client.pod(pod).post(path).query(&[("a", "b")])).await;
        }
    }
    let own = format!("//{SERVICE}/x");
    let error = invalid(plain.get(&own)).await;
    assert!(!error.is_foreign(), "it is ours, and no path: {error}");
    let open = builder([pod]).allow_foreign_authority(true);
    invalid(open.build().expect("a client").get("//evil/x")).await;
}

#[tokio::test]
async fn a_query_never_becomes_an_authority() {
    let query = [("@evil", "//evil/"), ("#", "?")];
    for path in ["/", "/@evil", "/x?//evil"] {
        let head = head_of(|client| client.get(path).query(&query)).await;
        assert_has(&head, &format!("host: {SERVICE}"));
        assert!(target(&head).starts_with(path), "{head}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let moved = "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    let serve = async { accept(&listener).await.answer(moved).await };
    let (_, response) = join(serve, client.get("/").send()).await;
    let response = response.and_then(Response::error_for_status);
    let response = response.expect("a response");
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()["location"], "/elsewhere");
}

/// By reference, by value, and of several types.
#[tokio::test]
async fn request_methods_take_values_and_references_of_several_types() {
    let (pod, _) = answering().await;
    let client = client([Endpoint::new(pod).address()]);
    let path = String::from("/x");
    let id = 7_u64;
    for request in [
        client.get(&path),
        client.get(path.clone()),
        client.get(format!("/x/{id}")),
        client.get("/x").query(&vec![("q", id)]),
        client.get("/x").query(&[("q", "x")][..]),
        client.post("/x").json("text"),
        client.post("/x").json(&vec![1, 2]),
        client.post("/x").json(&serde_json::json!({ "a": 1 })),
        client.post("/x").body(path.clone()),
        client.post("/x").body(vec![1, 2]),
        client.post("/x").body(Bytes::new()),
        client.get("/x").header(HOST, SERVICE).header("x-id", id),
    ] {
        request.build().expect("a request");
    }
}

#[tokio::test]
async fn nothing_secret_is_in_errors_and_debug_texts() {
    let client = client([]);
    let error = |path: &str| client.get(path).build().expect_err("no path").to_string();
    for (path, shown) in [
        ("/cb?token=hunter2\n", "\"/cb\": "),
        ("http://u:hunter2@web/ x", "\"http://web/ x\": "),
        ("//bob:hunter2@evil/x", "no user information"),
        ("cb?token=hunter2", "\"cb\": "),
    ] {
        let error = error(path);
        assert!(
            error.contains(shown) && !error.contains("hunter2"),
            "{error}"
        );
    }
    for uri in [
        "http://u:hunter2@web/",
        "http://web/?t=hunter2",
        "ftp://u:hunter2@web/?hunter2",
    ] {
        let builder = Client::builder(uri.parse().expect("a URI"));
        let error = builder.build().expect_err("no service");
        let texts = format!("{error} {error:?}");
        assert!(
            texts.contains("://web/") && !texts.contains("hunter2"),
            "{texts}"
        );
    }
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("hunter2"))]);
    let request = client.get("/a?hunter2").header("cookie", "hunter2");
    let request = request.headers(headers);
    let text = format!("{request:?}");
    assert!(text.contains("/a") && !text.contains("hunter2"), "{text}");
    let answered = Client::from_fn(async |_| Ok(http::Response::new("")));
    let response = answered.get("/a?hunter2").await.expect("a response");
    let text = format!("{response:?}");
    assert!(
        text.contains("GET /a") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn the_last_body_sets_the_content_type_unless_the_caller_has() {
    let client = client([]);
    let types = |request: RequestBuilder| {
        let request = request.build().expect("a request");
        let types = request.headers().get_all("content-type").iter();
        types
            .map(|it| it.to_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    let form = "application/x-www-form-urlencoded";
    let own = || client.post("/").header("content-type", "own");
    let json = || client.post("/").json(&1);
    assert_eq!(types(json().form(&[("a", "b")])), [form]);
    assert_eq!(
        types(json().try_clone().expect("a copy").form(&[("a", "b")])),
        [form]
    );
    assert_eq!(types(json().body("x")), [""; 0]);
    assert_eq!(types(json().header("content-type", "own")), ["own"]);
    assert_eq!(
        types(json().header("content-type", "own").body("x")),
        ["own"]
    );
    assert_eq!(types(own().json(&1).body("x")), ["own"]);
    assert_eq!(types(own().form(&[("a", "b")])), ["own"]);
}

#[test]
fn no_path_leads_above_the_base_path() {
    let below = builder([]).base_path("/api/v1").build().expect("a client");
    for path in [
        "/users/../../../admin",
        "/..",
        "/%2e%2E/x",
        "/.%2e?a",
        "/a/..%2f..%5Cb",
        "/..\\x",
    ] {
        let error = below.get(path).build().expect_err("it leads up");
        assert!(
            error.is_request() && error.to_string().contains(".."),
            "{error}"
        );
    }
    for path in ["/...", "/a..b/..c", "/a?b=/../c", "/./a", ""] {
        below.get(path).build().expect("a path");
    }
    let client = client([]);
    client
        .get("/a/../b")
        .build()
        .expect("there is no base path");
    client.options("*").build().expect("OPTIONS has it");
    for none in ["", "?a=b"] {
        assert!(client.get(none).build().expect_err("no path").is_request());
    }
}

/// Whether an '@' in it is an ordinary character: it is a path that begins with one slash, even after what some parsers
/// drop.
fn is_path(text: &str) -> bool {
    let text = text.replace(['\t', '\n', '\r'], "").replace('\\', "/");
    text.starts_with('/') && !text.starts_with("//")
}

fn all_texts(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.fold(String::new(), |texts, error| {
        format!("{texts}\n{error}\n{error:#}\n{error:?}\n{error:#?}")
    })
}

proptest::proptest! {
    /// A password may be anything, and a text that isn't an authority may have been meant as one.
    #[test]
    fn nothing_before_an_at_sign_is_in_an_error_or_a_debug_text(
        before in pieces(),
        between in pieces(),
        after in pieces(),
    ) {
        const SECRET: &str = "hunter2";
        let text = format!("{before}{SECRET}{between}@{after}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let runtime = &runtime;
        let open = |client: ClientBuilder<StaticEndpoints>| client.allow_foreign_authority(true);
        let clients = [builder([]), open(builder([])), builder([]).base_path("/api")];
        for client in clients.map(|client| client.build().expect("a client")) {
            let requests = [
                client.get(&text).query(&[("a", "b")]),
                client.get(&text),
                client.get(&text).header(HOST, SERVICE),
                client.get("/").header(HOST, text.as_str()),
            ];
            for (number, request) in requests.into_iter().enumerate() {
                let has_path = number < 3 && is_path(&text);
                let debug = match number < 3 {
                    true => format!("{request:?} {request:#?}"),
                    // The header is not part of a URI.
                    false => String::new(),
                };
                let sent = runtime.block_on(request.into_future());
                let error = all_texts(&sent.expect_err("there are no pods"));
                let shown = format!("{debug}{error}");
                proptest::prop_assert!(has_path || !shown.contains(SECRET), "{text:?}: {shown}");
            }
        }
    }
}

/// Pieces with which an authority begins or ends, or should.
fn pieces() -> impl proptest::strategy::Strategy<Value = String> {
    const PIECES: [&str; 26] = [
        "http://", "https://", "ftp://", "://", "http:", "/", "//", "///", "\\", "\\\\", "u", "u:",
        ":", ":80", "@", "web", SERVICE, "?", "#", "a=b", " ", "\t", "\n", "%40", "..", "[",
    ];
    let piece = proptest::sample::select(&PIECES[..]);
    let pieces = proptest::collection::vec(piece, 0..4);
    proptest::strategy::Strategy::prop_map(pieces, |pieces| pieces.concat())
}

#[tokio::test]
async fn user_information_before_another_host_is_refused_and_not_shown() {
    let plain = client([]);
    let open = builder([])
        .allow_foreign_authority(true)
        .build()
        .expect("a client");
    for client in [plain, open] {
        for path in ["//u:hunter2@evil/x", "///u:hunter2@evil", "//hunter/2@evil"] {
            let error = invalid(client.get(path)).await;
            assert!(
                error.to_string().contains("a host has no user information"),
                "{error}"
            );
        }
    }
}

/// Tomcat, Jetty and Spring read `..;` as `..` behind proxies that don't.
#[tokio::test]
async fn path_parameters_cannot_lead_above_the_base_path() {
    let based = builder([refusing().await])
        .base_path("/api")
        .build()
        .expect("a client");
    for path in [
        "/..;/admin",
        "/a/..;x=1/../admin",
        "/%2E.%3Bx/admin",
        "/x\\..;\\admin",
        "/%252e%252e/admin",
    ] {
        let error = invalid(based.get(path)).await;
        assert!(
            error.to_string().contains("no `..` in it, nor `..;`"),
            "{error}"
        );
    }
    for path in ["/a;x=../b", "/..a;x", "/...;x", "/;..", "/%252"] {
        based.get(path).build().expect("it stays below");
    }
}

/// `Duration::MAX` removes the client's timeout for one request, under layers, too.
#[tokio::test]
async fn a_request_may_have_no_timeout_though_the_client_has_one() {
    const TIME: Duration = Duration::from_millis(100);
    let late = pod(async |mut peer: Peer<TcpStream>| {
        while peer.try_head().await.is_some() {
            tokio::time::sleep(3 * TIME).await;
            peer.write(OK).await;
        }
    });
    let client = builder([late.await])
        .timeout(TIME)
        .build()
        .expect("a client");
    let layered = client
        .clone()
        .layer(tower::layer::layer_fn(|client| client));
    for client in [client, layered] {
        let error = within("the client's timeout", client.get("/").into_future()).await;
        assert!(error.expect_err("it is late").is_timeout());
        let patient = client.get("/").timeout(Duration::MAX);
        let response = within("a response", patient.into_future()).await;
        assert_eq!(text(response.expect("it has all the time")).await, "ok");
    }
}

#[tokio::test]
async fn a_built_request_keeps_its_response_limit_when_executed() {
    let (pod, _) = answering().await;
    let client = client([pod]);
    for client in [
        client.clone(),
        client.layer(tower::layer::layer_fn(|client| client)),
    ] {
        let small = || {
            client
                .get("/")
                .response_limit(1)
                .build()
                .expect("a request")
        };
        let pinned = client.pod(pod);
        for sent in [client.execute(small()), pinned.execute(small())] {
            let response = within("a response", sent).await.expect("a response");
            assert!(response.bytes().await.expect_err("two bytes").is_limit());
        }
        let plain = client.execute(Request::get("/").body("body").expect("a request"));
        let response = within("a response", plain).await.expect("a response");
        assert_eq!(response.text().await.expect("text"), "ok");
    }
}

#[tokio::test]
async fn a_stream_of_bytes_is_a_body() {
    let chunks = ["a ", "stream"].map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
    let body = RequestBody::from_stream(futures::stream::iter(chunks));
    let (head, body) = received_by::<18>(|it| it, |client| client.put("/x").body(body)).await;
    assert_has(&head, "transfer-encoding: chunked");
    assert_eq!(body, "2\r\na \r\n6\r\nstream\r\n");
}
