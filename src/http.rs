//! An HTTP client over the pods of a headless Service. Feature `http`.
//!
//! ```no_run
//! use std::time::Duration;
//! use tower_headless::http::Client;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_headless::BoxError> {
//! let service = "http://users-headless.default:80".parse()?;
//! let client = Client::builder(service)
//!     .timeout(Duration::from_secs(5)) // there is none unless you set one
//!     .build()?;
//!
//! let users = client.get("/users").query(&[("name", "Zoë")]).await?;
//! println!("{}", users.error_for_status()?.text().await?);
//!
//! match client.post("/users").body("Zoë").await {
//!     Ok(answer) => println!("{} from {:?}", answer.status(), answer.endpoint()),
//!     Err(error) if error.is_unexecuted() => println!("{error}; send it again"),
//!     Err(error) => println!("{error}; a pod may have executed it"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | type | use |
//! | --- | --- |
//! | [`Client`] | sends requests: `get`, `post` …; it is also a tower service, and the transport of tonic's clients |
//! | [`ClientBuilder`] | its settings, with their defaults |
//! | [`RequestBuilder`] | one request: query, headers, body, JSON, timeout, key; awaiting it sends it |
//! | [`Response`] | status and headers; the body by `text`, `bytes`, `json` or piece by piece |
//! | [`Error`] | what went wrong, at which pod, and whether the request may have been executed |
//! | [`RequestBody`], [`ResponseBody`] | bodies: text, bytes or streams, for layers and tests too |
//!
//! `Method`, `StatusCode`, `HeaderMap`, `header` and so on, of the crate [`http`](https://docs.rs/http), are here as well.
//!
//! # The path of a request
//!
//! ```text
//!  Client ──▶ Balance ──▶ a pod's pool: a connection that is idle or shared, or a new one (poll_ready)
//!    ▲  ▲                        │
//!    │  │ handed back unwritten  ▼
//!    │  └──────────────── the request on that connection (call) ──▶ response; its body holds connection and counter
//!    │                           │
//!    └── lost, refused or 503 ◀──┘
//!        sent again, to another pod, if that is safe and within the budget
//!
//!  with hedging, no answer in the usual time ──▶ the same request to another pod; the first good answer counts
//! ```

// Where to look:
//
// - client.rs, client/, builder.rs, defaults.rs: the client, its settings, and the headers and base path that its requests get
// - request.rs, send.rs, reply.rs, json.rs: the client's own request methods: building a request, sending it, reading
//   its response
// - future.rs, future/, deadline.rs: one request: its attempts and its timeout
// - grpc.rs, call.rs: gRPC calls: their deadline, and errors as statuses
// - layered.rs: tower's layers around the client
// - from_fn.rs: feature `test-util`: clients whose requests a test answers
// - broadcast.rs: one request to every pod
// - pinned.rs: one pod, or all pods but one
// - affinity.rs: which pod a request stays with: by a key, or by a session
// - header_name.rs: names of headers, as callers write them
// - key_from.rs, cookies.rs: where a request's key comes from if it names none
// - session.rs, session/: feature `sessions`: what a sticky session's cookie says, and how a response sets it
// - address.rs: which service a request's URI and `Host` name
// - secrets.rs: what errors and `Debug` don't show
// - framing.rs, measured.rs: where a request's body ends: by its headers, and in fact
// - replay.rs: which requests may be sent again
// - pod.rs: the service of one pod
// - pool.rs, pool/: its connections, and what requests and responses hold of them
// - ending.rs: why connections end
// - connect.rs, socket.rs, arrivals.rs, reclaim.rs, protocol.rs, h2_task.rs, h2_wire.rs, h2_wire/: how connections are
//   made and driven
// - tls.rs, tls/: TLS: trust and identity, from files that may change
// - renewal.rs: retires connections that were made with old TLS settings
// - wire_limits.rs, heads.rs: limits on what pods send, and the room for it
// - body.rs, body/begun.rs, upload.rs: request bodies, also on a shared connection
// - sync_body.rs: bodies of any other type
// - response.rs, response/, received.rs, upgrade.rs: response bodies, what their ends say of pods, upgraded streams
// - check.rs, check/: health checks over HTTP and gRPC
// - read_ahead.rs: response bodies that are read before the caller asks
// - error.rs, error/, failure.rs: what can go wrong, and what it says of the request and its pod

mod address;
mod affinity;
mod arrivals;
mod body;
mod broadcast;
mod builder;
mod call;
mod cause;
mod check;
mod client;
mod connect;
mod cookies;
mod cut_off;
mod deadline;
mod defaults;
mod ending;
mod error;
mod failure;
mod framing;
#[cfg(feature = "test-util")]
mod from_fn;
mod future;
mod grpc;
mod h2_task;
mod h2_wire;
mod header_name;
mod heads;
#[cfg(feature = "json")]
mod json;
mod kept_head;
mod key_from;
mod layered;
mod measured;
mod pinned;
mod pod;
mod pool;
mod protocol;
mod read_ahead;
mod received;
mod reclaim;
mod renewal;
mod replay;
mod reply;
mod request;
mod response;
mod secrets;
mod send;
#[cfg(feature = "sessions")]
mod session;
mod socket;
mod span;
mod sync_body;
#[cfg(feature = "tls")]
mod tls;
mod traced;
mod upgrade;
mod upload;
mod wire_limits;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
pub use body::RequestBody;
pub use builder::{BuildError, ClientBuilder};
pub use client::Client;
pub use error::Error;
pub use future::ResponseFuture;
pub use key_from::KeyFrom;
pub use pinned::PodClient;
pub use protocol::Protocol;
pub use replay::{Idempotent, RequestTimeout};
pub use reply::Response;
pub use request::RequestBuilder;
pub use response::ResponseBody;
pub use send::SendFuture;
#[cfg(feature = "sessions")]
#[cfg_attr(docsrs, doc(cfg(feature = "sessions")))]
pub use session::{SameSite, SessionLost, Sessions};
#[cfg(all(feature = "tls", feature = "test-util"))]
pub(crate) use tls::cryptography;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsHandle};
pub use upgrade::{Upgraded, upgrade};
