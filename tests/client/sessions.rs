//! Sticky sessions: where a session's requests go, and what its responses say.

use std::{
    collections::BTreeSet,
    future::IntoFuture,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use http::{
    Method, Response, StatusCode,
    header::{CACHE_CONTROL, SET_COOKIE},
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tower_headless::{
    BoxError, ConsistentHash, EjectionReason, Endpoint, EndpointState, Hedge, OutlierDetection,
    Route, StaticEndpoints, StreamDiscovery, Subset,
    http::{Client, ClientBuilder, Error, RequestBuilder, ResponseBody, SameSite, Sessions},
};

use crate::{
    kit::{self, Count, OK, answering, losing, pod, refusing, text, unresolved, wait_until},
    support::{
        pod::{Mode, Pod},
        within,
    },
};

const SECRET: [u8; 32] = [7; 32];

const OTHER_SECRET: [u8; 32] = [8; 32];

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

fn cookie() -> Sessions {
    Sessions::cookie("lb", SECRET)
}

/// A pod of a StatefulSet.
fn web(number: usize, address: SocketAddr) -> Endpoint {
    Endpoint::new(address).with_hostname(format!("web-{number}"))
}

async fn webs(numbers: impl IntoIterator<Item = usize>) -> Vec<Endpoint> {
    let mut pods = Vec::new();
    for number in numbers {
        pods.push(web(number, answering().await.0));
    }
    pods
}

fn over(pods: Vec<Endpoint>) -> ClientBuilder<StaticEndpoints> {
    unresolved("http").discovery(StaticEndpoints::from_iter(pods))
}

fn sticky(pods: Vec<Endpoint>) -> Client {
    over(pods).sessions(cookie()).build().expect("a client")
}

/// Pods whose answers a test can change.
async fn modes<const N: usize>() -> [Pod; N] {
    let mut pods = Vec::new();
    for _ in 0..N {
        let pod = Pod::start(([127, 0, 0, 1], 0).into()).await;
        pods.push(pod.expect("a free port"));
    }
    pods.try_into().expect("so many")
}

/// A client whose set of pods a test can change.
struct Scaled {
    client: Client,
    sets: UnboundedSender<Vec<Endpoint>>,
}

impl Scaled {
    fn new(
        builder: impl FnOnce(ClientBuilder<StreamDiscovery>) -> ClientBuilder<StreamDiscovery>,
    ) -> Self {
        let (sets, mut receiver) = unbounded_channel();
        let sets_of = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let discovery = StreamDiscovery::new(sets_of);
        let builder = builder(unresolved("http").discovery(discovery));
        let client = builder.build().expect("a client");
        Self { client, sets }
    }

    /// Publishes a set, and waits until the client knows it.
    async fn publish(&self, set: &[Endpoint]) {
        let addresses =
            |set: &[Endpoint]| -> BTreeSet<_> { set.iter().map(Endpoint::address).collect() };
        self.sets.send(set.to_vec()).expect("a client");
        let mut changes = self.client.watch();
        let known = async {
            while let Some(change) = changes.next().await {
                if addresses(&change.endpoints) == addresses(set) {
                    return;
                }
            }
        };
        within("the set", known).await;
    }
}

/// What a response says.
struct Answer {
    pod: String,
    status: u16,
    /// The cookies, as a browser would send them back.
    cookies: Vec<String>,
    /// `x-session`.
    header: Option<String>,
}

async fn try_send(request: RequestBuilder) -> Result<Answer, Error> {
    let response = within("a response", request.into_future()).await?;
    let answer = Answer {
        pod: response
            .body()
            .endpoint()
            .expect("a pod")
            .stable_name()
            .into_owned(),
        status: response.status().as_u16(),
        cookies: cookies(&response),
        header: response
            .headers()
            .get("x-session")
            .map(|value| value.to_str().expect("text").to_owned()),
    };
    text(response).await;
    Ok(answer)
}

fn cookies(response: &Response<ResponseBody>) -> Vec<String> {
    let all = response.headers().get_all(SET_COOKIE).iter();
    let pairs = all.filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
    pairs.map(str::to_owned).collect()
}

async fn send(request: RequestBuilder) -> Answer {
    try_send(request).await.expect("a response")
}

/// Sends a request without a session; returns the pod of the new session, and its cookie.
async fn begin(client: &Client) -> (String, String) {
    let answer = send(client.get("/")).await;
    let [cookie] = &answer.cookies[..] else {
        panic!("one cookie: {:?}", answer.cookies);
    };
    (answer.pod, cookie.clone())
}

/// Begins a session with this pod.
async fn begin_with(client: &Client, pod: &str) -> String {
    loop {
        let (begun, cookie) = begin(client).await;
        if begun == pod {
            return cookie;
        }
    }
}

fn get(client: &Client, cookie: &str) -> RequestBuilder {
    client.get("/").header("cookie", cookie)
}

/// The moves that the `on_lost` hook was called with.
#[derive(Clone, Default)]
struct Lost(Arc<Mutex<Vec<(String, String)>>>);

impl Lost {
    fn hook(&self, sessions: Sessions) -> Sessions {
        let lost = self.0.clone();
        sessions.on_lost(move |session| {
            let to = session.new_pod().stable_name().into_owned();
            let moved = (session.old_pod().to_owned(), to);
            lost.lock().expect("no panic").push(moved);
        })
    }

    fn all(&self) -> Vec<(String, String)> {
        self.0.lock().expect("no panic").clone()
    }

    fn are(&self, moves: &[(&str, &str)]) {
        let all = self.all();
        let all: Vec<_> = all.iter().map(|(from, to)| (&**from, &**to)).collect();
        assert_eq!(all, moves);
    }
}

#[tokio::test]
async fn each_session_keeps_to_its_own_pod() {
    let pods = [
        answering().await.0,
        answering().await.0,
        answering().await.0,
    ];
    let client = kit::builder(pods).sessions(cookie());
    let client = client.build().expect("a client");
    let (pod, cookie) = begin(&client).await;
    let mut others = BTreeSet::new();
    for _ in 0..100 {
        let answer = send(get(&client, &format!("a=1; {cookie}; z=2"))).await;
        assert_eq!(answer.pod, pod);
        assert_eq!(answer.cookies, [""; 0], "it is with the right pod");
        others.insert(begin(&client).await.0);
    }
    assert_eq!(others.len(), 3, "round robin, as ever");
}

#[tokio::test]
async fn a_session_whose_pod_is_gone_goes_on_at_another_one() {
    let lost = Lost::default();
    let sessions = lost.hook(cookie());
    let scaled = Scaled::new(|builder| builder.sessions(sessions));
    let (client, mut pods) = (&scaled.client, webs(0..3).await);
    scaled.publish(&pods).await;
    let old = begin_with(client, "web-1").await;
    pods.remove(1);
    scaled.publish(&pods).await;
    let answer = send(get(client, &old)).await;
    assert_ne!(answer.pod, "web-1");
    lost.are(&[("web-1", &answer.pod)]);
    let [new] = &answer.cookies[..] else {
        panic!("a new cookie: {:?}", answer.cookies);
    };
    for _ in 0..20 {
        let next = send(get(client, new)).await;
        assert_eq!((next.pod, next.cookies.len()), (answer.pod.clone(), 0));
    }
    lost.are(&[("web-1", &answer.pod)]);
}

#[tokio::test]
async fn a_pod_of_a_stateful_set_has_its_sessions_again_wherever_it_is() {
    let lost = Lost::default();
    let sessions = lost.hook(cookie());
    let scaled = Scaled::new(|builder| builder.sessions(sessions));
    let (client, mut pods) = (&scaled.client, webs(0..3).await);
    scaled.publish(&pods).await;
    let cookie = begin_with(client, "web-1").await;
    pods[1] = web(1, answering().await.0);
    scaled.publish(&pods).await;
    for _ in 0..20 {
        let answer = send(get(client, &cookie)).await;
        assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 0));
    }
    lost.are(&[]);
}

