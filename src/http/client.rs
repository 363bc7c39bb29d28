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
    address,
    affinity::{Affinity, Followed},
    body::{PodRequest, RequestBody},
    defaults::Defaults,
    error::Error,
    framing,
    future::{Pods, ResponseFuture, Shared},
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
/// println!("{} from {}", response.status(), response.pod());
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

    /// A request as pods get it, if it makes sense, and the route that it names, or else that `affinity` leads it.
    #[inline]
    pub(super) fn prepare<B>(
        &self,
        mut request: Request<B>,
        affinity: Option<&Affinity>,
    ) -> Result<(Prepared, Route), Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Its timers and connections are a runtime's.
        if tokio::task::try_id().is_none() && Handle::try_current().is_err() {
            return Err(Error::balance(BalanceError::no_runtime()));
        }
        let defaults = self.defaults();
        if defaults.has_headers() {
            defaults.apply(request.headers_mut());
        }
        let length = framing::declared(request.headers())?;
        if let Some(length) = length {
            framing::compare(length, request.body())?;
        }
        let (head, body) = request.into_parts();
        let led =
            affinity.and_then(|affinity| affinity.lead(&head, |route| self.pods.requested(route)));
        let body = RequestBody::measured(body, length);
        let mut request = Request::from_parts(head, body);
        framing::check(&mut request)?;
        let shared = &self.shared;
        shared.config.service.check(&mut request)?;
        let (mut timeout, mut route) = (None, Route::new());
        if !request.extensions().is_empty() {
            let extensions = request.extensions_mut();
            timeout = extensions.remove().map(|RequestTimeout(own)| own);
            route = extensions.remove().unwrap_or_default();
        }
        let mut followed = None;
        if let Some(led) = led {
            (route, followed) = led;
        }
        let prepared = Prepared {
            request,
            timeout: timeout.or(shared.timeout),
            followed,
        };
        Ok((prepared, route))
    }

    /// Gives a request to the balancer.
    #[inline]
    pub(super) fn send(&self, prepared: Prepared, route: Route) -> ResponseFuture {
        let Prepared {
            mut request,
            timeout,
            followed,
        } = prepared;
        let shared = &self.shared;
        shared.retries.allowance.budget.deposit();
        let replay = Replay::of(&mut request, &route, &shared.retries, shared.may_refuse);
        let future = self.pods.call_with(request, route);
        // Who waits for discovery keeps it going.
        let shared = (replay.is_some() || !self.opened).then(|| shared.clone());
        ResponseFuture::new(future, replay, shared, timeout).followed(followed)
    }

    /// The service, as requests name it.
    pub(super) fn authority(&self) -> &Authority {
        &self.shared.config.service.authority
    }

    /// What it adds to its requests.
    pub(super) fn defaults(&self) -> &Defaults {
        &self.shared.defaults
    }

    /// Whether a request may name another service.
    pub(super) fn service(&self) -> &address::Service {
        &self.shared.config.service
    }

    pub(super) fn pods(&self) -> &Pods {
        &self.pods
    }
}

/// A request as pods get it.
pub(super) struct Prepared {
    pub(super) request: PodRequest,
    /// Of the whole.
    pub(super) timeout: Option<Duration>,
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
        match self.prepare(request, self.shared.affinity.as_ref()) {
            Ok((prepared, route)) => self.send(prepared, route),
            Err(error) => ResponseFuture::failed(error),
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
