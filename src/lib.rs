//! x
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod balance;
mod discovery;
mod endpoint;
mod error;
mod in_flight;
mod load;
mod policy;
mod snapshot;

pub use balance::{
    Balance, BalanceBuilder, BalanceLayer, EndpointState, EndpointStatus, MembershipChange,
    ResponseFuture, Watch,
};
pub use discovery::{Discovery, Fixed};
#[cfg(feature = "dns")]
pub use discovery::{
    dns::{Dns, LookupError, ParseTargetError, Target},
    schedule::OnEmpty,
};
pub use endpoint::Endpoint;
pub use error::{BoxError, Error, Unsent};
pub use in_flight::{Completion, InFlight, OnResponse};
#[cfg(feature = "http-body")]
pub use in_flight::{CountedBody, OnBodyEnd};
pub use policy::{LeastConnections, Policy, Random, RoundRobin};
