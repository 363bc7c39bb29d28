//! The service of one pod: a connection in `poll_ready`, a request over it in `call`.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, Uri, Version, header::HOST, uri::PathAndQuery};
use hyper::client::conn::TrySendError;
use tokio::time::timeout;
use tower::Service;

use super::{
    body::RequestBody,
    error::{Failure, NoFirstByte, Outcome},
    pool::{Config, Http1, Pool, Reserved, Stream, Wait},
    response::{Lease, PodBody},
};
use crate::{
    endpoint::Endpoint,
    error::{BoxError, Suspect, Unsent},
};

pub(super) struct Pod {
    pool: Arc<Pool>,
    reserved: Option<Reserved>,
    wait: Option<Wait>,
}

impl Pod {
    pub(super) fn new(endpoint: &Endpoint, config: Arc<Config>) -> Self {
        Self {
            pool: Arc::new(Pool::new(endpoint.clone(), config)),
            reserved: None,
            wait: None,
        }
    }
}

/// A clone shares the pool; what the original has reserved is its own.
impl Clone for Pod {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            reserved: None,
            wait: None,
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(Reserved::Http1(unused)) = self.reserved.take() {
            Pool::release(&Arc::downgrade(&self.pool), unused);
        }
    }
}

impl Service<Request<RequestBody>> for Pod {
    type Response = Response<PodBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            if self.reserved.as_ref().is_some_and(Reserved::is_open) {
                return Poll::Ready(Ok(()));
            }
            self.reserved = self.pool.reserve();
            if self.reserved.is_some() {
                // A connection that is being made will be the next one's.
                self.wait = None;
                continue;
            }
            let Some(wait) = &mut self.wait else {
                // Looks again before it waits: of two connections that were freed in between, only one is told.
                self.wait = Some(self.pool.connect());
                continue;
            };
            let waited = match wait {
                Wait::Dial(dialed) => ready!(Pin::new(dialed).poll(cx))
                    .unwrap_or_else(|_| Err("the runtime has ended".into()))
                    .map(|connection| self.reserved = connection.map(Reserved::Http1)),
                Wait::Shared(dialed) => ready!(Pin::new(dialed).poll(cx)).map_err(BoxError::from),
                Wait::Freed(freed) => {
                    ready!(freed.as_mut().poll(cx));
                    Ok(())
                }
            };
            self.wait = None;
            if let Err(error) = waited {
                return Poll::Ready(Err(error));
            }
        }
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let reserved = self.reserved.take();
        let call = Call {
            pool: Arc::downgrade(&self.pool),
            config: self.pool.config.clone(),
        };
        Box::pin(call.run(reserved.expect("poll_ready comes before call"), request))
    }
}

/// On how many connections a request is tried before it is taken to another pod.
const CONNECTIONS: usize = 3;

/// One request to one pod. It holds the pool weakly, so that a removed pod's connections close.
struct Call {
    pool: Weak<Pool>,
    config: Arc<Config>,
}

/// Why a connection gave no response.
enum Broken {
    /// Nothing was written.
    Unsent(Box<Request<RequestBody>>, hyper::Error),
    Failed(BoxError),
}

impl Call {
    /// Sends the request, over another connection where one turns out to be closed before anything was written: servers
    /// close idle connections as they please, and that says nothing of the pod.
    async fn run(
        self,
        mut reserved: Reserved,
        mut request: Request<RequestBody>,
    ) -> Result<Response<PodBody>, BoxError> {
        let mut left = CONNECTIONS;
        loop {
            let sent = match reserved {
                Reserved::Http1(connection) => self.http1(connection, request).await,
                Reserved::Http2(stream) => self.http2(stream, request).await,
            };
            let (unsent, error) = match sent {
                Ok(response) => return Ok(response),
                Err(Broken::Failed(error)) => return Err(error),
                Err(Broken::Unsent(request, error)) => (request, error),
            };
            left -= 1;
            reserved = match self.another(left).await {
                Some(another) => another,
                None => return Err(Unsent::new(*unsent, error).into()),
            };
            request = *unsent;
        }
    }

