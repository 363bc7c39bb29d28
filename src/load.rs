//! One endpoint's numbers, and the packed words that hold them for all endpoints.
//!
//! Every endpoint owns one 32-bit word for its whole life:
//!
//! ```text
//!  31        30            29      28                         0
//! ┌─────────┬─────────────┬───────┬────────────────────────────┐
//! │ removed │ unreachable │ trial │ requests in flight         │
//! └─────────┴─────────────┴───────┴────────────────────────────┘
//! ```
//!
//! Any flag makes the word larger than every word without one, so a plain minimum skips the endpoints that must not be
//! picked at no cost. All accesses are relaxed: the words order nothing but themselves.
//!
//! The words stand in cache lines of 16, and the lines in blocks of 16. A block is filled across its lines: the first 16
//! endpoints have a line each, so that threads don't take it from each other; with 256, every line is full, and
//! least-connections reads sixteen endpoints for one line fetched.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crate::{endpoint::Endpoint, signals::Signals};

/// Words in a line: 64 bytes.
pub(crate) const LANES: usize = 16;

/// Lines in a block.
pub(crate) const LINES: usize = 16;

const REMOVED: u32 = 1 << 31;
const UNREACHABLE: u32 = 1 << 30;
const TRIAL: u32 = 1 << 29;
/// Every word from here up carries a flag.
pub(crate) const FLAGGED: u32 = TRIAL;

/// One cache line of words.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Line([AtomicU32; LANES]);

impl Line {
    pub(crate) fn new() -> Self {
        Self([const { AtomicU32::new(REMOVED) }; LANES])
    }

    /// The words of the first `lanes` lanes.
    #[inline]
    pub(crate) fn words(&self, lanes: usize) -> impl Iterator<Item = u32> {
        self.0[..lanes].iter().map(|word| word.load(Relaxed))
    }
}

/// The line that slot number `slot` is in, among all lines.
pub(crate) fn line_of(slot: usize) -> usize {
    slot / (LINES * LANES) * LINES + slot % LINES
}

/// The lane of slot number `slot` in its line.
fn lane_of(slot: usize) -> usize {
    slot % (LINES * LANES) / LINES
}

/// One endpoint's numbers. Held by the snapshot for as long as the endpoint is in the set, and by each of its requests
/// for as long as that one runs.
#[derive(Debug)]
pub(crate) struct Load {
    endpoint: Endpoint,
    line: Arc<Line>,
    lane: usize,
    slot: usize,
    signals: Arc<Signals>,
}

impl Load {
    /// Takes `slot` of `line` for `endpoint` of the balancer that `signals` are of.
    pub(crate) fn new(
        endpoint: Endpoint,
        line: Arc<Line>,
        slot: usize,
        signals: Arc<Signals>,
    ) -> Self {
        line.0[lane_of(slot)].store(0, Relaxed);
        Self {
            endpoint,
            line,
            lane: lane_of(slot),
            slot,
            signals,
        }
    }

    #[inline]
    fn word(&self) -> &AtomicU32 {
        &self.line.0[self.lane]
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    #[inline]
    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.word().load(Relaxed) & (FLAGGED - 1)
    }

    pub(crate) fn is_unreachable(&self) -> bool {
        self.word().load(Relaxed) & UNREACHABLE != 0
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.word().load(Relaxed) & REMOVED != 0
    }

    /// Counts one more request in, unless the word carries a flag.
    ///
    /// It counts first and looks then: few words carry one, and to look first costs every pick a memory access.
    #[inline]
    pub(crate) fn begin(&self) -> bool {
        let available = self.word().fetch_add(1, Relaxed) < FLAGGED;
        if !available {
            self.take_back();
        }
        available
    }

    #[cold]
    fn take_back(&self) {
        self.end();
    }

    /// One request fewer.
    #[inline]
    pub(crate) fn end(&self) {
        self.word().fetch_sub(1, Relaxed);
    }

    /// The endpoint left the set: no pick takes it any more.
    pub(crate) fn remove(&self) {
        self.withdraw_trial();
        self.word().fetch_or(REMOVED, Relaxed);
    }

    /// The endpoint is back in the set before its last request has ended.
    pub(crate) fn restore(&self) {
        self.word().fetch_and(!(REMOVED | UNREACHABLE), Relaxed);
    }

    /// The endpoint refused a request. True if it was reachable until now.
    pub(crate) fn refuse(&self) -> bool {
        self.word().fetch_or(UNREACHABLE, Relaxed) & UNREACHABLE == 0
    }

    /// The endpoint accepts requests again.
    pub(crate) fn accept(&self) {
        self.withdraw_trial();
        self.word().fetch_and(!UNREACHABLE, Relaxed);
    }

