//! How much of its order a client uses: its own pods, and substitutes while too few of those accept requests.
//!
//! ```text
//!              fewer than half of its own accept             substitutes refuse: more of them
//!  ┌──────────┐ ───────────────────────────────▶ ┌──────────┐ ───┐
//!  │ own only │                                  │ extended │    │
//!  └──────────┘ ◀─────────────────────────────── └──────────┘ ◀──┘
//!                    three quarters accept
//! ```
//!
//! The two bounds differ, so that one pod that comes and goes doesn't take the substitutes with it each time.

/// How many pods of its order a client uses now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    size: usize,
    len: usize,
}

impl Extent {
    /// For a subset of `size`.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, len: size }
    }

    /// How many it is of an order of `all` pods.
    pub(crate) fn of(&self, all: usize) -> usize {
        self.len.min(all)
    }

    /// Fits it to which of `all` pods accept requests, by their places in the order. True if it changes.
    ///
    /// Those that haven't been tried yet should count as accepting: then a step takes as many as are missing, and the
    /// next one waits for what becomes of them.
    pub(crate) fn fit(&mut self, all: usize, accepts: impl Fn(usize) -> bool) -> bool {
        let before = self.of(all);
        let size = self.size.min(all);
        let count = |from: usize, to: usize| (from..to).filter(|&at| accepts(at)).count();
        let own = count(0, size);
        let enough = match before > size {
            true => size - size / 4,
            false => size.div_ceil(2),
        };
        self.len = match own >= enough {
            true => self.size,
            false => before + size.saturating_sub(own + count(size, before)),
        };
        self.of(all) != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fitted(extent: &mut Extent, all: usize, accepting: impl Fn(usize) -> bool) -> usize {
        extent.fit(all, accepting);
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
        let lens: Vec<_> = (0..5).map(|_| fitted(&mut extent, 15, |_| false)).collect();
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

    #[test]
    fn substitutes_go_when_three_quarters_accept_again() {
        let mut extent = Extent::new(8);
        assert_eq!(fitted(&mut extent, 100, |at| at >= 5), 13);
        assert_eq!(fitted(&mut extent, 100, |at| at >= 3), 13, "5 of 8");
        assert_eq!(fitted(&mut extent, 100, |at| at >= 2), 8, "6 of 8");
    }

    proptest! {
        #[test]
        fn it_settles_with_enough_that_accept_or_with_all(
            size in 1_usize..40,
            accepting in proptest::collection::vec(any::<bool>(), 0..120),
        ) {
            let (all, mut extent) = (accepting.len(), Extent::new(size));
            let steps = (0..).take_while(|_| extent.fit(all, |at| accepting[at])).count();
            prop_assert!(steps <= all);
            let used = extent.of(all);
            prop_assert!(used >= size.min(all));
            let accept = accepting[..used].iter().filter(|it| **it).count();
            prop_assert!(accept >= size.min(all).div_ceil(2) || used == all);
            // None is used for nothing.
            let needed = used <= size || accepting[..used - 1].iter().filter(|it| **it).count() < size;
            prop_assert!(needed);
        }
    }
}
