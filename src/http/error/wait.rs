//! What a request waited for that was not sent in its time.

use std::{error::Error as StdError, fmt};

use crate::{
    balance::Awaited,
    endpoint::Endpoint,
    error::{Error as BalanceError, SharedError},
};

#[derive(Debug)]
pub(in crate::http) enum Wait {
    /// For nothing: it had no time.
    None,
    /// For the layers around the client to be ready.
    Layers,
    /// For a connection to this pod, and why that refuses, while it does.
    Connection(Endpoint, Option<SharedError>),
    /// For a pod that accepts it: with more time, it would have failed with this.
    Pod(BalanceError),
}

impl From<Awaited> for Wait {
    fn from(awaited: Awaited) -> Self {
        match awaited {
            Awaited::Ready(pod, refusal) => Self::Connection(pod, refusal),
            Awaited::Accepting(error) => Self::Pod(error),
        }
    }
}

impl Wait {
    pub(super) fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connection(_, refusal) => refusal.as_ref().map(|refusal| &**refusal as _),
            Self::Pod(error) => error.source(),
            Self::None | Self::Layers => None,
        }
    }

    /// The one that it was for.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Connection(pod, _) => Some(pod),
            Self::Pod(error) => error.endpoint(),
            Self::None | Self::Layers => None,
        }
    }

    pub(super) fn balance(&self) -> Option<&BalanceError> {
        match self {
            Self::Pod(error) => Some(error),
            _ => None,
        }
    }
}

/// What comes after the time that it had; the balancer's error tells itself.
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None | Self::Pod(_) => Ok(()),
            Self::Layers => f.write_str(": the client's layers were not ready for it"),
            Self::Connection(pod, _) => write!(f, ": pod {pod} had no free connection for it"),
        }
    }
}
