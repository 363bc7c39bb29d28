//! How much of its order a client uses: its own pods, and substitutes while too few of those accept requests.
//!
//! ```text
//!              fewer than half of its own accept             substitutes refuse: more of them
//!  ┌──────────┐ ───────────────────────────────▶ ┌──────────┐ ───┐
//!  │ own only │                                  │ extended │    │
//!  └──────────┘ ◀─────────────────────────────── └──────────┘ ◀──┘
//!                    three quarters accept                    fewer would do for 10 s: shrinks to as many
//! ```
//!
//! The two bounds differ, and substitutes that aren't needed stay for a while, so that a pod that flaps doesn't make
//! others join and leave each time.

use std::time::Duration;

use tokio::time::Instant;

/// How long substitutes stay that aren't needed.
const HOLD: Duration = Duration::from_secs(10);

/// How many pods of its order a client uses now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    size: usize,
    len: usize,
    surplus: Option<Surplus>,
}

/// The state while fewer pods would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Surplus {
    since: Instant,
    /// The most that were needed since then.
    needed: usize,
}

/// One fitting, in as many rounds as it takes: after a round that changes the extent, other pods may accept than
/// before. The extent shrinks at most once, and then only grows, so that the rounds end.
#[derive(Debug, Default)]
pub(crate) struct Fitting {
    has_shrunk: bool,
}

