//! The client: a balancer over pods that speak HTTP. It sends requests again where that is safe.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryFutureExt;
use http::{Request, Response, header::CONTENT_TYPE, uri::Authority};
use http_body::Body;
use tokio::runtime::Handle;
use tower::{Layer, Service};

#[cfg(feature = "test-util")]
use super::kept_head::KeptHead;
#[cfg(feature = "tls")]
use super::tls::TlsHandle;
use super::{
    address,
    affinity::{Affinity, Followed, Led},
    body::{PodRequest, RequestBody},
    deadline::Until,
    defaults::Defaults,
    error::{Error, Wait},
    framing,
    future::{Pods, ResponseFuture, Shared, Tracing},
    grpc::{self, Errors, Expiry},
    layered::{self, Executed, LayeredService, Through},
    replay::{Replay, RequestTimeout},
    response::ResponseBody,
    span::Trace,
    traced::Traced,
};
use crate::{
    attempts::AttemptLog,
    balance::EndpointStatus,
    counters::BalanceCounts,
    error::{BoxError, Error as BalanceError},
    explain::{Explainer, Explanation, KeyExplanation},
    membership::MembershipStream,
    route::{Route, RouteKey},
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
/// A [`Route`] in a request's extensions says where it wants to go: by a key, to one pod, or away from some pods. The
/// client removes it before the request is sent. A retry also avoids the pods that have failed the request. If a
/// request names neither pod nor key, the client may find its key
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
    ///   its [`Route`], that it is [idempotent](super::Idempotent), and the rest of its time. It doesn't if the layer
    ///   sends it from a task of its own.
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

    /// Makes a request ready for pods, or returns why it makes no sense. Its own route comes before the one that
    /// `affinity` finds.
    pub(super) fn prepare<B>(
        &self,
        mut request: Request<B>,
        affinity: Option<&Affinity>,
    ) -> Result<Prepared, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let is_grpc = self.begin(&mut request)?;
        let length = self.length(&request, is_grpc)?;
        let mut led = None;
        if let Some(affinity) = affinity {
            (request, led) = self.lead(request, affinity);
        }
        let terms = self.terms(&mut request, is_grpc, led);
        self.check(&mut request)?;
        let request = request.map(|body| RequestBody::measured(body, length));
        Ok(Prepared { request, terms })
    }

    /// Adds the client's default headers, and tells whether the request is a gRPC call then. Fails outside of a
    /// runtime, which owns the request's timers and connections.
    fn begin<B>(&self, request: &mut Request<B>) -> Result<bool, Error> {
        if tokio::task::try_id().is_none() && Handle::try_current().is_err() {
            return Err(Error::balance(BalanceError::no_runtime()));
        }
        self.add_defaults(request);
        Ok(grpc::is_call(request.method(), request.headers()))
    }

    /// A request for another service gets none of them: they may be credentials.
    fn add_defaults<B>(&self, request: &mut Request<B>) {
        let defaults = self.defaults();
        if defaults.has_headers() && !self.service().is_foreign(request) {
            defaults.apply(request.headers_mut());
        }
    }

    /// The declared length, if there is one. Fails if the body can't have it.
    fn length(&self, request: &Request<impl Body>, is_grpc: bool) -> Result<Option<u64>, Error> {
        if is_grpc && !self.shared.config.connector.may_speak_http2() {
            return Err(Error::request(NEEDS_HTTP2));
        }
        let length = framing::declared(request.headers())?;
        if let Some(length) = length {
            framing::compare(length, request.body())?;
        }
        Ok(length)
    }

    /// Finds where `affinity` leads the request.
    fn lead<B>(&self, request: Request<B>, affinity: &Affinity) -> (Request<B>, Option<Led>) {
        let (head, body) = request.into_parts();
        let led = affinity.lead(&head, |route| self.pods.requested(route));
        (Request::from_parts(head, body), led)
    }

    /// Takes out of the request what it says to the client.
    #[inline]
    fn terms<B>(&self, request: &mut Request<B>, is_grpc: bool, led: Option<Led>) -> Terms {
        let (mut timeout, mut route, mut followed) = (self.shared.timeout, Route::new(), None);
        let mut outer: Option<Until> = None;
        let extensions = request.extensions_mut();
        if !extensions.is_empty() {
            let own = extensions.remove();
            if let Some(RequestTimeout(own)) = own {
                timeout = (own != Duration::MAX).then_some(own);
            }
            outer = extensions.remove();
            route = extensions.remove().unwrap_or_default();
        }
        if let Some(led) = led {
            (route, followed) = led;
        }
        let limit = is_grpc.then(|| grpc::timeout(request.headers())).flatten();
        if let Some(limit) = limit {
            timeout = Some(timeout.map_or(limit, |timeout| timeout.min(limit)));
        }
        Terms {
            timeout,
            outer,
            route,
            tells_timeout: limit.is_some(),
            names_pod: is_grpc || self.is_below(),
            errors: self.errors(is_grpc),
            followed,
        }
    }

    fn check<B: Body>(&self, request: &mut Request<B>) -> Result<(), Error> {
        framing::check(request)?;
        self.shared.config.service.check(request)
    }

    /// Ends a request that makes no sense.
    #[cold]
    fn refuse(&self, error: Error, is_grpc: bool, route: Option<&Route>) -> ResponseFuture {
        let log = self.log(&mut route.cloned().unwrap_or_default());
        ResponseFuture::failed(self.named(error))
            .for_call(self.errors(is_grpc), None)
            .traced(Tracing::logged(None, log))
    }

    /// How this call's errors are told. Layers get typed errors; the client around the layers turns them into statuses.
    fn errors(&self, is_grpc: bool) -> Option<Errors> {
        let errors = match self.is_below() {
            true => Errors::Typed,
            false => Errors::Statuses,
        };
        (is_grpc && self.shared.grpc_status).then_some(errors)
    }

    /// Sends a request to the balancer.
    #[inline]
    pub(super) fn send(&self, mut request: PodRequest, mut terms: Terms) -> ResponseFuture {
        let own = terms.timeout.and_then(Until::after);
        let until = Until::first(own.into_iter().chain(terms.outer));
        if let Some(until) = until.filter(|until| until.left().is_zero()) {
            let error = Error::not_sent(until.whole(), Wait::None, false);
            return self.refuse(error, terms.errors.is_some(), Some(&terms.route));
        }
        let shared = &self.shared;
        let mut expiry = None;
        if terms.tells_timeout {
            expiry = until.map(Expiry::of);
            if let Some(expiry) = expiry {
                request.extensions_mut().insert(expiry);
            }
        }
        shared.retries.allowance.budget.deposit();
        let is_told = shared.has_spans | shared.has_attempts | terms.route.log().is_some();
        let tracing = match is_told {
            true => self.trace(&mut request, &mut terms.route),
            false => None,
        };
        let replay = Replay::of(
            &mut request,
            &terms.route,
            &shared.retries,
            shared.may_refuse,
        );
        let trace = tracing.as_ref().and_then(|tracing| tracing.trace.as_ref());
        let send = || self.pods.call_with(request, terms.route);
        let future = match trace {
            None => Traced::new(None, send),
            Some(it) => it.span().in_scope(|| Traced::new(trace, send)),
        };
        // A request that waits for discovery keeps it running.
        let shared = (replay.is_some() || !self.opened).then(|| shared.clone());
        ResponseFuture::new(future, replay, shared, until, terms.followed)
            .naming_pod(terms.names_pod)
            .for_call(terms.errors, expiry)
            .traced(tracing)
    }

    /// The request's span and its log of attempts: its own, or those of the request that the layers made it from.
    #[cold]
    fn trace(&self, request: &mut PodRequest, route: &mut Route) -> Option<Tracing> {
        let log = self.log(route);
        if !self.shared.has_spans {
            return Tracing::logged(None, log);
        }
        let tracing = match request.extensions_mut().remove::<Trace>() {
            Some(trace) => Some(Tracing {
                trace: Some(trace),
                ..Tracing::default()
            }),
            None => {
                let is_call = grpc::is_call(request.method(), request.headers());
                self.begin_trace(request, is_call)
            }
        };
        Tracing::logged(tracing, log)
    }

    /// The log of attempts, if this request, or the client's settings, ask for one.
    fn log(&self, route: &mut Route) -> Option<AttemptLog> {
        if self.shared.has_attempts && route.log().is_none() {
            *route = std::mem::take(route).record(&AttemptLog::new());
        }
        route.log().cloned()
    }

    fn begin_trace(&self, request: &Request<RequestBody>, is_call: bool) -> Option<Tracing> {
        let trace = Trace::begin(request, self.service(), is_call)?;
        Some(Tracing {
            guard: Some(trace.guard()),
            trace: Some(trace),
            log: None,
        })
    }

    /// The span and the log of a request that goes through layers: one for all requests that they make of it.
    fn trace_layered(&self, request: &mut Request<RequestBody>, is_call: bool) -> Option<Tracing> {
        if self.is_below() {
            return None;
        }
        let mut route = request.extensions_mut().remove().unwrap_or_default();
        let log = self.log(&mut route);
        if !route.is_empty() {
            request.extensions_mut().insert(route);
        }
        let tracing = match self.shared.has_spans {
            true => self.begin_trace(request, is_call),
            false => None,
        };
        if let Some(trace) = tracing.as_ref().and_then(|tracing| tracing.trace.clone()) {
            request.extensions_mut().insert(trace);
        }
        Tracing::logged(tracing, log)
    }

    /// Sends the request without layers.
    #[inline]
    fn call_pods<B>(&self, mut request: Request<B>) -> ResponseFuture
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Does what `prepare` does, but moves the request, which is large, less often.
        let is_grpc = match self.begin(&mut request) {
            Ok(is_grpc) => is_grpc,
            Err(error) => {
                let is_grpc = grpc::is_call(request.method(), request.headers());
                return self.refuse(error, is_grpc, request.extensions().get());
            }
        };
        let length = match self.length(&request, is_grpc) {
            Ok(length) => length,
            Err(error) => return self.refuse(error, is_grpc, request.extensions().get()),
        };
        let mut led = None;
        if let Some(affinity) = &self.shared.affinity {
            (request, led) = self.lead(request, affinity);
        }
        let terms = self.terms(&mut request, is_grpc, led);
        match self.check(&mut request) {
            Ok(()) => {
                let measured = request.map(|body| RequestBody::measured(body, length));
                self.send(measured, terms)
            }
            Err(error) => self.refuse(error, is_grpc, Some(&terms.route)),
        }
    }

    /// A request that goes into the layers, or comes out of them.
    #[cold]
    fn call_layered(&mut self, mut request: Request<RequestBody>) -> ResponseFuture {
        let is_call = self.enter(&mut request);
        let tracing = match self.is_layered() {
            true => self.trace_layered(&mut request, is_call),
            false => None,
        };
        let layers = self.layers.as_mut();
        if let Some(error) = layers.and_then(|layers| layers.failed.take()) {
            return ResponseFuture::failed(error)
                .for_call(self.errors(is_call), None)
                .traced(tracing);
        }
        let layers = self.layers.as_mut();
        let Some(layers) = layers.and_then(|layers| layers.service.as_mut()) else {
            let executed = request.extensions_mut().remove::<Executed>();
            let future = self.call_pods(request);
            return match executed {
                Some(executed) => ResponseFuture::layered(Through::noted(future, executed)),
                None => future,
            };
        };
        let name = &self.shared.config.service.name;
        let give = || Through::given(layers, request, name);
        let trace = tracing.as_ref().and_then(|tracing| tracing.trace.as_ref());
        let through = match trace {
            None => give(),
            // The span covers what the layers do in `call`, too.
            Some(trace) => trace.span().in_scope(give),
        };
        ResponseFuture::layered(through)
            .for_call(self.errors(is_call), None)
            .traced(tracing)
    }

    /// Starts a request without a `poll_ready` before it: the wait for the layers counts as the request's own time.
    pub(super) fn start(
        &mut self,
        request: Request<RequestBody>,
        cx: &mut Context<'_>,
    ) -> ResponseFuture {
        if !self.is_layered() {
            // A client without layers is always ready.
            let _ = Service::<Request<RequestBody>>::poll_ready(self, cx);
            return self.call(request);
        }
        self.wait_layered(request, true)
    }

    /// [`start`](Self::start) of a layered client. `tells` says whether a gRPC call gets its errors as statuses.
    pub(super) fn wait_layered(
        &self,
        mut request: Request<RequestBody>,
        tells: bool,
    ) -> ResponseFuture {
        let is_call = self.enter(&mut request);
        let layers = self.layers.as_ref();
        let Some(layers) = layers.and_then(|layers| layers.service.clone()) else {
            return self.call_pods(request);
        };
        let tracing = self.trace_layered(&mut request, is_call);
        let name = &self.shared.config.service.name;
        let through = Through::waiting(layers, request, name);
        ResponseFuture::layered(through)
            .for_call(self.errors(is_call && tells), None)
            .traced(tracing)
    }

    /// Prepares a request that goes into the layers or comes out of them. Returns whether it is a gRPC call.
    fn enter(&self, request: &mut Request<RequestBody>) -> bool {
        let is_call =
            grpc::is_call(request.method(), request.headers()) || self.is_call_by_default(request);
        if self.is_below() {
            layered::inherit(request);
        } else {
            self.shared.config.service.name_whole(request.uri_mut());
        }
        if self.is_layered() {
            let limit = is_call.then(|| grpc::timeout(request.headers())).flatten();
            layered::bound(request, limit);
        }
        is_call
    }

    /// Whether the default headers will turn the request into a gRPC call.
    fn is_call_by_default(&self, request: &Request<RequestBody>) -> bool {
        let defaults = self.defaults();
        !request.headers().contains_key(CONTENT_TYPE)
            && grpc::is_call(request.method(), defaults.headers())
            && !self.service().is_foreign(request)
    }

    /// Makes the checks of a request that a test's function answers instead of pods.
    #[cfg(feature = "test-util")]
    pub(super) fn check_only(&self, request: &Request<RequestBody>) -> Result<(), Error> {
        let is_grpc = grpc::is_call(request.method(), request.headers());
        self.length(request, is_grpc)?;
        framing::check_body(request)?;
        self.service()
            .check(&mut KeptHead::of(request).with(RequestBody::EMPTY))
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

/// Without TLS a client speaks HTTP/1.1 by default, and gRPC needs HTTP/2.
const NEEDS_HTTP2: &str =
    "gRPC needs HTTP/2: set `.protocol(Protocol::Http2)` on the client's builder";

/// A request that is ready for the balancer.
pub(super) struct Prepared {
    pub(super) request: PodRequest,
    pub(super) terms: Terms,
}

/// What a request says to the client only; pods don't see it.
pub(super) struct Terms {
    /// How long the request may take, from when it is sent.
    pub(super) timeout: Option<Duration>,
    /// The deadline of the outer request that layers made this one from.
    pub(super) outer: Option<Until>,
    pub(super) route: Route,
    /// Whether pods are told how much of the timeout is left.
    pub(super) tells_timeout: bool,
    /// Whether the response's extensions get the pod, too.
    pub(super) names_pod: bool,
    /// How errors are told, if it is a gRPC call.
    pub(super) errors: Option<Errors>,
    pub(super) followed: Option<Box<Followed>>,
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