#[tokio::test]
async fn a_session_stays_with_a_pod_whose_name_is_learnt_later() {
    let lost = Lost::default();
    let sessions = lost.hook(cookie());
    let scaled = Scaled::new(|builder| builder.sessions(sessions.clone()));
    let (client, named) = (&scaled.client, webs(0..3).await);
    let nameless = named.iter().map(|pod| Endpoint::new(pod.address()));
    scaled.publish(&nameless.collect::<Vec<_>>()).await;
    let (pod, cookie) = begin(client).await;
    scaled.publish(&named).await;
    wait_until("the names", || {
        let mut pods = client.endpoints().into_iter();
        pods.all(|pod| pod.endpoint.hostname().is_some())
    })
    .await;
    // Another client may know the names from the beginning.
    let other = over(named).sessions(sessions).build().expect("a client");
    let by_name = loop {
        let response = within("a response", other.get("/").into_future()).await;
        let response = response.expect("a response");
        let (begun, cookies) = (
            response.body().endpoint().expect("a pod").address(),
            cookies(&response),
        );
        text(response).await;
        if begun.to_string() == pod {
            break cookies[0].clone();
        }
    };
    for _ in 0..20 {
        for cookie in [&cookie, &by_name] {
            let answer = send(get(client, cookie)).await;
            assert_eq!((&answer.pod, answer.cookies.len()), (&pod, 0));
        }
        let response = within("a response", get(&other, &cookie).into_future()).await;
        let response = response.expect("a response");
        assert_eq!(
            response
                .body()
                .endpoint()
                .expect("a pod")
                .address()
                .to_string(),
            pod
        );
        assert_eq!(cookies(&response), [""; 0]);
    }
    lost.are(&[]);
}

