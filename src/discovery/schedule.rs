//! When to ask next, and what an answer does to the records. Pure: no clock, no I/O, no generator of its own.
//!
//! ```text
//!              records                    name or records gone
//!   ┌────────▶ Replace ◀──────┐      ┌──▶ Keep, and ask sooner ──▶ Drop, once confirmed
//!   │ TTL within the bounds   │      │    (3 in a row and 10 s)
//!   └─────────────────────────┴─ ask ┤
//!   ┌────────▶ Keep ──────────┘      │
//!   │ 1 s × 1.6, up to 30 s, ± 20 %  │
//!   └──────────────── no answer ◀────┘
//! ```
//!
//! There is one schedule per question: one name and one record type.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use crate::backoff::Backoff;

/// Jitter of a regular refresh, so that clients started together don't keep asking together.
const JITTER: f64 = 0.1;

/// The most that jitter may delay a question. A user who sets a long refresh relies on it nearly to the second.
const LATE: Duration = Duration::from_millis(500);

/// The pauses after a sign of change, before the regular pace returns: one change is likely to be followed by more (a
/// rolling update goes pod by pod).
const EAGER: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// How many questions may be asked before [`Pace::min`] is over, for something [wanted](Schedule::want). One more each
/// [`Pace::min`] after that: so a flood of made-up names doubles the pace at most.
const EARLY: u32 = 4;

/// So many negative answers in a row, over at least [`CONFIRM_PERIOD`], confirm that a name has no records any more.
const CONFIRM_ANSWERS: u32 = 3;
const CONFIRM_PERIOD: Duration = Duration::from_secs(10);

/// What to do when DNS says that the name doesn't exist or has no addresses.
///
/// A headless Service scaled to zero looks like that, and so does a DNS server that has lost its data or hasn't loaded
/// it yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnEmpty {
    /// Keep the last endpoints until three answers in a row, over at least ten seconds, have said so. An endpoint that
    /// begins to refuse connections meanwhile is dropped at once. One that already refused them stays in the set, out
    /// of use, until the answer is confirmed.
    #[default]
    Confirm,
    /// Drop all endpoints at the first such answer.
    Believe,
    /// Keep the last endpoints for ever.
    Ignore,
}

/// The settings of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// The shortest pause between two questions, however short the TTL and however urgent the need.
    pub(crate) min: Duration,
    /// The longest pause after an answer.
    pub(crate) max: Duration,
    pub(crate) on_empty: OnEmpty,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(1),
            max: Duration::from_secs(5),
            on_empty: OnEmpty::default(),
        }
    }
}

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Records, and whether they differ from the ones before.
    Records { ttl: Duration, changed: bool },
    /// No records of the type. `is_no_name`: the answer says that the name has none of any type.
    Empty {
        ttl: Option<Duration>,
        is_no_name: bool,
    },
    /// SERVFAIL, silence, or an answer that is truncated or makes no sense.
    Failed,
}

/// What to do with the last records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The answer's records take their place.
    Replace,
    /// The last records stay.
    Keep,
    /// The last records go.
    Drop,
}

/// When to ask one question.
#[derive(Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    due: Instant,
    asked: Option<Instant>,
    /// Something has been [wanted](Schedule::want) since.
    is_wanted: bool,
    /// When the early questions so far are paid off: each costs [`Pace::min`].
    early_until: Option<Instant>,
    /// How many of [`EAGER`]'s pauses have passed.
    eager: usize,
    failures: Option<Backoff>,
    negatives: Option<Negatives>,
    /// The latest of these, as far as they say that the name doesn't exist at all.
    no_names: Option<Negatives>,
}

/// Negative answers in a row.
#[derive(Clone, Copy, Debug)]
struct Negatives {
    count: u32,
    since: Instant,
    confirmed: bool,
}

