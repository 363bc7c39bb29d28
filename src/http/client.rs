//! The client: a balancer over pods that speak HTTP. It sends requests again where that is safe.

mod sending;

pub(super) use self::sending::{Prepared, Terms};

use std::{
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryFutureExt;
use http::{Request, Response, uri::Authority};
use http_body::Body;
use tower::{Layer, Service};

#[cfg(feature = "tls")]
use super::tls::TlsHandle;
use super::{
    address,
    body::RequestBody,
    defaults::Defaults,
    error::Error,
    future::{Pods, ResponseFuture, Shared},
    layered::{self, LayeredService},
    response::ResponseBody,
};
use crate::{
    balance::EndpointStatus,
    counters::BalanceCounts,
    error::BoxError,
    explain::{Explainer, Explanation, KeyExplanation},
    membership::MembershipStream,
    route::RouteKey,
};

/// An HTTP client of one service, balanced over its pods.
///
/// Clone it freely: clones are cheap, and share the pods, their connections and their counters. It is a
/// [`tower::Service`] of [`http::Request`]s with any body of [`Bytes`]. So tower's and tower-http's layers go around
/// it, and tonic's generated clients use it as their transport.
///
/// ```no_run
/// use std::time::Duration;
/// use tower_headless::http::Client;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("http://nginx-headless.default:80".parse()?)
///     .timeout(Duration::from_secs(5))
///     .build()?;
/// let response = client.get("/").await?;
/// if let Some(pod) = response.endpoint() {
///     println!("{} from {pod}", response.status());
/// }
/// # Ok(())
/// # }
/// ```
///
/// There is no [timeout](super::ClientBuilder::timeout) unless you set one: without it, a request to a pod that hangs
/// waits forever.
///
/// [`layer`](Self::layer) puts tower's middleware around it; the result is a `Client` again. [A page of the
/// guide](crate::guide::naming) shows how to name the type of a client, or of a [`Balance`](crate::Balance).
///
/// As a service it takes any body. So `ServiceExt::ready` can't infer which; `client.oneshot(request)` and
/// [`execute`](Self::execute) can.
///
/// A client without layers is always ready, even before its pods are known: requests wait for them. To accept traffic
/// only when the pods are known, await `client.discovered()` first.
///
/// # Requests
///
/// A request names a path, or a whole URI of the service. Whichever pod is dialled, `Host` and `:authority` name the
/// service, without the scheme's default port, unless the caller sets a `Host` header. A URI of another authority or
/// scheme is an error ([`Error::is_foreign`]) unless the client [may pass it
/// on](super::ClientBuilder::allow_foreign_authority).
///
/// A body must have its declared length. A `Content-Length` that can't be right is an error before anything is written
/// ([`Error::is_request`]), and so is any `Transfer-Encoding` except `chunked` alone. A stream that turns out shorter
/// or longer than its `Content-Length` or its size hint fails its request ([`Error::is_request_body`]) and ends its
/// connection (HTTP/1.1) or its stream (HTTP/2). A stream of unknown length is sent in chunks over HTTP/1.1, with any
/// method except CONNECT and TRACE.
///
/// A client can be built anywhere, and kept in a `static` that several runtimes use, one after another or at once, as
/// tests do (see [`Balance`](crate::Balance#several-runtimes)). Requests must be made within a tokio runtime. The
/// response's body may be read or dropped anywhere.
///
/// A [`Route`](crate::Route) in a request's extensions says where it wants to go: by a key, to one pod, or away from
/// some pods. The client removes it before the request is sent. A retry also avoids the pods that have failed the
/// request. If a request names neither pod nor key, the client may find its key
/// ([`ClientBuilder::key_from`](super::ClientBuilder::key_from)) and its session (feature `sessions`). A route to one
/// pod comes before the session, and the session before the key.
///
/// Dropping the response's future or its body cancels the request.
///
/// # gRPC
///
/// tonic's generated clients take a client in place of a `Channel`, with [`Protocol::Http2`](super::Protocol::Http2):
/// `GreeterClient::new(client.clone())`, `GreeterClient::with_interceptor(client.clone(), interceptor)`. They need no
/// origin: `:authority` is the service's name. A POST of `application/grpc` counts as a gRPC call; gRPC-Web's requests
/// are ordinary requests.
///
/// | a call that | |
/// | --- | --- |
/// | has a deadline | `request.set_timeout(Duration::from_secs(1))` |
/// | may be executed twice | `request.extensions_mut().insert(Idempotent::default())` |
/// | has a key | `request.extensions_mut().insert(Route::new().key("user-42"))` |
/// | is for one pod | `GreeterClient::new(client.pod("greeter-0"))` |
///
/// **Retries.** A call that no pod has executed goes to another pod: one that was never written, or one that was
/// refused (`REFUSED_STREAM`, GOAWAY) and is no larger than 64 KiB. A call that may have been executed is sent again
/// only if it is marked [`Idempotent`](super::Idempotent): after a lost connection, and after `UNAVAILABLE` without a
/// message before it. Calls are never [hedged](super::ClientBuilder::hedge), because a POST isn't safe.
///
/// **Deadlines.** `grpc-timeout`, as tonic's `Request::set_timeout` writes it, limits the whole call, including retries
/// and a streaming response. If the client's own [timeout](super::ClientBuilder::timeout) is shorter, that applies.
/// Each pod that gets the call is told how much time is left. A malformed `grpc-timeout` is passed on unchanged, and
/// limits nothing.
///
/// If a call has no `grpc-timeout`, pods are told nothing of the client's own timeout. That timeout ends streams, too.
/// To let one call run longer, give it its own: `request.extensions_mut().insert(RequestTimeout(Duration::MAX))` is no
/// limit ([`RequestTimeout`](super::RequestTimeout)).
///
/// **Errors** of the client reach the caller as a gRPC status: a response without a body, or trailers if a response
/// breaks off. Statuses are made after all retries, and outlier detection ignores them. If the error came before the
/// response, the error itself is in the response's extensions, as an `Arc<`[`Error`]`>`; tonic doesn't pass these on.
///
/// [`ResponseBody::endpoint`] tells which pod has answered. In answers to gRPC calls, and below [layers](Self::layer),
/// the response's extensions have it too, as an [`Endpoint`](crate::Endpoint), because there other bodies replace the
/// client's. If the layers of your own stack change the body, `map_response` right above the client can put it there
/// (`examples/layer.rs`).
///
/// | what | code |
/// | --- | --- |
/// | no pod accepts requests, or there is none; a lost connection; a refused call (`REFUSED_STREAM`, GOAWAY) | `UNAVAILABLE` |
/// | the call's timeout has passed, or that of the [first byte](super::ClientBuilder::first_byte_timeout), or a layer's | `DEADLINE_EXCEEDED` |
/// | the pod has reset the call's stream | [gRPC's](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors) for the reset: `CANCELLED`, `RESOURCE_EXHAUSTED`, `INTERNAL` … |
/// | the answer is [more than the client reads](Error::is_limit) | `RESOURCE_EXHAUSTED` |
/// | the request [makes no sense](Error::is_request), or the client doesn't speak HTTP/2 | `INTERNAL` |
/// | the [request's own body](Error::is_request_body) failed | none: that error is the caller's, and tonic finds its own status in it |
///
/// With [`grpc_status(false)`](super::ClientBuilder::grpc_status), and in a [`broadcast`](Self::broadcast), errors stay
/// as they are.
pub struct Client {
    pods: Pods,
    shared: Arc<Shared>,
    /// Whether discovery has answered, as far as this clone knows.
    opened: bool,
    /// Boxed, because most clients have no layers: one word.
    layers: Option<Box<Layers>>,
}

/// A client's place among layers.
#[derive(Default)]
struct Layers {
    /// The client with its layers around it.
    service: Option<LayeredService>,
    /// Whether it is the client that the layers are around.
    is_below: bool,
    /// Why the layers are not ready. The next request returns this error instead of a response.
    failed: Option<Error>,
}

impl Clone for Layers {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            is_below: self.is_below,
            failed: None,
        }
    }
}

