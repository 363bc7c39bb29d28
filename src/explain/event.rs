//! Events: what happened to a balancer's endpoints and to its source.

use std::{fmt, time::SystemTime};

/// Something that happened to a balancer's endpoints or to its source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Event {
    /// When it was.
    #[cfg_attr(feature = "serde", serde(rename = "at_unix_ms"))]
    #[cfg_attr(feature = "serde", serde(with = "crate::times::unix_ms"))]
    pub at: SystemTime,
    /// What happened.
    pub kind: EventKind,
    /// The endpoint that it is about, if any.
    pub endpoint: Option<String>,
    /// A reason or an error, if there is one.
    pub detail: Option<String>,
}

/// The kind of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum EventKind {
    /// An endpoint joined the set.
    Joined,
    /// An endpoint left the set.
    Left,
    /// An endpoint was ejected.
    Ejected,
    /// An endpoint's checks began to fail.
    CheckFailed,
    /// An endpoint gets requests again.
    Readmitted,
    /// An endpoint refuses requests, or can't be reached.
    Unreachable,
    /// An endpoint accepts requests again.
    Reachable,
    /// Discovery fails.
    DiscoveryFailed,
    /// Discovery answers again.
    DiscoveryAnswers,
    /// Discovery switched to another source.
    SourceChanged,
    /// Too few endpoints are healthy: ejections are ignored from now on.
    PanicBegan,
    /// Enough endpoints are healthy again.
    PanicEnded,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Ejected => "ejected",
            Self::CheckFailed => "check failed",
            Self::Readmitted => "readmitted",
            Self::Unreachable => "unreachable",
            Self::Reachable => "reachable again",
            Self::DiscoveryFailed => "discovery failed",
            Self::DiscoveryAnswers => "discovery answers again",
            Self::SourceChanged => "source changed",
            Self::PanicBegan => "panic: too few endpoints are healthy",
            Self::PanicEnded => "panic over",
        })
    }
}

/// `web-0 (10.244.1.7:80) ejected: consecutive failures`
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(endpoint) = &self.endpoint {
            write!(f, "{endpoint} ")?;
        }
        write!(f, "{}", self.kind)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}
