//! One span for each request, and one in it for each of its attempts, with OpenTelemetry's attributes.
//!
//! ```text
//!  request ──────────────────────────────────▶ head ────────▶ the body's end, or its drop   GET   (client)
//!     ├─ attempt ──▶ 503                                                                    attempt (internal)
//!     └─ attempt ──────────────────────────────▶ 200
//! ```
//!
//! The attributes follow the conventions [for HTTP][conventions for HTTP] and [for gRPC]. They never contain a query, a
//! header's value or credentials.
//!
//! [conventions for HTTP]: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
//! [for gRPC]: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use http::{
    HeaderMap, Method, Request, StatusCode, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use tracing::{Span, field::Empty, info_span};

use super::{address::Service, error::Error, secrets};
use crate::{
    endpoint::Endpoint,
    error::{Error as BalanceError, line},
    logs::REQUESTS,
    outcome::GRPC_STATUS,
};

/// A request's span, shared by its attempts. Layers pass it on in the request's extensions.
#[derive(Clone)]
pub(super) struct Trace(Arc<TraceState>);

struct TraceState {
    span: Span,
    /// How many attempts have begun.
    attempts: AtomicU32,
    is_grpc: bool,
}

impl Trace {
    /// Begins a request's span. None if nobody subscribes to it.
    pub(super) fn begin<B>(request: &Request<B>, service: &Service, is_grpc: bool) -> Option<Self> {
        let span = match is_grpc {
            true => grpc_span(&Target::of(request, service), service),
            false => http_span(request.method(), &Target::of(request, service), service),
        };
        if span.is_disabled() {
            return None;
        }
        let traced = TraceState {
            span,
            attempts: AtomicU32::new(0),
            is_grpc,
        };
        Some(Self(Arc::new(traced)))
    }

    /// The guard that ends the span. There is one for each request.
    pub(super) fn guard(&self) -> RequestSpan {
        RequestSpan {
            trace: self.clone(),
            is_told: false,
        }
    }

    pub(super) fn span(&self) -> &Span {
        &self.0.span
    }

    /// Begins an attempt.
    pub(super) fn attempt(&self) -> AttemptSpan {
        let before = self.0.attempts.fetch_add(1, Relaxed);
        let span = info_span!(
            target: REQUESTS,
            parent: self.span(),
            "attempt",
            otel.kind = "internal",
            endpoint = Empty,
            network.peer.address = Empty,
            network.peer.port = Empty,
            http.request.resend_count = (before > 0).then_some(before),
            http.response.status_code = Empty,
            error.type = Empty,
            otel.status_code = Empty,
            otel.status_description = Empty,
        );
        AttemptSpan {
            span,
            pod: None,
            is_told: false,
        }
    }
}

