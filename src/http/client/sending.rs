//! The way of a request through the client: from a caller's request to one for the balancer, with and without layers.

use std::{task::Context, time::Duration};

use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use http_body::Body;
use tokio::runtime::Handle;
use tower::Service;

#[cfg(feature = "test-util")]
use super::super::kept_head::KeptHead;
use super::{
    super::{
        affinity::{Affinity, Followed, Led},
        body::{PodRequest, RequestBody},
        deadline::Until,
        error::{Error, Wait},
        framing,
        future::{ResponseFuture, Tracing},
        grpc::{self, Errors, Expiry},
        layered::{self, Executed, Through},
        replay::{Replay, RequestTimeout},
        span::Trace,
        traced::Traced,
    },
    Client,
};
use crate::{
    attempts::AttemptLog,
    error::{BoxError, Error as BalanceError},
    route::Route,
};

impl Client {
    /// Makes a request ready for pods, or returns why it makes no sense. Its own route comes before the one that
    /// `affinity` finds.
    pub(in crate::http) fn prepare<B>(
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
    pub(in crate::http) fn send(
        &self,
        mut request: PodRequest,
        mut terms: Terms,
    ) -> ResponseFuture {
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
    pub(super) fn call_pods<B>(&self, mut request: Request<B>) -> ResponseFuture
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
    pub(super) fn call_layered(&mut self, mut request: Request<RequestBody>) -> ResponseFuture {
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
    pub(in crate::http) fn start(
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
    pub(in crate::http) fn wait_layered(
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
    pub(in crate::http) fn check_only(&self, request: &Request<RequestBody>) -> Result<(), Error> {
        let is_grpc = grpc::is_call(request.method(), request.headers());
        self.length(request, is_grpc)?;
        framing::check_body(request)?;
        self.service()
            .check(&mut KeptHead::of(request).with(RequestBody::EMPTY))
    }
}

/// Without TLS a client speaks HTTP/1.1 by default, and gRPC needs HTTP/2.
const NEEDS_HTTP2: &str =
    "gRPC needs HTTP/2: set `.protocol(Protocol::Http2)` on the client's builder";

/// A request that is ready for the balancer.
pub(in crate::http) struct Prepared {
    pub(in crate::http) request: PodRequest,
    pub(in crate::http) terms: Terms,
}

/// What a request says to the client only; pods don't see it.
pub(in crate::http) struct Terms {
    /// How long the request may take, from when it is sent.
    pub(in crate::http) timeout: Option<Duration>,
    /// The deadline of the outer request that layers made this one from.
    pub(in crate::http) outer: Option<Until>,
    pub(in crate::http) route: Route,
    /// Whether pods are told how much of the timeout is left.
    pub(in crate::http) tells_timeout: bool,
    /// Whether the response's extensions get the pod, too.
    pub(in crate::http) names_pod: bool,
    /// How errors are told, if it is a gRPC call.
    pub(in crate::http) errors: Option<Errors>,
    pub(in crate::http) followed: Option<Box<Followed>>,
}
