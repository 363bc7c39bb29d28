//! Health checks over HTTP: a GET, or gRPC's health service.
//!
//! A pod's checks have their own connection, and keep it: they don't use those of requests.

mod grpc;
mod link;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_TYPE, TE, USER_AGENT},
    uri::{Authority, PathAndQuery, Scheme},
};

use self::link::Link;
use super::{
    address::Service, body::RequestBody, connect::Connector, heads::LargeHeads, pool::AgeLimits,
    protocol::Protocol,
};
use crate::{
    check::{Checker, HealthCheck, Kept},
    endpoint::Endpoint,
    error::BoxError,
};

/// Tells readers of a pod's logs where these requests come from.
const AGENT: &str = concat!(
    "tower-headless/",
    env!("CARGO_PKG_VERSION"),
    " health-check"
);

impl HealthCheck {
    /// A check by GET: an endpoint passes if it answers `path`, such as `/healthz`, with a status of 200 to 299. The
    /// answer's body is ignored.
    ///
    /// With an [`http::ClientBuilder`](crate::http::ClientBuilder::health_check), it uses the same kind of connections
    /// as the client's requests: its protocol, its TLS, and the service's name as `Host`. With a
    /// [`BalanceBuilder`](crate::BalanceBuilder::health_check), which has no such settings, it is unencrypted HTTP/1.1,
    /// with the endpoint's address as `Host`.
    ///
    /// A pod's checks share one connection, which is kept between them. If it was closed, broke or grew [too
    /// old](crate::http::ClientBuilder::max_connection_age), the check makes a new one, including the TLS handshake.
    /// Only a failure on a new connection, or a bad answer, fails the check.
    ///
    /// # Errors
    ///
    /// If `path` can't be a path.
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn http(path: &str) -> Result<Self, BoxError> {
        if !path.starts_with('/') {
            return Err(format!("{path:?}: a path begins with '/'").into());
        }
        let question = Question::Get(path.parse()?);
        Ok(Self::with(HttpChecker::new(question)))
    }

    /// A check by gRPC: an endpoint passes if its [health
    /// service](https://github.com/grpc/grpc/blob/master/doc/health-checking.md), `grpc.health.v1.Health/Check`, says
    /// that `service` is `SERVING`. An empty name asks for the whole server.
    ///
    /// It uses HTTP/2, with TLS if a client has it, over a connection that is kept like that of [`http`](Self::http).
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn grpc(service: impl Into<String>) -> Self {
        let question = Question::Grpc(grpc::request(&service.into()));
        Self::with(HttpChecker::new(question))
    }

    /// Makes an HTTP check use a client's kind of connections; other checks stay unchanged.
    pub(super) fn over(mut self, connector: &Connector, service: &Service, age: AgeLimits) -> Self {
        let checker: &dyn std::any::Any = &*self.checker;
        if let Some(checker) = checker.downcast_ref::<HttpChecker>() {
            self.checker = Arc::new(checker.over(connector, service, age));
        }
        self
    }
}

/// Checks pods over HTTP.
#[derive(Clone, Debug)]
struct HttpChecker {
    question: Question,
    connector: Connector,
    /// The service that checks name; none for the pod's own address.
    service: Option<Service>,
    age: AgeLimits,
}

#[derive(Clone, Debug)]
enum Question {
    Get(PathAndQuery),
    /// With the request's message.
    Grpc(Bytes),
}

impl Checker for HttpChecker {
    fn check(&self, endpoint: &Endpoint, kept: &Kept) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(self.clone().ask(endpoint.clone(), kept.clone()))
    }
}

impl HttpChecker {
    fn new(question: Question) -> Self {
        let mut connector = Connector::default();
        connector.protocol = question.protocol(connector.protocol);
        connector.large_heads = LargeHeads::expected();
        Self {
            question,
            connector,
            service: None,
            age: AgeLimits::default(),
        }
    }

    fn over(&self, connector: &Connector, service: &Service, age: AgeLimits) -> Self {
        let mut connector = connector.clone();
        connector.protocol = self.question.protocol(connector.protocol);
        // Checks are rare, so they never read a head twice.
        connector.large_heads = LargeHeads::expected();
        Self {
            question: self.question.clone(),
            connector,
            service: Some(service.clone()),
            age,
        }
    }

    async fn ask(self, pod: Endpoint, kept: Kept) -> Result<(), BoxError> {
        let service = self.service.clone().map_or_else(|| named(&pod), Ok)?;
        if let Some(mut link) = kept.take::<Link>()
            && link.is_ready().await
        {
            let answer = self.ask_over(link, &service, &kept).await;
            // The kept connection may have been lost meanwhile, as idle ones are.
            if !is_lost(&answer) {
                return answer;
            }
        }
        let vintage = self.connector.vintage();
        let connection = self.connector.connect(&pod, None, ()).await?;
        let link = Link::new(connection, self.age, vintage);
        self.ask_over(link, &service, &kept).await
    }

    /// Sends the check over this connection, and keeps it if it can be used again.
    async fn ask_over(
        &self,
        mut link: Link,
        service: &Service,
        kept: &Kept,
    ) -> Result<(), BoxError> {
        let response = link.send(self.question.request(), service).await?;
        let answer = match &self.question {
            Question::Get(_) => {
                let status = response.status();
                link.read_on(response.into_body());
                judge_status(status)
            }
            Question::Grpc(_) if response.status() == StatusCode::OK => grpc::judge(response).await,
            Question::Grpc(_) => Err(format!("status {}", response.status()).into()),
        };
        if !is_lost(&answer) {
            kept.leave(link);
        }
        answer
    }
}

/// Whether the connection failed, and not the check.
fn is_lost(answer: &Result<(), BoxError>) -> bool {
    let error = answer.as_ref().err();
    error.is_some_and(|error| error.is::<hyper::Error>())
}

fn judge_status(status: StatusCode) -> Result<(), BoxError> {
    match status.is_success() {
        true => Ok(()),
        false => Err(format!("status {status}").into()),
    }
}

/// A service that is named by the pod's address.
fn named(pod: &Endpoint) -> Result<Service, BoxError> {
    let authority: Authority = pod.address().to_string().parse()?;
    Ok(Service::new(Scheme::HTTP, &authority))
}

impl Question {
    /// The check's protocol, if requests use `usual`.
    fn protocol(&self, usual: Protocol) -> Protocol {
        match self {
            Self::Get(_) => usual,
            Self::Grpc(_) => Protocol::Http2,
        }
    }

    fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::EMPTY);
        let path = match self {
            Self::Get(path) => path.clone(),
            Self::Grpc(message) => {
                *request.method_mut() = Method::POST;
                *request.body_mut() = message.clone().into();
                let headers = request.headers_mut();
                headers.insert(CONTENT_TYPE, super::grpc::TYPE);
                headers.insert(TE, HeaderValue::from_static("trailers"));
                PathAndQuery::from_static(grpc::PATH)
            }
        };
        *request.uri_mut() = path.into();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        request
    }
}
