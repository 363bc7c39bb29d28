//! One pod over HTTP, found by its own A record, or by SRV records.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower_headless::{
    Dns, Endpoint, Route, StaticEndpoints,
    http::{Client, Error, PodClient, Tls},
};

use crate::support::{
    PATIENCE,
    client::dns,
    cluster::Cluster,
    dns::Srv,
    pod::Mode,
    servers::{Server, Software},
    within,
};

const TICK: Duration = Duration::from_millis(20);

/// A StatefulSet with the pods `web-0` and so on.
struct Stateful {
    cluster: Cluster,
    /// The pod that has each address, or had it last.
    names: Mutex<HashMap<IpAddr, String>>,
    /// The pods that are in DNS.
    told: Mutex<BTreeMap<String, Ipv4Addr>>,
    /// A real DNS server, which gets the records, too.
    server: Option<Server>,
}

impl Stateful {
    fn new(cluster: Cluster) -> Self {
        let stateful = Self {
            cluster,
            names: Mutex::default(),
            told: Mutex::default(),
            server: None,
        };
        for (ordinal, pod) in stateful.cluster.pods().iter().enumerate() {
            stateful.tell(&format!("web-{ordinal}"), pod.addr());
        }
        stateful
    }

    fn tell(&self, pod: &str, address: SocketAddr) {
        self.change(None, Some((pod, address)));
    }

    /// Removes the pod from DNS.
    fn forget(&self, pod: &str) {
        self.change(Some(pod), None);
    }

    /// Removes one pod and adds another by one change of DNS.
    fn change(&self, gone: Option<&str>, here: Option<(&str, SocketAddr)>) {
        let mut told = self.told.lock().expect("no panic");
        if let Some(pod) = gone {
            told.remove(pod);
            self.cluster.dns().remove(&self.own(pod));
        }
        if let Some((pod, address)) = here {
            let mut names = self.names.lock().expect("no panic");
            names.insert(address.ip(), pod.to_owned());
            let IpAddr::V4(address) = address.ip() else {
                panic!("of IPv4");
            };
            told.insert(pod.to_owned(), address);
            self.cluster.dns().set_a(&self.own(pod), 1, [address]);
        }
        self.publish(&told);
    }

    fn publish(&self, told: &BTreeMap<String, Ipv4Addr>) {
        let service = self.cluster.service();
        self.cluster.dns().set_a(service, 1, told.values().copied());
        let port = self.cluster.port();
        let records = told.keys().map(|pod| Srv::new(port, self.own(pod)));
        self.cluster.dns().set_srv(&self.port_name(), 1, records);
    }

    /// Copies the records of the cluster's own DNS server to the real one, if there is one.
    async fn copy(&self) {
        let Some(server) = &self.server else { return };
        let told = self.told.lock().expect("no panic").clone();
        let names = self.names.lock().expect("no panic").clone();
        let addresses: Vec<_> = told.values().copied().collect();
        let own: Vec<_> = told.keys().map(|pod| self.own(pod)).collect();
        let port = self.cluster.port();
        let records: Vec<_> = own.iter().map(|pod| (port, pod.as_str())).collect();
        let change = server.change(|zone| {
            for gone in names.values().filter(|pod| !told.contains_key(*pod)) {
                zone.remove(&self.own(gone));
            }
            for (own, address) in own.iter().zip(&addresses) {
                zone.set_a(own, 1, &[*address]);
            }
            zone.set_a(self.cluster.service(), 1, &addresses);
            zone.set_srv(&self.port_name(), 1, &records);
        });
        change.await;
    }

    fn own(&self, pod: &str) -> String {
        format!("{pod}.{}", self.cluster.service())
    }

    fn port_name(&self) -> String {
        format!("_http._tcp.{}", self.cluster.service())
    }