#[tokio::test]
async fn any_client_with_the_secret_goes_on_with_a_session() {
    let cookie = begin_with(&sticky(webs(0..3).await), "web-2").await;
    let other = sticky(webs(0..3).await);
    for _ in 0..20 {
        assert_eq!(send(get(&other, &cookie)).await.pod, "web-2");
    }
}

#[tokio::test]
async fn a_session_whose_pod_refuses_goes_on_at_another_one() {
    let old = begin_with(&sticky(webs(0..2).await), "web-0").await;
    let lost = Lost::default();
    let pods = vec![web(0, refusing().await), web(1, answering().await.0)];
    let client = over(pods).sessions(lost.hook(cookie()));
    let client = client.build().expect("a client");
    // Even a request that can't be sent twice isn't lost.
    let request = client.post("/").header("cookie", &*old);
    let answer = send(request).await;
    assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 1));
    lost.are(&[("web-0", "web-1")]);
}

#[tokio::test]
async fn a_session_whose_pod_is_ejected_goes_on_at_another_one() {
    let old = begin_with(&sticky(webs(0..2).await), "web-0").await;
    let lost = Lost::default();
    let (address, seen) = losing().await;
    let pods = vec![web(0, address), web(1, answering().await.0)];
    let detection = OutlierDetection::new().consecutive_failures(2);
    let client = over(pods).outlier_detection(detection);
    let client = client
        .sessions(lost.hook(cookie()))
        .build()
        .expect("a client");
    for _ in 0..2 {
        let request = client.post("/").route(Route::new().pod("web-0"));
        try_send(request).await.err().expect("it is lost");
    }
    wait_until("the ejection", || {
        let mut pods = client.endpoints().into_iter();
        pods.any(|pod| matches!(pod.state, EndpointState::Ejected(_)))
    })
    .await;
    let answer = send(client.post("/").header("cookie", &*old)).await;
    assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 1));
    lost.are(&[("web-0", "web-1")]);
    assert_eq!(seen.get(), 2);
}

#[tokio::test]
async fn a_session_moves_to_the_pod_that_answers_a_retry() {
    let old = begin_with(&sticky(webs(0..2).await), "web-0").await;
    for failing in [unavailable().await.0, losing().await.0] {
        let lost = Lost::default();
        let pods = vec![web(0, failing), web(1, answering().await.0)];
        let client = over(pods).sessions(lost.hook(cookie()));
        let client = client.build().expect("a client");
        let answer = send(get(&client, &old)).await;
        assert_eq!((&*answer.pod, answer.status), ("web-1", 200));
        assert_eq!(answer.cookies.len(), 1);
        lost.are(&[("web-0", "web-1")]);
        let next = send(get(&client, &answer.cookies[0])).await;
        assert_eq!((&*next.pod, next.cookies.len()), ("web-1", 0));
    }
}

/// A pod that answers 503, and how many requests it has had.
async fn unavailable() -> (SocketAddr, Count) {
    let count = Count::default();
    let seen = count.clone();
    let address = pod(move |mut peer| {
        let seen = seen.clone();
        async move {
            while peer.try_head().await.is_some() {
                seen.add();
                peer.write(UNAVAILABLE).await;
            }
        }
    });
    (address.await, count)
}

#[tokio::test]
async fn an_unretried_error_of_the_session_s_own_pod_moves_no_session() {
    let cookie = begin_with(&sticky(webs(0..2).await), "web-0").await;
    let pods = vec![web(0, unavailable().await.0), web(1, answering().await.0)];
    let client = sticky(pods);
    // A POST may not be sent twice.
    let answer = send(client.post("/").header("cookie", &*cookie)).await;
    assert_eq!((&*answer.pod, answer.status), ("web-0", 503));
    assert_eq!(answer.cookies, [""; 0]);
}

