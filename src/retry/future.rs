//! One request, and its attempts one after another.
//!
//! ```text
//!  Sent ── the result is good, or no retry is allowed ──▶ done
//!   ▲ │
//!   │ └── no good ──▶ Preparing: the service becomes ready
//!   └─────────────────────┘
//! ```

use std::{
    any::type_name,
    fmt,
    future::Future,
    net::SocketAddr,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use tower::Service;

use super::{CallAvoiding, RetryPolicy, Terms, attempt::sealed::Attempt};

/// What becomes of a request.
type Outcome<S, Req> = Result<<S as Service<Req>>::Response, <S as Service<Req>>::Error>;

/// What follows from an attempt: the caller's outcome, or another attempt.
type Next<S, Req> = ControlFlow<Outcome<S, Req>, State<<S as Attempt<Req>>::Attempt, Req>>;

pin_project! {
    /// The future of a request that may be sent again. Dropping it cancels the request.
    pub struct RetryFuture<S, L, Req>
    where
        S: CallAvoiding<Req>,
    {
        #[pin]
        state: State<S::Attempt, Req>,
        // None if it is not to be sent again, whatever comes.
        replay: Option<Replay<S, L, Req, Outcome<S, Req>>>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, Req> {
        Sent { #[pin] attempt: F },
        Preparing { request: Option<Req> },
    }
}

/// What it takes to send a request again.
struct Replay<S, L, Req, T> {
    request: Req,
    service: S,
    terms: Arc<Terms<L>>,
    left: usize,
    /// Where it has been.
    avoid: Vec<SocketAddr>,
    /// The last result after which the request may have been executed, whatever becomes of the later attempts.
    before: Option<T>,
}

impl<S, L, Req> RetryFuture<S, L, Req>
where
    S: CallAvoiding<Req> + Clone,
    L: RetryPolicy<Req, S::Response, S::Error>,
{
    pub(super) fn new(service: &mut S, terms: &Arc<Terms<L>>, request: Req) -> Self {
        let again = match terms.retries {
            0 => None,
            _ => terms.policy.again(&request),
        };
        let replay = again.map(|request| Replay {
            request,
            service: service.clone(),
            terms: terms.clone(),
            left: terms.retries,
            avoid: Vec::new(),
            before: None,
        });
        let attempt = service.attempt(request, &[]);
        Self {
            state: State::Sent { attempt },
            replay,
        }
    }
}

impl<S, L, Req> Future for RetryFuture<S, L, Req>
where
    S: CallAvoiding<Req>,
    L: RetryPolicy<Req, S::Response, S::Error>,
{
    type Output = Outcome<S, Req>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Sent { attempt } => {
                    let result = ready!(attempt.poll(cx));
                    match this.replay {
                        Some(replay) => replay.next(result),
                        None => ControlFlow::Break(result.map(|(_, response)| response)),
                    }
                }
                StateProjection::Preparing { request } => {
                    let replay = this.replay.as_mut().expect("it is there while retrying");
                    match ready!(replay.service.poll_ready(cx)) {
                        Ok(()) => {
                            let request = request.take().expect("taken once, to be sent");
                            let attempt = replay.service.attempt(request, &replay.avoid);
                            ControlFlow::Continue(State::Sent { attempt })
                        }
                        Err(error) => ControlFlow::Break(replay.unsent(error)),
                    }
                }
            };
            match next {
                ControlFlow::Continue(state) => this.state.set(state),
                ControlFlow::Break(result) => {
                    *this.replay = None;
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl<S, L, Req> Replay<S, L, Req, Outcome<S, Req>>
where
    S: CallAvoiding<Req>,
    L: RetryPolicy<Req, S::Response, S::Error>,
{
    fn next(
        &mut self,
        result: Result<(Option<SocketAddr>, S::Response), S::Error>,
    ) -> Next<S, Req> {
        let (endpoint, result) = match result {
            Ok((endpoint, response)) => (endpoint, Ok(response)),
            Err(error) => (S::failed(&error), Err(error)),
        };
        let Some(request) = self.again(endpoint, &result) else {
            return ControlFlow::Break(match result {
                Err(error) if S::is_unsent(&error) => self.unsent(error),
                result => result,
            });
        };
        if !result.as_ref().is_err_and(S::is_unsent) {
            self.before = Some(result);
        }
        let request = Some(request);
        ControlFlow::Continue(State::Preparing { request })
    }

    /// The request again, if that is to be and is allowed.
    fn again(&mut self, endpoint: Option<SocketAddr>, result: &Outcome<S, Req>) -> Option<Req> {
        let terms = &self.terms;
        if self.left == 0 || !terms.policy.retry(result.as_ref()) {
            return None;
        }
        self.avoid.extend(endpoint);
        // Who has answered would answer the same.
        let has_where = result.is_err() || self.service.has_other(&self.avoid);
        if !has_where || !terms.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        terms.policy.again(&self.request)
    }

    /// The caller's result after an attempt that no endpoint has got.
    fn unsent(&mut self, error: S::Error) -> Outcome<S, Req> {
        self.before.take().unwrap_or(Err(error))
    }
}

impl<S: CallAvoiding<Req>, L, Req> fmt::Debug for RetryFuture<S, L, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(type_name::<Self>())
    }
}
