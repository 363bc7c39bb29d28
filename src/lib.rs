//! Sends each request to one pod of a Kubernetes *headless* Service, over HTTP, gRPC or any [`tower::Service`]. It finds the pods,
//! keeps the set fresh, and goes on working while pods and DNS fail.
//!
//! ```
//! # #[cfg(feature = "http")]
//! # async fn greeting() -> Result<String, tower_headless::BoxError> {
//! use tower_headless::http::Client;
//!
//! let service = "http://nginx-headless.default:80".parse()?;
//! let client = Client::builder(service).timeout(std::time::Duration::from_secs(5)).build()?;
//! let response = client.get("/").await?.error_for_status()?;
//! # response.text().await.map_err(Into::into)
//! # }
//! ```
//!
//! That is [`http::Client`], feature `http`. Without it, [`Balance`] does the same over any service:
//!
//! ```no_run
//! # use tower::{Service, ServiceExt, service_fn};
//! # async fn send(_: std::net::SocketAddr, request: String) -> Result<String, std::io::Error> { Ok(request) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! use tower_headless::{Balance, Dns, Endpoint};
//!
//! let discovery = Dns::new("nginx-headless.default:80".parse()?);
//! let mut balance = Balance::builder(discovery).build(|endpoint: &Endpoint| {
//!     let address = endpoint.address(); // any tower service that talks to one pod
//!     service_fn(move |request: String| send(address, request))
//! });
//! let response = balance.ready().await?.call("hello".to_owned()).await?;
//! # drop(response);
//! # Ok(())
//! # }
//! ```
//!
//! # Guide
//!
//! | you want to | read |
//! | --- | --- |
//! | begin | [first steps](guide::first_steps), [running locally](guide::running_locally), [testing](guide::testing) |
//! | know what happens when something fails | [behaviour](guide::behaviour), [limits](guide::limits), [terms](guide::terms) |
//! | choose | [discovery](guide::discovery), [policies](guide::policies), [near pods](guide::near_pods), [bad pods](guide::bad_pods), [retries and hedging](guide::retries), [one, many, all](guide::one_many_all) |
//! | speak a protocol | [TLS](guide::tls), [gRPC](guide::grpc), [others](guide::other_protocols), [naming types](guide::naming) |
//! | operate it | [observability](guide::observability), [Kubernetes](guide::kubernetes), [tuning](guide::tuning), [troubleshooting](guide::troubleshooting) |
//! | compare it | [benchmarks](guide::benchmarks), [coming from another client](guide::coming_from) |
//!
//! # Seeing why
//!
//! [`Balance::explain`] and [`http::Client::explain`] say for each pod whether a request could go to it now, and if
//! not, why, since when, and when it is tried next. [Observability](guide::observability) has an example, and logging,
//! spans and metrics.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `dns` | yes | [`Dns`]: discovery by A, AAAA and SRV records, on hickory-proto |
//! | `http-body` | yes | [`OnBodyEnd`]: HTTP requests count as in flight to the end of the response's body |
//! | `http` | no | [`http::Client`]: HTTP/1.1 and HTTP/2, on hyper, over the pods that `dns`, or any other discovery, finds; [`HealthCheck::http`] and [`HealthCheck::grpc`] |
//! | `json` | no | JSON in requests and responses: [`http::RequestBuilder::json`], [`http::Response::json`] |
//! | `inspect` | no | [`inspect`]: a page that shows all balancers of a process, also as JSON |
//! | `metrics`, `otel` | no | [`metrics`]: what is counted, on the facade of that name, or on OpenTelemetry's API |
//! | `serde` | no | [`Explanation`], [`Attempts`] and [`BalanceCounts`] can be written and read, as JSON and the like |
//! | `sessions` | no | [`http::Sessions`]: sticky sessions by cookie or header, on cookie |
//! | `test-util` | no | [`test_util`]: an embedded DNS server, pods that fail on demand and a cluster of both, and [clients that a function answers](http::Client::from_fn), for [your own tests](guide::testing) |
//! | `tls` | no | HTTPS, on rustls; needs one of the two below |
//! | `tls-ring`, `tls-aws-lc` | no | its provider of cryptography |
//! | `tls-native-roots`, `tls-webpki-roots` | no | the system's or Mozilla's certificate authorities, for clients that ask for them ([`Tls::trust_native_roots`](http::Tls::trust_native_roots), [`Tls::trust_webpki_roots`](http::Tls::trust_webpki_roots)) |
//! | `kube` | no | [`EndpointSlices`]: discovery by a watch of the API server, on kube; from Rust 1.89; needs a version of k8s-openapi, and a provider of cryptography from the two below or `tls-ring`, `tls-aws-lc` |
//! | `kube-ring`, `kube-aws-lc` | no | its provider of cryptography |
//! | `kube-latest` | no | `kube` with everything that it needs, for applications that don't care which version and provider |
//!
#![doc = include_str!("../ARCHITECTURE.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod attempts;
mod backoff;
mod balance;
mod broadcast;
mod check;
mod comparison;
mod counters;
mod discovery;
mod endpoint;
mod error;
mod explain;
#[cfg(all(tower_headless_fuzzing, feature = "dns"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(doc, doctest))]
pub mod guide;
mod hedge;
mod home;
#[cfg(feature = "http")]
pub mod http;
mod in_flight;
#[cfg(feature = "inspect")]
pub mod inspect;
#[cfg(all(test, any(tower_headless_loom, tower_headless_shuttle)))]
mod interleavings;
mod latency;
mod locality;
mod logs;
mod member;
mod membership;
#[cfg(any(feature = "metrics", feature = "otel"))]
pub mod metrics;
mod outcome;
mod outlier;
mod pinned;
mod policy;
mod retry;
mod route;
mod signals;
mod snapshot;
mod stable_hash;
mod subset;
mod sync;
#[cfg(feature = "test-util")]
pub mod test_util;
mod times;

