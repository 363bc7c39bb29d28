//! The thinnest useful HTTP/1.1 client for one pod: an example of an endpoint's service.
//!
//! hyper does the protocol. This module only handles connections: who holds one, when it is free again, and what
//! happens to a request that could not be written.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tower::{BoxError, Service};
use tower_headless::Unsent;

use super::lock;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// HTTP/1.1 to one pod, over as many connections as there are requests in flight.
///
/// `poll_ready` reserves a connection and `call` uses it. The caller sets the `Host` header.
pub struct Connections<B> {
    address: SocketAddr,
    idle: Arc<Idle<B>>,
    reserved: Option<SendRequest<B>>,
    dialing: Option<JoinHandle<Result<SendRequest<B>, BoxError>>>,
}

/// Idle connections, the last used on top, so that the others can grow old and be closed.
struct Idle<B>(Mutex<Vec<SendRequest<B>>>);

impl<B> Idle<B> {
    /// The last used connection that is free. One that is still writing a request that was answered early isn't.
    fn pop(&self) -> Option<SendRequest<B>> {
        let mut idle = lock(&self.0);
        idle.retain(|connection| !connection.is_closed());
        let free = idle.iter().rposition(SendRequest::is_ready)?;
        Some(idle.remove(free))
    }

    fn push(&self, connection: SendRequest<B>) {
        let mut idle = lock(&self.0);
        if !connection.is_closed() {
            idle.push(connection);
        }
    }

    fn clear(&self) {
        lock(&self.0).clear();
    }
}

impl<B> Connections<B> {
    /// Makes a client that has no connection yet.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Arc::new(Idle(Mutex::new(Vec::new()))),
            reserved: None,
            dialing: None,
        }
    }
}

/// A clone shares the idle connections, but not the original's reserved connection.
impl<B> Clone for Connections<B> {
    fn clone(&self) -> Self {
        Self {
            address: self.address,
            idle: Arc::clone(&self.idle),
            reserved: None,
            dialing: None,
        }
    }
}

impl<B> Drop for Connections<B> {
    fn drop(&mut self) {
        if let Some(unused) = self.reserved.take() {
            self.idle.push(unused);
        }
        if let Some(dialing) = self.dialing.take() {
            dialing.abort();
        }
    }
}

impl<B> Service<Request<B>> for Connections<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<PodBody<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            if let Some(reserved) = &mut self.reserved {
                // hyper needs a moment to make a new connection ready. A closed one reports that here.
                match ready!(reserved.poll_ready(cx)) {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(_closed) => self.reserved = None,
                }
            }
            if self.dialing.is_none() {
                self.reserved = self.idle.pop();
            }
            if self.reserved.is_none() {
                let address = self.address;
                let dialing = self
                    .dialing
                    .get_or_insert_with(|| tokio::spawn(dial(address)));
                let dialed = ready!(Pin::new(dialing).poll(cx));
                self.dialing = None;
                self.reserved = Some(dialed??);
            }
        }
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let connection = self.reserved.take();
        let mut connection = connection.expect("poll_ready comes before call");
        let idle = Arc::downgrade(&self.idle);
        Box::pin(async move {
            match connection.try_send_request(request).await {
                Ok(response) => Ok(response.map(|body| PodBody::new(body, connection, idle))),
                Err(mut error) => {
                    // A pod that dies breaks all its connections, so the next request must not use another one.
                    if let Some(idle) = idle.upgrade() {
                        idle.clear();
                    }
                    Err(match error.take_message() {
                        // Not a byte was written, so the request may be sent elsewhere.
                        Some(request) => Unsent::new(request, error.into_error()).into(),
                        None => error.into_error().into(),
                    })
                }
            }
        })
    }
}

async fn dial<B>(address: SocketAddr) -> Result<SendRequest<B>, BoxError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // The task ends with the connection, or when the last sender and body are gone. The request in flight gets its
    // error.
    tokio::spawn(connection);
    Ok(sender)
}

/// A response's body. Its connection is free again when the body has ended. If the body is dropped early, the
/// connection is closed.
#[derive(Debug)]
pub struct PodBody<B> {
    body: Incoming,
    /// Weak, so that a long body doesn't keep the idle connections of a pod that is gone.
    connection: Option<(SendRequest<B>, Weak<Idle<B>>)>,
}

impl<B> PodBody<B> {
    fn new(body: Incoming, connection: SendRequest<B>, idle: Weak<Idle<B>>) -> Self {
        let mut this = Self {
            body,
            connection: Some((connection, idle)),
        };
        if this.body.is_end_stream() {
            this.release();
        }
        this
    }

    fn release(&mut self) {
        if let Some((connection, idle)) = self.connection.take()
            && let Some(idle) = idle.upgrade()
        {
            idle.push(connection);
        }
    }
}

impl<B> Body for PodBody<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Err(_)) => self.connection = None,
            // A caller that knows the length may not poll again after the last frame.
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            Some(Ok(_)) | None => self.release(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
