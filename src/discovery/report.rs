//! What a source says about itself.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::time::Instant;

/// What a [source](crate::Discovery::report) says about itself. [`Balance::explain`](crate::Balance::explain) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiscoveryReport {
    /// The kind of source: `dns`, `endpoint_slices`, `static`, `stream`, or a word of your own.
    pub kind: Cow<'static, str>,
    /// The full name that the set was found under, such as the fully qualified DNS name.
    pub name: Option<Arc<str>>,
    /// The server that answered last: a name server or an API server.
    pub server: Option<Arc<str>>,
    /// The last answer's time to live, if it has one.
    pub ttl: Option<Duration>,
    /// What the source is doing, in a word or two: an EndpointSlices source `lists`, `watches`, or `waits` to try
    /// again.
    pub activity: Option<Cow<'static, str>>,
    /// When the source asks next; none if it doesn't ask, because changes are pushed to it.
    pub next_refresh: Option<Instant>,
    /// Whether this is the fallback of a [`Fallback`](crate::Fallback), in use because the primary fails.
    pub is_fallback: bool,
}

impl DiscoveryReport {
    /// A report with the kind alone.
    pub fn new(kind: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: kind.into(),
            name: None,
            server: None,
            ttl: None,
            activity: None,
            next_refresh: None,
            is_fallback: false,
        }
    }

    /// Whether both come from the same source, whatever it found.
    pub(crate) fn is_of_same_source(&self, other: &Self) -> bool {
        (&self.kind, self.is_fallback) == (&other.kind, other.is_fallback)
    }
}