#[tokio::test]
async fn a_forged_cookie_is_ignored_and_replaced() {
    let pods = webs(0..3).await;
    let theirs = over(pods.clone()).sessions(Sessions::cookie("lb", OTHER_SECRET));
    let theirs = begin_with(&theirs.build().expect("a client"), "web-1").await;
    let renamed = over(pods.clone()).sessions(Sessions::cookie("other", SECRET));
    let renamed = begin_with(&renamed.build().expect("a client"), "web-1").await;
    let lost = Lost::default();
    let client = over(pods).sessions(lost.hook(cookie()));
    let client = client.build().expect("a client");
    let ours = begin_with(&client, "web-1").await;
    let cut = &ours[..ours.len() - 4];
    let renamed = renamed.replace("other=", "lb=");
    let open = format!("lb={:016x}web-1", 1);
    for forged in [
        &*open, "lb=web-1", "lb=", "lb", "LB=x", &theirs, &renamed, cut, "\u{e9}",
    ] {
        let mut pods = BTreeSet::new();
        for _ in 0..3 {
            let answer = send(get(&client, forged)).await;
            assert_eq!(answer.cookies.len(), 1, "{forged}: it gets a new one");
            pods.insert(answer.pod);
        }
        assert_eq!(pods.len(), 3, "{forged}: round robin, as ever");
    }
    lost.are(&[]);
    // A forged cookie beside a valid one.
    let both = send(get(&client, &format!("lb=web-2; {ours}"))).await;
    assert_eq!((&*both.pod, both.cookies.len()), ("web-1", 0));
}

#[tokio::test]
async fn a_session_of_a_previous_secret_goes_on_and_is_sealed_with_the_first() {
    for is_strict in [false, true] {
        let old = begin_with(&sticky(webs(0..3).await), "web-1").await;
        let lost = Lost::default();
        let sessions = Sessions::cookie("lb", OTHER_SECRET).previous_secret(SECRET);
        let client = over(webs(0..3).await).sessions(lost.hook(sessions.strict(is_strict)));
        let client = client.build().expect("a client");
        let answer = send(get(&client, &old)).await;
        assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 1));
        let new = Sessions::cookie("lb", OTHER_SECRET);
        let new = over(webs(0..3).await).sessions(new).build();
        let new = new.expect("a client");
        for client in [&client, &new] {
            for _ in 0..6 {
                let answer = send(get(client, &answer.cookies[0])).await;
                assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 0));
            }
        }
        lost.are(&[]);
    }
}

#[tokio::test]
async fn a_secret_can_be_changed_in_three_steps_without_losing_a_session() {
    let steps = [
        cookie(),
        cookie().previous_secret(OTHER_SECRET),
        Sessions::cookie("lb", OTHER_SECRET).previous_secret(SECRET),
        Sessions::cookie("lb", OTHER_SECRET),
    ];
    let (lost, pods) = (Lost::default(), webs(0..3).await);
    let clients = steps.map(|sessions| {
        let client = over(pods.clone()).sessions(lost.hook(sessions));
        client.build().expect("a client")
    });
    let mut session = begin_with(&clients[0], "web-1").await;
    for (both, changes) in clients.windows(2).zip([0, 3, 0]) {
        let mut changed = 0;
        // During the step, some clients have taken it and some haven't.
        for client in [&both[0], &both[1], &both[0], &both[1], &both[1]] {
            let answer = send(get(client, &session)).await;
            assert_eq!(answer.pod, "web-1");
            changed += answer.cookies.len();
            session = answer.cookies.into_iter().next().unwrap_or(session);
        }
        assert_eq!(changed, changes);
        // Sessions may begin with clients of either step.
        let new = begin_with(&both[1], "web-2").await;
        assert_eq!(send(get(&both[0], &new)).await.pod, "web-2");
    }
    lost.are(&[]);
}

#[tokio::test]
async fn a_strict_session_gets_its_pod_or_an_error() {
    let sessions = || cookie().strict(true);
    let scaled = Scaled::new(|builder| builder.sessions(sessions()).fail_fast());
    let (client, mut pods) = (&scaled.client, webs(0..3).await);
    scaled.publish(&pods).await;
    let cookie = begin_with(client, "web-1").await;
    for _ in 0..20 {
        assert_eq!(send(get(client, &cookie)).await.pod, "web-1");
    }
    let gone = pods.remove(1);
    scaled.publish(&pods).await;
    let error = try_send(get(client, &cookie)).await.err().expect("no pod");
    assert!(error.is_session_lost() && error.is_unreachable(), "{error}");
    assert!(error.is_unexecuted(), "{error}");
    assert!(error.to_string().contains("web-1"), "{error}");
    // Without the cookie, a new session begins.
    assert_ne!(begin(client).await.0, "web-1");
    pods.push(web(1, answering().await.0));
    scaled.publish(&pods).await;
    assert_ne!(pods[2].address(), gone.address());
    assert_eq!(send(get(client, &cookie)).await.pod, "web-1");
}

