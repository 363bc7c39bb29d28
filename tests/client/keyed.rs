//! Keys of requests: which sources they come from, and which source counts.

use std::{collections::BTreeSet, future::IntoFuture};

use http::{HeaderName, Request};
use http_body_util::{Empty, Full};
use tower::ServiceExt;
use tower_headless::{
    BuiltInPolicy, ConsistentHash, Endpoint, Members, Picker, Policy, Previous, RoundRobin, Route,
    StaticEndpoints,
    http::{Client, ClientBuilder, KeyFrom, RequestBuilder, ResponseBody},
};

use crate::{
    kit::{self, answering, text},
    support::within,
};

/// A client of five pods, `web-0` and so on, with `ConsistentHash`.
async fn builder() -> ClientBuilder<StaticEndpoints> {
    let mut pods = Vec::new();
    for number in 0..5 {
        let (address, _) = answering().await;
        pods.push(Endpoint::new(address).with_hostname(format!("web-{number}")));
    }
    let builder = kit::unresolved("http").discovery(StaticEndpoints::from_iter(pods));
    builder.policy(ConsistentHash::new())
}

async fn client(sources: impl IntoIterator<Item = KeyFrom>) -> Client {
    let builder = sources
        .into_iter()
        .fold(builder().await, ClientBuilder::key_from);
    builder.build().expect("a client")
}

fn pod_of(body: &ResponseBody) -> String {
    let pod = body.endpoint().expect("a pod");
    pod.stable_name().into_owned()
}

/// Sends the request, and returns the pod that answered.
async fn answered(request: RequestBuilder) -> String {
    let response = within("a response", request.into_future()).await;
    let response = response.expect("a response");
    let pod = pod_of(response.body());
    text(response).await;
    pod
}

/// Asserts that each text, put into a request, leads to the same pod as a key.
async fn are_keys(client: &Client, request: impl Fn(&str) -> RequestBuilder) {
    let mut pods = BTreeSet::new();
    for number in 0..40 {
        let key = format!("user {number}");
        let pod = answered(request(&key)).await;
        assert_eq!(pod, answered(client.get("/").key(&*key)).await, "{key}");
        pods.insert(pod);
    }
    assert!(pods.len() > 1);
}

#[tokio::test]
async fn a_header_is_a_key() {
    let client = client([KeyFrom::header("x-user")]).await;
    are_keys(&client, |key| client.get("/").header("x-user", key)).await;
}

#[tokio::test]
async fn a_cookie_is_a_key() {
    let client = client([KeyFrom::cookie("user")]).await;
    let cookie = |key: &str| format!("theme=dark; user={key}; lang=en");
    are_keys(&client, |key| client.get("/").header("cookie", cookie(key))).await;
}

#[tokio::test]
async fn a_part_of_the_path_is_a_key() {
    let client = client([KeyFrom::path_segment(1)]).await;
    let path = |key: &str| format!("/users/{}/cart?page=1", key.replace(' ', "%20"));
    are_keys(&client, |key| client.get(path(key))).await;
}

#[tokio::test]
async fn a_function_finds_a_key_in_the_whole_head() {
    #[derive(Clone)]
    struct User(u64);
    let source = KeyFrom::new(|head| Some(head.extensions.get::<User>()?.0.into()));
    let client = client([source]).await;
    let mut pods = BTreeSet::new();
    for user in 0..40_u64 {
        let request = Request::get("/").extension(User(user));
        let request = request.body(Full::<bytes::Bytes>::default());
        let response = client.clone().oneshot(request.expect("a request"));
        let response = within("a response", response).await.expect("a response");
        let pod = pod_of(response.body());
        text(response).await;
        assert_eq!(pod, answered(client.get("/").key(user)).await);
        pods.insert(pod);
    }
    assert!(pods.len() > 1);
}

