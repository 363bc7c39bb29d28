//! An HTTP/1.1 connection whose response has ended, but whose own task has not yet said that it takes another request.
//!
//! It will in some microseconds, on its thread, while the caller goes on on another one. The next request waits for that
//! instead of dialling, but not for long: a connection that is stuck is put aside.

use std::{
    future::Future,
    pin::Pin,
    sync::Weak,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep_until};

use super::{Pool, connection::Http1};
use crate::http::body::RequestBody;

/// What fits into the socket's buffer is written at once, so that only the connection's task is waited for. It is late
/// where the machine is busy, and a handshake would be, too.
const MOMENT: Duration = Duration::from_millis(50);

/// The rest of a longer body may still have to be written, where the pod has answered early. That may take for ever.
const SHORT_MOMENT: Duration = Duration::from_millis(1);

/// The least that systems have for a socket's buffer.
const SOCKET_BUFFER: u64 = 16 * 1024;

/// How long the end of a request with this body may be waited for after its response has ended.
pub(super) fn grace(body: &RequestBody) -> Duration {
    let is_short = match body {
        RequestBody::Empty => true,
        RequestBody::Whole(data) => {
            data.as_ref().map_or(0, |data| data.len() as u64) <= SOCKET_BUFFER
        }
        RequestBody::Stream(_) | RequestBody::Recorded(_) => false,
    };
    if is_short { MOMENT } else { SHORT_MOMENT }
}

/// The wait for it. None where it is not ready in time.
pub(in crate::http) struct Settling {
    connection: Option<Http1>,
    pool: Weak<Pool>,
    deadline: Pin<Box<Sleep>>,
}

impl Settling {
    pub(super) fn new(connection: Http1, pool: Weak<Pool>) -> Self {
        Self {
            deadline: Box::pin(sleep_until(connection.settles_until())),
            connection: Some(connection),
            pool,
        }
    }
}

impl Future for Settling {
    type Output = Option<Http1>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Http1>> {
        let this = &mut *self;
        let Some(connection) = &mut this.connection else {
            return Poll::Ready(None);
        };
        match connection.sender.poll_ready(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(this.connection.take()),
            Poll::Ready(Err(_closed)) => {
                this.connection = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.deadline.as_mut().poll(cx));
                if let Some(stuck) = this.connection.take() {
                    Pool::release_later(&this.pool, stuck);
                }
                Poll::Ready(None)
            }
        }
    }
}

/// Who waited has another connection, or has given up.
impl Drop for Settling {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            Pool::put(&self.pool, connection);
        }
    }
}
