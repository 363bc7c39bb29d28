//! The service of one pod: `poll_ready` reserves a connection, `call` sends a request over it.

use std::{
    future::{Future, poll_fn, ready},
    mem,
    pin::{Pin, pin},
    sync::{Arc, Weak},
    task::{self, Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{
    Method, Request, Response, Uri, Version,
    header::{HOST, TRANSFER_ENCODING},
};
use hyper::{body::Incoming, client::conn::TrySendError};
use pin_project_lite::pin_project;
use tower::Service;

use super::{
    body::{PodRequest, RequestBody},
    cause::{h2_cause, is_too_large},
    deadline::{Deadline, Until},
    error::{Error, RuntimeEnded},
    failure::{failure, is_lost_with_connection, is_not_accepted, late, too_large},
    grpc,
    pool::{Config, DialError, Lease, Named, Pool, Reserved, Wait},
    received::Received,
    response::ResponseBody,
    upload::Returned,
    wire_limits::{OWN_HEADERS, WireLimits},
};
use crate::{
    endpoint::Endpoint,
    error::{BoxError, NoRuntime, Unsent},
    home::Home,
};

pub(super) struct PodService {
    pool: Arc<Pool>,
    reserved: Option<Reserved>,
    /// The runtime in which the wait began, and the wait. Boxed, because most requests need none, and each has a clone
    /// of this.
    wait: Option<Box<(Home, Wait)>>,
}

impl PodService {
    pub(super) fn new(endpoint: &Endpoint, config: Arc<Config>) -> Self {
        Self {
            pool: Pool::new(endpoint.clone(), config),
            reserved: None,
            wait: None,
        }
    }
}

/// A clone shares the pool; a reserved connection stays with the original.
impl Clone for PodService {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            reserved: None,
            wait: None,
        }
    }
}

impl Drop for PodService {
    fn drop(&mut self) {
        if let Some(Reserved::Http1(unused)) = self.reserved.take() {
            Pool::release(&Arc::downgrade(&self.pool), unused);
        }
    }
}

impl Service<PodRequest> for PodService {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self
            .wait
            .as_ref()
            .is_some_and(|wait| !wait.0.runs_beside_us())
        {
            // The request has moved to another runtime, and the previous one may not run.
            self.wait = None;
        }
        loop {
            if self.reserved.as_ref().is_some_and(Reserved::is_open) {
                return Poll::Ready(Ok(()));
            }
            self.reserved = self.pool.reserve();
            if self.reserved.is_some() {
                // The connection that is being made will serve the next request.
                self.wait = None;
                return Poll::Ready(Ok(()));
            }
            let Some((home, wait)) = self.wait.as_deref_mut() else {
                let Some(here) = self.pool.home() else {
                    return Poll::Ready(Err(NoRuntime.into()));
                };
                // Checks again before it waits: if two connections were freed in between, only one of them was told.
                self.wait = Some(Box::new((here, self.pool.connect())));
                continue;
            };
            let waited = match wait {
                Wait::Dial(dialed, _) => task::ready!(Pin::new(dialed).poll(cx))
                    .unwrap_or_else(|_| Err(RuntimeEnded.into()))
                    .map(|connection| self.reserved = connection.map(Reserved::Http1)),
                Wait::Settling(settling) => {
                    let settled = task::ready!(Pin::new(settling).poll(cx));
                    self.reserved = settled.map(Reserved::Http1);
                    Ok(())
                }
                Wait::Shared(dialed, at, _) => {
                    *home = *at;
                    task::ready!(Pin::new(dialed).poll(cx)).map_err(DialError::into_error)
                }
                Wait::Freed(freed) => {
                    task::ready!(Pin::new(freed).poll(cx));
                    Ok(())
                }
            };
            let is_elsewhere = !home.is_here();
            // Its claim to a room ends once it has reserved what it waited for.
            let claim = self.wait.take();
            if waited.is_ok() && self.reserved.is_none() {
                self.reserved = self.pool.reserve();
            }
            drop(claim);
            match waited {
                // The other runtime may have ended, which isn't the pod's failure. The next wait is in this runtime, if
                // it is one.
                Err(_) if is_elsewhere && Home::here().is_some() => {}
                Err(error) if is_elsewhere && error.is::<RuntimeEnded>() => {
                    return Poll::Ready(Err(NoRuntime.into()));
                }
                Err(error) => return Poll::Ready(Err(error)),
                Ok(()) => {}
            }
        }
    }

    #[inline]
    fn call(&mut self, request: PodRequest) -> Self::Future {
        let reserved = self.reserved.take();
        let reserved = reserved.expect("poll_ready comes before call");
        send(&self.pool, reserved, request, CONNECTIONS)
    }
}

/// On how many connections a request is tried before it goes to another pod.
const CONNECTIONS: usize = 3;

