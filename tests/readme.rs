//! The README's code: each of its blocks is here, line by line, so that it compiles.

// It is compiled, and not run.
#![allow(dead_code, unused_variables)]
#![cfg_attr(rustfmt, rustfmt_skip)]

use std::{
    collections::HashSet,
    fs,
    future::{Ready, ready},
    net::SocketAddr,
    path::Path,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use tonic_health::pb::health_client::HealthClient as GreeterClient;
use tower::{ServiceBuilder, service_fn};
use tower_headless::{
    Balance, BalanceLayer, BoxError, Connections, ConsistentHash, Discovery, Dns, Endpoint, EndpointSlices, Hedge, RoundRobin, Route,
    Subset,
    http::{Client, KeyFrom, Sessions},
    test_util::Cluster,
};

type Done = Result<(), BoxError>;

#[derive(Clone)]
struct MyService(SocketAddr);

impl MyService {
    fn new(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl tower::Service<&'static str> for MyService {
    type Response = SocketAddr;
    type Error = BoxError;
    type Future = Ready<Result<SocketAddr, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: &'static str) -> Self::Future {
        ready(Ok(self.0))
    }
}

async fn a_client() -> Done {
    use std::time::Duration;
    use tower_headless::http::Client;

    let service = "http://nginx-headless.default:80".parse()?;
    let client = Client::builder(service).timeout(Duration::from_secs(5)).build()?;
    let response = client.get("/").await?.error_for_status()?;
    println!("{}", response.text().await?);
    Ok(())
}

#[derive(serde::Deserialize)]
struct User {}

async fn a_search(client: Client) -> Done {
    let search = client.get("/users").query(&[("name", "Zoë")]).timeout(Duration::from_secs(2));
    let users: Vec<User> = search.send().await?.error_for_status()?.json().await?;
    Ok(())
}

async fn a_client_of_tonic() -> Done {
    use tower_headless::http::{Client, Protocol};

    let client = Client::builder("http://greeter.default:50051".parse()?).protocol(Protocol::Http2).build()?;
    let mut greeter = GreeterClient::new(client); // deadlines, retries, keys: see `Client`, "gRPC"
    let _ = greeter.check(tonic_health::pb::HealthCheckRequest::default()).await?;
    Ok(())
}

#[derive(Clone)]
struct MyConnection(SocketAddr);

impl MyConnection {
    async fn open(address: SocketAddr) -> Result<Self, BoxError> {
        Ok(Self(address))
    }
}

fn over_connections(discovery: Dns) {
    let connect = service_fn(|pod: Endpoint| MyConnection::open(pod.address()));
    let balance = Balance::builder(discovery).build_connected(Connections::pooled(8, connect));
}

async fn any_service(request: &'static str) -> Done {
    use tower::{Service, ServiceExt};
    use tower_headless::{Balance, Dns, Endpoint, LeastConnections};

    let discovery = Dns::new("nginx-headless.default:80".parse()?);
    let mut balance = Balance::builder(discovery)
        .policy(LeastConnections::new())
        .build(|endpoint: &Endpoint| MyService::new(endpoint.address()));
    let response = balance.ready().await?.call(request).await?;
    Ok(())
}

fn a_layer(discovery: Dns) {
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .layer(BalanceLayer::new(discovery).policy(RoundRobin::new()))
        .service(|endpoint: &Endpoint| MyService::new(endpoint.address()));
}

async fn tests_of_your_own() -> Done {
    let cluster = Cluster::start(5).await;
    let client = cluster.client().build()?;
    cluster.kill(0).await; // DNS goes on telling of it
    assert_eq!(client.get("/").await?.status(), 200);
    Ok(())
}

fn a_watch() -> Done {
    let name = "nginx-headless.default:80";
    let discovery = EndpointSlices::new(name.parse()?).or(Dns::new(name.parse()?));
    let client = Client::builder("http://nginx-headless.default:80".parse()?).discovery(discovery).build()?;
    Ok(())
}

fn near_pods(uri: Uri, slices: EndpointSlices) -> Done {
    let client = Client::builder(uri)
        .discovery(slices) // DNS knows no zones
        .zone(std::env::var("ZONE").unwrap_or_default())
        .node(std::env::var("NODE_NAME").unwrap_or_default())
        .build()?;
    Ok(())
}

fn a_subset(uri: Uri) -> Done {
    let client = Client::builder(uri).subset(Subset::of(20)).build()?;
    Ok(())
}

async fn keys(uri: Uri, balance: Balance<MyService>, request: &'static str) -> Done {
    let client = Client::builder(uri).policy(ConsistentHash::new()).build()?;
    let cart = client.get("/cart").key("user-42").await?;
    let user = balance.call_with(request, Route::new().key("user-42")).await?; // over any service
    Ok(())
}

fn keys_that_the_client_finds(uri: Uri) -> Done {
    let client = Client::builder(uri)
        .policy(ConsistentHash::new())
        .key_from(KeyFrom::path_segment(1)) // of `/users/42/cart`, 42
        .key_from(KeyFrom::header("x-tenant"))
        .build()?;
    Ok(())
}

fn sessions(uri: Uri, secret: [u8; 32]) -> Done {
    let sessions = Sessions::cookie("shop-pod", secret).secure(true);
    let client = Client::builder(uri).sessions(sessions).build()?;
    Ok(())
}

async fn one_pod(client: Client) -> Done {
    let primary = client.pod("kv-0"); // or by number: `pod_at(0)`, or by address
    primary.post("/user-42").body("...").await?;
    let peers = client.others(std::env::var("POD_IP")?);
    let entry = peers.get("/user-42").await?; // from one of the others; `.broadcast()` asks each of them
    Ok(())
}

async fn all_pods(client: Client) -> Done {
    let purge = client.post("/purge").body("user-42").broadcast();
    let purged = purge.deadline(Duration::from_secs(2)).all().await?;
    for (pod, error) in &purged.failed {
        println!("{pod} still has it: {error}");
    }
    let copies = client.get("/user-42").broadcast().majority().await?; // fails as soon as too few can answer
    for (pod, copy) in copies {
        println!("{pod}: {}", copy.text().await?);
    }
    Ok(())
}

fn late_answers(uri: Uri) -> Done {
    let client = Client::builder(uri).hedge(Hedge::new()).build()?;
    Ok(())
}

fn trimmed(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn the_code_of_the_readme_is_compiled() {
    let (readme, here) = (include_str!("../README.md"), trimmed(include_str!("readme.rs")));
    let blocks = readme.split("```rust\n").skip(1);
    let blocks: Vec<_> = blocks.map(|rest| rest.split("```").next().unwrap_or(rest)).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        assert!(here.contains(&trimmed(block)), "tests/readme.rs has not got this:\n{block}");
    }
}

/// What a heading is linked by, as GitHub and rustdoc make it.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_matches(['#', ' ']).to_lowercase().replace(' ', "-");
    heading.chars().filter(|&it| it.is_alphanumeric() || it == '-' || it == '_').collect()
}

