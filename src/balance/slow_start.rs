//! Slow start: a new endpoint's share grows with its age.
//!
//! The share grows linearly over the window, from a tenth to all of it, as in Envoy's slow start, which uses weights.
//! Endpoints of discovery's first answer are not new. Slow start is suspended while most of the endpoints are new,
//! because too few others could take their requests.

use std::time::Duration;

use tokio::time::Instant;

use super::registry::{Life, Lives};
use crate::{endpoint::Counted, member::Checked, signals::Signals};

/// The share that a new endpoint begins with.
const FIRST: f64 = 0.1;

/// Slow start's setting: how long an endpoint is new.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStart {
    /// Zero if slow start is off.
    window: Duration,
}

impl SlowStart {
    pub(super) fn new(window: Duration) -> Self {
        Self { window }
    }

    /// This member has joined a set that was there before.
    pub(super) fn join<S>(&self, life: &mut Life<S>, now: Instant) {
        if !self.window.is_zero() {
            life.new_since = Some(now);
        }
    }

    /// Sets each new endpoint's share by its age.
    pub(super) fn review<S>(&self, lives: &mut Lives<S>, signals: &Signals, now: Instant) {
        if self.window.is_zero() {
            return;
        }
        // Endpoints that don't count, such as those of weight zero, have no share.
        let counted = Counted::of(lives.values().map(|life| life.endpoint.weight()));
        let (mut all, mut new) = (0, 0);
        for life in lives.values_mut() {
            let is_new = self.is_new(life, now);
            if counted.has(life.endpoint.weight()) {
                all += 1;
                new += usize::from(is_new);
            }
        }
        let is_suspended = new * 2 > all;
        for life in lives.values() {
            let share = match life.new_since {
                Some(since) if !is_suspended => self.share(since, now),
                _ => 1.0,
            };
            life.member.set_slow_start_share(share);
        }
        signals.set_slow_start(new > 0 && !is_suspended);
    }

    fn is_new<S>(&self, life: &mut Life<S>, now: Instant) -> bool {
        if life.new_since.is_some() && life.member.stats().checked() == Checked::Pending {
            // It gets no requests before its first check has passed, so its window hasn't begun.
            life.new_since = Some(now);
        }
        life.new_since = life
            .new_since
            .filter(|&since| age(since, now) < self.window);
        life.new_since.is_some()
    }

    fn share(&self, since: Instant, now: Instant) -> f64 {
        age(since, now).div_duration_f64(self.window).max(FIRST)
    }
}

fn age(since: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(since)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{endpoint::Endpoint, member::Member};

    const WINDOW: Duration = Duration::from_secs(10);

    struct Fixture {
        slow_start: SlowStart,
        lives: Lives<()>,
        signals: Arc<Signals>,
        now: Instant,
    }

    impl Fixture {
        /// With `old` endpoints that aren't new.
        fn new(old: usize) -> Self {
            let now = Instant::now();
            let mut fixture = Self {
                slow_start: SlowStart::new(WINDOW),
                lives: Lives::new(),
                signals: Arc::new(Signals::new(now)),
                now,
            };
            for _ in 0..old {
                let life = fixture.life();
                fixture.lives.insert(life.member.id(), life);
            }
            fixture
        }

        fn life(&self) -> Life<()> {
            self.life_of(1)
        }

        fn life_of(&self, weight: u32) -> Life<()> {
            let endpoint = Endpoint::new(([10, 0, 0, 1], 80).into()).with_weight(weight);
            let member = Member::new(endpoint, None, None, self.signals.clone());
            Life::new(member, (), self.now)
        }

        fn join(&mut self) -> Arc<Member> {
            self.join_of(1)
        }

        fn join_of(&mut self, weight: u32) -> Arc<Member> {
            let mut life = self.life_of(weight);
            self.slow_start.join(&mut life, self.now);
            let member = life.member.clone();
            self.lives.insert(member.id(), life);
            member
        }

        fn review(&mut self, later: f64) {
            self.now += Duration::from_secs_f64(later);
            self.slow_start
                .review(&mut self.lives, &self.signals, self.now);
        }
    }

    #[test]
    fn the_share_grows_from_a_tenth_to_all_of_it() {
        let mut fixture = Fixture::new(2);
        let member = fixture.join();
        for (later, slow_start_share) in
            [(0.0, 0.1), (0.5, 0.1), (1.5, 0.2), (3.0, 0.5), (4.9, 0.99)]
        {
            fixture.review(later);
            assert!(
                (member.slow_start_share() - slow_start_share).abs() < 1e-6,
                "{slow_start_share}"
            );
            assert!(fixture.signals.has_flags());
        }
        fixture.review(0.1);
        assert_eq!(member.slow_start_share(), 1.0);
        assert!(!fixture.signals.has_flags(), "nobody is new any more");
    }

    #[test]
    fn an_endpoint_held_back_for_its_first_check_stays_new() {
        let mut fixture = Fixture::new(2);
        let member = fixture.join();
        member.hold_back();
        fixture.review(20.0);
        member.stats().set_checked(Checked::Passes);
        fixture.review(2.0);
        assert!((member.slow_start_share() - 0.2).abs() < 1e-6);
    }

    #[test]
    fn while_most_endpoints_are_new_all_get_their_full_shares() {
        let mut fixture = Fixture::new(1);
        let first = [fixture.join(), fixture.join()];
        fixture.review(0.0);
        assert!(first.iter().all(|member| member.slow_start_share() == 1.0));
        assert!(!fixture.signals.has_flags());
        let life = fixture.life();
        fixture.lives.insert(life.member.id(), life);
        fixture.review(2.0);
        assert!(
            first
                .iter()
                .all(|member| (member.slow_start_share() - 0.2).abs() < 1e-6)
        );
    }

    #[test]
    fn new_endpoints_without_weight_neither_suspend_nor_begin_slow_start() {
        let mut fixture = Fixture::new(4);
        for _ in 0..20 {
            fixture.join_of(0);
        }
        fixture.review(0.0);
        assert!(!fixture.signals.has_flags(), "they get nothing anyway");
        let member = fixture.join();
        fixture.review(2.0);
        assert!((member.slow_start_share() - 0.2).abs() < 1e-6);
        assert!(fixture.signals.has_flags());
    }

    #[test]
    fn if_no_endpoint_has_weight_new_ones_start_slowly_too() {
        let mut fixture = Fixture::new(0);
        for _ in 0..2 {
            let life = fixture.life_of(0);
            fixture.lives.insert(life.member.id(), life);
        }
        let member = fixture.join_of(0);
        fixture.review(2.0);
        assert!((member.slow_start_share() - 0.2).abs() < 1e-6);
        assert!(fixture.signals.has_flags());
    }

    #[test]
    fn an_endpoint_that_leaves_ends_its_slow_start() {
        let mut fixture = Fixture::new(2);
        let member = fixture.join();
        fixture.review(1.0);
        assert!(fixture.signals.has_flags());
        fixture.lives.remove(&member.id());
        fixture.review(1.0);
        assert!(!fixture.signals.has_flags());
    }
}
