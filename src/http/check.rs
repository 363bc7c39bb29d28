//! Checks over HTTP: a GET, or gRPC's health service.
//!
//! The checks of a pod have a connection of their own, which they keep: requests' connections stay out of it.

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

/// So that those who read a pod's logs know whom to thank.
const AGENT: &str = concat!(
    "tower-headless/",
    env!("CARGO_PKG_VERSION"),
    " health-check"
);

impl HealthCheck {
    /// An endpoint passes if it answers a GET of `path`, `/healthz` say, with a status of 200 to 299. The answer's body is not
    /// read.
    ///
    /// Given to an [`http::ClientBuilder`](crate::http::ClientBuilder::health_check), it goes over the same kind of connections
    /// as the client's requests do: its protocol, its TLS, and the service's name as `Host`. Given to a
    /// [`BalanceBuilder`](crate::BalanceBuilder::health_check), which has no such settings, it goes in clear, over
    /// HTTP/1.1, with the endpoint's address as `Host`.
    ///
    /// The checks of a pod have a connection of their own, which is kept from one to the next; a new one is made, TLS
    /// handshake and all, where it has been closed, broken or grown [too
    /// old](crate::http::ClientBuilder::max_connection_age). A check fails only over a new one, or by its answer.
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

    /// An endpoint passes if its [gRPC health service](https://github.com/grpc/grpc/blob/master/doc/health-checking.md),
    /// `grpc.health.v1.Health/Check`, says that `service` is `SERVING`. An empty name asks for the server as a whole.
    ///
    /// It goes over HTTP/2, with TLS where a client has it, and over a connection that is kept, as [`http`](Self::http) does.
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn grpc(service: impl Into<String>) -> Self {
        let question = Question::Grpc(grpc::request(&service.into()));
        Self::with(HttpChecker::new(question))
    }

    /// The same, over a client's kind of connections if it is a question of HTTP.
    pub(super) fn over(mut self, connector: &Connector, service: &Service, age: AgeLimits) -> Self {
        let checker: &dyn std::any::Any = &*self.checker;
        if let Some(checker) = checker.downcast_ref::<HttpChecker>() {
            self.checker = Arc::new(checker.over(connector, service, age));
        }
        self
    }
}

/// Asks pods over HTTP.
#[derive(Clone, Debug)]
struct HttpChecker {
    question: Question,
    connector: Connector,
    /// Whom requests name; the pod itself, if it is not known.
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
        // Checks are few, and read no head twice.
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
            // The connection may have been lost meanwhile, as idle ones are.
            if !is_lost(&answer) {
                return answer;
            }
        }
        let vintage = self.connector.vintage();
        let connection = self.connector.connect(&pod, None, ()).await?;
        let link = Link::new(connection, self.age, vintage);
        self.ask_over(link, &service, &kept).await
    }

    /// Asks over this connection, and keeps it if it may be used again.
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

/// Whether the connection has failed, and not the pod's answer.
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

/// A service of one pod, named by its address.
fn named(pod: &Endpoint) -> Result<Service, BoxError> {
    let authority: Authority = pod.address().to_string().parse()?;
    Ok(Service::new(Scheme::HTTP, &authority))
}

impl Question {
    /// What it is asked over, where requests take `usual`.
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