/// The headings and the links to headings in lines of Markdown; not those of other sites.
fn anchors<'a>(lines: impl Iterator<Item = &'a str> + Clone) -> (HashSet<String>, Vec<&'a str>) {
    let headings = lines.clone().filter(|line| line.starts_with('#')).map(anchor);
    let links = lines.flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    let own = links.filter(|link| !link.contains("://")).filter_map(|link| Some(link.split_once('#')?.1));
    (headings.collect(), own.collect())
}

#[test]
fn links_lead_to_headings_of_the_readme() {
    let (headings, links) = anchors(include_str!("../README.md").lines());
    assert!(!links.is_empty());
    for link in links {
        assert!(headings.contains(link), "no heading: #{link}");
    }
}

/// All Rust files under `folder`.
fn sources(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let text = |path: &Path| fs::read_to_string(path).expect("text");
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![text(&path)] }).collect()
}

/// rustdoc checks the items that links name, and no headings. Those of all items are taken together.
#[test]
fn links_lead_to_headings_of_the_documentation() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let lines = sources.iter().flat_map(|text| text.lines()).map(str::trim_start);
    let documentation = lines.filter_map(|line| line.strip_prefix("//!").or(line.strip_prefix("///")).map(str::trim_start));
    let (headings, links) = anchors(documentation);
    assert!(!links.is_empty());
    for link in links {
        assert!(headings.contains(link), "no heading: #{link}");
    }
}
