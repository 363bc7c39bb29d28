//! Every endpoint in turn.
//!
//! One cursor serves all clones of a balancer, so that shares are exact: after any number of requests, two endpoints
//! that were both available differ by at most one. An endpoint that is out is skipped by moving the cursor on, so that
//! the one after it gets its own turn and no other. When the set changes, the cursor stays at the endpoint whose turn it
//! is.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rand::{Rng, RngExt};

use super::{
    Apart, any_available,
    sealed::{self, Previous},
};
use crate::load::Loads;

/// Each request goes to the next endpoint in the order of their addresses, beginning at a random one.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin(());

impl RoundRobin {
    /// The policy; it has no settings.
    pub const fn new() -> Self {
        Self(())
    }
}

/// The turns taken so far: their remainder is the index whose turn it is.
#[derive(Debug)]
pub struct Picker {
    cursor: Apart<AtomicUsize>,
    len: usize,
}

impl Picker {
    fn turn(&self) -> Option<usize> {
        self.cursor.0.load(Relaxed).checked_rem(self.len)
    }
}

impl sealed::Prepare for RoundRobin {
    type Picker = Picker;

    const SCANS: bool = false;

    fn prepare(
        &self,
        len: usize,
        previous: Option<Previous<'_, Picker>>,
        rng: &mut impl Rng,
    ) -> Picker {
        let turn = previous.and_then(|previous| Some((previous.place)(previous.picker.turn()?)));
        let cursor = turn.unwrap_or_else(|| rng.random_range(0..len.max(1)));
        Picker {
            cursor: Apart(AtomicUsize::new(cursor)),
            len,
        }
    }
}

impl sealed::Pick for Picker {
    const EXACT: bool = true;

    #[inline]
    fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        for _ in 0..self.len {
            let index = self.cursor.0.fetch_add(1, Relaxed) % self.len;
            if loads.begin(index) {
                return Some(index);
            }
        }
        // Nothing found in a whole turn: none is available, or other threads moved the cursor past the few that are.
        any_available(loads, rng)
    }
}
