//! The client: a balancer over pods that speak HTTP, with requests sent again where that is safe.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, uri::Authority};
use http_body::Body;
use tokio::runtime::Handle;
use tower::Service;

#[cfg(feature = "tls")]
use super::tls::TlsHandle;
use super::{
    affinity::{Affinity, Followed},
    body::{PodRequest, RequestBody},
    call::Call,
    error::Error,
    framing,
    future::{Pods, ResponseFuture, Shared},
    grpc::{self, Expiry},
    replay::{Replay, RequestTimeout},
    response::ResponseBody,
};
use crate::{
    balance::EndpointStatus,
    error::{BoxError, Error as BalanceError},
    membership::MembershipStream,
    route::Route,
};

/// An HTTP client of one service, balanced over its pods.
///
/// Cheap to clone, and to be cloned wherever requests come from: clones share the pods, their connections and their
/// counters. It is a [`tower::Service`] of [`http::Request`]s with any body of [`Bytes`], so tower's and tower-http's
/// layers go around it, and tonic's generated clients take it for their transport.
///
/// ```no_run
/// use tower_headless::http::Client;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("http://nginx-headless.default:80".parse()?).build()?;
/// let response = client.get("/").await?;
/// println!("{} from {}", response.status(), response.body().pod());
/// # Ok(())
/// # }
/// ```
///
/// # Requests
///
/// A request names a path, or a whole URI of the service. Whatever pod is dialled, the service is spoken to: `Host` and
/// `:authority` are the caller's `Host` header, else the service's name, without the scheme's default port. A URI of another
/// authority or scheme is an error ([`Error::is_foreign`]) unless the client is
/// [told to pass it on](super::ClientBuilder::allow_foreign_authority).
///
/// A body has the length that was said of it. A `Content-Length` that it can't have is an error before anything is written
/// ([`Error::is_request`]), and so is `Transfer-Encoding`, but for `chunked` alone. A stream that turns out shorter or longer
/// than its `Content-Length` or its size hint fails its request ([`Error::is_request_body`]) and ends its connection (HTTP/1.1)
/// or its stream (HTTP/2). A stream of unknown length is sent in chunks over HTTP/1.1, with any method but CONNECT and TRACE.
///
/// A client can be built anywhere, and kept in a `static` that several runtimes use, one after another or at once, as tests do
/// (see [`Balance`](crate::Balance#several-runtimes)). A request has to be made within a tokio runtime. The response's body may
/// be read, or dropped, anywhere.
///
/// A [`Route`] in a request's extensions says where it wants to go: by a key, to one pod, or away from some. It is taken out
/// before the request is sent. A retry avoids the pods that have failed as well. Of a request that says nothing, the client may
/// find the key itself ([`ClientBuilder::key_from`](super::ClientBuilder::key_from)), and its session (feature `sessions`).
/// Where a request has more than one of these, a route to one pod comes first, then the session, then the key.
///
/// Dropping the response's future or its body cancels the request.
///
/// # gRPC
///
/// tonic's generated clients take a client for their `Channel`, with [`Protocol::Http2`](super::Protocol::Http2):
/// `HealthClient::new(client.clone())`, `HealthClient::with_interceptor(client.clone(), interceptor)`. A call is a POST of
/// `application/grpc`; gRPC-Web's requests are like any others.
///
/// **Deadlines.** `grpc-timeout`, as tonic's `Request::set_timeout` writes it, is the time of the whole call, retries and a
/// streaming response included. If the client's own [timeout](super::ClientBuilder::timeout) is shorter, that counts. Each pod is
/// told what is left when it gets the call. A malformed one is passed on as it is, and bounds nothing.
///
/// **Errors** of the client's reach the caller as a gRPC status: a response without a body, or trailers where a response breaks
/// off. They are made after all retries, and say nothing to outlier detection. The error itself, an `Arc<`[`Error`]`>`, is in
/// the response's extensions, if it came before the response; tonic doesn't hand these on.
///
/// | what | code |
/// | --- | --- |
/// | no pod, or none that accepts requests; a lost connection; a refused call (`REFUSED_STREAM`, GOAWAY) | `UNAVAILABLE` |
/// | the call's time is up, or that of the [first byte](super::ClientBuilder::first_byte_timeout) | `DEADLINE_EXCEEDED` |
/// | the pod has reset the call's stream | [gRPC's](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors) for the reset: `CANCELLED`, `RESOURCE_EXHAUSTED`, `INTERNAL` … |
/// | the answer is [more than the client reads](Error::is_limit) | `RESOURCE_EXHAUSTED` |
/// | the request [makes no sense](Error::is_request), or the client speaks no HTTP/2 | `INTERNAL` |
/// | the [request's own body](Error::is_request_body) failed | none: that error is the caller's, and tonic finds its own status in it |
///
/// [`grpc_status(false)`](super::ClientBuilder::grpc_status) leaves errors as they are. [`broadcast`](Self::broadcast) always does.
pub struct Client {
    pods: Pods,
    shared: Arc<Shared>,
    /// Discovery has answered, as far as this clone knows.
    opened: bool,
}

