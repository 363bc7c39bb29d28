//! Limits how many changes of single endpoints are logged as `info`.
//!
//! A thousand pods may refuse at once, and one may come and go many times a second. The first few changes of a minute
//! are logged as `info`, one by one. The others are logged as `debug`, counted, and summed up in one `info` line when
//! the minute is over.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

const PERIOD: Duration = Duration::from_secs(60);

/// How many changes are logged in that time: more than a usual rollout of a few pods makes.
const MOST: u32 = 20;

/// How many panics are logged in that time. Their limit is their own, because a panic is about the whole set: changes
/// of single endpoints shouldn't hide it.
const MOST_PANICS: u32 = 6;

/// A change of an endpoint, or of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Refuses,
    Accepts,
    Ejected,
    Readmitted,
    FailsChecks,
    PassesChecks,
    /// A panic begins or ends: all get requests because too few are healthy.
    Panic,
}

const KINDS: usize = 7;

/// How many changes were not logged as `info`, by [`Change`].
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
    /// Counts one more change. True if it is logged by itself, as `info`.
    pub(crate) fn is_told(&self, change: Change, now: Instant) -> bool {
        let mut period = self.0.lock();
        let is_over = period.due().is_none_or(|due| due <= now);
        // A period with untold changes goes on until these have been summed up.
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

    /// When to sum up the untold changes, if there are any.
    pub(crate) fn due(&self) -> Option<Instant> {
        let period = self.0.lock();
        period.due().filter(|_| period.untold != Untold::default())
    }

    /// The untold changes, if they are due.
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
    fn untold_changes_are_summed_up_once_when_the_minute_is_over() {
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
