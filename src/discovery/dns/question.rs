//! One kind of record of one name, asked again and again as its schedule says.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    look::Kind,
    lookup::{Answer, Found, Lookup, LookupError, Nothing},
};
use crate::{
    discovery::{
        filter::Filter,
        schedule::{self, Pace, Schedule, Verdict},
    },
    endpoint::Endpoint,
};

/// What came of one look, beyond the endpoints.
pub(super) enum Look {
    /// The endpoints are what DNS says.
    Done,
    /// DNS says that there are none, and there were none.
    Nothing(LookupError),
    /// DNS says that there are none, and is believed: those that there were are dropped.
    Gone { error: LookupError, changed: bool },
    /// The last endpoints stay, against what DNS says or for want of an answer.
    Kept(LookupError),
}

/// A question and what is believed of its answer.
pub(super) struct Question {
    kind: Kind,
    filter: Filter,
    schedule: Schedule,
    timer: Pin<Box<Sleep>>,
    lookup: Option<Lookup>,
    /// The last endpoints; none before the first answer that is believed.
    endpoints: Option<Vec<Endpoint>>,
    /// Whether the last records were those of a Service with a virtual IP.
    is_virtual: bool,
    /// Whether a look has ended, however it did.
    looked: bool,
    /// Whether the last look left the endpoints as they were, for want of a better answer.
    stale: bool,
}

impl Question {
    pub(super) fn new(kind: Kind, pace: Pace, filter: Filter) -> Self {
        let now = Instant::now();
        Self {
            kind,
            filter,
            schedule: Schedule::new(pace, now),
            timer: Box::pin(sleep_until(now)),
            lookup: None,
            endpoints: None,
            is_virtual: false,
            looked: false,
            stale: false,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The endpoints as last believed; empty before that.
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.as_deref().unwrap_or_default()
    }

    /// Whether it is certain that there are none.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.endpoints.as_deref(), Some([]))
    }

    /// Whether DNS has said often enough that there is nothing, be it believed or not.
    pub(super) fn is_confirmed_empty(&self) -> bool {
        self.schedule.is_confirmed_empty()
    }

    /// Whether the last records were those of a Service with a virtual IP.
    pub(super) fn is_virtual(&self) -> bool {
        self.is_virtual
    }

    /// Whether a look has ended, however it did.
    pub(super) fn has_looked(&self) -> bool {
        self.looked
    }

    /// Whether a look is under way.
    pub(super) fn is_looking(&self) -> bool {
        self.lookup.is_some()
    }

    /// Whether the endpoints are older than the last look.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Waits until it is time to ask. Never while a look is under way.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.lookup.is_some() {
            return Poll::Pending;
        }
        if self.timer.deadline() != self.schedule.due() {
            self.timer.as_mut().reset(self.schedule.due());
        }
        self.timer.as_mut().poll(cx)
    }

    /// The question is being asked, by whomever.
    pub(super) fn asked(&mut self) {
        self.schedule.asked(Instant::now());
    }

    /// Takes over a look that has begun.
    pub(super) fn begin(&mut self, lookup: Lookup) {
        self.lookup = Some(lookup);
    }

    /// Waits for the end of the look, if one is under way.
    pub(super) fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<Look> {
        let Some(lookup) = &mut self.lookup else {
            return Poll::Pending;
        };
        let answer = ready!(lookup.as_mut().poll(cx));
        self.lookup = None;
        Poll::Ready(self.answered(answer))
    }

    /// Takes what a look has come to.
    pub(super) fn answered(&mut self, answer: Answer<Found>) -> Look {
        let answer = self.filtered(answer);
        let look = self.judge(answer);
        self.looked = true;
        self.stale = matches!(look, Look::Kept(_));
        look
    }

    fn filtered(&mut self, answer: Answer<Found>) -> Answer<Found> {
        let mut answer = answer?;
        if let Ok(Found {
            name, endpoints, ..
        }) = &mut answer
        {
            let allowed = self.filter.apply(endpoints);
            allowed
                .map_err(|rejected| LookupError::new(format_args!("{name}."), rejected.into()))?;
        }
        Ok(answer)
    }

    fn judge(&mut self, answer: Answer<Found>) -> Look {
        let (answer, found) = match answer {
            Ok(Ok(Found {
                ttl,
                endpoints,
                is_virtual,
                ..
            })) => {
                self.is_virtual = is_virtual;
                let changed = !is_same_set(self.endpoints(), &endpoints);
                (schedule::Answer::Records { ttl, changed }, Ok(endpoints))
            }
            Ok(Err(Nothing { ttl, error })) => (schedule::Answer::Empty { ttl }, Err(error)),
            Err(error) => (schedule::Answer::Failed, Err(error)),
        };
        let verdict = self
            .schedule
            .answered(answer, Instant::now(), &mut rand::rng());
        match (verdict, found) {
            (Verdict::Replace, Ok(endpoints)) => self.endpoints = Some(endpoints),
            (Verdict::Drop, Err(error)) => {
                let changed = !self.endpoints().is_empty();
                self.endpoints = Some(Vec::new());
                return Look::Gone { error, changed };
            }
            (_, Err(error)) if error.is_not_found() && self.endpoints().is_empty() => {
                return Look::Nothing(error);
            }
            (_, Err(error)) => return Look::Kept(error),
            // Records are never judged so.
            (Verdict::Keep | Verdict::Drop, Ok(_)) => {}
        }
        Look::Done
    }

    /// A sign of change: ask soon.
    pub(super) fn refresh(&mut self) {
        self.schedule.refresh(Instant::now());
    }

    /// Gives `endpoint` up, if DNS says that it is gone and only the confirmation is missing. True if so.
    pub(super) fn give_up(&mut self, endpoint: &Endpoint) -> bool {
        let Some(endpoints) = self
            .endpoints
            .as_mut()
            .filter(|_| self.schedule.is_in_doubt())
        else {
            return false;
        };
        let before = endpoints.len();
        endpoints.retain(|held| held.address() != endpoint.address());
        endpoints.len() < before
    }
}