impl Client {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            pods: shared.pods.clone(),
            shared: Arc::new(shared),
            opened: false,
        }
    }

    /// What is known of the pods now; see [`Balance::endpoints`](crate::Balance::endpoints).
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.pods.endpoints()
    }

    /// The changes of the set of pods; see [`Balance::watch`](crate::Balance::watch).
    pub fn watch(&self) -> MembershipStream {
        self.pods.watch()
    }

    /// How long ago discovery last answered; see [`Balance::staleness`](crate::Balance::staleness).
    pub fn staleness(&self) -> Option<Duration> {
        self.pods.staleness()
    }

    /// The client's TLS, to have certificates read again or replaced; none if it speaks none.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_handle(&self) -> Option<TlsHandle> {
        let tls = self.shared.config.connector.tls.as_ref()?;
        Some(tls.handle())
    }

    /// A request as pods get it, if it makes sense. Its route is the one that it names, or else where `affinity` leads it.
    pub(super) fn prepare<B>(
        &self,
        request: Request<B>,
        affinity: Option<&Affinity>,
    ) -> Result<Prepared, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let is_grpc = grpc::is_call(request.method(), request.headers());
        let length = self.length(&request, is_grpc)?;
        let mut prepared = self.take(request, length, is_grpc, affinity);
        self.check(&mut prepared.request)?;
        Ok(prepared)
    }

    /// The length that a request declares, where it does and has it. In a runtime: its timers and connections are that one's.
    fn length(&self, request: &Request<impl Body>, is_grpc: bool) -> Result<Option<u64>, Error> {
        if tokio::task::try_id().is_none() && Handle::try_current().is_err() {
            return Err(Error::balance(BalanceError::no_runtime()));
        }
        if is_grpc && !self.shared.config.connector.may_speak_http2() {
            return Err(Error::request(NEEDS_HTTP2));
        }
        let length = framing::declared(request.headers())?;
        if let Some(length) = length {
            framing::compare(length, request.body())?;
        }
        Ok(length)
    }

    /// A request of this length, if it declares any, with what it says of itself.
    fn take<B>(
        &self,
        request: Request<B>,
        length: Option<u64>,
        is_grpc: bool,
        affinity: Option<&Affinity>,
    ) -> Prepared
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut head, body) = request.into_parts();
        let led =
            affinity.and_then(|affinity| affinity.lead(&head, |route| self.pods.requested(route)));
        let (mut timeout, mut route, mut followed) = (self.shared.timeout, Route::new(), None);
        if !head.extensions.is_empty() {
            let own = head.extensions.remove();
            timeout = own.map(|RequestTimeout(own)| own).or(timeout);
            route = head.extensions.remove().unwrap_or_default();
        }
        if let Some(led) = led {
            (route, followed) = led;
        }
        let limit = is_grpc.then(|| grpc::timeout(&head.headers)).flatten();
        if let Some(limit) = limit {
            timeout = Some(timeout.map_or(limit, |timeout| timeout.min(limit)));
        }
        Prepared {
            request: Request::from_parts(head, RequestBody::new(body, length)),
            timeout,
            route,
            tells_timeout: limit.is_some(),
            ends_in_status: is_grpc && self.shared.grpc_status,
            followed,
        }
    }

    fn check(&self, request: &mut PodRequest) -> Result<(), Error> {
        framing::check(request)?;
        self.shared.config.service.check(request)
    }

    /// The end of a request that makes no sense.
    #[cold]
    fn refuse(&self, error: Error, is_grpc: bool) -> ResponseFuture {
        let mut future = ResponseFuture::failed(self.named(error));
        if is_grpc && self.shared.grpc_status {
            future.set_grpc(Call { expiry: None });
        }
        future
    }

    /// Gives a request to the balancer.
    #[inline]
    pub(super) fn send(&self, mut prepared: Prepared) -> ResponseFuture {
        let shared = &self.shared;
        let mut expiry = None;
        if prepared.tells_timeout {
            expiry = prepared.timeout.and_then(Expiry::after);
            if let Some(expiry) = expiry {
                prepared.request.extensions_mut().insert(expiry);
            }
        }
        shared.retries.allowance.budget.deposit();
        let (request, route) = (&mut prepared.request, &prepared.route);
        let replay = Replay::of(request, route, &shared.retries, shared.may_refuse);
        let future = self.pods.call_with(prepared.request, prepared.route);
        // Who waits for discovery keeps it going.
        let shared = (replay.is_some() || !self.opened).then(|| shared.clone());
        let timeout = prepared.timeout;
        let mut future = ResponseFuture::new(future, replay, shared, timeout, prepared.followed);
        if prepared.ends_in_status {
            future.set_grpc(Call { expiry });
        }
        future
    }

    /// The service, as requests name it.
    pub(super) fn authority(&self) -> &Authority {
        &self.shared.config.service.authority
    }

    /// An error of a request of this client.
    pub(super) fn named(&self, error: Error) -> Error {
        error.with_service(Some(&self.shared.config.service.name))
    }

    pub(super) fn pods(&self) -> &Pods {
        &self.pods
    }
}

