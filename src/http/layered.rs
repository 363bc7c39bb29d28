//! Tower's layers around the client, under its everyday words.
//!
//! ```text
//!  client.get("/").key(7) ──▶ layers, the last one added first ──▶ the client below ──▶ a pod
//!        │                    FollowRedirect makes a request of its own ──▲
//!        └── what the request says to the client: route, idempotent, deadline ─ of the task, not of the request
//! ```

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::{Service, util::BoxCloneSyncService};

use super::{
    body::RequestBody,
    deadline::Deadline,
    error::Error,
    replay::{Idempotent, RequestTimeout},
    response::ResponseBody,
};
use crate::{endpoint::Endpoint, error::BoxError, route::Route};

/// How much later a request's own timeout ends it above the layers than below them, where it is known which pod is late.
const LATER: Duration = Duration::from_millis(5);

/// The service that layers have made of a client.
pub(super) type LayeredService =
    BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, Error>;

tokio::task_local! {
    static SAID: Said;
}

/// What a request says to the client, and not to the pods. Layers that send a request of their own, as those that follow
/// redirects do, don't know of it.
#[derive(Clone)]
struct Said {
    route: Option<Route>,
    idempotent: Option<Idempotent>,
    deadline: Option<Instant>,
}

impl Said {
    fn of(request: &Request<RequestBody>) -> Self {
        let extensions = request.extensions();
        let timeout = extensions.get::<RequestTimeout>();
        Self {
            route: extensions.get().cloned(),
            idempotent: extensions.get().copied(),
            deadline: timeout.and_then(|RequestTimeout(whole)| Instant::now().checked_add(*whole)),
        }
    }

    /// Says the same of a request that says nothing of it itself.
    fn repeat(&self, request: &mut Request<RequestBody>) {
        let extensions = request.extensions_mut();
        if let Some(route) = &self.route {
            extensions.get_or_insert_with(|| route.clone());
        }
        if let Some(idempotent) = self.idempotent {
            extensions.get_or_insert_with(|| idempotent);
        }
        if let Some(deadline) = self.deadline {
            let left = || RequestTimeout(deadline.saturating_duration_since(Instant::now()));
            extensions.get_or_insert_with(left);
        }
    }
}

/// What the client below the layers gets: whatever they have made of it, it says what the caller's request has said.
pub(super) fn repeat(request: &mut Request<RequestBody>) {
    // It is not set where a layer sends a request from a task of its own.
    let _ = SAID.try_with(|said| said.repeat(request));
}

/// One service of all that a client's layers may be.
pub(super) fn boxed<S, B>(service: S) -> LayeredService
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    LayeredService::new(Layered(service))
}

#[derive(Clone)]
struct Layered<S>(S);

impl<S, B> Service<Request<RequestBody>> for Layered<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<ResponseBody>, Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx).map_err(Error::layer)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let said = Said::of(&request);
        let timeout = request
            .extensions()
            .get()
            .map(|RequestTimeout(whole)| *whole);
        let answer = SAID.sync_scope(said.clone(), || self.0.call(request));
        let answer = SAID.scope(said, answer);
        Box::pin(async move {
            match within(timeout, answer).await? {
                Ok(response) => Ok(response_of(response)),
                Err(error) => Err(Error::layer(error)),
            }
        })
    }
}

/// What comes in a request's own time. Layers may wait where no request of the client's is.
async fn within<T>(timeout: Option<Duration>, coming: impl Future<Output = T>) -> Result<T, Error> {
    let Some(whole) = timeout else {
        return Ok(coming.await);
    };
    let mut deadline = Deadline::after(whole.saturating_add(LATER));
    let mut coming = pin!(coming);
    poll_fn(|cx| match coming.as_mut().poll(cx) {
        Poll::Ready(come) => Poll::Ready(Ok(come)),
        Poll::Pending => deadline
            .poll(cx)
            .map(|()| Err(Error::unanswered(None, whole))),
    })
    .await
}

/// With a body of the client's own type. It is the pod's that the response is, as far as its extensions still say.
fn response_of<B>(response: Response<B>) -> Response<ResponseBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    let body = ResponseBody::new(body);
    let body = match head.extensions.get::<Endpoint>() {
        Some(pod) => body.of_pod(pod),
        None => body,
    };
    Response::from_parts(head, body)
}
