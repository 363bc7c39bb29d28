//! How many changes of single endpoints are told as `info`.
//!
//! A thousand pods may refuse at once, and one may come and go many times a second. The first few changes of a minute are told one
//! by one. The others are counted, and told in one line when the minute is over; one by one they are for `debug`.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

const PERIOD: Duration = Duration::from_secs(60);

/// How many are told in that time: more than a usual rollout of a few pods makes.
const MOST: u32 = 20;

/// The same for panics, which are of the whole set: no number of single endpoints keeps one from being told.
const MOST_PANICS: u32 = 6;

/// What has changed of an endpoint, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Refuses,
    Accepts,
    Ejected,
    Readmitted,
    FailsChecks,
    PassesChecks,
    /// All get requests since too few are healthy, or that is over.
    Panic,
}

const KINDS: usize = 7;

/// How often that was not told, by [`Change`].
pub(crate) type Untold = [u32; KINDS];

/// The changes of one balancer's endpoints.
#[derive(Debug, Default)]
pub(crate) struct Changes(Mutex<Period>);

#[derive(Debug, Default)]
struct Period {
    began: Option<Instant>,
    told: u32,
    panics: u32,
    untold: Untold,
}

impl Changes {
    /// There is one more. Whether it is told by itself.
    pub(crate) fn is_told(&self, change: Change, now: Instant) -> bool {
        let mut period = self.0.lock();
        let is_over = period.due().is_none_or(|due| due <= now);
        // What was not told keeps its period until that has been.
        if is_over && period.untold == Untold::default() {
            *period = Period {
                began: Some(now),
                ..Period::default()
            };
        }
        let (told, most) = match change {
            Change::Panic => (&mut period.panics, MOST_PANICS),
            _ => (&mut period.told, MOST),
        };
        let is_told = *told < most;
        match is_told {
            true => *told += 1,
            false => period.untold[change as usize] += 1,
        }
        is_told
    }

    /// When those that were not told are to be.
    pub(crate) fn due(&self) -> Option<Instant> {
        let period = self.0.lock();
        period.due().filter(|_| period.untold != Untold::default())
    }

    /// Those that were not told, if it is time to.
    pub(crate) fn take_due(&self, now: Instant) -> Option<Untold> {
        self.due().filter(|due| *due <= now)?;
        Some(std::mem::take(&mut *self.0.lock()).untold)
    }
}

impl Period {
    fn due(&self) -> Option<Instant> {
        Some(self.began? + PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_minute_are_told_and_the_others_are_counted() {
        let (changes, now) = (Changes::default(), Instant::now());
        let told = |at| (0..1000).filter(move |_| changes.is_told(Change::Refuses, at));
        assert_eq!(told(now).count(), MOST as usize);
    }

    #[test]
    fn what_was_not_told_is_told_once_when_the_minute_is_over() {
        let (changes, now) = (Changes::default(), Instant::now());
        for _ in 0..MOST {
            assert!(changes.is_told(Change::Refuses, now));
        }
        assert_eq!(changes.due(), None, "all were told");
        for change in [Change::Accepts, Change::Refuses, Change::Accepts] {
            assert!(!changes.is_told(change, now));
        }
        assert_eq!(changes.due(), Some(now + PERIOD));
        assert_eq!(changes.take_due(now), None);
        let untold = changes.take_due(now + PERIOD).expect("they are due");
        assert_eq!(untold, [1, 2, 0, 0, 0, 0, 0]);
        assert_eq!(changes.due(), None);
        assert!(changes.is_told(Change::Refuses, now + PERIOD));
    }

    #[test]
    fn a_panic_is_told_however_many_endpoints_have_changed() {
        let (changes, now) = (Changes::default(), Instant::now());
        for _ in 0..1_000 {
            changes.is_told(Change::Ejected, now);
        }
        let told = (0..1_000).filter(|_| changes.is_told(Change::Panic, now));
        assert_eq!(
            told.count(),
            MOST_PANICS as usize,
            "but one that flaps is not"
        );
        let untold = changes.take_due(now + PERIOD).expect("they are due");
        assert_eq!(
            (
                untold[Change::Ejected as usize],
                untold[Change::Panic as usize]
            ),
            (980, 994)
        );
        assert!(changes.is_told(Change::Panic, now + PERIOD));
    }

    #[test]
    fn few_changes_are_all_told() {
        let (changes, now) = (Changes::default(), Instant::now());
        for minute in 0..100 {
            let now = now + minute * PERIOD;
            assert!((0..MOST).all(|_| changes.is_told(Change::Accepts, now)));
        }
    }
}