impl Extent {
    /// The extent of a subset of `size` pods.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            len: size,
            surplus: None,
        }
    }

    /// How many pods to use, of an order of `all`.
    pub(crate) fn of(&self, all: usize) -> usize {
        self.len.min(all)
    }

    /// When to fit it again, whatever the pods do.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.surplus.map(|surplus| surplus.since + HOLD)
    }

    /// Fits it to which of `all` pods accept requests, by their places in the order. True if it changes: then the same
    /// fitting needs another round.
    ///
    /// Pods that haven't been tried yet should count as accepting. So a round takes as many as are missing, past those
    /// that are known to refuse, and the next fitting comes when these have been tried.
    pub(crate) fn fit(
        &mut self,
        fitting: &mut Fitting,
        all: usize,
        now: Instant,
        accepts: impl Fn(usize) -> bool,
    ) -> bool {
        let before = self.of(all);
        let len = self.fitted(all, now, accepts).max(self.size);
        let shrinks = len.min(all) < before;
        if shrinks && fitting.has_shrunk {
            return false;
        }
        fitting.has_shrunk |= shrinks;
        self.len = len;
        self.of(all) != before
    }

    fn fitted(&mut self, all: usize, now: Instant, accepts: impl Fn(usize) -> bool) -> usize {
        let (before, size) = (self.of(all), self.size.min(all));
        let own = (0..size).filter(|&at| accepts(at)).count();
        let enough = match before > size {
            true => size - size / 4,
            false => size.div_ceil(2),
        };
        if own >= enough {
            self.surplus = None;
            return size;
        }
        let mut accepting = (0..all).filter(|&at| accepts(at));
        let needed = accepting.nth(size - 1).map_or(all, |last| last + 1);
        if needed >= before {
            self.surplus = None;
            return needed;
        }
        let first = Surplus { since: now, needed };
        let surplus = self.surplus.get_or_insert(first);
        surplus.needed = surplus.needed.max(needed);
        let Surplus { since, needed } = *surplus;
        if now < since + HOLD {
            return before;
        }
        self.surplus = None;
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    /// One round.
    fn fitted(extent: &mut Extent, all: usize, accepting: impl Fn(usize) -> bool) -> usize {
        extent.fit(&mut Fitting::default(), all, Instant::now(), accepting);
        extent.of(all)
    }

    /// A whole fitting.
    fn settled(extent: &mut Extent, now: Instant, accepting: &[bool]) -> usize {
        let (all, mut fitting) = (accepting.len(), Fitting::default());
        let rounds = (0..).take_while(|_| extent.fit(&mut fitting, all, now, |at| accepting[at]));
        assert!(rounds.count() <= all + 1);
        extent.of(all)
    }

    #[test]
    fn half_of_the_subset_is_enough() {
        let mut extent = Extent::new(20);
        assert_eq!(fitted(&mut extent, 300, |at| at >= 10), 20);
        assert_eq!(fitted(&mut extent, 300, |at| at >= 11), 31);
    }

    #[test]
    fn substitutes_that_refuse_get_substitutes_up_to_the_whole_set() {
        let mut extent = Extent::new(4);
        // Each fitting finds that the pods that the last one took in refuse.
        let mut tried = 4;
        let lens = [(); 5].map(|()| {
            tried = fitted(&mut extent, 15, |at| at >= tried);
            tried
        });
        assert_eq!(lens, [8, 12, 15, 15, 15]);
        let mut extent = Extent::new(4);
        assert_eq!(fitted(&mut extent, 15, |at| at >= 4), 8, "they accept");
        assert_eq!(
            fitted(&mut extent, 15, |at| at >= 6),
            10,
            "two of them don't"
        );
        assert_eq!(fitted(&mut extent, 15, |at| at >= 6), 10);
    }

    /// For example while a broadcast has all of them there, because each round publishes a set.
    #[test]
    fn pods_that_are_known_to_refuse_are_passed_in_one_round() {
        for (well, len) in [(4000, 4004), (4093, 4096), (4096, 4096)] {
            let mut extent = Extent::new(4);
            let mut fitting = Fitting::default();
            let mut fit = || extent.fit(&mut fitting, 4096, Instant::now(), |at| at >= well);
            assert_eq!((fit(), fit()), (true, false));
            assert_eq!(extent.of(4096), len);
        }
    }

    #[test]
    fn substitutes_go_when_three_quarters_accept_again() {
        let mut extent = Extent::new(8);
        assert_eq!(fitted(&mut extent, 100, |at| at >= 5), 13);
        assert_eq!(fitted(&mut extent, 100, |at| at >= 3), 13, "5 of 8");
        assert_eq!(fitted(&mut extent, 100, |at| at >= 2), 8, "6 of 8");
    }

    #[test]
    fn after_an_outage_substitutes_are_as_many_as_one_bad_pod_takes() {
        let (mut extent, now) = (Extent::new(3), Instant::now());
        assert_eq!(settled(&mut extent, now, &[false; 100]), 100);
        let back: Vec<_> = (0..100).map(|at| at != 1).collect();
        assert_eq!(settled(&mut extent, now, &back), 100, "not at once");
        assert_eq!(extent.due(), Some(now + HOLD));
        assert_eq!(settled(&mut extent, now + HOLD, &back), 4);
        assert_eq!(extent.due(), None);
    }

    #[test]
    fn a_flapping_substitute_makes_no_other_join_or_leave() {
        let (mut extent, mut now) = (Extent::new(3), Instant::now());
        let mut accepting = [false, true, false, true, true, true, false, true];
        assert_eq!(settled(&mut extent, now, &accepting), 5);
        accepting[3] = false;
        assert_eq!(settled(&mut extent, now, &accepting), 6);
        for _ in 0..20 {
            now += HOLD / 2;
            accepting[3] = !accepting[3];
            assert_eq!(settled(&mut extent, now, &accepting), 6);
        }
    }

    /// With substitutes its own pods accept, and without them they refuse.
    #[test]
    fn a_fitting_ends_even_if_each_change_calls_for_another() {
        for size in 1..10 {
            let (mut extent, mut fitting) = (Extent::new(size), Fitting::default());
            let is_enough = |extent: &Extent| extent.of(30) > size;
            let mut rounds = 0;
            while {
                let accepts = is_enough(&extent);
                extent.fit(&mut fitting, 30, Instant::now(), |_| accepts)
            } {
                rounds += 1;
                assert!(rounds <= 3);
            }
            assert!(is_enough(&extent), "rather too many than too few");
        }
    }

    /// The shortest part of the order in which enough accept, or all of it.
    fn shortest(size: usize, accepting: &[bool]) -> usize {
        let mut places = (0..accepting.len()).filter(|&at| accepting[at]);
        places.nth(size - 1).map_or(accepting.len(), |at| at + 1)
    }

    /// The most that were needed at any time since then.
    fn most_since(history: &[(Instant, usize)], since: Instant) -> usize {
        let later = history.partition_point(|&(at, _)| at <= since);
        let in_force = later.saturating_sub(1);
        let needed = history[in_force..].iter().map(|&(_, needed)| needed);
        needed.max().expect("the last one")
    }

    proptest! {
        #[test]
        fn a_fitting_settles_with_enough_accepting_pods_or_with_all(
            size in 1_usize..40,
            accepting in vec(any::<bool>(), 0..120),
        ) {
            let (all, mut extent) = (accepting.len(), Extent::new(size));
            let used = settled(&mut extent, Instant::now(), &accepting);
            prop_assert!(used >= size.min(all));
            let accept = accepting[..used].iter().filter(|it| **it).count();
            prop_assert!(accept >= size.min(all).div_ceil(2) || used == all);
            // No substitute is used without need.
            let needed = used <= size || accepting[..used - 1].iter().filter(|it| **it).count() < size;
            prop_assert!(needed);
        }

        #[test]
        fn the_extent_has_enough_never_too_many_for_long_and_does_not_flap(
            size in 1_usize..12,
            mut accepting in vec(any::<bool>(), 0..40),
            changes in vec((1_u64..25_000, vec(any::<usize>(), 0..12)), 1..40),
        ) {
            let all = accepting.len();
            let (mut extent, mut now) = (Extent::new(size), Instant::now());
            let mut history = vec![(now, shortest(size, &accepting))];
            let mut before = settled(&mut extent, now, &accepting);
            for (wait, flips) in changes {
                let next = now + Duration::from_millis(wait);
                loop {
                    let due = extent.due().filter(|due| *due <= next);
                    now = due.unwrap_or(next);
                    if now == next {
                        let flips = flips.iter().filter_map(|flip| flip.checked_rem(all));
                        flips.for_each(|at| accepting[at] = !accepting[at]);
                        history.push((now, shortest(size, &accepting)));
                    }
                    let used = settled(&mut extent, now, &accepting);
                    let own = size.min(all);
                    let accept = |to: usize| accepting[..to].iter().filter(|it| **it).count();
                    prop_assert!(used >= own);
                    let is_enough = match used > own {
                        true => accept(used) >= own || used == all,
                        false => accept(own) >= own.div_ceil(2) || all <= size,
                    };
                    prop_assert!(is_enough, "too few");
                    prop_assert!(used <= most_since(&history, now - 2 * HOLD).max(own), "too many");
                    let is_cut = own < used && used < before;
                    prop_assert!(!is_cut || used >= most_since(&history, now - HOLD), "flaps");
                    before = used;
                    if now == next {
                        break;
                    }
                }
            }
        }
    }
}
