//! One span for each request, and one in it for each of its attempts, with OpenTelemetry's attributes.
//!
//! ```text
//!  request ──────────────────────────────────▶ head ────────▶ the body's end, or its drop   GET   (client)
//!     ├─ attempt ──▶ 503                                                                    attempt (internal)
//!     └─ attempt ──────────────────────────────▶ 200
//! ```
//!
//! The attributes are those of the [conventions for HTTP] and [for gRPC]. A query, a header's value or credentials are in none.
//!
//! [conventions for HTTP]: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
//! [for gRPC]: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use http::{HeaderMap, Method, Request, StatusCode, Uri, uri::Scheme};
use tracing::{Span, field::Empty, info_span};

use super::{address::Service, error::Error};
use crate::{
    endpoint::Endpoint,
    error::{Error as BalanceError, line},
    logs::REQUESTS,
    outcome::GRPC_STATUS,
};

/// The span of a request, as its attempts know it. It travels through layers in the request's extensions.
#[derive(Clone)]
pub(super) struct Trace(Arc<Traced>);

struct Traced {
    span: Span,
    /// How many attempts have begun.
    attempts: AtomicU32,
    is_grpc: bool,
}

impl Trace {
    /// A request's span begins. None if nobody wants it.
    pub(super) fn begin<B>(request: &Request<B>, service: &Service, is_grpc: bool) -> Option<Self> {
        let span = match is_grpc {
            true => grpc_span(request.uri(), service),
            false => http_span(request.method(), request.uri(), service),
        };
        if span.is_disabled() {
            return None;
        }
        let traced = Traced {
            span,
            attempts: AtomicU32::new(0),
            is_grpc,
        };
        Some(Self(Arc::new(traced)))
    }

    /// What makes the span end. There is one for each request.
    pub(super) fn guard(&self) -> RequestSpan {
        RequestSpan {
            trace: self.clone(),
            is_told: false,
        }
    }

    pub(super) fn span(&self) -> &Span {
        &self.0.span
    }

    /// An attempt begins.
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

fn http_span(method: &Method, uri: &Uri, service: &Service) -> Span {
    let (known, name) = match KNOWN.contains(method) {
        true => (method.as_str(), method.as_str()),
        false => ("_OTHER", "HTTP"),
    };
    let (scheme, authority) = named(uri, service);
    info_span!(
        target: REQUESTS,
        "request",
        service = &*service.name,
        otel.kind = "client",
        otel.name = name,
        http.request.method = known,
        server.address = authority.host(),
        server.port = port(scheme, authority),
        url.full = format_args!("{scheme}://{}{}", without_user(authority.as_str()), uri.path()),
        network.peer.address = Empty,
        network.peer.port = Empty,
        http.request.resend_count = Empty,
        http.response.status_code = Empty,
        error.type = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

fn grpc_span(uri: &Uri, service: &Service) -> Span {
    let (scheme, authority) = named(uri, service);
    let name = uri.path().trim_start_matches('/');
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
        server.address = authority.host(),
        server.port = port(scheme, authority),
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

/// The methods of RFC 9110 and PATCH. Any other is `_OTHER`, for there may be any number.
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

type Named<'a> = (&'a Scheme, &'a http::uri::Authority);

/// What a request goes to: what its URI names, or else the service.
fn named<'a>(uri: &'a Uri, service: &'a Service) -> Named<'a> {
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) => (scheme, authority),
        _ => (&service.scheme, &service.authority),
    }
}

fn port(scheme: &Scheme, authority: &http::uri::Authority) -> u16 {
    let implied = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    authority.port_u16().unwrap_or(implied)
}

/// Credentials may stand before the host.
fn without_user(authority: &str) -> &str {
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

/// The span of a request, for as long as it or its response is under way.
pub(super) struct RequestSpan {
    trace: Trace,
    /// What has come of it has been recorded.
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

    /// A response has begun.
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

    /// Takes note of a gRPC call's status, wherever it stands.
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

    /// There is no response, or no end of it.
    pub(super) fn failed(&mut self, error: &Error) {
        self.settle(error.endpoint());
        record_error(self.span(), kind(error));
        let text = line(error);
        self.span().record("otel.status_description", &*text);
    }
}

/// It is cancelled.
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
    /// Where it was last.
    pod: Option<Endpoint>,
    is_told: bool,
}

impl AttemptSpan {
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// The attempt is at this pod now.
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

/// It is cancelled, with its request or because another pod has answered.
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

/// For clients all statuses from 400 on are errors.
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

/// Few words, for they become labels.
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
