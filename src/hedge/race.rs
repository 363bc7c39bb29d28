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
//! A second that no endpoint has taken says nothing: the first goes on, and another one is made later.
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
use tokio::time::Instant;

use super::{Charge, Late};
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

    /// It is about to be cancelled, because its time is up.
    fn time_is_up(self: Pin<&mut Self>);

    /// Should its endpoint refuse it, it goes to another one than that of this try, if there is one.
    fn keep_away_from(self: Pin<&mut Self>, other: &Self);
}

/// The request that the tries are of.
pub(crate) trait Contest<F: Future> {
    /// After how long a result is late, if that is known by now.
    fn late(&self) -> Option<Duration>;

    /// How long the first try may take now before there is a second one, where a result is late after `late`.
    fn patience(&self, late: Duration) -> Duration;

    /// A second try beside `first`, if there is to be one. One that has been paid for needs no budget.
    fn second(&mut self, first: &F, charge: &mut Charge) -> Option<F>;

    /// Whether a result ends the race though the other try may bring another one.
    fn is_good(&self, result: &F::Output) -> bool;

    /// Takes note that the second try has this result, and that it is the one that counts.
    fn won(&self, result: &F::Output);

    /// Takes note of a result that doesn't, which is the second try's while the first one goes on. Whether there may be
    /// another second try: no endpoint has executed the request in this one.
    fn set_aside(&mut self, result: F::Output) -> bool;

    /// Takes note of a result that doesn't, and makes another try in the place of the one that it is of, beside `other`, if
    /// there is to be one.
    fn replace(&mut self, result: F::Output, other: &F) -> Option<F>;
}

/// How much of the time that a second try was waited for it has once it goes on alone.
const ALONE: u32 = 2;

/// The least that a timer tells.
const LEAST: Duration = Duration::from_millis(1);

/// How long it is at most from one look to the next whether there may be a second try now.
const LONGEST: Duration = Duration::from_secs(1);

/// How soon the first look is where it isn't known what is late: reviews of the endpoints, which learn it, are so far apart.
const LOOK: Duration = Duration::from_millis(10);

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
    late: Late,
    /// How long the first one has taken when the time is over.
    waited: Duration,
    /// When the second one was made.
    made: Option<Instant>,
    charge: Charge,
}

impl Due {
    fn new(late: Late) -> Self {
        let after = match late {
            Late::After(after) => after,
            Late::Unknown => LOOK,
        };
        Self {
            timer: Timer::after(after),
            late,
            waited: after,
            made: None,
            charge: Charge::default(),
        }
    }

    /// The same for another try in the place of the first one.
    fn renew(&mut self) {
        let charge = self.charge;
        *self = Self {
            charge,
            ..Self::new(self.late)
        };
    }

    /// How long the first one may take before there is a second one, as it is known now.
    fn patience<F: Future>(&mut self, contest: &impl Contest<F>) -> Option<Duration> {
        if let Late::Unknown = self.late {
            self.late = contest.late().map_or(Late::Unknown, Late::After);
        }
        match self.late {
            Late::After(late) => Some(contest.patience(late)),
            Late::Unknown => None,
        }
    }

    /// It is asked for when the first one has taken so long.
    fn put_off(&mut self, until: Duration) {
        self.timer = Timer::after(until.saturating_sub(self.waited));
        self.waited = until;
    }

    /// Whatever keeps the second try from being made may be over later; not to wake up again and again where the request takes
    /// long, it is asked for after twice the time, or a second later.
    fn put_off_longer(&mut self) {
        let longer = self.waited.clamp(LEAST, LONGEST);
        self.put_off(self.waited.saturating_add(longer));
    }

    /// The second one is made.
    fn make(&mut self) {
        self.made = Some(Instant::now());
    }

    /// Nobody has taken the second one, and the first one has taken so much longer.
    fn take_back(&mut self) {
        let made = self.made.take();
        let since = made.map(|made| made.elapsed());
        self.waited += since.unwrap_or_default();
        self.put_off_longer();
    }

    /// The second try goes on alone from now on.
    fn wait_alone(&mut self) {
        self.timer = Timer::after(self.waited.max(LEAST).saturating_mul(ALONE));
    }
}

impl<F> Race<F> {
    /// A try; a second one may be made when it is late, if that is said.
    #[inline]
    pub(crate) fn new(first: F, late: Option<Late>) -> Self {
        Self {
            first: Some(first),
            second: late.map(|late| Second {
                due: Box::new(Due::new(late)),
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
            due.renew();
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

    /// Those that go on.
    #[cfg(feature = "http")]
    pub(crate) fn tries(&self) -> impl Iterator<Item = &F> {
        let second = self.second.as_ref().and_then(|it| it.begun.as_deref());
        self.first.iter().chain(second)
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
        second.as_mut().time_is_up();
        second.as_mut().withdraw();
        *this.second = None;
        Poll::Ready(())
    }

    /// Those that go on are about to be cancelled, because the time of both is up.
    #[cfg(feature = "http")]
    pub(crate) fn time_is_up(self: Pin<&mut Self>) {
        let this = self.project();
        if let Some(first) = this.first.as_pin_mut() {
            first.time_is_up();
        }
        if let Some(second) = this.second.as_mut().and_then(|it| it.begun.as_mut()) {
            second.as_mut().time_is_up();
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
            let Some(Second { due, begun }) = this.second else {
                return Poll::Pending;
            };
            match begun {
                None => {
                    ready!(due.timer.poll(cx));
                    let Some(patience) = due.patience(&contest) else {
                        due.put_off_longer();
                        continue;
                    };
                    if patience > due.waited {
                        due.put_off(patience);
                        continue;
                    }
                    let first = this.first.as_ref().get_ref().as_ref();
                    let charge = &mut due.charge;
                    let Some(second) = first.and_then(|first| contest.second(first, charge)) else {
                        due.put_off_longer();
                        continue;
                    };
                    due.make();
                    *this.is_replaced = false;
                    if let Some(first) = this.first.as_mut().as_pin_mut() {
                        first.keep_away_from(&second);
                    }
                    *begun = Some(Box::pin(second));
                }
                Some(second) => {
                    let result = ready!(second.as_mut().poll(cx));
                    *begun = None;
                    let Some(first) = this.first.as_mut().as_pin_mut() else {
                        *this.second = None;
                        return Poll::Ready(result);
                    };
                    if contest.is_good(&result) {
                        *this.second = None;
                        contest.won(&result);
                        match *this.is_replaced {
                            true => first.withdraw(),
                            false => first.overtaken(),
                        }
                        this.first.set(None);
                        *this.is_overtaken = !*this.is_replaced;
                        return Poll::Ready(result);
                    }
                    match contest.set_aside(result) {
                        true => due.take_back(),
                        false => *this.second = None,
                    }
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
            match &again {
                Some(again) => second.as_mut().keep_away_from(again),
                None => due.wait_alone(),
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
    fn overtaken(mut self: Pin<&mut Self>) {
        self.as_mut().set_aside();
        self.in_flight().map(InFlight::lose);
    }

    fn withdraw(mut self: Pin<&mut Self>) {
        self.as_mut().set_aside();
        self.in_flight().map(InFlight::withdraw);
    }

    fn time_is_up(self: Pin<&mut Self>) {
        self.time_is_up();
    }

    fn keep_away_from(self: Pin<&mut Self>, other: &Self) {
        if let Some(endpoint) = other.endpoint() {
            self.avoid(endpoint);
        }
    }
}