    /// Lets one request try an unreachable endpoint.
    pub(crate) fn offer_trial(&self) {
        let word = self.word().fetch_or(TRIAL, Relaxed);
        if word & TRIAL == 0 {
            self.signals.trials.fetch_add(1, Relaxed);
        }
        if word & UNREACHABLE == 0 || word & REMOVED != 0 {
            self.withdraw_trial();
        }
    }

    /// Takes the trial on offer, if there is one, and counts its request in.
    pub(crate) fn claim_trial(&self) -> bool {
        // A plain read first: every pick asks every endpoint while a trial is on offer.
        let claimed = self.word().load(Relaxed) & TRIAL != 0 && self.withdraw_trial();
        if claimed {
            self.word().fetch_add(1, Relaxed);
        }
        claimed
    }

    fn withdraw_trial(&self) -> bool {
        let withdrawn = self.word().fetch_and(!TRIAL, Relaxed) & TRIAL != 0;
        if withdrawn {
            self.signals.trials.fetch_sub(1, Relaxed);
        }
        withdrawn
    }
}

/// The counters of one snapshot's endpoints, in the order of their identities.
#[derive(Debug)]
pub struct Loads {
    loads: Box<[Arc<Load>]>,
    /// All lines there are; other sets' endpoints may have words in them too.
    lines: Arc<[Arc<Line>]>,
    /// How many of the lines, and how many lanes of each, hold any endpoint's word.
    used: (usize, usize),
}

impl Loads {
    /// `loads`, whose words are in `lines`.
    pub(crate) fn new(loads: Vec<Arc<Load>>, lines: Arc<[Arc<Line>]>) -> Self {
        let used = loads.iter().fold((0, 0), |(lines, lanes), load| {
            (lines.max(line_of(load.slot) + 1), lanes.max(load.lane + 1))
        });
        Self {
            loads: loads.into_boxed_slice(),
            lines,
            used,
        }
    }

    /// The counters, by index.
    #[inline]
    pub(crate) fn all(&self) -> &[Arc<Load>] {
        &self.loads
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.loads.len()
    }

    /// The index of the endpoint with this identity, or else where it would stand.
    pub(crate) fn search(&self, identity: SocketAddr) -> Result<usize, usize> {
        let loads = &self.loads;
        loads.binary_search_by_key(&identity, |load| load.endpoint.identity())
    }

    /// The smallest word. In the moment of an update it may be that of an endpoint of the next set.
    #[inline]
    pub(crate) fn min(&self) -> u32 {
        let (lines, lanes) = self.used;
        let words = self.lines[..lines]
            .iter()
            .flat_map(|line| line.words(lanes));
        words.fold(u32::MAX, u32::min)
    }

    #[inline]
    pub(crate) fn word(&self, index: usize) -> u32 {
        self.loads[index].word().load(Relaxed)
    }

    pub(crate) fn is_available(&self, index: usize) -> bool {
        self.word(index) < FLAGGED
    }

    /// Counts one more request in, if the endpoint may be picked.
    #[inline]
    pub(crate) fn begin(&self, index: usize) -> bool {
        self.loads[index].begin()
    }

    /// Counts one more request in, if the endpoint's word still is `seen`.
    #[inline]
    pub(crate) fn begin_if(&self, index: usize, seen: u32) -> bool {
        let word = self.loads[index].word();
        word.compare_exchange(seen, seen + 1, Relaxed, Relaxed)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
        let signals = Signals::new(tokio::time::Instant::now());
        Load::new(endpoint, Arc::new(Line::new()), 3, Arc::new(signals))
    }

    #[test]
    fn a_trial_is_taken_once_and_only_while_unreachable() {
        let load = load();
        load.offer_trial();
        assert!(!load.claim_trial(), "a reachable endpoint needs no trial");
        assert!(load.refuse());
        assert!(!load.refuse(), "the second refusal is no news");
        load.offer_trial();
        load.offer_trial();
        assert_eq!(load.signals.trials.load(Relaxed), 1);
        assert!(load.claim_trial());
        assert!(!load.claim_trial());
        assert_eq!(
            (load.in_flight(), load.signals.trials.load(Relaxed)),
            (1, 0)
        );
        load.accept();
        assert!(!load.is_unreachable());
        load.end();
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn a_removed_endpoint_offers_no_trial() {
        let load = load();
        load.refuse();
        load.offer_trial();
        load.remove();
        assert_eq!(load.signals.trials.load(Relaxed), 0);
        load.offer_trial();
        assert!(!load.claim_trial());
        load.restore();
        assert!(!load.is_removed() && !load.is_unreachable());
    }
}
