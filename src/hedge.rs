//! Hedging: a second endpoint is asked before the first one has failed.
//!
//! "The Tail at Scale" (Dean and Barroso, CACM 56(2), 2013) describes it: the second request is held back until the first has
//! been outstanding for longer than is usual, and what comes first counts. gRPC (gRFC A6) and Envoy (`hedge_policy`) have
//! it after a fixed time, Finagle (`BackupRequestFilter`) after a percentile.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `hedge/race.rs` | the one engine: two tries of one request, and which result counts |

mod race;

pub(crate) use race::{Contest, Race};

use std::time::Duration;

use tower::retry::budget::Budget;

/// When a second pod is asked for an answer that is late; see [`http::ClientBuilder::hedge`](crate::http) and
/// [`RetryLayer::hedge`](crate::RetryLayer::hedge).
#[derive(Clone, Debug, PartialEq)]
#[must_use = "settings do nothing until a client or a layer has them"]
pub struct Hedge {
    /// None: when it is late by the endpoints' own measure.
    after: Option<Duration>,
}

impl Hedge {
    /// After the usual p95.
    pub const fn new() -> Self {
        Self { after: None }
    }

    /// After this time.
    pub const fn after(time: Duration) -> Self {
        Self { after: Some(time) }
    }
}

impl Default for Hedge {
    fn default() -> Self {
        Self::new()
    }
}

/// The hedges of all requests of a client or a layer.
#[derive(Debug)]
pub(crate) struct Hedges {
    settings: Hedge,
}

impl Hedges {
    pub(crate) fn new(settings: Hedge) -> Self {
        Self { settings }
    }

    /// A request begins that may be hedged; after how long, where an answer is `late` after so long.
    pub(crate) fn begin(&self, late: Option<Duration>) -> Option<Duration> {
        self.settings.after.or(late)
    }

    /// Whether one more hedge is allowed, which is made then.
    pub(crate) fn allow(&self, budget: &dyn Budget) -> bool {
        budget.withdraw()
    }
}
