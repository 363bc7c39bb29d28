//! The pod and the service that a response names.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    endpoint::Endpoint,
    error::BoxError,
    logs::{CONNECTIONS, Line, debug},
};

/// Stands for no pod.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Cheap to clone: each response has one.
#[derive(Clone)]
pub(in crate::http) struct Named {
    pub(in crate::http) origin: Arc<Origin>,
}

/// Where a response comes from.
pub(in crate::http) struct Origin {
    pub(in crate::http) pod: Endpoint,
    /// The name of the service, if it is known.
    pub(in crate::http) service: Option<Arc<str>>,
}

impl Origin {
    /// The pod, if there is one.
    pub(in crate::http) fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.pod).filter(|pod| pod.address() != NOBODY)
    }
}

impl Origin {
    /// Logs the outcome of a dial.
    pub(super) fn tell_of_dial<T>(&self, made: &Result<T, BoxError>) {
        let Self { pod, service } = self;
        match made {
            Ok(_) => debug!(CONNECTIONS, service, endpoint = %pod, "connected"),
            Err(error) => {
                let error = Line(&**error);
                debug!(CONNECTIONS, service, endpoint = %pod, %error, "connecting failed");
            }
        }
    }
}

impl Named {
    pub(in crate::http) fn new(pod: Endpoint, service: Option<Arc<str>>) -> Self {
        Self {
            origin: Arc::new(Origin { pod, service }),
        }
    }

    /// For a response that no pod has sent: its address is [`NOBODY`].
    pub(in crate::http) fn nobody(service: Option<Arc<str>>) -> Self {
        Self {
            origin: Arc::new(Origin {
                pod: Endpoint::new(NOBODY),
                service,
            }),
        }
    }
}
