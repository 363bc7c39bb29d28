//! Tower's layers around the client, below its request methods.
//!
//! ```text
//!  client.get("/").key(7) ──▶ layers, the last one added first ──▶ the client below ──▶ a pod
//!        │                    FollowRedirect makes a request of its own ──▲
//!        └── what the request says to the client: route, idempotent, deadline ─ kept in the task, not in the request
//! ```

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Service, util::BoxCloneSyncService};

use super::{
    body::RequestBody,
    deadline::{Deadline, Until},
    error::{Error, Wait},
    replay::{Answer, Idempotent, RequestTimeout},
    response::ResponseBody,
    span::Trace,
};
use crate::{
    attempts::AttemptLog, broadcast::Asking, endpoint::Endpoint, error::BoxError, route::Route,
};

/// A client with its layers around it.
pub(super) type LayeredService =
    BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, Error>;

tokio::task_local! {
    static INHERITED: Inherited;
}

/// What a request says to the client, and not to the pods. Layers that send requests of their own, such as those that
/// follow redirects, don't copy it.
#[derive(Clone)]
struct Inherited {
    route: Option<Route>,
    idempotent: Option<Idempotent>,
    timeout: Option<RequestTimeout>,
    until: Option<Until>,
    trace: Option<Trace>,
    executed: Option<Executed>,
}

impl Inherited {
    fn of(request: &Request<RequestBody>) -> Self {
        let extensions = request.extensions();
        Self {
            route: extensions.get().cloned(),
            idempotent: extensions.get().copied(),
            timeout: extensions.get().copied(),
            until: extensions.get().copied(),
            trace: extensions.get().cloned(),
            executed: extensions.get().cloned(),
        }
    }

    /// Adds to a request what it doesn't say itself. It never gets more time than is left.
    fn add_to(&self, request: &mut Request<RequestBody>) {
        let extensions = request.extensions_mut();
        if let Some(route) = &self.route {
            extensions.get_or_insert_with(|| route.clone());
        }
        if let Some(idempotent) = self.idempotent {
            extensions.get_or_insert_with(|| idempotent);
        }
        if let Some(timeout) = self.timeout {
            extensions.get_or_insert_with(|| timeout);
        }
        if let Some(trace) = &self.trace {
            extensions.get_or_insert_with(|| trace.clone());
        }
        if let Some(executed) = &self.executed {
            extensions.get_or_insert_with(|| executed.clone());
        }
        let own = extensions.get().copied();
        if let Some(first) = Until::first(own.into_iter().chain(self.until)) {
            extensions.insert(first);
        }
    }
}

/// Makes a request below the layers inherit what the caller's request has said.
pub(super) fn inherit(request: &mut Request<RequestBody>) {
    // It is not set if a layer sends the request from a task of its own.
    let _ = INHERITED.try_with(|inherited| inherited.add_to(request));
}

/// Limits a request, and all that layers make of it, by its own timeout, by `limit`, and by the layers further out.
pub(super) fn bound(request: &mut Request<RequestBody>, limit: Option<Duration>) {
    let extensions = request.extensions_mut();
    let own = extensions.get().map(|RequestTimeout(own)| *own);
    let begun = own.into_iter().chain(limit).filter_map(Until::after);
    let outer = extensions.get().copied();
    if let Some(until) = Until::first(begun.chain(outer)) {
        extensions.insert(until);
    }
}

/// Gives the layers of any client of this service the same type.
pub(super) fn boxed<S, B>(layers: S, service: Arc<str>) -> LayeredService
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    LayeredService::new(Layered { layers, service })
}

#[derive(Clone)]
struct Layered<S> {
    layers: S,
    service: Arc<str>,
}

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
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let ready = self.layers.poll_ready(cx);
        ready.map_err(|error| Error::layer(error).of_service(Some(&self.service)))
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let extensions = request.extensions_mut();
        // Layers further out see the error of their own request; only the caller gets that of all requests.
        let is_outermost = extensions.get::<Executed>().is_none();
        let executed = extensions.get_or_insert_default::<Executed>().clone();
        let inherited = Inherited::of(&request);
        let answer = INHERITED.sync_scope(inherited.clone(), || self.layers.call(request));
        let answer = INHERITED.scope(inherited, answer);
        let service = self.service.clone();
        Box::pin(async move {
            match answer.await {
                Ok(response) => Ok(response_of(response, &service)),
                Err(error) => {
                    let error = Error::layer(error).of_service(Some(&service));
                    Err(match is_outermost && executed.is_set() {
                        true => error.after_another(),
                        false => error,
                    })
                }
            }
        })
    }
}