type Sent = BoxFuture<'static, Result<Response<ResponseBody>, BoxError>>;

/// Sends the request over one connection, and over others, up to `left` in all, if they turn out to be closed before
/// anything was written: servers close idle connections at will, which says nothing of the pod.
// Inlined, it would copy the request once more.
#[inline(never)]
fn send(pool: &Arc<Pool>, connection: Reserved, mut request: PodRequest, left: usize) -> Sent {
    let service = &pool.config.service;
    let addressed = match connection {
        Reserved::Http1(_)
            if pool.config.connector.is_negotiated()
                && grpc::is_call(request.method(), request.headers()) =>
        {
            let why = "gRPC needs HTTP/2, and the pod has chosen HTTP/1.1 (ALPN)";
            Err(Error::request(why))
        }
        Reserved::Http1(_) => service.address_http1(&mut request),
        Reserved::Http2(_) => {
            grpc::tell_time_left(&mut request);
            service.address_http2(&mut request).map(|()| None)
        }
    };
    let uri = match addressed {
        Ok(uri) => uri,
        Err(error) => return Box::pin(ready(Err(error.into()))),
    };
    let deadline = pool
        .config
        .first_byte
        .and_then(Until::after)
        .map(Deadline::of);
    let mut held = Held {
        pool: Arc::downgrade(pool),
        connection,
        named: pool.named.clone(),
    };
    let call = SendState {
        method: request.method().clone(),
        uri,
        left: left - 1,
        limits: pool.config.connector.limits,
        deadline,
    };
    match &mut held.connection {
        Reserved::Http1(http1) => {
            let sent = http1.begin(request.body_mut()).try_send_request(request);
            Sending::boxed(sent, held, call)
        }
        Reserved::Http2(stream) => {
            request.body_mut().begin();
            let request = request.map(|body| stream.upload(body));
            let sent = stream.sender().try_send_request(request);
            Sending::boxed(sent, held, call)
        }
    }
}

pin_project! {
    /// A request on its way over a connection. Written by hand, because there is one for every request: an async
    /// function would take 2 KiB.
    struct Sending<F> {
        #[pin]
        sent: F,
        held: Option<Held>,
        call: SendState,
        // The request over another connection.
        again: Option<Sent>,
    }
}

type SendResult<B> = Result<Response<Incoming>, TrySendError<Request<B>>>;

impl<F> Sending<F>
where
    F: Send + 'static,
    Self: Future<Output = Result<Response<ResponseBody>, BoxError>>,
{
    fn boxed(sent: F, held: Held, call: SendState) -> Sent {
        Box::pin(Self {
            sent,
            held: Some(held),
            call,
            again: None,
        })
    }
}

impl<F, B> Future for Sending<F>
where
    F: Future<Output = SendResult<B>>,
    B: Returned,
{
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(again) = this.again {
            return again.as_mut().poll(cx);
        }
        const TAKEN: &str = "polled after completion";
        match this.sent.poll(cx) {
            Poll::Ready(Ok(response)) => {
                let held = this.held.take().expect(TAKEN);
                Poll::Ready(held.receive(response, this.call.limits))
            }
            Poll::Ready(Err(error)) => {
                let held = this.held.take().expect(TAKEN);
                let again = mem::take(this.call).again(held, error);
                this.again.insert(again).as_mut().poll(cx)
            }
            Poll::Pending => {
                let Some(deadline) = &mut this.call.deadline else {
                    return Poll::Pending;
                };
                task::ready!(deadline.poll(cx));
                Poll::Ready(Err(late(deadline.whole())))
            }
        }
    }
}

/// What a request, and then its response, holds. It holds the pool weakly, so that a removed pod's connections close.
struct Held {
    pool: Weak<Pool>,
    connection: Reserved,
    named: Named,
}

/// The parts of a request that its response doesn't need, so that they stay here.
#[derive(Default)]
struct SendState {
    method: Method,
    /// The request's original URI, if the connection got another one.
    uri: Option<Box<Uri>>,
    left: usize,
    limits: WireLimits,
    /// When the head of the response must have come.
    deadline: Option<Deadline>,
}

impl Held {
    /// Makes the response, with what it holds.
    #[inline(always)]
    fn receive(
        mut self,
        response: Response<Incoming>,
        limits: WireLimits,
    ) -> Result<Response<ResponseBody>, BoxError> {
        self.connection.answered(&response);
        let http2 = match &self.connection {
            Reserved::Http1(_) => None,
            Reserved::Http2(stream) => {
                if let Err(limit) = limits.check_head(response.headers()) {
                    stream.fate().give_up();
                    return Err(too_large(limit).into());
                }
                Some(stream.http2().clone())
            }
        };
        // hyper would send the next request as HTTP/1.0, too, which has no chunks: a body of unknown length would be
        // dropped. Without a pool, the connection closes after the response.
        let pool = match response.version() {
            Version::HTTP_10 => Weak::new(),
            _ if self.connection.is_ambiguous(&response) => Weak::new(),
            _ => self.pool,
        };
        let lease = Lease::new(self.connection, pool);
        let (head, body) = response.into_parts();
        let body = Received::new(body, limits, http2);
        let body = ResponseBody::received(body, lease, self.named);
        Ok(Response::from_parts(head, body))
    }
}

