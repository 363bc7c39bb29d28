//! Two tries of one request, and which result counts.
//!
//! ```text
//!  first try ──────────────┬──────────────────────▶ a good result: the caller's; the second is withdrawn
//!                no result │ in the usual time   └▶ no good: set aside, the second goes on alone
//!                          ▼
//!                 second try, elsewhere ──────────▶ a good result: the caller's; the first is overtaken
//!                 (if it is allowed)              └▶ no good: set aside, the first goes on alone
//! ```
//!
//! What comes of the one that goes on alone is the result of both.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;

use crate::{
    balance::ResponseFuture,
    error::BoxError,
    home::Timer,
    in_flight::{Completion, InFlight},
};
use tower::Service;

/// A try that may lose.
pub(crate) trait Runner: Future {
    /// It is cancelled: a try that began after it was answered first.
    fn overtaken(self: Pin<&mut Self>);

    /// It is cancelled: a try that began before it was answered first.
    fn withdraw(self: Pin<&mut Self>);
}

/// The request that the tries are of.
pub(crate) trait Contest<F: Future> {
    /// A second try beside `first`, if there is to be one.
    fn second(&mut self, first: &F) -> Option<F>;

    /// Whether a result ends the race though the other try may bring another one.
    fn is_good(&self, result: &F::Output) -> bool;

    /// Takes note of a result that doesn't.
    fn set_aside(&mut self, result: F::Output);
}

pin_project! {
    /// A try, and the second one beside it if there is any.
    pub(crate) struct Race<F> {
        // None once it has come to nothing and the second goes on alone.
        #[pin]
        first: Option<F>,
        second: Option<Second<F>>,
        // The result that counts is the second's, and the first had none.
        is_overtaken: bool,
    }
}

enum Second<F> {
    /// It may be made when the time is over.
    Due(Box<Timer>),
    Begun(Pin<Box<F>>),
}

impl<F> Race<F> {
    /// A try; a second one may be made after so long.
    #[inline]
    pub(crate) fn new(first: F, after: Option<Duration>) -> Self {
        Self {
            first: Some(first),
            second: after.map(|after| Second::Due(Box::new(Timer::after(after)))),
            is_overtaken: false,
        }
    }

    /// The first has come to nothing, and the same request is tried again. There is one second try in all.
    pub(crate) fn try_again(self: Pin<&mut Self>, again: F) {
        self.project().first.set(Some(again));
    }

    /// The only try, as long as there is one.
    #[cfg(feature = "http")]
    pub(crate) fn alone(&self) -> Option<&F> {
        match self.second {
            Some(Second::Begun(_)) => None,
            _ => self.first.as_ref(),
        }
    }

    /// Whether the result that counts is the second's, while the first had none.
    #[cfg(feature = "http")]
    pub(crate) fn is_overtaken(&self) -> bool {
        self.is_overtaken
    }
}

impl<F: Runner> Race<F> {
    /// The result that counts. Without a `contest` there is no second try.
    #[inline]
    pub(crate) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        contest: Option<impl Contest<F>>,
    ) -> Poll<F::Output> {
        if let (Some(_), Some(contest)) = (&self.second, contest) {
            return self.poll_both(cx, contest);
        }
        match self.project().first.as_pin_mut() {
            Some(first) => first.poll(cx),
            None => Poll::Pending,
        }
    }

    fn poll_both(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut contest: impl Contest<F>,
    ) -> Poll<F::Output> {
        if let Poll::Ready(result) = self.as_mut().poll_first(cx, &mut contest) {
            return Poll::Ready(result);
        }
        let mut this = self.project();
        loop {
            match this.second {
                None => return Poll::Pending,
                Some(Second::Due(timer)) => {
                    ready!(timer.poll(cx));
                    let first = this.first.as_ref().get_ref().as_ref();
                    let second = first.and_then(|first| contest.second(first));
                    if second.is_some() {
                        tracing::debug!("request hedged: its answer is late");
                    }
                    *this.second = second.map(|second| Second::Begun(Box::pin(second)));
                }
                Some(Second::Begun(second)) => {
                    let result = ready!(second.as_mut().poll(cx));
                    *this.second = None;
                    let Some(first) = this.first.as_mut().as_pin_mut() else {
                        return Poll::Ready(result);
                    };
                    if contest.is_good(&result) {
                        first.overtaken();
                        this.first.set(None);
                        *this.is_overtaken = true;
                        return Poll::Ready(result);
                    }
                    contest.set_aside(result);
                }
            }
        }
    }

    fn poll_first(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        contest: &mut impl Contest<F>,
    ) -> Poll<F::Output> {
        let mut this = self.project();
        let Some(first) = this.first.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let result = ready!(first.poll(cx));
        let Some(Second::Begun(second)) = this.second else {
            return Poll::Ready(result);
        };
        if contest.is_good(&result) {
            second.as_mut().withdraw();
            *this.second = None;
            return Poll::Ready(result);
        }
        contest.set_aside(result);
        this.first.set(None);
        Poll::Pending
    }
}

impl<S, Req, C> Runner for ResponseFuture<S, Req, C>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    C: Completion<S::Response>,
{
    fn overtaken(self: Pin<&mut Self>) {
        self.in_flight().map(InFlight::lose);
    }

    fn withdraw(self: Pin<&mut Self>) {
        self.in_flight().map(InFlight::withdraw);
    }
}
