//! Checks over HTTP: a GET, or gRPC's health service.
//!
//! Each check makes a connection of its own and closes it: it is to show that the pod accepts some, and requests' connections
//! stay out of it.

mod grpc;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, TE, USER_AGENT},
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::body::Incoming;

use super::{
    address::Service,
    body::RequestBody,
    connect::{Connection, Connector},
    protocol::Protocol,
    upload::{Fate, Upload},
};
use crate::{
    check::{Checker, HealthCheck},
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
    /// [`BalanceBuilder`](crate::BalanceBuilder::health_check), which knows no such thing, it goes in clear, over HTTP/1.1,
    /// with the endpoint's address as `Host`.
    ///
    /// Each check makes a connection of its own, TLS handshake and all, and closes it.
    ///
    /// # Errors
    ///
    /// If `path` is none.
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
    /// It goes over HTTP/2, with TLS where a client has it, as [`http`](Self::http) does.
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn grpc(service: impl Into<String>) -> Self {
        let question = Question::Grpc(grpc::request(service.into()));
        Self::with(HttpChecker::new(question))
    }

    /// The same, over a client's kind of connections if it is a question of HTTP.
    pub(super) fn over(mut self, connector: &Connector, service: &Service) -> Self {
        let checker: &dyn std::any::Any = &*self.checker;
        if let Some(checker) = checker.downcast_ref::<HttpChecker>() {
            self.checker = Arc::new(checker.over(connector, service));
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
}

#[derive(Clone, Debug)]
enum Question {
    Get(PathAndQuery),
    /// With the request's message.
    Grpc(Bytes),
}

impl Checker for HttpChecker {
    fn check(&self, endpoint: &Endpoint) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(self.clone().ask(endpoint.clone()))
    }
}

impl HttpChecker {
    fn new(question: Question) -> Self {
        let mut connector = Connector::default();
        connector.protocol = question.protocol(connector.protocol);
        Self {
            question,
            connector,
            service: None,
        }
    }

    fn over(&self, connector: &Connector, service: &Service) -> Self {
        let mut connector = connector.clone();
        connector.protocol = self.question.protocol(connector.protocol);
        Self {
            question: self.question.clone(),
            connector,
            service: Some(service.clone()),
        }
    }

    async fn ask(self, pod: Endpoint) -> Result<(), BoxError> {
        let service = self.service.map_or_else(|| named(&pod), Ok)?;
        let mut request = self.question.request();
        // The connection is held until the answer has been read.
        let (_held, response);
        match self.connector.connect(&pod, ()).await? {
            Connection::Http1(mut sender) => {
                service.address_http1(&mut request)?;
                response = sender.send_request(request).await?;
                _held = Connection::Http1(sender);
            }
            Connection::Http2(mut sender, http2) => {
                service.address_http2(&mut request)?;
                let request = request.map(|body| Upload::new(body, Arc::<Fate>::default()));
                response = sender.send_request(request).await?;
                _held = Connection::Http2(sender, http2);
            }
        }
        self.question.judge(response).await
    }
}

/// A service of one pod, named by its address.
fn named(pod: &Endpoint) -> Result<Service, BoxError> {
    let authority: Authority = pod.address().to_string().parse()?;
    Ok(Service::new(Scheme::HTTP, authority))
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
        let mut request = Request::new(RequestBody::Empty);
        let path = match self {
            Self::Get(path) => path.clone(),
            Self::Grpc(message) => {
                *request.method_mut() = Method::POST;
                *request.body_mut() = RequestBody::Whole(Some(message.clone()));
                let headers = request.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert(TE, HeaderValue::from_static("trailers"));
                PathAndQuery::from_static(grpc::PATH)
            }
        };
        *request.uri_mut() = path.into();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        request
    }

    async fn judge(&self, response: Response<Incoming>) -> Result<(), BoxError> {
        let status = response.status();
        match self {
            Self::Get(_) if status.is_success() => Ok(()),
            Self::Grpc(_) if status == StatusCode::OK => grpc::judge(response).await,
            _ => Err(format!("status {status}").into()),
        }
    }
}
