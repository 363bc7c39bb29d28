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
//! If one try goes on alone, its result is that of the race, unless a result that was set aside counts for more. A try
//! that replaces the first one is an ordinary retry. It is then the younger of the two, so the second try is the one
//! that may be overtaken.
//!
//! A second try that no endpoint has taken doesn't count: the first goes on, and another second try is made later.
//!
//! A second try that goes on alone has twice the time that the first had before it. After that it counts as hung, and
//! the caller gets the result that was set aside, which it would have had without hedging.

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

/// One try of a race.
pub(crate) trait Runner: Future {
    /// Called when it is cancelled because a younger try was answered first.
    fn overtaken(self: Pin<&mut Self>);

    /// Called when it is cancelled because an older try was answered first.
    fn withdraw(self: Pin<&mut Self>);

    /// Called when it is about to be cancelled because its time is up.
    fn time_is_up(self: Pin<&mut Self>);

    /// If its endpoint refuses it, it must go to another endpoint than that of `other`, if there is one.
    fn keep_away_from(self: Pin<&mut Self>, other: &Self);
}

/// The request behind the tries: makes them, and judges their results.
pub(crate) trait Contest<F: Future> {
    /// The time after which a result is late, if known by now.
    fn late(&self) -> Option<Duration>;

    /// How long the first try may take, at present, before there is a second one. `late` is the time after which a
    /// result is late.
    fn hedge_delay(&self, late: Duration) -> Duration;

    /// Makes a second try beside `first`, if it is allowed. One that is already paid for takes nothing from the budget.
    fn second(&mut self, first: &F, charge: &mut Charge) -> Option<F>;

    /// Whether a result ends the race, even if the other try is still running.
    fn is_good(&self, result: &F::Output) -> bool;

    /// Notes that the second try won with this result.
    fn won(&self, result: &F::Output);

    /// Notes a result of the second try that doesn't end the race, while the first one goes on. Returns whether there
    /// may be another second try, because no endpoint has executed the request in this one.
    fn set_aside(&mut self, result: F::Output) -> bool;

    /// Notes a result that doesn't end the race, and replaces its try with another one beside `other`, if that is
    /// allowed.
    fn replace(&mut self, result: F::Output, other: &F) -> Option<F>;
}

/// How many times its delay a second try has once it goes on alone.
const ALONE: u32 = 2;

/// The resolution of timers.
const LEAST: Duration = Duration::from_millis(1);

/// The longest time between two checks whether there may be a second try now.
const LONGEST: Duration = Duration::from_secs(1);

/// The time of the first check if it isn't known yet what is late. It is the interval of the endpoints' reviews, which
/// learn it.
const LOOK: Duration = Duration::from_millis(10);

pin_project! {
    /// One request's first try, and a second one beside it if there is one.
    pub(crate) struct Race<F> {
        // None once it has ended without a good result, and the second goes on alone.
        #[pin]
        first: Option<F>,
        second: Option<Second<F>>,
        // Whether the first try has been replaced since the second began.
        is_replaced: bool,
        // Whether the second's result counts, and the first had none.
        is_overtaken: bool,
    }
}

struct Second<F> {
    due: Box<Due>,
    /// `None` until it is made, when its time has come at the earliest.
    begun: Option<Pin<Box<F>>>,
}

/// The timer of a second try: when to ask for it. Once it goes on alone: when its time is over.
struct Due {
    timer: Timer,
    late: Late,
    /// How long the first try will have taken when the timer fires.
    waited: Duration,
    /// When the second try was made.
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

    /// Starts anew for a try that replaces the first one.
    fn renew(&mut self) {
        let charge = self.charge;
        *self = Self {
            charge,
            ..Self::new(self.late)
        };
    }

    /// How long the first try may take before there is a second one, as far as known now.
    fn hedge_delay<F: Future>(&mut self, contest: &impl Contest<F>) -> Option<Duration> {
        if let Late::Unknown = self.late {
            self.late = contest.late().map_or(Late::Unknown, Late::After);
        }
        match self.late {
            Late::After(late) => Some(contest.hedge_delay(late)),
            Late::Unknown => None,
        }
    }

    /// Puts the second try off until the first one has taken this long.
    fn put_off(&mut self, until: Duration) {
        self.timer = Timer::after(until.saturating_sub(self.waited));
        self.waited = until;
    }

    /// Puts the second try off, because it may be possible later: until twice the time, or a second later. So a long
    /// request doesn't wake up again and again.
    fn put_off_longer(&mut self) {
        let longer = self.waited.clamp(LEAST, LONGEST);
        self.put_off(self.waited.saturating_add(longer));
    }

    /// Notes that the second try is made.
    fn make(&mut self) {
        self.made = Some(Instant::now());
    }

    /// Takes back a second try that no endpoint has taken, and adds the time that it took to the first one's.
    fn take_back(&mut self) {
        let made = self.made.take();
        let since = made.map(|made| made.elapsed());
        self.waited += since.unwrap_or_default();
        self.put_off_longer();
    }

    /// Starts the time of a second try that goes on alone.
    fn wait_alone(&mut self) {
        self.timer = Timer::after(self.waited.max(LEAST).saturating_mul(ALONE));
    }
}

impl<F> Race<F> {
    /// Starts a race with a first try. If `late` is given, a second one may be made when the first is late.
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

    /// Replaces a first try that ended without a good result. The new try has a full time of its own, but there is only
    /// one second try in all.
    pub(crate) fn try_again(self: Pin<&mut Self>, again: F) {
        let mut this = self.project();
        this.first.set(Some(again));
        if let Some(Second { due, begun: None }) = this.second {
            due.renew();
        }
    }

    /// The only try, if there is just one.
    #[cfg(feature = "http")]
    pub(crate) fn alone(&self) -> Option<&F> {
        match self.second {
            Some(Second { begun: Some(_), .. }) => None,
            _ => self.first.as_ref(),
        }
    }

    /// Any try that is still running.
    #[cfg(feature = "http")]
    pub(crate) fn either(&self) -> Option<&F> {
        let second = self.second.as_ref().and_then(|it| it.begun.as_deref());
        self.first.as_ref().or(second)
    }

    /// The tries that are still running.
    #[cfg(feature = "http")]
    pub(crate) fn tries(&self) -> impl Iterator<Item = &F> {
        let second = self.second.as_ref().and_then(|it| it.begun.as_deref());
        self.first.iter().chain(second)
    }

    /// Whether the second's result counted, while the first had none.
    #[cfg(feature = "http")]
    pub(crate) fn is_overtaken(&self) -> bool {
        self.is_overtaken
    }
}

impl<F: Runner> Race<F> {
    /// Polls for the result that counts. Without a `contest` there is no second try.
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

    /// Ready when the second try goes on alone and its time is over. It is withdrawn then.
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

    /// Tells the running tries that they are about to be cancelled, because the request's time is up.
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
                    let Some(hedge_delay) = due.hedge_delay(&contest) else {
                        due.put_off_longer();
                        continue;
                    };
                    if hedge_delay > due.waited {
                        due.put_off(hedge_delay);
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
