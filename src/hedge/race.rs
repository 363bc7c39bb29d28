//! Two tries of one request, and which result counts.
//!
//! ```text
//!  first try ──────────────┬──────────────────────▶ a good result: the caller's; the second is withdrawn
//!                no result │ in the usual time   └▶ no good: another try in its place, or the second goes on alone
//!                          ▼
//!                 second try, elsewhere ──────────▶ a good result: the caller's; the first is overtaken
//!                 (if it is allowed)              └▶ no good: set aside, the first goes on alone
//! ```
//!
//! What comes of the one that goes on alone is the result of both, if no result that was set aside counts for more. A try in
//! the place of the first one is a retry as any other. It is the younger of the two then: the second is the one that may be
//! overtaken.
//!
//! A second that goes on alone has twice the time then that the first had before it. After that it hangs, as far as the caller
//! is concerned, who would have had the result that was set aside without it.

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
    /// How long the first try may take now before there is a second one, where a result is late after `late`.
    fn patience(&self, late: Duration) -> Duration;

    /// A second try beside `first`, if there is to be one.
    fn second(&mut self, first: &F) -> Option<F>;

    /// Whether a result ends the race though the other try may bring another one.
    fn is_good(&self, result: &F::Output) -> bool;

    /// Takes note that the second try has this result, and that it is the one that counts.
    fn won(&self, result: &F::Output);

    /// Takes note of a result that doesn't.
    fn set_aside(&mut self, result: F::Output);

    /// Takes note of a result that doesn't, and makes another try in the place of the one that it is of, beside `other`, if
    /// there is to be one.
    fn replace(&mut self, result: F::Output, other: &F) -> Option<F>;
}

/// How much of the time that a second try was waited for it has once it goes on alone.
const ALONE: u32 = 2;

/// The least that a timer tells.
const LEAST: Duration = Duration::from_millis(1);

pin_project! {
    /// A try, and the second one beside it if there is any.
    pub(crate) struct Race<F> {
        // None once it has come to nothing and the second goes on alone.
        #[pin]
        first: Option<F>,
        second: Option<Second<F>>,
        // The first is another one than when the second began.
        is_replaced: bool,
        // The result that counts is the second's, and the first had none.
        is_overtaken: bool,
    }
}

struct Second<F> {
    due: Box<Due>,
    /// None until it is made, which may be when the time is over.
    begun: Option<Pin<Box<F>>>,
}

/// When a second try is asked for; once it goes on alone, when its time is over.
struct Due {
    timer: Timer,
    after: Duration,
    /// How long the first one has taken when the time is over.
    waited: Duration,
}

impl Due {
    fn new(after: Duration) -> Self {
        Self {
            timer: Timer::after(after),
            after,
            waited: after,
        }
    }

    /// It is asked for when the first one has taken so long.
    fn put_off(&mut self, until: Duration) {
        self.timer = Timer::after(until.saturating_sub(self.waited));
        self.waited = until;
    }

    /// The second try goes on alone from now on.
    fn wait_alone(&mut self) {
        self.timer = Timer::after(self.waited.max(LEAST).saturating_mul(ALONE));
    }

    /// Whatever keeps the second try from being made may be over later; not to wake up again and again where the request takes
    /// long, it is asked for after twice the time.
    fn put_off_longer(&mut self) {
        self.put_off(self.waited.max(LEAST).saturating_mul(2));
    }
}

impl<F> Race<F> {
    /// A try; a second one may be made after so long.
    #[inline]
    pub(crate) fn new(first: F, after: Option<Duration>) -> Self {
        Self {
            first: Some(first),
            second: after.map(|after| Second {
                due: Box::new(Due::new(after)),
                begun: None,
            }),
            is_replaced: false,
            is_overtaken: false,
        }
    }

    /// The first has come to nothing, and the same request is tried again, in a time of its own. There is one second try in
    /// all.
    pub(crate) fn try_again(self: Pin<&mut Self>, again: F) {
        let mut this = self.project();
        this.first.set(Some(again));
        if let Some(Second { due, begun: None }) = this.second {
            **due = Due::new(due.after);
        }
    }

    /// The only try, as long as there is one.
    #[cfg(feature = "http")]
    pub(crate) fn alone(&self) -> Option<&F> {
        match self.second {
            Some(Second { begun: Some(_), .. }) => None,
            _ => self.first.as_ref(),
        }
    }

    /// One that goes on, whichever it is.
    #[cfg(feature = "http")]
    pub(crate) fn either(&self) -> Option<&F> {
        let second = self.second.as_ref().and_then(|it| it.begun.as_deref());
        self.first.as_ref().or(second)
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

    /// Whether the second goes on alone, and has had its time. It is withdrawn then.
    pub(crate) fn poll_overdue(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let Some(Second { due, begun }) = this.second else {
            return Poll::Pending;
        };
        let (None, Some(second)) = (this.first.as_ref().get_ref(), begun) else {
            return Poll::Pending;
        };
        ready!(due.timer.poll(cx));
        second.as_mut().withdraw();
        *this.second = None;
        Poll::Ready(())
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
            let Some(Second { due, begun }) = this.second else {
                return Poll::Pending;
            };
            match begun {
                None => {
                    ready!(due.timer.poll(cx));
                    let patience = contest.patience(due.after);
                    if patience > due.waited {
                        due.put_off(patience);
                        continue;
                    }
                    let first = this.first.as_ref().get_ref().as_ref();
                    let Some(second) = first.and_then(|first| contest.second(first)) else {
                        due.put_off_longer();
                        continue;
                    };
                    tracing::debug!("request hedged: its answer is late");
                    *begun = Some(Box::pin(second));
                }
                Some(second) => {
                    let result = ready!(second.as_mut().poll(cx));
                    *this.second = None;
                    let Some(first) = this.first.as_mut().as_pin_mut() else {
                        return Poll::Ready(result);
                    };
                    if contest.is_good(&result) {
                        contest.won(&result);
                        match *this.is_replaced {
                            true => first.withdraw(),
                            false => first.overtaken(),
                        }
                        this.first.set(None);
                        *this.is_overtaken = !*this.is_replaced;
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
        loop {
            let Some(first) = this.first.as_mut().as_pin_mut() else {
                return Poll::Pending;
            };
            let result = ready!(first.poll(cx));
            let Some(Second {
                due,
                begun: Some(second),
            }) = this.second
            else {
                return Poll::Ready(result);
            };
            if contest.is_good(&result) {
                match *this.is_replaced {
                    true => second.as_mut().overtaken(),
                    false => second.as_mut().withdraw(),
                }
                *this.second = None;
                return Poll::Ready(result);
            }
            let again = contest.replace(result, second);
            if again.is_none() {
                due.wait_alone();
            }
            *this.is_replaced = true;
            this.first.set(again);
        }
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