/// Whether two answers have the same endpoints, in whatever order and however often each.
fn is_same_set(a: &[Endpoint], b: &[Endpoint]) -> bool {
    if a == b {
        return true;
    }
    let sorted = |endpoints: &[Endpoint]| {
        let mut endpoints = endpoints.to_vec();
        endpoints.sort_unstable();
        endpoints.dedup();
        endpoints
    };
    sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, time::Duration};

    use super::*;
    use crate::discovery::dns::lookup::{Family, Reason, Transport, Via};

    fn question() -> Question {
        let kind = Kind::Addresses(Family::V4, 80);
        Question::new(kind, Pace::default(), Filter::default())
    }

    fn endpoint() -> Endpoint {
        Endpoint::new(([10, 0, 0, 1], 80).into())
    }

    fn found() -> Answer<Found> {
        let via = Via {
            name_server: ([10, 96, 0, 10], 53).into(),
            transport: Transport::Udp,
        };
        Ok(Ok(Found {
            name: "web.svc".into(),
            endpoints: vec![endpoint()],
            ttl: Duration::from_secs(5),
            via,
            is_virtual: false,
        }))
    }

    /// Asks as often as it is due, with answers at once, until nothing is due any more; counts the questions.
    async fn drain(question: &mut Question, asked: &Cell<u32>) {
        while futures::poll!(poll_fn(|cx| question.poll_due(cx))).is_ready() {
            asked.set(asked.get() + 1);
            question.asked();
            question.begin(Box::pin(async { found() }));
            let look = poll_fn(|cx| question.poll_look(cx)).await;
            assert!(matches!(look, Look::Done));
        }
    }

    /// Row 14 of the faults: a suspended machine's clock jumps; monotonic time makes that one late question, no burst.
    #[tokio::test(start_paused = true)]
    async fn row_14_a_suspend_costs_one_question() {
        let mut question = question();
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
        let mut question = question();
        assert!(futures::poll!(poll_fn(|cx| question.poll_due(cx))).is_ready());
        question.asked();
        question.begin(Box::pin(std::future::pending()));
        for _ in 0..100 {
            question.refresh();
            assert!(futures::poll!(poll_fn(|cx| question.poll_due(cx))).is_pending());
            assert!(futures::poll!(poll_fn(|cx| question.poll_look(cx))).is_pending());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_doubt_can_be_given_up_and_what_is_not_stays() {
        let mut question = question();
        question.answered(found());
        assert!(!question.give_up(&endpoint()), "DNS still has it");
        let error = LookupError::new("web.svc.", Reason::NoName);
        let look = question.answered(Ok(Err(Nothing { ttl: None, error })));
        assert!(matches!(look, Look::Kept(_)));
        assert_eq!(question.endpoints(), [endpoint()]);
        assert!(question.give_up(&endpoint()));
        assert!(question.endpoints().is_empty());
    }
}
