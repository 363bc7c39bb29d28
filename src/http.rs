//! An HTTP client over the pods of a headless Service.
//!
//! ```text
//!  Client ──▶ Balance ──▶ a pod's pool: a connection that is idle or shared, or a new one (poll_ready)
//!    ▲  ▲                        │
//!    │  │ handed back unwritten  ▼
//!    │  └──────────────── the request over that connection (call) ──▶ response; its body holds connection and counter
//!    │                           │
//!    └── lost, refused or 503 ◀──┘
//!        sent again, to another pod, if that is safe and within the budget
//!
//!  no answer in the usual time, with hedging ──▶ the same to another pod; the first good answer counts
//! ```
//!
//! | file | what lives there |
//! | --- | --- |
//! | `http/client.rs`, `http/builder.rs`, `http/defaults.rs` | the client, its settings, and what it adds to its requests |
//! | `http/request.rs`, `http/send.rs`, `http/reply.rs`, `http/json.rs` | requests made with its words, on their way, and what they are answered with |
//! | `http/future.rs`, `http/deadline.rs` | one request: its attempts, in the time that it has |
//! | `http/grpc.rs`, `http/call.rs` | gRPC calls: their deadline, and errors as statuses |
//! | `http/layered.rs` | tower's layers around the client |
//! | `http/from_fn.rs` | feature `test-util`: clients that tests answer themselves |
//! | `http/broadcast.rs` | the same request to every pod |
//! | `http/pinned.rs` | one pod, or all pods but one |
//! | `http/affinity.rs` | which pod a request stays with: by a key, or by a session |
//! | `http/key_from.rs`, `http/cookies.rs` | where the keys of requests come from that name none |
//! | `http/session.rs`, `http/session/` | feature `sessions`: what a sticky session's cookie says, and what its answer does |
//! | `http/address.rs` | whom a request names |
//! | `http/secrets.rs` | what errors and `Debug` don't show |
//! | `http/framing.rs`, `http/measured.rs` | where a request's body ends: as its headers say, and as it does |
//! | `http/replay.rs` | which requests may be sent again |
//! | `http/pod.rs` | the service of one pod |
//! | `http/pool.rs`, `http/pool/` | its connections, and what requests and responses hold of them |
//! | `http/connect.rs`, `http/socket.rs`, `http/arrivals.rs`, `http/reclaim.rs`, `http/protocol.rs`, `http/h2_task.rs`, `http/h2_wire.rs`, `http/h2_wire/` | how they are made, and run |
//! | `http/tls.rs`, `http/tls/` | TLS: whom to trust and who to be, from files that change too |
//! | `http/renewal.rs` | connections that were made with settings that don't hold any more |
//! | `http/wire_limits.rs`, `http/heads.rs` | how much is read of what pods send, and with how much room |
//! | `http/body.rs`, `http/body/begun.rs`, `http/upload.rs` | request bodies; those on a connection that others share |
//! | `http/sync_body.rs` | bodies of any other type |
//! | `http/response.rs`, `http/received.rs`, `http/upgrade.rs` | response bodies, upgraded streams |
//! | `http/check.rs`, `http/check/` | health checks over HTTP and gRPC |
//! | `http/read_ahead.rs` | response bodies that are read before somebody asks |
//! | `http/error.rs`, `http/failure.rs` | what can go wrong, and what it says of the request and its pod |

mod address;
mod affinity;
mod arrivals;
mod body;
mod broadcast;
mod builder;
mod call;
mod check;
mod client;
mod connect;
mod cookies;
mod cut_off;
mod deadline;
mod defaults;
mod error;
mod failure;
mod framing;
#[cfg(feature = "test-util")]
mod from_fn;
mod future;
mod grpc;
mod h2_task;
mod h2_wire;
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