    /// A client that learns the pods' names from SRV records, of the real DNS server if there is one.
    fn client_by_srv(&self) -> Client {
        let server = self.server.as_ref().map(Server::addr);
        let server = server.unwrap_or_else(|| self.cluster.dns().addr());
        let name = self.port_name();
        let name = name.trim_end_matches('.');
        let source = Dns::srv(name).expect("of that form");
        let source = source.name_servers([server]);
        let source = source.allow_loopback(true).refresh_interval(TICK);
        let uri = format!("http://{name}").parse().expect("a URI");
        // A real server may need a second for a change.
        let client = Client::builder(uri)
            .discovery(source)
            .ready_timeout(PATIENCE);
        client.build().expect("a client")
    }

    fn client(&self, scheme: &str) -> tower_headless::http::ClientBuilder {
        let service = self.cluster.service().trim_end_matches('.');
        let uri = format!("{scheme}://{service}:{}", self.cluster.port());
        let source = dns(&self.cluster).refresh_interval(TICK);
        Client::builder(uri.parse().expect("a URI")).discovery(source)
    }

    /// Pods check which pod a request is for. `true` if this one was for the pod that answered.
    fn is_right(&self, host: &str, answered: &str) -> bool {
        let answered: IpAddr = answered.parse().expect("an address");
        let names = self.names.lock().expect("no panic");
        host.split('.').next() == names.get(&answered).map(String::as_str)
    }
}

/// Sends a request. Returns its `Host`, and the pod that answered.
async fn get(pod: &PodClient) -> Result<(String, String), Error> {
    let response = pod.get("/").await?;
    assert_eq!(response.status(), StatusCode::OK);
    let header = |name| response.headers()[name].to_str().expect("text").to_owned();
    let seen = (header("x-host"), header("x-pod"));
    response.into_body().collect().await?;
    Ok(seen)
}

#[tokio::test]
async fn no_request_fails_or_meets_another_pod_while_its_pod_is_rescheduled() {
    let stateful = Stateful::new(Cluster::start(5).await);
    let client = stateful.client("http").build().expect("a client");
    is_followed(stateful, client).await;
}

#[tokio::test]
async fn no_request_fails_or_meets_another_pod_while_its_pod_is_rescheduled_by_srv_records() {
    let stateful = Stateful::new(Cluster::start(5).await);
    let client = stateful.client_by_srv();
    is_followed(stateful, client).await;
}

#[tokio::test]
async fn no_request_fails_or_meets_another_pod_while_its_pod_is_rescheduled_in_knot() {
    is_followed_in(Software::Knot).await;
}

#[tokio::test]
async fn no_request_fails_or_meets_another_pod_while_its_pod_is_rescheduled_in_coredns() {
    is_followed_in(Software::CoreDns).await;
}

/// With a real DNS server, if it is installed.
async fn is_followed_in(software: Software) {
    if let Some(server) = Server::start(software).await {
        let mut stateful = Stateful::new(Cluster::start(5).await);
        stateful.server = Some(server);
        stateful.copy().await;
        let client = stateful.client_by_srv();
        is_followed(stateful, client).await;
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(TICK).await;
        }
    };
    within(what, met).await;
}