/// Whether a pod may have executed one of the requests that layers have made from their caller's.
#[derive(Clone, Default)]
pub(super) struct Executed(Arc<AtomicBool>);

impl Executed {
    fn set(&self) {
        self.0.store(true, Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Acquire)
    }
}

pin_project! {
    /// A request of a layer. Notes that it may have been executed, even if the layer drops it.
    struct Noted<F>
    where
        F: Asking<Response<ResponseBody>, Error>,
    {
        #[pin]
        future: F,
        // None once it is over.
        executed: Option<Executed>,
    }

    impl<F> PinnedDrop for Noted<F>
    where
        F: Asking<Response<ResponseBody>, Error>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(executed) = this.executed.take()
                && !this.future.is_unsent()
            {
                executed.set();
            }
        }
    }
}

impl<F> Future for Noted<F>
where
    F: Asking<Response<ResponseBody>, Error>,
{
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        let answer = ready!(this.future.poll(cx));
        if let Some(executed) = this.executed.take()
            && !answer.as_ref().is_err_and(Error::is_unexecuted)
        {
            executed.set();
        }
        Poll::Ready(answer)
    }
}

/// A request on its way through layers. It has its own deadline, because a layer may wait before any request reaches
/// the client below.
pub(super) struct Through {
    stage: Stage,
    deadline: Option<Deadline>,
    service: Arc<str>,
}

enum Stage {
    /// The layers are not ready for it.
    Waiting(Box<(LayeredService, Request<RequestBody>)>),
    Given(BoxFuture<'static, Answer>),
    Over,
}

impl Through {
    /// Calls layers that are ready.
    pub(super) fn given(
        layers: &mut LayeredService,
        request: Request<RequestBody>,
        service: &Arc<str>,
    ) -> Self {
        let deadline = deadline(&request);
        Self {
            stage: Stage::Given(layers.call(request)),
            deadline,
            service: service.clone(),
        }
    }

    /// A request below the layers.
    pub(super) fn noted<F>(future: F, executed: Executed) -> Self
    where
        F: Asking<Response<ResponseBody>, Error> + 'static,
    {
        let executed = Some(executed);
        Self {
            stage: Stage::Given(Box::pin(Noted { future, executed })),
            deadline: None,
            service: Arc::default(),
        }
    }

    /// Waits for the layers first.
    pub(super) fn waiting(
        layers: LayeredService,
        request: Request<RequestBody>,
        service: &Arc<str>,
    ) -> Self {
        Self {
            deadline: deadline(&request),
            stage: Stage::Waiting(Box::new((layers, request))),
            service: service.clone(),
        }
    }

    /// Whether no layer has got it yet.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting(_))
    }

    /// Notes in the `log` what was cut short because the time was up.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, log: Option<&AttemptLog>) -> Poll<Answer> {
        let polled = self.poll_layers(cx);
        let Some(deadline) = self.deadline.as_mut().filter(|_| polled.is_pending()) else {
            return polled;
        };
        ready!(deadline.poll(cx));
        let after = deadline.whole();
        // Below the layers the same time is up by now, and it is known which pod is late: that error is better.
        if let Poll::Ready(answer) = self.poll_layers(cx) {
            return Poll::Ready(answer);
        }
        let error = match self.is_waiting() {
            true => Error::not_sent(after, Wait::Layers, false),
            false => Error::unanswered(None, after),
        };
        if let Some(log) = log {
            log.time_is_up();
        }
        self.stage = Stage::Over;
        Poll::Ready(Err(error.of_service(Some(&self.service))))
    }

    fn poll_layers(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        if let Stage::Waiting(waiting) = &mut self.stage {
            ready!(waiting.0.poll_ready(cx))?;
            if let Stage::Waiting(waiting) = std::mem::replace(&mut self.stage, Stage::Over) {
                let (mut layers, request) = *waiting;
                self.stage = Stage::Given(layers.call(request));
            }
        }
        match &mut self.stage {
            Stage::Given(answer) => answer.as_mut().poll(cx),
            Stage::Waiting(_) | Stage::Over => Poll::Pending,
        }
    }
}

fn deadline(request: &Request<RequestBody>) -> Option<Deadline> {
    let until: Until = request.extensions().get().copied()?;
    Some(Deadline::of(until))
}

/// Gives the response a body of the client's own type, with the pod that its extensions still name.
fn response_of<B>(response: Response<B>, service: &Arc<str>) -> Response<ResponseBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    let pod = head.extensions.get::<Endpoint>();
    let body = ResponseBody::new(body).of_origin(pod, Some(service));
    Response::from_parts(head, body)
}
