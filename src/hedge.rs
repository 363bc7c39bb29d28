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
    after: Duration,
}

impl Hedge {
    /// When there is no head after this time.
    pub const fn after(time: Duration) -> Self {
        Self { after: time }
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

    /// A request begins that may be hedged: when that is due.
    pub(crate) fn begin(&self) -> Option<Duration> {
        Some(self.settings.after)
    }

    /// Whether one more hedge is allowed, which is made then.
    pub(crate) fn allow(&self, budget: &dyn Budget) -> bool {
        budget.withdraw()
    }
}