#[tokio::test]
async fn a_strict_session_waits_for_its_pod() {
    let scaled = Scaled::new(|builder| builder.sessions(cookie().strict(true)).wait_for_ready());
    let (client, mut pods) = (&scaled.client, webs(0..2).await);
    scaled.publish(&pods).await;
    let cookie = begin_with(client, "web-1").await;
    pods.remove(1);
    scaled.publish(&pods).await;
    let mut request = Box::pin(send(get(client, &cookie)));
    assert!(futures::poll!(&mut request).is_pending());
    pods.push(web(1, answering().await.0));
    scaled.publish(&pods).await;
    let answer = request.await;
    assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 0));
}

#[tokio::test]
async fn a_strict_session_of_a_pod_without_a_name_is_with_its_address() {
    let scaled = Scaled::new(|builder| builder.sessions(cookie().strict(true)).fail_fast());
    let mut pods = [answering().await.0, answering().await.0]
        .map(Endpoint::new)
        .to_vec();
    scaled.publish(&pods).await;
    let client = &scaled.client;
    let (pod, cookie) = begin(client).await;
    for _ in 0..10 {
        assert_eq!(send(get(client, &cookie)).await.pod, pod);
    }
    pods.retain(|other| other.stable_name() != pod);
    scaled.publish(&pods).await;
    let error = try_send(get(client, &cookie)).await.err().expect("no pod");
    assert!(error.is_session_lost(), "{error}");
}

#[tokio::test]
async fn a_strict_session_reaches_a_pod_outside_of_the_subset() {
    let named = webs(0..8).await;
    let nameless: Vec<_> = named.iter().map(|pod| pod.address().into()).collect();
    for pods in [named, nameless] {
        let sessions = || cookie().strict(true);
        let all = over(pods.clone()).sessions(sessions()).build();
        let all = all.expect("a client");
        let part = over(pods.clone()).sessions(sessions());
        let part = part.subset(Subset::of(1)).build().expect("a client");
        let own = begin(&part).await.0;
        for pod in &pods {
            let cookie = begin_with(&all, &pod.stable_name()).await;
            let answer = send(get(&part, &cookie)).await;
            assert_eq!(answer.pod, pod.stable_name());
            assert_eq!(answer.cookies, [""; 0]);
        }
        assert_eq!(begin(&part).await.0, own, "others get nothing else");
    }
}

#[tokio::test]
async fn a_session_whose_pod_is_left_out_goes_on_at_another_one() {
    let lost = Lost::default();
    let client = over(webs(0..3).await).sessions(lost.hook(cookie()));
    let client = client.build().expect("a client");
    let cookie = begin_with(&client, "web-1").await;
    let others = client.others("web-1");
    let answer = send(others.get("/").header("cookie", &*cookie)).await;
    assert_ne!(answer.pod, "web-1");
    assert_eq!(answer.cookies.len(), 1);
    lost.are(&[("web-1", &answer.pod)]);
    // A request for one pod has no session.
    let answer = send(client.pod("web-2").get("/").header("cookie", &*cookie)).await;
    assert_eq!((&*answer.pod, answer.cookies.len()), ("web-2", 0));
}

#[tokio::test]
async fn a_header_carries_a_session_as_a_cookie_does() {
    let lost = Lost::default();
    let sessions = lost.hook(Sessions::header("X-Session", SECRET));
    let scaled = Scaled::new(|builder| builder.sessions(sessions));
    let (client, mut pods) = (&scaled.client, webs(0..3).await);
    scaled.publish(&pods).await;
    let first = send(client.get("/")).await;
    let session = first.header.expect("a session");
    assert_eq!(first.cookies, [""; 0]);
    for _ in 0..20 {
        let answer = send(client.get("/").header("x-session", &*session)).await;
        assert_eq!((&answer.pod, answer.header), (&first.pod, None));
    }
    pods.retain(|pod| pod.stable_name() != first.pod);
    scaled.publish(&pods).await;
    let answer = send(client.get("/").header("x-session", &*session)).await;
    assert!(answer.header.is_some_and(|new| new != session));
    lost.are(&[(&first.pod, &answer.pod)]);
}

/// All attributes of a cookie, without its value.
async fn attributes(sessions: Sessions) -> Vec<String> {
    let client = over(webs(0..1).await).sessions(sessions);
    let client = client.build().expect("a client");
    let response = within("a response", client.get("/").into_future()).await;
    let response = response.expect("a response");
    let cookie = response.headers()[SET_COOKIE].to_str().expect("text");
    let attributes = cookie.split("; ").skip(1).map(str::to_owned);
    let mut attributes: Vec<_> = attributes.collect();
    attributes.sort_unstable();
    attributes
}

