//! A headless Service in miniature for your application's tests, with failures on demand. Feature `test-util`.
//!
//! ```toml
//! [dev-dependencies]
//! tower-headless = { version = "0.1", features = ["test-util"] }
//! ```
//!
//! | | |
//! | --- | --- |
//! | [`Cluster`] | a headless Service: pods, and a DNS server that names the ready ones |
//! | [`Pod`] | one HTTP and gRPC server that can be slow, failing, hung, killed, unplugged and restarted |
//! | [`DnsServer`] | a name server over UDP and TCP, with records and faults that change while it runs |
//!
//! All of it runs in the test's own process, on free loopback addresses and ports, so tests may run at the same time.
//! Dropping it ends it. If a test could only unwrap an error (no port is left, for example), it panics and says why.
//! Errors that depend on your arguments, such as an address that is taken, are a `Result`.
//!
//! # How to test your application
//!
//! ## Without sockets
//!
//! Logic above the client needs no network. Give it a client whose answers and errors a closure makes
//! ([`Client::from_fn`](crate::http::Client::from_fn)), or any tower service over
//! [`StaticEndpoints`](crate::StaticEndpoints). [`StreamDiscovery`](crate::StreamDiscovery) is a set that changes when
//! the test says so. Without sockets you can pause time (`#[tokio::test(start_paused = true)]`): timeouts of minutes
//! pass at once, and in the same way each time.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_headless::BoxError> {
//! use std::time::Duration;
//! use tower::{Service, ServiceExt, service_fn};
//! use tower_headless::{Balance, BoxError, Endpoint, StaticEndpoints};
//!
//! let pods = StaticEndpoints::new(["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?]);
//! let mut balance = Balance::builder(pods).build(|pod: &Endpoint| {
//!     let pod = pod.address();
//!     service_fn(move |question: &'static str| async move {
//!         tokio::time::sleep(Duration::from_secs(60)).await; // takes no time
//!         Ok::<_, BoxError>(format!("{question} from {pod}"))
//!     })
//! });
//! let answer = balance.ready().await?.call("hello").await?;
//! assert!(answer.starts_with("hello from 10.0.0."));
//! # Ok(())
//! # }
//! ```
//!
//! ## Over sockets
//!
//! A [`Cluster`] adds what the network adds: connections, refusals, late DNS. Give your application what
//! [`Cluster::client`] builds; in production, `Client::builder` builds it from the Service's name.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_headless::BoxError> {
//! use http::{Response, StatusCode};
//! use http_body_util::Full;
//! use tower_headless::{
//!     BoxError,
//!     http::Client,
//!     test_util::{Cluster, Mode},
//! };
//!
//! // The application.
//! async fn price(client: &Client, item: &str) -> Result<u32, BoxError> {
//!     let price = client.get(format!("/prices/{item}")).await?.error_for_status()?;
//!     Ok(price.text().await?.parse()?)
//! }
//!
//! // The test.
//! let cluster = Cluster::builder()
//!     .service("prices.shop.svc.cluster.local")
//!     .answer(|_pod, _request| async { Ok::<_, BoxError>(Response::new(Full::from("42"))) })
//!     .start()
//!     .await;
//! let client = cluster.client().build()?;
//! cluster.pod(0).set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE)); // one of three is overloaded
//! cluster.kill(1).await; // another one has crashed
//! for _ in 0..10 {
//!     assert_eq!(price(&client, "tea").await?, 42);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Sockets need real time. Don't pause it, because tokio's clock then jumps past every timeout while a packet is on its
//! way. To see timeouts soon, make them short: `cluster.client().ready_timeout(…)`, and `.dns(|dns|
//! dns.refresh_interval(…))` for changes of the set, which otherwise show at the TTL, 1 s. Wait for events, not for a
//! time: [`Pod::wait_until`], [`DnsServer::wait_until`] and [`Client::watch`](crate::http::Client::watch), within a
//! bound ([`within`]).
//!
//! ## Failures
//!
//! | what happens | how |
//! | --- | --- |
//! | every pod is down | [`Cluster::kill`] for each; requests fail with `is_unreachable` and `is_unexecuted` when the ready timeout is over: set `ready_timeout(50 ms)`, or each test takes 5 s |
//! | there are no pods | `Cluster::builder().pods(0)`: as above, with `is_no_endpoints`. After [`Cluster::scale`] to 0 it is `is_unreachable` at first, until the empty answer is [believed](crate::OnEmpty), 10 s later |
//! | a pod is slow, fails, hangs, closes the connection | `cluster.pod(0).set(…)` with a [`Mode`] |
//! | a pod crashes, and DNS goes on naming it | [`Cluster::kill`]; [`Pod::restart`] brings it back |
//! | a pod crashes, and is scheduled again | [`Cluster::replace`] |
//! | a node vanishes: nothing answers, nothing refuses | [`Pod::black_hole`] |
//! | a pod fails its readiness probe | [`Cluster::set_ready`] |
//! | the Service is scaled, or rolled out | [`Cluster::scale`], [`Cluster::rolling_restart`]; [`Cluster::set_drain`] is the `preStop` hook, without which POSTs may be lost |
//! | all pods are replaced before DNS knows | [`Cluster::replace_all`] |
//! | DNS fails, lies, is slow or silent | [`DnsServer::fault`] with a [`Fault`], of [`Cluster::dns`] |
//! | the name server is gone | [`DnsServer::stop`], [`DnsServer::restart`] |
//!
//! Without sockets, let [`Client::from_fn`](crate::http::Client::from_fn) return one of the `fake_…` errors of
//! [`http::Error`](crate::http::Error).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_headless::BoxError> {
//! use std::time::Duration;
//! use tower_headless::test_util::Cluster;
//!
//! let cluster = Cluster::start(2).await;
//! let client = cluster.client().ready_timeout(Duration::from_millis(50)).build()?;
//! assert_eq!(client.get("/").await?.status(), 200);
//!
//! cluster.kill(0).await;
//! cluster.kill(1).await;
//! let error = client.post("/").body("…").await.expect_err("every pod is down");
//! assert!(error.is_unreachable() && error.is_unexecuted());
//!
//! let cluster = Cluster::builder().pods(0).start().await;
//! let client = cluster.client().ready_timeout(Duration::from_millis(50)).build()?;
//! let error = client.get("/").await.expect_err("there are no pods");
//! assert!(error.is_no_endpoints() && error.is_unexecuted());
//! # Ok(())
//! # }
//! ```
//!
//! A pod's answers say what your requests looked like: see [`Pod`].

mod accept;
mod cluster;
mod dns;
mod pod;
mod within;

pub use cluster::{Cluster, builder::ClusterBuilder};
pub use dns::{
    DnsServer,
    fault::Fault,
    glue::Glue,
    log::LoggedQuery,
    record::{RecordType, Srv},
};
pub use pod::{
    Pod,
    builder::PodBuilder,
    mode::{Mode, Stats},
};
pub use within::{PATIENCE, within};