impl SendState {
    /// Reads a response whose head was too large for hyper's own room again, with the client's.
    async fn read_again(
        &self,
        held: &mut Held,
        error: &hyper::Error,
    ) -> Option<hyper::Result<Response<Incoming>>> {
        let Reserved::Http1(http1) = &mut held.connection else {
            return None;
        };
        if !is_too_large(error) || self.limits.http1_headers <= OWN_HEADERS {
            return None;
        }
        let read = http1.read_again(self.method.clone(), &self.limits).await?;
        if read.is_ok()
            && let Some(pool) = held.pool.upgrade()
        {
            pool.config.connector.large_heads.expect();
        }
        Some(read)
    }

    /// Handles a failed request. Not in `Sending::poll`, whose stack has no room for it.
    #[cold]
    #[inline(never)]
    fn again<B: Returned>(self, held: Held, mut error: TrySendError<Request<B>>) -> Sent {
        let unsent = error.take_message().map(|request| request.map(B::returned));
        Box::pin(self.go_on(held, unsent, error.into_error()))
    }

    /// Sends the request over another connection, if nothing of it was written; or reads its response with more room.
    async fn go_on(
        mut self,
        mut held: Held,
        unsent: Option<Request<RequestBody>>,
        mut error: hyper::Error,
    ) -> Result<Response<ResponseBody>, BoxError> {
        let deadline = self.deadline.take();
        if unsent.is_none()
            && let Some(read) = within(deadline, self.read_again(&mut held, &error)).await?
        {
            match read {
                Ok(response) => {
                    // The connection closes after it.
                    held.pool = Weak::new();
                    return held.receive(response, self.limits);
                }
                Err(again) => error = again,
            }
        }
        // The connection takes no more requests, because of a GOAWAY or because it broke. If only the stream was reset,
        // or h2 rejected the caller's request, the connection is fine.
        if let Reserved::Http2(stream) = &held.connection
            && h2_cause(&error).is_none_or(|cause| cause.is_io() || cause.is_go_away())
        {
            stream.retire();
        }
        let Some(mut request) = unsent else {
            if is_lost_with_connection(&error, &held.connection) {
                held.connection.ending().failed_request(&error);
            }
            let failure = failure(error, &held.connection, &self.limits, &held.pool);
            return Err(failure);
        };
        held.connection.came_too_late(&error);
        drop(held.connection);
        if let Some(uri) = self.uri {
            *request.uri_mut() = *uri;
        }
        // Removes what HTTP/1.1 has added.
        request.headers_mut().remove(HOST);
        request.headers_mut().remove(TRANSFER_ENCODING);
        if is_not_accepted(&error) {
            // The pod wouldn't accept another connection either.
            return Err(Unsent::new(request, error).into());
        }
        match another(&held.pool, self.left).await? {
            Some((pool, connection)) => {
                let sent = send(&pool, connection, request, self.left);
                drop(pool);
                sent.await
            }
            None => Err(Unsent::new(request, error).into()),
        }
    }
}

/// Waits for `coming` until the deadline for the response's head.
async fn within<T>(
    deadline: Option<Deadline>,
    coming: impl Future<Output = T>,
) -> Result<T, BoxError> {
    let Some(mut deadline) = deadline else {
        return Ok(coming.await);
    };
    let mut coming = pin!(coming);
    poll_fn(|cx| match coming.as_mut().poll(cx) {
        Poll::Ready(come) => Poll::Ready(Ok(come)),
        Poll::Pending => deadline.poll(cx).map(|()| Err(late(deadline.whole()))),
    })
    .await
}

/// Another connection, unless there have been enough, or there is none.
async fn another(
    pool: &Weak<Pool>,
    left: usize,
) -> Result<Option<(Arc<Pool>, Reserved)>, NoRuntime> {
    let Some(pool) = pool.upgrade().filter(|_| left > 0) else {
        return Ok(None);
    };
    let mut pod = PodService {
        pool,
        reserved: None,
        wait: None,
    };
    if let Err(error) = poll_fn(|cx| pod.poll_ready(cx)).await {
        return error.downcast().map_or(Ok(None), |error| Err(*error));
    }
    let connection = pod.reserved.take();
    Ok(connection.map(|connection| (pod.pool.clone(), connection)))
}