impl Schedule {
    /// A schedule whose first question is due now.
    pub(crate) fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            due: now,
            asked: None,
            is_wanted: false,
            early_until: None,
            eager: EAGER.len(),
            failures: None,
            negatives: None,
            no_names: None,
        }
    }

    /// When to ask next.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Notes that the question was asked.
    pub(crate) fn asked(&mut self, now: Instant) {
        let before = self.asked.replace(now);
        self.is_wanted = false;
        if before.is_some_and(|before| now < before + self.pace.min) {
            let paid = self.early_until.map_or(now, |until| until.max(now));
            self.early_until = Some(paid + self.pace.min);
        }
    }

    /// Whether there are negative answers, confirmed or not.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.negatives.is_some()
    }

    /// Whether negative answers are confirmed, or believed without confirmation. The records may still be kept
    /// ([`OnEmpty::Ignore`]).
    pub(crate) fn is_confirmed_empty(&self) -> bool {
        self.negatives.is_some_and(|negatives| negatives.confirmed)
    }

    /// Whether it is confirmed that the name doesn't exist at all.
    pub(crate) fn is_confirmed_no_name(&self) -> bool {
        self.no_names.is_some_and(|no_names| no_names.confirmed)
    }

    /// Notes that another type's records prove that the name exists.
    pub(crate) fn name_exists(&mut self) {
        self.no_names = None;
    }

    /// Reacts to a sign of change: asks as soon as [`Pace::min`] allows, then more often for a while.
    pub(crate) fn refresh(&mut self, now: Instant) {
        self.eager = 0;
        let floor = self.asked.map_or(now, |asked| asked + self.pace.min);
        self.due = self.due.min(floor.max(now));
    }

    /// Reacts to something that a new question may find, such as a pod's own name: asks at once, a few times even
    /// before [`Pace::min`] is over ([`EARLY`]). If the last answer was a failure or negative, it is no more than a
    /// [`refresh`](Self::refresh).
    pub(crate) fn want(&mut self, now: Instant) {
        self.is_wanted = true;
        self.refresh(now);
        if self.failures.is_none() && self.negatives.is_none() {
            self.due = self.due.min(self.early(now));
        }
    }

    /// Asks again for what was wanted while the last question was under way, because it came too late for that.
    pub(crate) fn catch_up(&mut self, now: Instant) {
        if self.is_wanted && self.failures.is_none() {
            self.want(now);
        }
    }

    /// When the next early question may be asked.
    fn early(&self, now: Instant) -> Instant {
        let credit = self.pace.min * (EARLY - 1);
        match self.early_until {
            Some(until) if until > now + credit => until - credit,
            _ => now,
        }
    }

    /// Takes the answer: sets when to ask next, and returns what to do with the records.
    pub(crate) fn answered(&mut self, answer: Answer, now: Instant, rng: &mut impl Rng) -> Verdict {
        let (pause, verdict) = match answer {
            Answer::Failed => (self.pause_after_failure(rng), Verdict::Keep),
            Answer::Records { ttl, changed } => {
                self.failures = None;
                self.negatives = None;
                self.no_names = None;
                if changed {
                    self.eager = 0;
                }
                (self.pause(ttl, rng), Verdict::Replace)
            }
            Answer::Empty { ttl, is_no_name } => {
                self.failures = None;
                let verdict = self.judge_empty(is_no_name, now);
                (self.pause(ttl.unwrap_or(self.pace.max), rng), verdict)
            }
        };
        self.due = now + pause;
        verdict
    }

    fn judge_empty(&mut self, is_no_name: bool, now: Instant) -> Verdict {
        let on_empty = self.pace.on_empty;
        if self.negatives.is_none() {
            self.eager = 0;
        }
        let negatives = Negatives::after(self.negatives, on_empty, now);
        self.negatives = Some(negatives);
        self.no_names = is_no_name.then(|| Negatives::after(self.no_names, on_empty, now));
        match on_empty {
            OnEmpty::Believe | OnEmpty::Confirm if negatives.confirmed => Verdict::Drop,
            _ => Verdict::Keep,
        }
    }

    /// The regular pause: the TTL within the bounds, or a shorter one for a while after a sign of change.
    fn pause(&mut self, ttl: Duration, rng: &mut impl Rng) -> Duration {
        let regular = ttl.clamp(self.pace.min, self.pace.max);
        let eager = EAGER.get(self.eager).copied();
        self.eager = self.eager.saturating_add(1);
        let pause = eager.map_or(regular, |eager| regular.min(eager.max(self.pace.min)));
        let early = pause.mul_f64(1.0 - JITTER).max(self.pace.min);
        let late = (pause + pause.mul_f64(JITTER).min(LATE)).max(early);
        rng.random_range(early..=late)
    }

    /// The pause after a failure. Finagle, gRPC and resolvers back off too; 1.6 is their usual factor.
    fn pause_after_failure(&mut self, rng: &mut impl Rng) -> Duration {
        let failures = self.failures.get_or_insert_with(Backoff::of_discovery);
        failures.next(rng).max(self.pace.min)
    }
}

