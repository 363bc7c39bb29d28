//! Retries: requests are sent again, to another endpoint and within a budget.
//!
//! tower's own retry sends a request to whichever endpoint comes next, perhaps the one that has just failed it. Here
//! each attempt avoids the endpoints of the earlier ones. The number of retries is bounded twice: for one request, and
//! by a budget for all of them, so that an outage is not made worse by its victims (Finagle's `RetryBudget`; Google's
//! SRE book, chapter 22, on retry budgets).
//!
//! With hedging, a request may also have two attempts at a time. So each future gets an attempt's result from a
//! [race](crate::hedge).
//!
//! | file | what lives there |
//! | --- | --- |
//! | `retry/attempts.rs` | the one engine, which [`RetryLayer`] and the HTTP client share |
//! | `retry/attempts/ended.rs` | how an attempt ended |
//! | `retry/delays.rs`, `retry/pushback.rs` | endpoints that ask for a pause in retries, and how they ask |
//! | `retry/layer.rs`, `retry/future.rs` | [`RetryLayer`]: the layer, its service and a request's future |
//! | `retry/located.rs` | which endpoint a response comes from |
//! | `retry/policy.rs`, `retry/failed.rs`, `retry/unavailable.rs` | which results are retried |

mod attempts;
mod budget;
mod delays;
mod failed;
mod future;
mod layer;
mod located;
mod policy;
#[cfg(feature = "http-body")]
mod pushback;
#[cfg(feature = "http-body")]
mod unavailable;

#[cfg(feature = "http")]
pub(crate) use attempts::Told;
#[cfg(feature = "http")]
pub(crate) use attempts::{Allowance, Attempts, Ended, Fate};
pub use failed::RetryFailed;
pub use future::RetryFuture;
pub use layer::{Retry, RetryLayer};
pub use policy::RetryPolicy;
#[cfg(feature = "http")]
pub(crate) use pushback::Pushback;
#[cfg(feature = "http-body")]
pub use unavailable::RetryUnavailable;
#[cfg(feature = "http")]
pub(crate) use unavailable::UNAVAILABLE;