#[tokio::test]
async fn the_first_source_that_has_a_key_counts() {
    let sources = [KeyFrom::header("x-user"), KeyFrom::path_segment(0)];
    let client = client(sources).await;
    let path = |key: &str| format!("/{}", key.replace(' ', "%20"));
    are_keys(&client, |key| client.get("/other").header("x-user", key)).await;
    are_keys(&client, |key| client.get(path(key))).await;
    are_keys(&client, |key| client.get(path(key)).header("x-user", "")).await;
}

#[tokio::test]
async fn a_request_s_own_key_comes_first() {
    let client = client([KeyFrom::header("x-user")]).await;
    are_keys(&client, |key| {
        client.get("/").header("x-user", "other").key(key)
    })
    .await;
    are_keys(&client, |key| {
        let route = Route::new().key(key);
        client.get("/").header("x-user", "other").route(route)
    })
    .await;
}

#[tokio::test]
async fn a_route_to_one_pod_comes_before_any_key() {
    let client = client([KeyFrom::header("x-user")]).await;
    for number in 0..40 {
        let user = number.to_string();
        let route = Route::new().pod("web-3");
        let request = client.get("/").header("x-user", &*user).route(route);
        assert_eq!(answered(request.key(number)).await, "web-3");
    }
}

#[tokio::test]
async fn requests_without_a_key_go_to_any_pod() {
    let client = client([KeyFrom::header("x-user"), KeyFrom::cookie("user")]).await;
    let mut pods = BTreeSet::new();
    for _ in 0..200 {
        let request = client.get("/").header("x-user", "");
        pods.insert(answered(request.header("cookie", "theme=dark")).await);
    }
    assert_eq!(pods.len(), 5);
}

#[tokio::test]
async fn a_broadcast_looks_for_no_key() {
    let source = KeyFrom::new(|_| panic!("a broadcast goes to all pods, whatever the key"));
    let client = client([source]).await;
    let request = Request::get("/").body(Empty::<bytes::Bytes>::new());
    let all = client.broadcast(request.expect("a request")).all();
    let all = within("the answers", all.into_future()).await;
    assert_eq!(all.expect("pods").answered.len(), 5);
}

#[tokio::test]
async fn key_from_with_a_policy_that_ignores_keys_fails_the_build() {
    let source = || KeyFrom::header("x-user");
    let error = builder().await.policy(RoundRobin::new()).key_from(source());
    let error = error.build().expect_err("no policy for keys").to_string();
    assert!(error.contains("ConsistentHash"), "{error}");
    let error = kit::builder([]).key_from(source()).build();
    assert!(error.is_err());
    let chosen: BuiltInPolicy = "consistent-hash".parse().expect("a policy");
    let builder = builder().await;
    let client = builder.policy(chosen).key_from(source()).build();
    assert!(client.is_ok());
}

#[tokio::test]
async fn a_policy_of_another_crate_may_use_keys() {
    struct First;
    impl Policy for First {
        fn prepare(
            &self,
            _: &Members,
            _: Option<Previous<'_>>,
            _: &mut dyn rand::Rng,
        ) -> Box<dyn Picker> {
            Box::new(Self)
        }
    }
    impl Picker for First {
        fn pick(&self, _: &Members, _: &Route, _: &mut dyn rand::Rng) -> Option<usize> {
            Some(0)
        }
    }
    let builder = builder().await.policy(First);
    assert!(builder.key_from(KeyFrom::header("x-user")).build().is_ok());
}

#[tokio::test]
async fn an_invalid_header_name_fails_the_build() {
    let error = builder().await.key_from(KeyFrom::header("x user"));
    let error = error.build().expect_err("no header").to_string();
    assert!(error.contains("KeyFrom::header"), "{error}");
    let name = HeaderName::from_static("x-user");
    assert!(
        builder()
            .await
            .key_from(KeyFrom::header(name))
            .build()
            .is_ok()
    );
}

#[tokio::test]
async fn an_invalid_cookie_name_fails_the_build() {
    let error = builder().await.key_from(KeyFrom::cookie("a=b"));
    let error = error.build().expect_err("no cookie").to_string();
    assert!(error.contains("KeyFrom::cookie"), "{error}");
}
