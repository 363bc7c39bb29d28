//! tower-headless beside its peers, in the same run and in turns: A, B, C, A, B, C. The command is `benches/peers/run`.
//!
//! | suite | what is measured |
//! | --- | --- |
//! | [`pick`] | choosing an endpoint and calling a service that does nothing |
//! | [`update`] | one endpoint out, one in |
//! | [`http`] | requests a second, and processor time, over HTTP/1.1, HTTP/2 and gRPC |
//! | [`memory`] | what an idle client holds |
//! | [`behaviour`] | what callers see while pods and DNS fail |

pub mod behaviour;
pub mod compare;
pub mod envoy;
pub mod http;
pub mod machine;
pub mod memory;
pub mod pick;
pub mod pods;
pub mod race;
pub mod rank;
pub mod results;
pub mod tables;
pub mod update;

mod load;

// The crate's own benchmarks have these peers too.
#[allow(dead_code, reason = "what isn't used here is used there")]
#[path = "../../http/peers.rs"]
mod clients;
#[path = "../../http/pod.rs"]
mod pod;
#[path = "../../support/mod.rs"]
mod support;