impl Client {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            pods: shared.pods.clone(),
            shared: Arc::new(shared),
            opened: false,
            layers: None,
        }
    }

    /// Puts a layer around the client: one of [tower]'s, of [tower-http]'s, or your own. The result is a client, with
    /// all its methods.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::{HeaderValue, StatusCode, header::USER_AGENT};
    /// use tower::ServiceBuilder;
    /// use tower_headless::http::Client;
    /// use tower_http::{
    ///     decompression::DecompressionLayer, follow_redirect::FollowRedirectLayer,
    ///     set_header::SetRequestHeaderLayer, timeout::TimeoutLayer, trace::TraceLayer,
    /// };
    ///
    /// # fn main() -> Result<(), tower_headless::BoxError> {
    /// let agent = HeaderValue::from_static("shop/1.0");
    /// let stack = ServiceBuilder::new()
    ///     .layer(TraceLayer::new_for_http()) // the outermost: it sees what comes in, and what goes out
    ///     .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(2)))
    ///     .layer(SetRequestHeaderLayer::if_not_present(USER_AGENT, agent))
    ///     .layer(FollowRedirectLayer::new()) // within the service: another one is an error
    ///     .layer(DecompressionLayer::new()); // the innermost
    /// let client = Client::builder("http://nginx-headless.default:80".parse()?)
    ///     .build()?
    ///     .layer(stack);
    /// # let _ = async move {
    /// let response = client.get("/").await?;
    /// # Ok::<_, tower_headless::http::Error>(response)
    /// # };
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// - **The last one added is the outermost**, the first to see a request. Within one
    ///   [`ServiceBuilder`](tower::ServiceBuilder) it is the other way round, as everywhere: its first layer is its
    ///   outermost.
    /// - **Retries, hedges and connections are below the layers.** They see one request, whichever pods get it and
    ///   however often. A layer that should go around each pod's service needs a [`Balance`](crate::Balance) of your
    ///   own.
    /// - **They see whole requests**: with the service's scheme and authority even if the caller has named only a path,
    ///   and with a [`RequestBody`]. That type implements `Default` (empty), which `FollowRedirect` needs, and
    ///   [`RequestBody::try_clone`] fits its `clone_body_fn`.
    /// - **[`pod`](Self::pod), [`others`](Self::others) and [`broadcast`](Self::broadcast) go through the layers**, a
    ///   broadcast once for each pod. A request that a layer makes anew, as for a redirect, inherits from the first one
    ///   its [`Route`](crate::Route), that it is [idempotent](super::Idempotent), and the rest of its time. It doesn't
    ///   if the layer sends it from a task of its own.
    /// - **The client's own errors stay what they are**, even if a layer passes them on as a [`BoxError`]. Others are
    ///   [`Error::is_layer`].
    /// - **Layers see the errors of [gRPC calls](Self#grpc)**, as of all requests. The statuses are made above the
    ///   layers, also for errors that a layer returns from `call`.
    /// - **The pod is kept in the response's extensions**, so [`ResponseBody::endpoint`] works even if a layer has
    ///   replaced the body. It is none if a layer has answered itself.
    /// - **A request's own [`timeout`](super::RequestBuilder::timeout)** counts above the layers, up to the response's
    ///   head, and so does a gRPC call's `grpc-timeout`. What the layers send has the rest of that time. For requests
    ///   made by the client's methods, the wait until the layers are ready counts too. The client's
    ///   [`timeout`](super::ClientBuilder::timeout) applies to each request that the layers send.
    /// - **`poll_ready` is the layers'.** A layer that limits something waits there: don't `call` a clone that isn't
    ///   ready.
    ///
    /// `endpoints`, `watch` and `staleness` show the pods below. A client without layers pays nothing for this.
    ///
    /// [tower]: https://docs.rs/tower
    /// [tower-http]: https://docs.rs/tower-http
    #[must_use = "the client without the layer is gone"]
    pub fn layer<L, B>(self, layer: L) -> Self
    where
        L: Layer<Self>,
        L::Service: Service<Request<RequestBody>, Response = Response<B>, Future: Send + 'static>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request<RequestBody>>>::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (pods, shared) = (self.pods.clone(), self.shared.clone());
        let name = shared.config.service.name.clone();
        let is_below = self.is_below();
        let mut below = self;
        below.layers.get_or_insert_default().is_below = true;
        let layers = Layers {
            service: Some(layered::boxed(layer.layer(below), name)),
            is_below,
            failed: None,
        };
        Self {
            pods,
            shared,
            opened: false,
            layers: Some(Box::new(layers)),
        }
    }

    fn is_below(&self) -> bool {
        self.layers.as_ref().is_some_and(|layers| layers.is_below)
    }

    /// Whether this client sends requests through layers first.
    pub(super) fn is_layered(&self) -> bool {
        let layers = self.layers.as_ref();
        layers.is_some_and(|layers| layers.service.is_some())
    }

    /// What is known of each pod now; see [`Balance::endpoints`](crate::Balance::endpoints).
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.pods.endpoints()
    }

    /// A stream of the changes of the set of pods; see [`Balance::watch`](crate::Balance::watch).
    pub fn watch(&self) -> MembershipStream {
        self.pods.watch()
    }

    /// Why requests go where they go, and what is wrong with the pods that get none; see
    /// [`Balance::explain`](crate::Balance::explain).
    pub fn explain(&self) -> Explanation {
        self.pods.explain()
    }

    /// Which pod a request with this key would get now, and why; see [`Balance::explain_key`](crate::Balance::explain_key).
    pub fn explain_key(&self, key: impl Into<RouteKey>) -> Option<KeyExplanation> {
        self.pods.explain_key(key)
    }

    /// Counts since the client was built; see [`Balance::counts`](crate::Balance::counts). None with
    /// [`counters(false)`](super::ClientBuilder::counters).
    pub fn counts(&self) -> Option<BalanceCounts> {
        self.pods.counts()
    }

    /// How long ago discovery last answered; see [`Balance::staleness`](crate::Balance::staleness).
    pub fn staleness(&self) -> Option<Duration> {
        self.pods.staleness()
    }

    /// Waits for discovery's first answer; a server awaits it before it reports ready. See
    /// [`Balance::discovered`](crate::Balance::discovered).
    ///
    /// ```no_run
    /// # async fn start(client: tower_headless::http::Client) -> Result<(), tower_headless::http::Error> {
    /// client.discovered().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If there is none within the [ready timeout](super::ClientBuilder::ready_timeout) ([`Error::is_no_endpoints`]).
    /// The client stays usable.
    pub fn discovered(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.pods.discovered().map_err(Error::balance)
    }

    /// The client's TLS, to reload or replace its certificates. None if the client doesn't speak TLS.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_handle(&self) -> Option<TlsHandle> {
        let tls = self.shared.config.connector.tls.as_ref()?;
        Some(tls.handle())
    }

    /// The authority of this client's requests.
    pub(super) fn authority(&self) -> &Authority {
        &self.shared.config.service.authority
    }

    /// Adds the service's name to an error.
    pub(super) fn named(&self, error: Error) -> Error {
        error.of_service(Some(&self.shared.config.service.name))
    }

    /// The headers, base path and response limit that the client adds.
    pub(super) fn defaults(&self) -> &Defaults {
        &self.shared.defaults
    }

    /// The service, to compare with what requests name.
    pub(super) fn service(&self) -> &address::Service {
        &self.shared.config.service
    }

    pub(super) fn pods(&self) -> &Pods {
        &self.pods
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Self {
            pods: self.pods.clone(),
            shared: self.shared.clone(),
            opened: self.opened,
            layers: self.layers.clone(),
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
        if let Some(layers) = &mut self.layers
            && let Some(service) = &mut layers.service
        {
            if layers.failed.is_none() {
                layers.failed = ready!(service.poll_ready(cx)).err();
            }
            return Poll::Ready(Ok(()));
        }
        // Discovery starts here at the latest. `call` waits for its first answer, because timeouts count there.
        self.opened = self.pods.poll_ready(cx).is_ready();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.layers {
            None => self.call_pods(request),
            Some(_) => self.call_layered(request.map(RequestBody::new)),
        }
    }
}

/// Lists this balancer without keeping it alive.
impl From<&Client> for Explainer {
    fn from(client: &Client) -> Self {
        Self::from(&client.pods)
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