impl Negatives {
    /// Adds one negative answer to `before`.
    fn after(before: Option<Self>, on_empty: OnEmpty, now: Instant) -> Self {
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        let since = before.map_or(now, |before| before.since);
        let repeated = count >= CONFIRM_ANSWERS && now >= since + CONFIRM_PERIOD;
        let confirmed = before.is_some_and(|before| before.confirmed);
        Self {
            count,
            since,
            confirmed: confirmed || repeated || on_empty == OnEmpty::Believe,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    const SECOND: Duration = Duration::from_secs(1);

    struct Fixture {
        schedule: Schedule,
        now: Instant,
        rng: SmallRng,
    }

    impl Fixture {
        fn new(pace: Pace) -> Self {
            let now = Instant::now();
            Self {
                schedule: Schedule::new(pace, now),
                now,
                rng: SmallRng::seed_from_u64(3),
            }
        }

        /// Asks when due and gives `answer`. Returns the verdict, and the pause until the next question in seconds.
        fn ask(&mut self, answer: Answer) -> (Verdict, f64) {
            self.now = self.schedule.due();
            self.schedule.asked(self.now);
            let verdict = self.schedule.answered(answer, self.now, &mut self.rng);
            (verdict, (self.schedule.due() - self.now).as_secs_f64())
        }
    }

    fn records(ttl: u64) -> Answer {
        Answer::Records {
            ttl: Duration::from_secs(ttl),
            changed: false,
        }
    }

    const EMPTY: Answer = Answer::Empty {
        ttl: Some(SECOND),
        is_no_name: false,
    };
    const NO_NAME: Answer = Answer::Empty {
        ttl: Some(SECOND),
        is_no_name: true,
    };

    fn about(seconds: f64, share: f64, pause: f64) -> bool {
        (seconds * (1.0 - share) - 1e-6..=seconds * (1.0 + share) + 1e-6).contains(&pause)
    }

    #[test]
    fn the_ttl_is_clamped_both_ways_and_jittered() {
        let mut fixture = Fixture::new(Pace::default());
        for (ttl, pause) in [
            (0, 1.0),
            (1, 1.0),
            (3, 3.0),
            (5, 5.0),
            (30, 5.0),
            (1 << 31, 5.0),
        ] {
            for _ in 0..100 {
                let (verdict, waited) = fixture.ask(records(ttl));
                assert_eq!(verdict, Verdict::Replace);
                assert!(about(pause, JITTER, waited), "TTL {ttl}: {waited}");
                assert!(waited >= 1.0, "never below the floor");
            }
        }
    }

    #[test]
    fn jitter_adds_half_a_second_at_most_to_a_long_pause() {
        let pace = Pace {
            max: 60 * SECOND,
            ..Pace::default()
        };
        let mut fixture = Fixture::new(pace);
        let pauses: Vec<_> = (0..100).map(|_| fixture.ask(records(30)).1).collect();
        assert!(pauses.iter().all(|pause| (27.0..=30.5).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause > 30.0));
    }

    #[test]
    fn a_change_is_followed_up_at_1_2_and_4_seconds() {
        let mut fixture = Fixture::new(Pace::default());
        let changed = Answer::Records {
            ttl: 30 * SECOND,
            changed: true,
        };
        let mut pauses = vec![fixture.ask(changed).1];
        pauses.extend((0..4).map(|_| fixture.ask(records(30)).1));
        for (pause, expected) in pauses.iter().zip([1.0, 2.0, 4.0, 5.0, 5.0]) {
            assert!(about(expected, JITTER, *pause), "{pauses:?}");
        }
    }

    #[test]
    fn failures_back_off_to_30_seconds_and_keep_the_set() {
        let mut fixture = Fixture::new(Pace::default());
        let mut expected = 1.0_f64;
        for _ in 0..12 {
            let (verdict, pause) = fixture.ask(Answer::Failed);
            assert_eq!(verdict, Verdict::Keep);
            assert!(about(expected, 0.2, pause.max(expected * 0.8)), "{pause}");
            expected = (expected * 1.6).min(30.0);
        }
        assert!(fixture.ask(records(5)).1 < 6.0, "one answer ends it");
        assert!(fixture.ask(Answer::Failed).1 < 2.0, "and starts anew");
    }

    #[test]
    fn a_blip_drops_nothing_and_a_steady_negative_drops_after_ten_seconds() {
        let mut fixture = Fixture::new(Pace::default());
        fixture.ask(records(5));
        assert_eq!(fixture.ask(EMPTY).0, Verdict::Keep);
        assert!(fixture.schedule.is_in_doubt());
        fixture.ask(records(5));
        assert!(!fixture.schedule.is_in_doubt());
        let verdict = fixture.ask(EMPTY).0;
        let since = fixture.now;
        assert_eq!(verdict, Verdict::Keep, "the count begins anew");
        while fixture.ask(EMPTY).0 == Verdict::Keep {}
        let waited = fixture.now - since;
        assert!(waited >= 10 * SECOND && waited <= 12 * SECOND, "{waited:?}");
    }

    #[test]
    fn a_failure_between_negatives_neither_confirms_nor_refutes() {
        let mut fixture = Fixture::new(Pace::default());
        fixture.ask(EMPTY);
        for _ in 0..10 {
            assert_eq!(fixture.ask(Answer::Failed).0, Verdict::Keep);
        }
        assert_eq!(
            fixture.ask(EMPTY).0,
            Verdict::Keep,
            "only the second negative"
        );
        assert_eq!(fixture.ask(EMPTY).0, Verdict::Drop);
    }

    /// A name without records of the type may be without them for long before it goes.
    #[test]
    fn a_missing_name_is_confirmed_separately_from_missing_records() {
        let mut fixture = Fixture::new(Pace::default());
        while fixture.ask(EMPTY).0 == Verdict::Keep {}
        assert!(!fixture.schedule.is_confirmed_no_name());
        fixture.ask(NO_NAME);
        let since = fixture.now;
        while !fixture.schedule.is_confirmed_no_name() {
            assert_eq!(fixture.ask(NO_NAME).0, Verdict::Drop);
        }
        assert!(fixture.now - since >= 10 * SECOND);
        fixture.ask(Answer::Failed);
        assert!(fixture.schedule.is_confirmed_no_name());
        fixture.ask(EMPTY);
        assert!(!fixture.schedule.is_confirmed_no_name());
        fixture.ask(NO_NAME);
        fixture.ask(records(5));
        assert!(!fixture.schedule.is_in_doubt());
        fixture.ask(NO_NAME);
        assert!(!fixture.schedule.is_confirmed_no_name());
    }

    #[test]
    fn on_empty_believe_drops_at_once_and_ignore_never() {
        let pace = |on_empty| Pace {
            on_empty,
            ..Pace::default()
        };
        assert_eq!(
            Fixture::new(pace(OnEmpty::Believe)).ask(EMPTY).0,
            Verdict::Drop
        );
        let mut ignoring = Fixture::new(pace(OnEmpty::Ignore));
        for _ in 0..100 {
            assert_eq!(ignoring.ask(EMPTY).0, Verdict::Keep);
        }
    }

    #[test]
    fn a_forced_refresh_asks_at_once_but_not_before_the_floor() {
        let mut fixture = Fixture::new(Pace::default());
        fixture.ask(records(5));
        let asked = fixture.now;
        fixture.schedule.refresh(asked + SECOND / 10);
        assert_eq!(fixture.schedule.due(), asked + SECOND);
        fixture.schedule.refresh(asked + SECOND / 5);
        assert_eq!(
            fixture.schedule.due(),
            asked + SECOND,
            "however often it is asked for"
        );
        while fixture.ask(records(5)).1 < 4.5 {}
        let later = fixture.now + 2 * SECOND;
        fixture.schedule.refresh(later);
        assert_eq!(fixture.schedule.due(), later);
    }

    #[test]
    fn what_is_wanted_is_asked_for_at_once_and_a_flood_at_twice_the_pace_at_most() {
        let mut fixture = Fixture::new(Pace::default());
        fixture.ask(records(5));
        let began = fixture.now;
        let want = |fixture: &mut Fixture| {
            fixture.schedule.want(fixture.now);
            fixture.schedule.want(fixture.now);
            fixture.schedule.due() - fixture.now
        };
        for _ in 0..EARLY {
            assert_eq!(want(&mut fixture), Duration::ZERO);
            fixture.ask(records(5));
        }
        assert_eq!(fixture.now, began);
        assert_eq!(want(&mut fixture), SECOND);
        // A flood.
        let mut asked = 0;
        while fixture.now < began + 100 * SECOND {
            want(&mut fixture);
            fixture.ask(records(5));
            asked += 1;
        }
        assert!((100..=200).contains(&asked), "{asked}");
        // The credit comes back while nothing is wanted.
        let end = fixture.now + 10 * SECOND;
        while fixture.now < end {
            fixture.ask(records(5));
        }
        for _ in 0..EARLY {
            assert_eq!(want(&mut fixture), Duration::ZERO);
            fixture.ask(records(5));
        }
        assert_eq!(want(&mut fixture), SECOND);
    }

    #[test]
    fn what_is_wanted_during_a_question_is_asked_for_after_it() {
        let mut fixture = Fixture::new(Pace::default());
        fixture.ask(records(5));
        fixture.now = fixture.schedule.due();
        fixture.schedule.asked(fixture.now);
        fixture.schedule.want(fixture.now);
        let rng = &mut fixture.rng;
        fixture.schedule.answered(records(5), fixture.now, rng);
        fixture.schedule.catch_up(fixture.now);
        assert_eq!(fixture.schedule.due(), fixture.now);
        assert_eq!(
            fixture.ask(records(5)).1.floor(),
            1.0,
            "then as after a change"
        );
        let due = fixture.schedule.due();
        fixture.schedule.catch_up(fixture.now);
        assert_eq!(fixture.schedule.due(), due, "nothing was wanted meanwhile");
    }

    #[test]
    fn while_questions_fail_or_find_nothing_none_is_asked_early() {
        for answer in [Answer::Failed, EMPTY] {
            let mut fixture = Fixture::new(Pace::default());
            fixture.ask(answer);
            fixture.schedule.want(fixture.now);
            assert!(fixture.schedule.due() >= fixture.now + SECOND, "{answer:?}");
        }
    }

    #[test]
    fn a_refresh_never_postpones() {
        let mut fixture = Fixture::new(Pace::default());
        let due = fixture.schedule.due();
        fixture.schedule.refresh(fixture.now + SECOND);
        assert_eq!(fixture.schedule.due(), due);
    }
}