fn http_span(method: &Method, target: &Target<'_>, service: &Service) -> Span {
    let (known, name) = match KNOWN.contains(method) {
        true => (method.as_str(), method.as_str()),
        false => ("_OTHER", "HTTP"),
    };
    info_span!(
        target: REQUESTS,
        "request",
        service = &*service.name,
        otel.kind = "client",
        otel.name = name,
        http.request.method = known,
        server.address = target.host(),
        server.port = target.port(),
        url.full = target.url(),
        network.peer.address = Empty,
        network.peer.port = Empty,
        http.request.resend_count = Empty,
        http.response.status_code = Empty,
        error.type = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

fn grpc_span(target: &Target<'_>, service: &Service) -> Span {
    let name = target.path.trim_start_matches('/');
    let (rpc_service, method) = name.rsplit_once('/').unwrap_or(("", name));
    info_span!(
        target: REQUESTS,
        "request",
        service = &*service.name,
        otel.kind = "client",
        otel.name = name,
        rpc.system = "grpc",
        rpc.service = rpc_service,
        rpc.method = method,
        server.address = target.host(),
        server.port = target.port(),
        network.peer.address = Empty,
        network.peer.port = Empty,
        http.request.resend_count = Empty,
        http.response.status_code = Empty,
        rpc.grpc.status_code = Empty,
        error.type = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// The methods of RFC 9110 and PATCH. All others are `_OTHER`, to bound the number of values.
const KNOWN: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// What a request is for, without secrets: this service, or another one that its URI names.
struct Target<'a> {
    /// The whole URI, if it is of another service.
    other: Option<&'a Uri>,
    scheme: &'a Scheme,
    /// None if what was parsed as the host may be the beginning of a password.
    authority: Option<&'a Authority>,
    path: &'a str,
}

impl<'a> Target<'a> {
    fn of<B>(request: &'a Request<B>, service: &'a Service) -> Self {
        let uri = request.uri();
        let other = uri.scheme().zip(uri.authority());
        let Some((scheme, authority)) = other.filter(|_| service.is_foreign(request)) else {
            return Self {
                other: None,
                scheme: &service.scheme,
                authority: Some(&service.authority),
                path: uri.path(),
            };
        };
        let rest = uri.path_and_query().map_or("", PathAndQuery::as_str);
        let is_clear = !rest.contains('@');
        Self {
            other: Some(uri),
            scheme,
            authority: is_clear.then_some(authority),
            path: if is_clear { uri.path() } else { "" },
        }
    }

    fn host(&self) -> Option<&str> {
        self.authority.map(Authority::host)
    }

    fn port(&self) -> Option<u16> {
        let implied = match *self.scheme == Scheme::HTTPS {
            true => 443,
            false => 80,
        };
        Some(self.authority?.port_u16().unwrap_or(implied))
    }

    fn url(&self) -> String {
        match (self.other, self.authority) {
            (None, Some(authority)) => format!("{}://{authority}{}", self.scheme, self.path),
            (Some(other), _) => secrets::shown_uri(other),
            (None, None) => String::new(),
        }
    }
}

/// Ends a request's span when the request and its response are over.
pub(super) struct RequestSpan {
    trace: Trace,
    /// Whether the outcome has been recorded.
    is_told: bool,
}

impl RequestSpan {
    fn span(&self) -> &Span {
        self.trace.span()
    }

    fn settle(&mut self, pod: Option<&Endpoint>) {
        self.is_told = true;
        record_peer(self.span(), pod);
        let attempts = self.trace.0.attempts.load(Relaxed);
        if attempts > 1 {
            self.span()
                .record("http.request.resend_count", attempts - 1);
        }
    }

    /// Records the head of a response.
    pub(super) fn answered(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        pod: Option<&Endpoint>,
    ) {
        self.settle(pod);
        record_status(self.span(), status);
        self.trailers(headers);
    }

    /// Records a gRPC call's status, from headers or trailers.
    pub(super) fn trailers(&self, headers: &HeaderMap) {
        if !self.trace.0.is_grpc {
            return;
        }
        let status = headers.get(&GRPC_STATUS).and_then(|it| it.to_str().ok());
        if let Some(status) = status.and_then(|it| it.parse::<u16>().ok()) {
            self.span().record("rpc.grpc.status_code", status);
            if status != 0 {
                record_error(self.span(), status);
            }
        }
    }

    /// Records that there is no response, or that it did not end.
    pub(super) fn failed(&mut self, error: &Error) {
        self.settle(error.endpoint());
        record_error(self.span(), kind(error));
        let text = line(error);
        self.span().record("otel.status_description", &*text);
    }
}

/// Without an outcome, the request was cancelled.
impl Drop for RequestSpan {
    fn drop(&mut self) {
        if !self.is_told {
            self.settle(None);
            record_error(self.span(), CANCELLED);
        }
    }
}

/// The span of an attempt.
pub(super) struct AttemptSpan {
    span: Span,
    /// The pod that it was last sent to.
    pod: Option<Endpoint>,
    is_told: bool,
}

impl AttemptSpan {
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Records the attempt's pod.
    pub(super) fn is_at(&mut self, pod: &Endpoint) {
        if self.pod.as_ref() != Some(pod) {
            self.pod = Some(pod.clone());
            self.span.record("endpoint", tracing::field::display(pod));
            record_peer(&self.span, Some(pod));
        }
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.is_told = true;
        record_status(&self.span, status);
    }

    pub(super) fn failed(&mut self, error: &BalanceError) {
        self.is_told = true;
        let kind = match error.is_unsent() {
            true => "unsent",
            false => "lost",
        };
        record_error(&self.span, kind);
        let text = line(error);
        self.span.record("otel.status_description", &*text);
    }
}

/// Without an outcome it was cancelled, with its request or because another pod has answered.
impl Drop for AttemptSpan {
    fn drop(&mut self) {
        if !self.is_told {
            self.span.record("error.type", CANCELLED);
        }
    }
}

const CANCELLED: &str = "cancelled";

fn record_peer(span: &Span, pod: Option<&Endpoint>) {
    if let Some(address) = pod.map(Endpoint::address) {
        let ip = address.ip().to_string();
        span.record("network.peer.address", &*ip);
        span.record("network.peer.port", address.port());
    }
}

/// For clients, every status from 400 on is an error.
fn record_status(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_client_error() || status.is_server_error() {
        record_error(span, status.as_u16());
    }
}

fn record_error(span: &Span, kind: impl ToString) {
    let kind = kind.to_string();
    span.record("error.type", &*kind);
    span.record("otel.status_code", "ERROR");
}

/// A small set of texts, because they become labels.
fn kind(error: &Error) -> &'static str {
    match error {
        _ if error.is_timeout() => "timeout",
        _ if error.is_request_body() => "request_body",
        _ if error.is_foreign() || error.is_request() => "invalid_request",
        _ if error.is_limit() => "response_limit",
        _ if error.is_no_endpoints() => "no_endpoints",
        _ if error.is_unreachable() => "unreachable",
        _ if error.is_unsent() => "unsent",
        _ if error.is_layer() => "layer",
        _ if error.is_endpoint() || error.is_body() => "lost",
        _ => "_OTHER",
    }
}
