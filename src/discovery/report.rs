//! What a source tells of itself.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::time::Instant;

/// What a [source](crate::Discovery::report) tells of itself, for [`Balance::explain`](crate::Balance::explain) to show.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiscoveryReport {
    /// What kind of source it is: `dns`, `endpoint_slices`, `static`, `stream`, or a word of your own.
    pub kind: Cow<'static, str>,
    /// The full name that has answered, or what else the source found the set under.
    pub name: Option<Arc<str>>,
    /// Who has answered last: a name server, an API server.
    pub server: Option<Arc<str>>,
    /// How long the last answer holds, as it says itself.
    pub ttl: Option<Duration>,
    /// What it does now, in a word or two: an EndpointSlices source `lists`, `watches`, or `waits` to try again.
    pub activity: Option<Cow<'static, str>>,
    /// When the source looks next; none if it doesn't look, but is told.
    pub next_look: Option<Instant>,
    /// It is the second source of a [`Fallback`](crate::Fallback), whose first one can't be asked.
    pub is_fallback: bool,
}

impl DiscoveryReport {
    /// That there is a source of this kind.
    pub fn new(kind: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: kind.into(),
            name: None,
            server: None,
            ttl: None,
            activity: None,
            next_look: None,
            is_fallback: false,
        }
    }

    /// Whether both are of the same source, whatever that has found.
    pub(crate) fn is_of_same_source(&self, other: &Self) -> bool {
        (&self.kind, self.is_fallback) == (&other.kind, other.is_fallback)
    }
}