pub use attempts::{
    Attempt, AttemptCause, AttemptLog, AttemptOutcome, AttemptWaits, Attempts, PickReason,
};
pub use balance::{
    Balance, BalanceBuilder, BalanceLayer, Connected, ConnectedFuture, Connections, EndpointState,
    EndpointStatus, Proximity, ResponseFuture,
};
pub use broadcast::{Answers, Broadcast, Collected, QuorumError};
pub use check::HealthCheck;
pub use counters::{
    BalanceCounts, ConnectionCounts, ConnectionEnds, ConnectionFailures, DiscoveryCounts,
    EjectionCounts, EndpointCounts, FailureCounts, LATENCY_BOUNDS, LatencyCounts, RetryCounts,
    WaitCounts, Waits,
};
#[cfg(feature = "kube")]
pub use discovery::endpoint_slices::{
    EndpointSlices, EndpointSlicesError, ParseServiceTargetError, ServiceTarget,
};
pub use discovery::{
    Discovery, DiscoveryReport, StaticEndpoints, fallback::Fallback,
    stream_discovery::StreamDiscovery,
};
#[cfg(feature = "dns")]
pub use discovery::{
    dns::{Dns, LookupError, ParseTargetError, Resolution, Target, Transport},
    schedule::OnEmpty,
};
pub use endpoint::Endpoint;
pub use error::{BoxError, Error, Unsent};
pub use explain::{
    Balancers, DiscoveryExplanation, EndpointExplanation, Event, EventKind, Explainer, Explanation,
    KeyChoice, KeyExplanation, LastError, PolicyExplanation, Verdict,
};
pub use hedge::Hedge;
pub use in_flight::{Completion, InFlight, OnResponse};
#[cfg(feature = "http-body")]
pub use in_flight::{CountedBody, OnBodyEnd};
pub use member::{EjectionReason, Members};
pub use membership::{MembershipChange, MembershipStream, ServiceStream};
pub use outcome::{ByResult, Classify, Outcome};
#[cfg(feature = "http-body")]
pub use outcome::{ByStatus, ClassifyHttp};
pub use outlier::OutlierDetection;
pub use pinned::Pinned;
pub use policy::{
    BuiltInPolicy, ConsistentHash, LeastConnections, ParsePolicyError, PeakEwma, Picker, Policy,
    PowerOfTwo, Previous, Random, RoundRobin,
};
#[cfg(feature = "http-body")]
pub use retry::RetryUnavailable;
pub use retry::{Retry, RetryFailed, RetryFuture, RetryLayer, RetryPolicy};
pub use route::{PodId, Route, RouteKey};
pub use subset::Subset;
