//! Slow start: a new endpoint's share grows with its age.
//!
//! From a tenth of its fair share it grows to all of it, linearly over the window; Envoy's slow start does the same, with
//! weights. What a client finds in the beginning is not new. It is suspended while most of the endpoints are new: they have
//! nobody to leave their requests to.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    load::{Checked, Load},
    signals::Signals,
};

/// The share that a new endpoint begins with.
const FIRST: f64 = 0.1;

/// The endpoints that are new.
#[derive(Debug, Default)]
pub(super) struct SlowStart {
    /// Zero: it is off.
    window: Duration,
    young: Vec<(Arc<Load>, Instant)>,
}

impl SlowStart {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            young: Vec::new(),
        }
    }

    /// This endpoint is new.
    pub(super) fn join(&mut self, load: &Arc<Load>, now: Instant) {
        if !self.window.is_zero() {
            self.young.push((load.clone(), now));
        }
    }

    /// Gives the new ones of `all` endpoints the shares of their age.
    pub(super) fn review(&mut self, all: usize, signals: &Signals, now: Instant) {
        if self.young.is_empty() {
            return;
        }
        let window = self.window;
        let age = |since: Instant| now.saturating_duration_since(since);
        self.young.retain_mut(|(load, since)| {
            if load.record().checked() == Checked::Pending {
                // It gets nothing before its first check has passed.
                *since = now;
            }
            let is_young = age(*since) < window && !load.is_removed();
            if !is_young {
                load.set_warmth(1.0);
            }
            is_young
        });
        let is_suspended = self.young.len() * 2 > all;
        for (load, since) in &self.young {
            let part = age(*since).div_duration_f64(window).max(FIRST);
            load.set_warmth(if is_suspended { 1.0 } else { part });
        }
        signals.set_warming(!self.young.is_empty() && !is_suspended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    const WINDOW: Duration = Duration::from_secs(10);

    struct Fixture {
        slow_start: SlowStart,
        signals: Arc<Signals>,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                slow_start: SlowStart::new(WINDOW),
                signals: Arc::new(Signals::new(now)),
                now,
            }
        }

        fn join(&mut self) -> Arc<Load> {
            let endpoint = Endpoint::new(([10, 0, 0, 1], 80).into());
            let load = Load::new(endpoint, None, None, self.signals.clone());
            self.slow_start.join(&load, self.now);
            load
        }

        fn review(&mut self, later: f64, all: usize) {
            self.now += Duration::from_secs_f64(later);
            self.slow_start.review(all, &self.signals, self.now);
        }
    }

    #[test]
    fn the_share_grows_from_a_tenth_to_all_of_it() {
        let mut fixture = Fixture::new();
        let load = fixture.join();
        for (later, warmth) in [(0.0, 0.1), (0.5, 0.1), (1.5, 0.2), (3.0, 0.5), (4.9, 0.99)] {
            fixture.review(later, 3);
            assert!((load.warmth() - warmth).abs() < 1e-6, "{warmth}");
            assert!(fixture.signals.ask_attention());
        }
        fixture.review(0.1, 3);
        assert_eq!(load.warmth(), 1.0);
        assert!(!fixture.signals.ask_attention(), "nobody is new any more");
    }

    #[test]
    fn what_is_held_back_for_its_check_stays_new() {
        let mut fixture = Fixture::new();
        let load = fixture.join();
        load.hold_back();
        fixture.review(20.0, 3);
        load.record().set_checked(Checked::Passes);
        fixture.review(2.0, 3);
        assert!((load.warmth() - 0.2).abs() < 1e-6);
    }

    #[test]
    fn where_most_are_new_none_is() {
        let mut fixture = Fixture::new();
        let first = [fixture.join(), fixture.join()];
        fixture.review(0.0, 3);
        assert!(first.iter().all(|load| load.warmth() == 1.0));
        assert!(!fixture.signals.ask_attention());
        fixture.review(2.0, 4);
        assert!(first.iter().all(|load| (load.warmth() - 0.2).abs() < 1e-6));
    }

    #[test]
    fn who_leaves_warms_up_no_more() {
        let mut fixture = Fixture::new();
        let load = fixture.join();
        fixture.review(1.0, 3);
        load.remove();
        fixture.review(1.0, 3);
        assert_eq!(load.warmth(), 1.0);
        assert!(!fixture.signals.ask_attention());
    }
}