/// In clear, HTTP/1.1 is spoken unless the client is told otherwise, and gRPC is over HTTP/2 alone.
const NEEDS_HTTP2: &str =
    "gRPC needs HTTP/2: set `.protocol(Protocol::Http2)` on the client's builder";

/// A request as pods get it.
pub(super) struct Prepared {
    pub(super) request: PodRequest,
    /// Of the whole.
    pub(super) timeout: Option<Duration>,
    pub(super) route: Route,
    /// Pods are told how much of that is left.
    pub(super) tells_timeout: bool,
    /// It is a gRPC call, and so is told of errors.
    pub(super) ends_in_status: bool,
    pub(super) followed: Option<Box<Followed>>,
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Self {
            pods: self.pods.clone(),
            shared: self.shared.clone(),
            opened: self.opened,
        }
    }
}

impl<B> Service<Request<B>> for Client
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Discovery begins, at the latest. Its first answer is waited for in `call`, where timeouts count.
        self.opened = self.pods.poll_ready(cx).is_ready();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_grpc = grpc::is_call(request.method(), request.headers());
        // As `prepare` does it, but the request, which is large, is moved once.
        let length = match self.length(&request, is_grpc) {
            Ok(length) => length,
            Err(error) => return self.refuse(error, is_grpc),
        };
        let mut prepared = self.take(request, length, is_grpc, self.shared.affinity.as_ref());
        match self.check(&mut prepared.request) {
            Ok(()) => self.send(prepared),
            Err(error) => self.refuse(error, is_grpc),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("service", &self.shared.config.service.authority)
            .field("pods", &self.pods)
            .finish_non_exhaustive()
    }
}