/// `web-3` is rescheduled three times. Before it is back, another pod gets its old address.
async fn is_followed(stateful: Stateful, client: Client) {
    let stateful = Arc::new(stateful);
    let pod = client.pod("web-3").own_host();
    let done = Arc::new(AtomicBool::new(false));
    let users = (0..4).map(|_| {
        let (stateful, pod, done) = (stateful.clone(), pod.clone(), done.clone());
        tokio::spawn(async move {
            let mut gets = 0;
            while !done.load(Ordering::Relaxed) {
                let (host, answered) = get(&pod).await.expect("no GET fails");
                assert!(stateful.is_right(&host, &answered), "{host} at {answered}");
                gets += 1;
            }
            gets
        })
    });
    let users: Vec<_> = users.collect();
    let mut here = stateful.cluster.pod(3).addr();
    for reschedule in 0..3 {
        let pods = stateful.cluster.pods();
        let old = pods.iter().position(|pod| pod.addr() == here);
        let old = old.expect("it is there");
        pods[old].wait_until(|stats| stats.requests > 10).await;
        // With requests in flight.
        stateful.cluster.kill(old).await;
        let old = stateful.cluster.remove_pod(old).await;
        let (other, before) = (format!("web-{}", 5 + reschedule), old.requests());
        // The second time by the same change that removes the pod, otherwise after it.
        let at_once = (reschedule == 1).then(|| (&*other, old.addr()));
        stateful.change(Some("web-3"), at_once);
        stateful.copy().await;
        until("the end of web-3", || pod.endpoint().is_none()).await;
        if at_once.is_none() {
            stateful.tell(&other, old.addr());
            stateful.copy().await;
        }
        until("the other one", || client.endpoint(&*other).is_some()).await;
        old.restart().await.expect("its address is free");
        assert_eq!(pod.endpoint(), None);
        let new = stateful.cluster.start_pod().await;
        here = new.addr();
        stateful.tell("web-3", here);
        stateful.copy().await;
        new.wait_until(|stats| stats.requests > 10).await;
        assert_eq!(old.requests(), before, "{other} got what was for web-3");
        old.kill().await;
        stateful.forget(&other);
        stateful.copy().await;
    }
    done.store(true, Ordering::Relaxed);
    for user in users {
        assert!(user.await.expect("no panic") > 0);
    }
    for never in stateful.cluster.pods() {
        assert_eq!(
            never.requests() > 0,
            never.addr() == here,
            "{}",
            never.name()
        );
    }
}

#[tokio::test]
async fn the_host_is_the_service_s_unless_the_pod_s_own_is_wanted() {
    let stateful = Stateful::new(Cluster::start(2).await);
    let client = stateful.client("http").build().expect("a client");
    let service = format!(
        "{}:{}",
        stateful.cluster.service().trim_end_matches('.'),
        stateful.cluster.port()
    );
    let pod = client.pod("web-1");
    assert_eq!(get(&pod).await.expect("there").0, service);
    let pod = pod.own_host();
    assert_eq!(
        get(&pod).await.expect("there").0,
        format!("web-1.{service}")
    );
    // Also by its number or its address, if its name is known.
    for pod in [client.pod_at(1), client.pod(stateful.cluster.pod(1).ip())] {
        let (host, _) = get(&pod.own_host()).await.expect("there");
        assert_eq!(host, format!("web-1.{service}"));
    }
    let given = pod
        .get("/")
        .header("host", "kv.example")
        .await
        .expect("there");
    assert_eq!(given.headers()["x-host"], "kv.example");
    // As a service of requests, whatever their own route says.
    let mut request = Request::new(Empty::<bytes::Bytes>::new());
    request.extensions_mut().insert(Route::new().pod("web-0"));
    let response = pod.clone().oneshot(request).await.expect("there");
    assert_eq!(response.headers()["x-host"], format!("web-1.{service}"));
    assert_eq!(response.headers()["x-pod"], stateful.cluster.pod(1).name());
    let elsewhere = pod.get("/").route(Route::new().pod("web-0"));
    let response = elsewhere.await.expect("there");
    assert_eq!(response.headers()["x-pod"], stateful.cluster.pod(1).name());
    assert_eq!(stateful.cluster.pod(0).requests(), 0);
}

#[tokio::test]
async fn a_pod_s_503_is_returned_and_a_lost_post_is_not_sent_again() {
    let stateful = Stateful::new(Cluster::start(2).await);
    let client = stateful.client("http").build().expect("a client");
    let pod = client.pod("web-1");
    let one = stateful.cluster.pod(1);
    one.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    let response = pod.get("/").await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(one.requests(), 1);
    one.set(Mode::CloseWithoutAnswer);
    pod.post("/").body("a").await.expect_err("lost");
    assert_eq!(one.requests(), 2);
    // A GET is sent again, to the same pod.
    let error = pod.get("/").await.expect_err("lost each time");
    assert_eq!(error.endpoint().map(|it| it.address()), Some(one.addr()));
    assert!(one.requests() > 3, "{}", one.requests());
    assert_eq!(stateful.cluster.pod(0).requests(), 0);
}

