//! One address family of one name, asked again and again as its schedule says.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use tokio::time::{Instant, Sleep, sleep_until};

use super::lookup::{Family, Found, LookupError};
use crate::discovery::schedule::{Answer, Pace, Schedule, Verdict};

/// A lookup under way.
pub(super) type Lookup = BoxFuture<'static, Result<Found, LookupError>>;

/// What came of one look, beyond the addresses.
pub(super) enum Look {
    /// The addresses are what DNS says.
    Done,
    /// DNS says that there are none, and there were none.
    Nothing(LookupError),
    /// The last addresses stay, against what DNS says or for want of an answer.
    Kept(LookupError),
}

/// A question and what is believed of its answer.
pub(super) struct Question {
    family: Family,
    schedule: Schedule,
    timer: Pin<Box<Sleep>>,
    lookup: Option<Lookup>,
    /// The last addresses; none before the first answer that is believed.
    addresses: Option<Vec<IpAddr>>,
    /// Whether a look has ended, however it did.
    looked: bool,
    /// Whether the last look left the addresses as they were, for want of a better answer.
    stale: bool,
}

impl Question {
    pub(super) fn new(family: Family, pace: Pace) -> Self {
        let now = Instant::now();
        Self {
            family,
            schedule: Schedule::new(pace, now),
            timer: Box::pin(sleep_until(now)),
            lookup: None,
            addresses: None,
            looked: false,
            stale: false,
        }
    }

    /// The addresses as last believed; empty before that.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        self.addresses.as_deref().unwrap_or_default()
    }

    /// Whether it is certain that there are none.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.addresses.as_deref(), Some([]))
    }

    /// Whether a look has ended, however it did.
    pub(super) fn has_looked(&self) -> bool {
        self.looked
    }

    /// Whether the addresses are older than the last look.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Asks when it is due, and waits for the end of the look.
    pub(super) fn poll(
        &mut self,
        ask: impl FnOnce(Family) -> Lookup,
        cx: &mut Context<'_>,
    ) -> Poll<Look> {
        if self.lookup.is_none() {
            ready!(self.poll_due(cx));
            self.schedule.asked(Instant::now());
        }
        let family = self.family;
        let lookup = self.lookup.get_or_insert_with(|| ask(family));
        let result = ready!(lookup.as_mut().poll(cx));
        self.lookup = None;
        self.looked = true;
        let look = self.judge(result);
        self.stale = matches!(look, Look::Kept(_));
        Poll::Ready(look)
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.deadline() != self.schedule.due() {
            self.timer.as_mut().reset(self.schedule.due());
        }
        self.timer.as_mut().poll(cx)
    }

    fn judge(&mut self, result: Result<Found, LookupError>) -> Look {
        let (answer, found) = match result {
            Ok(Found::Addresses { addresses, ttl }) => {
                let changed = !is_same_set(self.addresses(), &addresses);
                (Answer::Records { ttl, changed }, Ok(addresses))
            }
            Ok(Found::Nothing { ttl, error }) => (Answer::Empty { ttl }, Err(error)),
            Err(error) => (Answer::Failed, Err(error)),
        };
        let verdict = self
            .schedule
            .answered(answer, Instant::now(), &mut rand::rng());
        match (verdict, found) {
            (Verdict::Replace, Ok(addresses)) => self.addresses = Some(addresses),
            (Verdict::Drop, _) => self.addresses = Some(Vec::new()),
            (_, Err(error)) if error.is_not_found() && self.addresses().is_empty() => {
                return Look::Nothing(error);
            }
            (_, Err(error)) => return Look::Kept(error),
            (Verdict::Keep, Ok(_)) => {}
        }
        Look::Done
    }

    /// A sign of change: ask soon.
    pub(super) fn refresh(&mut self) {
        self.schedule.refresh(Instant::now());
    }

    /// Gives `address` up, if DNS says that it is gone and only the confirmation is missing. True if so.
    pub(super) fn give_up(&mut self, address: IpAddr) -> bool {
        let Some(addresses) = self
            .addresses
            .as_mut()
            .filter(|_| self.schedule.is_in_doubt())
        else {
            return false;
        };
        let before = addresses.len();
        addresses.retain(|&held| held != address);
        addresses.len() < before
    }
}

/// Whether two answers have the same addresses, in whatever order and however often each.
fn is_same_set(a: &[IpAddr], b: &[IpAddr]) -> bool {
    if a == b {
        return true;
    }
    let sorted = |addresses: &[IpAddr]| {
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    };
    sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, time::Duration};

    use super::*;

    /// Asks as often as it is due, with answers at once, until nothing is due any more; counts the questions.
    async fn drain(question: &mut Question, asked: &Cell<u32>) {
        let ask = |_| -> Lookup {
            asked.set(asked.get() + 1);
            let addresses = vec![IpAddr::from([10, 0, 0, 1])];
            let ttl = Duration::from_secs(5);
            Box::pin(async move { Ok(Found::Addresses { addresses, ttl }) })
        };
        while futures::poll!(poll_fn(|cx| question.poll(ask, cx))).is_ready() {}
    }

    /// Row 14 of the faults: a suspended machine's clock jumps; monotonic time makes that one late question, no burst.
    #[tokio::test(start_paused = true)]
    async fn row_14_a_suspend_costs_one_question() {
        let mut question = Question::new(Family::V4, Pace::default());
        let asked = Cell::new(0);
        drain(&mut question, &asked).await;
        assert_eq!(asked.get(), 1);
        tokio::time::advance(Duration::from_secs(3600)).await;
        drain(&mut question, &asked).await;
        assert_eq!(asked.get(), 2, "one question for all that were missed");
        tokio::time::advance(Duration::from_secs(1)).await;
        drain(&mut question, &asked).await;
        assert_eq!(asked.get(), 2, "and then the schedule's pace");
        tokio::time::advance(Duration::from_secs(2)).await;
        drain(&mut question, &asked).await;
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_at_a_time_however_often_a_refresh_is_forced() {
        let mut question = Question::new(Family::V4, Pace::default());
        let asked = Cell::new(0);
        let silent = |_| -> Lookup {
            asked.set(asked.get() + 1);
            Box::pin(std::future::pending())
        };
        for _ in 0..100 {
            question.refresh();
            let look = futures::poll!(poll_fn(|cx| question.poll(silent, cx)));
            assert!(look.is_pending());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(asked.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_doubt_can_be_given_up_and_what_is_not_stays() {
        let mut question = Question::new(Family::V4, Pace::default());
        let asked = Cell::new(0);
        drain(&mut question, &asked).await;
        let address = IpAddr::from([10, 0, 0, 1]);
        assert!(!question.give_up(address), "DNS still has it");
        let error = LookupError::no_name("web.svc.");
        let nothing = |_| -> Lookup {
            let error = error.clone();
            Box::pin(async move { Ok(Found::Nothing { ttl: None, error }) })
        };
        let look = poll_fn(|cx| question.poll(nothing, cx)).await;
        assert!(matches!(look, Look::Kept(_)));
        assert_eq!(question.addresses(), [address]);
        assert!(question.give_up(address));
        assert!(question.addresses().is_empty());
    }
}
