//! The endpoints that refuse requests, and when each is to be tried again. Pure: takes `now` and the generator.
//!
//! ```text
//!                refuses                    back-off over               is ready
//!  ┌───────────┐ ──────▶ ┌─────────────┐ ───────────────▶ ┌─────────┐ ──────────▶ ┌──────────────────┐
//!  │ available │         │ unreachable │                  │ probing │             │ handed requests  │
//!  └───────────┘         └─────────────┘ ◀─────────────── └─────────┘             │ back? then trial │
//!       ▲                      ▲             fails                                └──────────────────┘
//!       │                      └──────────────── the trial request is refused ────────┘      │
//!       └───────────────────────────────────────────────────────── no, or it is accepted ────┘
//! ```
//!
//! A probe drives an endpoint's `poll_ready` in the background, so that no caller pays for finding out. It proves enough
//! for a service that connects there. A service that took requests and handed them back has shown that its readiness
//! means little, so one request is let through to it first.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use rand::Rng;
use tokio::time::Instant;

use crate::{backoff::Backoff, load::Load};

/// The first pause before an endpoint that refused is tried again; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);
const JITTER: f64 = 0.2;

/// The longest pause while no endpoint at all accepts requests: the first one back is to be found within a second.
const OUTAGE_PAUSE: Duration = Duration::from_millis(500);

/// How an endpoint refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It was not ready, with an error.
    NotReady,
    /// It took the request and handed it back.
    HandedBack,
}

/// The endpoints to be tried again.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// In an order of its own, so that of several that are due at the same time it is always the same one that is next.
    suspects: BTreeMap<SocketAddr, Suspect>,
}

#[derive(Debug)]
struct Suspect {
    load: Arc<Load>,
    refusal: Refusal,
    backoff: Backoff,
    since: Instant,
    due: Instant,
    /// A probe or a trial is under way.
    busy: bool,
}

impl Suspect {
    fn due(&self, outage: bool) -> Instant {
        if outage {
            self.due.min(self.since + OUTAGE_PAUSE)
        } else {
            self.due
        }
    }
}

impl Recovery {
    /// `load`'s endpoint has refused a request or a probe: try it again after its next pause.
    pub(super) fn refused(
        &mut self,
        load: Arc<Load>,
        refusal: Refusal,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let identity = load.endpoint().identity();
        let fresh = || Suspect {
            load: load.clone(),
            refusal,
            backoff: Backoff::new(MIN_PAUSE, 2.0, MAX_PAUSE, JITTER),
            since: now,
            due: now,
            busy: false,
        };
        let suspect = self.suspects.entry(identity).or_insert_with(fresh);
        if !Arc::ptr_eq(&suspect.load, &load) {
            *suspect = fresh();
        }
        suspect.refusal = refusal;
        suspect.since = now;
        suspect.due = now + suspect.backoff.next(rng);
        suspect.busy = false;
    }

    /// The endpoint is to be tried no longer: it accepts requests, or has left the set.
    pub(super) fn forget(&mut self, load: &Arc<Load>) {
        self.suspects.remove(&load.endpoint().identity());
    }

    /// When the next one is due.
    pub(super) fn due(&self, outage: bool) -> Option<Instant> {
        let waiting = self.suspects.values().filter(|suspect| !suspect.busy);
        waiting.map(|suspect| suspect.due(outage)).min()
    }

    /// Takes one that is due, for a probe; its outcome is to be told by [`refused`](Self::refused),
    /// [`forget`](Self::forget) or a trial.
    pub(super) fn take_due(&mut self, now: Instant, outage: bool) -> Option<(Arc<Load>, Refusal)> {
        let waiting = self.suspects.values_mut().filter(|suspect| !suspect.busy);
        let suspect = waiting.min_by_key(|suspect| suspect.due(outage))?;
        if suspect.due(outage) > now {
            return None;
        }
        suspect.busy = true;
        Some((suspect.load.clone(), suspect.refusal))
    }

    /// Drops those that accept requests again or have left the set.
    pub(super) fn tidy(&mut self) {
        self.suspects
            .retain(|_, suspect| suspect.load.is_unreachable() && !suspect.load.is_removed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{endpoint::Endpoint, signals::Signals};
    use rand::{SeedableRng, rngs::SmallRng};

    fn load(host: u8) -> Arc<Load> {
        let endpoint = Endpoint::new(([10, 0, 0, host], 80).into());
        let signals = Arc::new(Signals::new(Instant::now()));
        Load::new(endpoint, None, None, signals)
    }

    #[test]
    fn pauses_double_from_a_fifth_of_a_second_to_five() {
        let (mut recovery, mut now) = (Recovery::default(), Instant::now());
        let (load, rng) = (load(1), &mut SmallRng::seed_from_u64(5));
        let mut expected = 0.2_f64;
        for _ in 0..10 {
            recovery.refused(load.clone(), Refusal::NotReady, now, rng);
            let due = recovery.due(false).expect("one is waiting");
            let pause = (due - now).as_secs_f64();
            assert!(
                (expected * 0.799..=expected * 1.201).contains(&pause),
                "{pause}"
            );
            assert!(
                recovery
                    .take_due(due - Duration::from_millis(1), false)
                    .is_none()
            );
            assert!(recovery.take_due(due, false).is_some());
            assert!(
                recovery.take_due(due, false).is_none(),
                "one probe at a time"
            );
            expected = (expected * 2.0).min(5.0);
            now = due;
        }
    }

    #[test]
    fn in_an_outage_nobody_waits_longer_than_half_a_second() {
        let (mut recovery, now) = (Recovery::default(), Instant::now());
        let rng = &mut SmallRng::seed_from_u64(5);
        for _ in 0..10 {
            recovery.refused(load(1), Refusal::NotReady, now, rng);
        }
        let load = load(2);
        for _ in 0..10 {
            recovery.refused(load.clone(), Refusal::NotReady, now, rng);
        }
        assert!(recovery.due(false).expect("waiting") > now);
        assert!(recovery.due(true).expect("waiting") <= now + OUTAGE_PAUSE);
    }

    #[test]
    fn who_has_left_or_accepts_again_is_forgotten() {
        let (mut recovery, now) = (Recovery::default(), Instant::now());
        let rng = &mut SmallRng::seed_from_u64(5);
        let loads = [load(1), load(2), load(3)];
        for load in &loads {
            load.refuse();
            recovery.refused(load.clone(), Refusal::HandedBack, now, rng);
        }
        loads[0].accept();
        loads[1].remove();
        recovery.tidy();
        assert_eq!(recovery.suspects.len(), 1);
        recovery.forget(&loads[2]);
        assert_eq!(recovery.due(true), None);
    }
}