/// A client of one pod, web-0, that refuses connections.
async fn refused() -> (Client, Endpoint) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let address = listener
        .and_then(|it| it.local_addr())
        .expect("a free port");
    let pod = Endpoint::new(address).with_hostname("web-0");
    let client = Client::builder("http://kv.example".parse().expect("a URI"))
        .discovery(StaticEndpoints::from_iter([pod.clone()]))
        .ready_timeout(TICK)
        .build();
    (client.expect("a client"), pod)
}

#[tokio::test]
async fn an_error_names_the_pod_that_is_absent_or_refuses() {
    let (client, pod) = refused().await;
    let error = client.pod("web-7").get("/").await.expect_err("absent");
    assert!(error.is_absent() && error.is_unreachable() && error.is_unexecuted());
    assert_eq!((error.pod(), error.endpoint()), (Some("web-7"), None));
    assert_eq!(
        error.to_string(),
        "request to kv.example was not sent: pod web-7 isn't there; there are web-0"
    );
    let error = client.pod("web-0").get("/").await.expect_err("it refuses");
    assert!(!error.is_absent() && error.is_unreachable() && error.is_unexecuted());
    assert_eq!((error.pod(), error.endpoint()), (Some("web-0"), Some(&pod)));
    let text = format!(
        "request to kv.example was not sent: pod web-0 accepts no requests at {}: Connection refused (os error 111)",
        pod.address()
    );
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_broadcast_s_error_names_the_pod_that_refuses_and_says_why() {
    let (client, pod) = refused().await;
    let all = client.get("/").broadcast().all().await.expect("a pod");
    let error = &all.failed[0].1;
    assert_eq!((error.pod(), error.endpoint()), (Some("web-0"), Some(&pod)));
    let text = format!(
        "request to kv.example was not sent: pod {pod} accepts no requests: Connection refused (os error 111)"
    );
    assert_eq!(error.to_string(), text);
    // Also with less time than requests wait for a pod.
    let all = client.get("/").broadcast().deadline(TICK / 2).all();
    let all = all.await.expect("a pod");
    let error = &all.failed[0].1;
    assert!(error.is_timeout() && error.is_unexecuted(), "{error}");
    assert_eq!((error.pod(), error.endpoint()), (Some("web-0"), Some(&pod)));
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.source().is_some());
}

#[tokio::test]
async fn others_over_http_leave_out_their_address() {
    let stateful = Stateful::new(Cluster::start(3).await);
    let client = stateful.client("http").build().expect("a client");
    let others = client.others(stateful.cluster.pod(1).ip());
    for _ in 0..20 {
        get(&others).await.expect("others");
    }
    let requests = [0, 1, 2].map(|pod| stateful.cluster.pod(pod).requests());
    assert_eq!(requests, [10, 0, 10]);
    let all = others.post("/").broadcast().all().await.expect("others");
    assert_eq!((all.answered.len(), all.failed.len()), (2, 0));
    let requests = [0, 1, 2].map(|pod| stateful.cluster.pod(pod).requests());
    assert_eq!(requests, [11, 0, 11]);
}

#[tokio::test]
async fn the_certificate_must_have_the_name_of_the_pod_s_own_record() {
    let certified = "web-1.web.default.svc.cluster.local";
    let stateful = Stateful::new(Cluster::start_tls_as(certified, 2).await);
    let trust = stateful.cluster.trust_pem().as_bytes();
    let tls = Tls::new()
        .trust_pem(trust)
        .expect("a certificate")
        .pod_names(true);
    let client = stateful
        .client("https")
        .tls(tls)
        .ready_timeout(Duration::from_secs(2));
    let client = client.build().expect("a client");
    let answer = within("an answer", get(&client.pod("web-1"))).await;
    assert_eq!(
        answer.expect("its own name").1,
        stateful.cluster.pod(1).name()
    );
    let error = within("an error", get(&client.pod("web-0"))).await;
    let error = error.expect_err("the certificate is another pod's");
    assert!(error.is_unreachable(), "{error:?}");
    assert_eq!(stateful.cluster.pod(0).requests(), 0);
}