#[tokio::test]
async fn a_cookie_has_the_attributes_that_are_set() {
    let found = attributes(cookie()).await;
    assert_eq!(found, ["HttpOnly", "Path=/", "SameSite=Lax"]);
    let all = cookie()
        .path("/shop")
        .max_age(Duration::from_secs(3600))
        .secure(true)
        .http_only(false)
        .same_site(SameSite::Strict);
    let expected = ["Max-Age=3600", "Path=/shop", "SameSite=Strict", "Secure"];
    assert_eq!(attributes(all).await, expected);
    let found = attributes(cookie().same_site(SameSite::None)).await;
    assert_eq!(found, ["HttpOnly", "Path=/", "SameSite=None", "Secure"]);
}

#[tokio::test]
async fn a_cookie_hides_the_name_of_its_pod() {
    let client = sticky(vec![web(0, answering().await.0)]);
    let ((_, one), (_, other)) = (begin(&client).await, begin(&client).await);
    assert!(!one.contains("web"), "{one}");
    assert_ne!(one, other, "nor that two are with the same");
}

#[tokio::test]
async fn the_pod_s_own_cookies_stay() {
    let address = pod(|mut peer| async move {
        let own = "set-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length";
        while peer.try_head().await.is_some() {
            peer.write(OK.replace("content-length", own)).await;
        }
    });
    let client = sticky(vec![web(0, address.await)]);
    let answer = send(client.get("/")).await;
    assert_eq!(answer.cookies[..2], ["a=1", "b=2"]);
    assert!(answer.cookies[2].starts_with("lb="));
    let again = send(get(&client, &answer.cookies[2])).await;
    assert_eq!(again.cookies, ["a=1", "b=2"]);
}

#[tokio::test]
async fn a_route_to_one_pod_comes_first_and_leaves_the_session_alone() {
    let lost = Lost::default();
    let client = over(webs(0..3).await).sessions(lost.hook(cookie()));
    let client = client.build().expect("a client");
    let cookie = begin_with(&client, "web-1").await;
    for route in [Route::new().pod("web-2"), Route::new().prefer("web-2")] {
        let answer = send(get(&client, &cookie).route(route.clone())).await;
        assert_eq!((&*answer.pod, answer.cookies.len()), ("web-2", 0));
        let answer = send(client.get("/").route(route)).await;
        assert_eq!((&*answer.pod, answer.cookies.len()), ("web-2", 0));
    }
    lost.are(&[]);
}

#[tokio::test]
async fn a_session_comes_before_a_key_and_a_key_before_the_session_s_number() {
    let scaled = Scaled::new(|builder| builder.policy(ConsistentHash::new()).sessions(cookie()));
    let (client, mut pods) = (&scaled.client, webs(0..5).await);
    scaled.publish(&pods).await;
    let cookie = begin_with(client, "web-1").await;
    for key in 0..20 {
        let answer = send(get(client, &cookie).key(key)).await;
        assert_eq!(answer.pod, "web-1");
    }
    pods.remove(1);
    scaled.publish(&pods).await;
    for key in 0..20 {
        let answer = send(get(client, &cookie).key(key)).await;
        assert_eq!(answer.pod, send(client.get("/").key(key)).await.pod);
    }
}

#[tokio::test]
async fn the_sessions_of_a_lost_pod_spread_out_and_each_keeps_one_pod() {
    let scaled = Scaled::new(|builder| builder.policy(ConsistentHash::new()).sessions(cookie()));
    let (client, mut pods) = (&scaled.client, webs(0..4).await);
    scaled.publish(&pods).await;
    let mut sessions = Vec::new();
    for _ in 0..24 {
        sessions.push(begin_with(client, "web-1").await);
    }
    pods.remove(1);
    scaled.publish(&pods).await;
    let mut homes = BTreeSet::new();
    for session in &sessions {
        let home = send(get(client, session)).await.pod;
        for _ in 0..5 {
            assert_eq!(send(get(client, session)).await.pod, home);
        }
        homes.insert(home);
    }
    assert_eq!(homes.len(), 3);
}

#[tokio::test]
async fn a_broadcast_has_no_sessions() -> Result<(), BoxError> {
    let client = sticky(webs(0..3).await);
    let cookie = begin_with(&client, "web-1").await;
    let all = get(&client, &cookie).broadcast().all();
    let all = within("the answers", all.into_future()).await?;
    assert_eq!(all.answered.len(), 3);
    for (_, response) in &all.answered {
        assert_eq!(cookies(response), [""; 0]);
    }
    Ok(())
}

