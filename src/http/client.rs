//! The client: a balancer over pods that speak HTTP, with requests sent again where that is safe.

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::Service;

use super::{
    body::{BoxRequest, RequestBody},
    builder::{ClientBuilder, Retries},
    error::Error,
    pod::Pod,
    pool::Config,
    replay::{Answer, Avoid, Replay},
    request::RequestBuilder,
    response::{ResponseBody, ToTheEnd},
};
use crate::{
    balance::{Balance, EndpointStatus, ResponseFuture as BalanceFuture},
    error::BoxError,
    membership::MembershipStream,
    policy::{Policy, RoundRobin},
};

pub(super) type Pods<P> = Balance<Pod, P, ToTheEnd>;

type Sent<P> = BalanceFuture<Pod, BoxRequest, P, ToTheEnd>;

/// An HTTP client of one service, balanced over its pods.
///
/// Cheap to clone, and to be cloned wherever requests come from: clones share the pods, their connections and their
/// counters. It is a [`tower::Service`] of [`http::Request`]s with any body of [`Bytes`], so tower's and tower-http's
/// layers go around it, and tonic's generated clients take it for their transport.
///
/// ```no_run
/// use tower_headless::http::Client;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("http://nginx-headless.default:80".parse()?).build()?;
/// let response = client.get("/").await?;
/// println!("{} from {}", response.status(), response.body().pod());
/// # Ok(())
/// # }
/// ```
///
/// # Requests
///
/// A request names a path, or a whole URI; `Host` and `:authority` are the service's unless the request has others.
/// Whatever pod is dialled, the service is spoken to.
///
/// Dropping the response's future or its body cancels the request.
pub struct Client<P: Policy = RoundRobin> {
    pods: Pods<P>,
    shared: Arc<Shared<P>>,
    /// Discovery has answered, as far as this clone knows.
    opened: bool,
}

/// What the clones of a client and their requests have in common.
pub(super) struct Shared<P: Policy> {
    /// For requests that are sent again.
    pub(super) pods: Pods<P>,
    pub(super) config: Arc<Config>,
    pub(super) retries: Retries,
    pub(super) timeout: Option<Duration>,
    /// The pods may say that they have not processed a request.
    pub(super) may_refuse: bool,
}

/// How long all of a request may take, in its extensions.
#[derive(Clone, Copy)]
pub(super) struct Whole(pub(super) Duration);

impl Client {
    /// Settings of a client of the service that `uri` names: `http://nginx-headless.default:80`, or
    /// `http://_http._tcp.nginx-headless.default` for the port of that name.
    pub fn builder(uri: Uri) -> ClientBuilder {
        ClientBuilder::new(uri)
    }
}

impl<P: Policy> Client<P> {
    pub(super) fn new(shared: Shared<P>) -> Self {
        Self {
            pods: shared.pods.clone(),
            shared: Arc::new(shared),
            opened: false,
        }
    }

    /// A GET of `path`.
    pub fn get(&self, path: &str) -> RequestBuilder<P> {
        self.request(Method::GET, path)
    }

    /// A POST to `path`.
    pub fn post(&self, path: &str) -> RequestBuilder<P> {
        self.request(Method::POST, path)
    }

    /// Any request.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder<P> {
        RequestBuilder::new(self.clone(), method, path)
    }

    /// What is known of the pods now; see [`Balance::endpoints`].
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.pods.endpoints()
    }

    /// The changes of the set of pods; see [`Balance::watch`].
    pub fn watch(&self) -> MembershipStream {
        self.pods.watch()
    }

    /// How long ago discovery last answered; see [`Balance::staleness`].
    pub fn staleness(&self) -> Option<Duration> {
        self.pods.staleness()
    }

    fn begin<B>(&mut self, request: Request<B>) -> Result<ResponseFuture<P>, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut request = Box::new(request.map(RequestBody::new));
        let shared = &self.shared;
        shared.config.service.check(&mut request)?;
        let whole = request.extensions_mut().remove::<Whole>();
        let whole = whole.map(|Whole(whole)| whole).or(shared.timeout);
        shared.retries.budget.deposit();
        let replay = Replay::of(&mut request, shared.retries.times, shared.may_refuse);
        let future = match request.extensions().get::<Avoid>().cloned() {
            Some(avoid) => self.pods.call_with(request, avoid.route()),
            None => self.pods.call(request),
        };
        Ok(ResponseFuture {
            attempt: Attempt::Sent { future },
            // Who waits for discovery keeps it going.
            shared: (replay.is_some() || !self.opened).then(|| self.shared.clone()),
            replay,
            deadline: whole.map(|whole| (Box::pin(sleep(whole)), whole)),
        })
    }
}

