//! Connections that stop speaking HTTP: WebSocket and the like (101), and CONNECT.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Response;
use hyper_util::rt::TokioIo;
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};

use super::{
    error::Error,
    pool::Lease,
    reclaim::{Io, writes_to_stream},
};
use crate::{in_flight::InFlight, sync::Mutex};

type LeaseInFlight = Option<(Lease, InFlight)>;

/// An upgraded stream that is still to come, in the extensions of the response that announces it.
#[derive(Clone)]
pub(super) struct OnUpgrade(Arc<Mutex<Option<(hyper::upgrade::OnUpgrade, LeaseInFlight)>>>);

impl OnUpgrade {
    pub(super) fn new(upgrade: hyper::upgrade::OnUpgrade, held: LeaseInFlight) -> Self {
        Self(Arc::new(Mutex::new(Some((upgrade, held)))))
    }
}

/// Takes over the connection of a response that has switched protocols, or of a successful CONNECT.
///
/// The request counts as in flight until the stream is dropped.
///
/// # Errors
///
/// If the response has not upgraded its connection, if `upgrade` was called before, or if the connection has broken.
pub async fn upgrade<B>(response: &mut Response<B>) -> Result<Upgraded, Error> {
    let coming = response.extensions_mut().remove::<OnUpgrade>();
    let coming = coming.and_then(|upgrade| {
        let mut upgrade = upgrade.0.lock();
        upgrade.take()
    });
    let Some((upgrade, mut held)) = coming else {
        return Err(Error::request(
            "the response has not upgraded its connection",
        ));
    };
    let stream: Box<dyn Io> = match (upgrade.await, &mut held) {
        (Ok(stream), _) => Box::new(TokioIo::new(stream)),
        // hyper's answer for HTTP/1.1: its connection has ended, and leaves the stream to us.
        (Err(error), Some((lease, in_flight))) => match lease.claim().await {
            Some(stream) => Box::new(stream),
            None => {
                let service = in_flight.member().signals().service();
                let error = Error::body(Some(in_flight.endpoint().clone()), error);
                return Err(error.of_service(service));
            }
        },
        (Err(error), None) => return Err(Error::request(error)),
    };
    Ok(Upgraded { stream, held })
}

/// A connection to a pod that has switched to another protocol.
pub struct Upgraded {
    stream: Box<dyn Io>,
    held: LeaseInFlight,
}

/// If the pod closed it before, that counts as the reason.
impl Drop for Upgraded {
    fn drop(&mut self) {
        if let Some((lease, _)) = &self.held {
            lease.ends_upgraded();
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

writes_to_stream!(Upgraded);

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").finish_non_exhaustive()
    }
}
