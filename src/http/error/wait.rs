//! What a request that was not sent in time waited for.

use std::{error::Error as StdError, fmt};

use crate::{
    balance::Awaited,
    endpoint::Endpoint,
    error::{Error as BalanceError, SharedError},
};

#[derive(Debug)]
pub(in crate::http) enum Wait {
    /// Nothing: it had no time.
    None,
    /// The layers around the client, to be ready.
    Layers,
    /// A connection to this pod. If the pod refuses, why.
    Connection(Endpoint, Option<SharedError>),
    /// A pod that accepts it. With more time, the request would have failed with this error.
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

    /// The pod that the request waited for.
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

/// The text after the timeout. The balancer's error writes its own.
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None | Self::Pod(_) => Ok(()),
            Self::Layers => f.write_str(": the client's layers were not ready for it"),
            Self::Connection(pod, _) => write!(f, ": pod {pod} had no free connection for it"),
        }
    }
}