impl<P: Policy> Shared<P> {
    /// What follows from a pod's answer: another attempt, or the caller's answer.
    fn again(&self, replay: &mut Replay, answer: Answer) -> ControlFlow<Answer, Sent<P>> {
        let has_other = |avoid: &Avoid| self.pods.has_other(&avoid.route());
        let request = replay.next(answer, &self.retries, has_other)?;
        let future = self.pods.call_with(request, replay.avoid().route());
        ControlFlow::Continue(future)
    }
}

impl<P: Policy> Clone for Client<P> {
    fn clone(&self) -> Self {
        Self {
            pods: self.pods.clone(),
            shared: self.shared.clone(),
            opened: self.opened,
        }
    }
}

impl<B, P> Service<Request<B>> for Client<P>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    P: Policy,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResponseFuture<P>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Discovery begins, at the latest. Its first answer is waited for in `call`, where timeouts count.
        self.opened = self.pods.poll_ready(cx).is_ready();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.begin(request).unwrap_or_else(|error| ResponseFuture {
            attempt: Attempt::Failed { error: Some(error) },
            replay: None,
            shared: None,
            deadline: None,
        })
    }
}

pin_project! {
    /// The future of a request. Dropping it cancels the request.
    pub struct ResponseFuture<P: Policy> {
        #[pin]
        attempt: Attempt<P>,
        replay: Option<Replay>,
        shared: Option<Arc<Shared<P>>>,
        deadline: Option<(Pin<Box<Sleep>>, Duration)>,
    }
}

pin_project! {
    #[project = AttemptProjection]
    enum Attempt<P: Policy> {
        Sent { #[pin] future: Sent<P> },
        Failed { error: Option<Error> },
    }
}

impl<P: Policy> Future for ResponseFuture<P> {
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let polled = match this.attempt.as_mut().project() {
                AttemptProjection::Sent { future } => future.poll(cx),
                AttemptProjection::Failed { error } => {
                    let error = error.take().expect("polled after completion");
                    return Poll::Ready(Err(error));
                }
            };
            let answer = match polled {
                // Responses are large, and most go straight to their callers.
                Poll::Ready(Ok(mut response))
                    if !is_retried(this.replay, this.shared, &response) =>
                {
                    *this.replay = None;
                    bound(&mut response, this.deadline);
                    return Poll::Ready(Ok(response));
                }
                Poll::Ready(answer) => answer.map_err(Error::balance),
                Poll::Pending => {
                    if let Some(replay) = this.replay {
                        replay.poll_before(cx);
                    }
                    let Some((deadline, whole)) = this.deadline else {
                        return Poll::Pending;
                    };
                    std::task::ready!(deadline.as_mut().poll(cx));
                    // The request is cancelled here, not when its caller gets round to dropping this.
                    let error = Some(Error::deadline(*whole));
                    *this.replay = None;
                    this.attempt.set(Attempt::Failed { error });
                    continue;
                }
            };
            let next = match (&mut *this.replay, &*this.shared) {
                (Some(replay), Some(shared)) => shared.again(replay, answer),
                _ => ControlFlow::Break(answer),
            };
            match next {
                ControlFlow::Continue(future) => this.attempt.set(Attempt::Sent { future }),
                ControlFlow::Break(mut answer) => {
                    *this.replay = None;
                    if let Ok(response) = &mut answer {
                        bound(response, this.deadline);
                    }
                    return Poll::Ready(answer);
                }
            }
        }
    }
}

fn is_retried<P: Policy>(
    replay: &Option<Replay>,
    shared: &Option<Arc<Shared<P>>>,
    response: &Response<ResponseBody>,
) -> bool {
    let both = replay.as_ref().zip(shared.as_ref());
    both.is_some_and(|(replay, shared)| replay.is_retried(response, &shared.retries))
}

/// The rest of a response takes the rest of the time.
fn bound(
    response: &mut Response<ResponseBody>,
    deadline: &mut Option<(Pin<Box<Sleep>>, Duration)>,
) {
    if let Some((deadline, whole)) = deadline.take() {
        response.body_mut().until(deadline, whole);
    }
}

impl<P: Policy> fmt::Debug for Client<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("service", &self.shared.config.service.authority)
            .field("pods", &self.pods)
            .finish_non_exhaustive()
    }
}

impl<P: Policy> fmt::Debug for ResponseFuture<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