    async fn another(&self, left: usize) -> Option<Reserved> {
        if left == 0 {
            return None;
        }
        let mut pod = Pod {
            pool: self.pool.upgrade()?,
            reserved: None,
            wait: None,
        };
        poll_fn(|cx| pod.poll_ready(cx)).await.ok()?;
        pod.reserved.take()
    }

    async fn http1(
        &self,
        mut connection: Http1,
        mut request: Request<RequestBody>,
    ) -> Result<Response<PodBody>, Broken> {
        let uri = self.to_http1(&mut request).map_err(Broken::Failed)?;
        let sent = connection.sender.try_send_request(request);
        match self.first_byte(sent).await? {
            Ok(response) => {
                let lease = Lease::http1(connection, self.pool.clone());
                Ok(response.map(|body| PodBody::new(body, lease)))
            }
            Err(error) => Err(self.broken(error, uri)),
        }
    }

    async fn http2(
        &self,
        stream: Stream,
        mut request: Request<RequestBody>,
    ) -> Result<Response<PodBody>, Broken> {
        let uri = request.uri().clone();
        *request.version_mut() = Version::HTTP_2;
        let sent = stream.sender().try_send_request(request);
        match self.first_byte(sent).await? {
            Ok(response) => Ok(response.map(|body| PodBody::new(body, Lease::http2(stream)))),
            Err(error) => {
                // It takes no more requests, be it that the pod says so (GOAWAY) or that it has broken. Streams are reset
                // one by one.
                if !h2_cause(error.error()).is_some_and(h2::Error::is_reset) {
                    stream.retire();
                }
                Err(self.broken(error, uri))
            }
        }
    }

    /// Waits for the head of the response, in bounded time. A pod that lets it pass is passed over until it answers again.
    async fn first_byte<T>(&self, sent: impl Future<Output = T>) -> Result<T, Broken> {
        let Some(bound) = self.config.first_byte else {
            return Ok(sent.await);
        };
        let result = timeout(bound, sent).await;
        result.map_err(|_| Broken::Failed(late(bound)))
    }

    fn broken(&self, mut error: TrySendError<Request<RequestBody>>, uri: Uri) -> Broken {
        let unsent = error.take_message();
        let error = error.into_error();
        if let Some(mut request) = unsent {
            *request.uri_mut() = uri;
            request.headers_mut().remove(HOST);
            return Broken::Unsent(request.into(), error);
        }
        let is_ours = error.is_user() || error.is_parse();
        if !is_ours && let Some(pool) = self.pool.upgrade() {
            pool.distrust();
        }
        let outcome = outcome(&error);
        let source = error.into();
        Broken::Failed(Failure { outcome, source }.into())
    }

    /// HTTP/1.1 names the service in `Host`, and the path alone in the first line (RFC 9112 §3.2.1). The URI as it was is
    /// returned.
    fn to_http1(&self, request: &mut Request<RequestBody>) -> Result<Uri, BoxError> {
        *request.version_mut() = Version::HTTP_11;
        let uri = request.uri().clone();
        let host = match uri.authority() {
            Some(authority) if *authority != self.config.authority => {
                HeaderValue::from_str(authority.as_str())?
            }
            _ => self.config.host.clone(),
        };
        request.headers_mut().insert(HOST, host);
        if request.method() != Method::CONNECT {
            let path = uri.path_and_query().cloned();
            *request.uri_mut() = path.unwrap_or(PathAndQuery::from_static("/")).into();
        }
        Ok(uri)
    }
}

fn late(bound: Duration) -> BoxError {
    Suspect(
        Failure {
            outcome: Outcome::Unknown,
            source: NoFirstByte(bound).into(),
        }
        .into(),
    )
    .into()
}

/// Whether the protocol says that the request was not processed: HTTP/2 streams that are refused, or above the last one
/// that a GOAWAY names (RFC 9113 §6.8 and §8.7). h2 ends the latter, and no others, with the peer's GOAWAY.
fn outcome(error: &hyper::Error) -> Outcome {
    let refused = |cause: &h2::Error| {
        let reset = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (reset || cause.is_go_away())
    };
    match h2_cause(error).is_some_and(refused) {
        true => Outcome::Unprocessed,
        false => Outcome::Unknown,
    }
}

fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}