#[tokio::test]
async fn invalid_session_settings_fail_the_build() {
    for (sessions, why) in [
        (Sessions::cookie("lb", [7; 31]), "31 bytes"),
        (cookie().previous_secret([7; 3]), "3 bytes"),
        (Sessions::cookie("l b", SECRET), "name \"l b\""),
        (Sessions::cookie("__Host-lb", SECRET), "secure(true)"),
        (cookie().path("shop"), "path \"shop\""),
        (Sessions::header("x session", SECRET), "Sessions::header"),
    ] {
        let error = kit::builder([]).sessions(sessions).build();
        let error = error.expect_err("no session").to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_session_goes_on_with_any_method() {
    let client = sticky(webs(0..3).await);
    let cookie = begin_with(&client, "web-2").await;
    for method in [Method::HEAD, Method::PUT, Method::DELETE, Method::POST] {
        let request = client.request(method, "/").header("cookie", &*cookie);
        let response = within("a response", request.into_future()).await;
        let response = response.expect("a response");
        assert_eq!(
            response.body().endpoint().expect("a pod").stable_name(),
            "web-2"
        );
    }
}

#[tokio::test]
async fn a_non_ascii_cookie_does_not_hide_a_session() {
    let client = sticky(webs(0..3).await);
    let cookie = begin_with(&client, "web-1").await;
    for cookies in [
        format!("name=J\u{fc}rgen; {cookie}"),
        format!("{cookie}; q=\u{fc}"),
    ] {
        for _ in 0..3 {
            let answer = send(get(&client, &cookies)).await;
            assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 0));
        }
    }
}

#[tokio::test]
async fn a_cookie_in_quotes_is_read() {
    let client = sticky(webs(0..3).await);
    let cookie = begin_with(&client, "web-1").await;
    let quoted = format!("{}\"", cookie.replace("lb=", "lb=\""));
    for _ in 0..3 {
        let answer = send(get(&client, &quoted)).await;
        assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 0));
    }
}

/// A browser sends the cookie of the longer path first, and no answer replaces it.
#[tokio::test]
async fn of_two_sessions_the_one_whose_pod_is_there_counts() {
    for sessions in [cookie(), cookie().strict(true)] {
        let lost = Lost::default();
        let scaled = Scaled::new(|builder| builder.sessions(lost.hook(sessions)));
        let (client, mut pods) = (&scaled.client, webs(0..3).await);
        scaled.publish(&pods).await;
        let gone = begin_with(client, "web-0").await;
        let there = begin_with(client, "web-1").await;
        let both = format!("{gone}; {there}");
        assert_eq!(send(get(client, &both)).await.pod, "web-0");
        pods.remove(0);
        scaled.publish(&pods).await;
        for _ in 0..3 {
            let answer = send(get(client, &both)).await;
            assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 0));
        }
        lost.are(&[]);
    }
}

#[tokio::test]
async fn a_session_outlasts_a_pod_that_sets_a_cookie_of_its_name() {
    let theirs = async |header: &str| {
        let own = format!("{header}\r\ncontent-length");
        let answer = OK.replace("content-length", &own);
        pod(move |mut peer| {
            let answer = answer.clone();
            async move {
                while peer.try_head().await.is_some() {
                    peer.write(&answer).await;
                }
            }
        })
        .await
    };
    let mut pods = Vec::new();
    for number in 0..3 {
        pods.push(web(number, theirs("set-cookie: lb=1; Path=/").await));
    }
    let client = sticky(pods);
    let first = send(client.get("/")).await;
    let mut cookies = first.cookies;
    for _ in 0..4 {
        // Browsers keep the last one.
        let kept = cookies.pop().expect("a cookie");
        let answer = send(get(&client, &kept)).await;
        assert_eq!(answer.pod, first.pod);
        cookies = answer.cookies;
    }
    let mut pods = Vec::new();
    for number in 0..3 {
        pods.push(web(number, theirs("x-session: 1").await));
    }
    let client = over(pods).sessions(Sessions::header("x-session", SECRET));
    let client = client.build().expect("a client");
    let mut last = send(client.get("/")).await;
    for _ in 0..4 {
        let session = last.header.expect("a session");
        let answer = send(client.get("/").header("x-session", session)).await;
        assert_eq!(answer.pod, last.pod);
        last = answer;
    }
}

#[tokio::test]
async fn a_response_with_any_status_below_500_begins_a_session() {
    let [pod] = modes().await;
    let client = sticky(vec![web(0, pod.addr())]);
    for (status, cookies) in [
        (200, 1),
        (204, 1),
        (303, 1),
        (304, 1),
        (404, 1),
        (429, 1),
        (500, 0),
        (503, 0),
    ] {
        pod.set(Mode::Status(StatusCode::from_u16(status).expect("one")));
        for method in [Method::GET, Method::HEAD, Method::POST] {
            let answer = send(client.request(method, "/")).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.cookies.len(), cookies, "{status}");
        }
    }
}

#[tokio::test]
async fn an_error_of_another_pod_moves_no_session() {
    let old = begin_with(&sticky(webs(0..2).await), "web-0").await;
    let (lost, [pod]) = (Lost::default(), modes().await);
    let client = over(vec![web(1, pod.addr())]).sessions(lost.hook(cookie()));
    let client = client.build().expect("a client");
    let ask = || send(client.post("/").header("cookie", &*old));
    for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::BAD_GATEWAY] {
        pod.set(Mode::Status(status));
        let answer = ask().await;
        assert_eq!((answer.status, answer.cookies.len()), (status.as_u16(), 0));
    }
    lost.are(&[]);
    pod.set(Mode::Healthy);
    assert_eq!(ask().await.cookies.len(), 1);
    lost.are(&[("web-0", "web-1")]);
}

async fn cache_control(request: RequestBuilder) -> Vec<String> {
    let response = within("a response", request.into_future()).await;
    let response = response.expect("a response");
    let lines = response.headers().get_all(CACHE_CONTROL).iter();
    let lines = lines.map(|line| line.to_str().expect("text").to_owned());
    lines.collect()
}

#[tokio::test]
async fn a_response_that_sets_a_session_is_private() {
    let address = pod(|mut peer| async move {
        let own = "cache-control: public, max-age=600\r\ncontent-length";
        while peer.try_head().await.is_some() {
            peer.write(OK.replace("content-length", own)).await;
        }
    });
    let pods = vec![web(0, address.await)];
    let client = |sessions| over(pods.clone()).sessions(sessions).build();
    let (said, private) = ("public, max-age=600", "private, public, max-age=600");
    for sessions in [cookie(), Sessions::header("x-session", SECRET)] {
        let shared = client(sessions.clone().mark_private(false)).expect("a client");
        assert_eq!(cache_control(shared.get("/")).await, [said]);
        let client = client(sessions).expect("a client");
        assert_eq!(cache_control(client.get("/")).await, [private]);
    }
    let client = client(cookie()).expect("a client");
    let (_, cookie) = begin(&client).await;
    let told = cache_control(get(&client, &cookie)).await;
    assert_eq!(told, [said], "it tells nothing");
}

#[tokio::test]
async fn a_session_stays_with_a_pod_that_is_only_slow() {
    let (lost, pods) = (Lost::default(), modes::<2>().await);
    let [home, other] = &pods;
    let client = over(vec![web(0, home.addr()), web(1, other.addr())])
        .hedge(Hedge::new().share(1.0))
        .sessions(lost.hook(cookie()));
    let client = client.build().expect("a client");
    // Afterwards the usual latency is known.
    for _ in 0..60 {
        begin(&client).await;
    }
    let cookie = begin_with(&client, "web-0").await;
    let is_slow = || {
        let mut pods = client.endpoints().into_iter();
        pods.any(|pod| pod.state == EndpointState::Ejected(EjectionReason::Slow))
    };
    home.set(Mode::Hung);
    let hedged = async {
        while !is_slow() {
            let answer = send(get(&client, &cookie)).await;
            assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 0));
        }
    };
    within("its ejection", hedged).await;
    let answer = send(get(&client, &cookie)).await;
    assert_eq!((&*answer.pod, answer.cookies.len()), ("web-1", 0), "late");
    home.set(Mode::Healthy);
    let answer = send(client.post("/").header("cookie", &*cookie)).await;
    assert_eq!((&*answer.pod, answer.cookies.len()), ("web-0", 0), "well");
    lost.are(&[]);
}

#[tokio::test]
async fn a_session_whose_pod_is_gone_moves_to_the_pod_that_overtakes_another() {
    let old = begin_with(&sticky(webs(0..1).await), "web-0").await;
    let (lost, pods) = (Lost::default(), modes::<2>().await);
    let [slow, other] = &pods;
    let client = over(vec![web(1, slow.addr()), web(2, other.addr())])
        .hedge(Hedge::after(Duration::from_millis(20)).share(1.0))
        .sessions(lost.hook(cookie()));
    let client = client.build().expect("a client");
    slow.set(Mode::Hung);
    // Each of the two gets a request.
    for _ in 0..2 {
        let answer = send(get(&client, &old)).await;
        assert_eq!((&*answer.pod, answer.cookies.len()), ("web-2", 1));
    }
    assert!(slow.requests() > 0, "it was asked first");
    lost.are(&[("web-0", "web-2"), ("web-0", "web-2")]);
}
