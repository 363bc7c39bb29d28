//! One endpoint's numbers, and the packed words that hold them for all endpoints.
//!
//! Every endpoint owns one 32-bit word for its whole life, in a cache line shared with up to 15 others, so that
//! least-connections reads sixteen endpoints for one line fetched:
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

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

use crate::endpoint::Endpoint;

/// Words in a line: 64 bytes.
pub(crate) const LANES: usize = 16;

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

    pub(crate) fn words(&self) -> [u32; LANES] {
        std::array::from_fn(|lane| self.0[lane].load(Relaxed))
    }

    pub(crate) fn word(&self, lane: usize) -> u32 {
        self.0[lane].load(Relaxed)
    }

    /// Counts one more request in, if the word still is `seen`.
    pub(crate) fn begin_if(&self, lane: usize, seen: u32) -> bool {
        self.0[lane]
            .compare_exchange(seen, seen + 1, Relaxed, Relaxed)
            .is_ok()
    }

    /// Counts one more request in.
    pub(crate) fn begin(&self, lane: usize) {
        self.0[lane].fetch_add(1, Relaxed);
    }
}

/// One endpoint's numbers. Held by the snapshot for as long as the endpoint is in the set, and by each of its requests
/// for as long as that one runs.
#[derive(Debug)]
pub(crate) struct Load {
    endpoint: Endpoint,
    line: Arc<Line>,
    slot: usize,
    trials: Arc<AtomicUsize>,
}

impl Load {
    /// Takes `slot` of `line` for `endpoint`; `trials` counts the trials on offer in the whole set.
    pub(crate) fn new(
        endpoint: Endpoint,
        line: Arc<Line>,
        slot: usize,
        trials: Arc<AtomicUsize>,
    ) -> Self {
        line.0[slot % LANES].store(0, Relaxed);
        Self {
            endpoint,
            line,
            slot,
            trials,
        }
    }

    fn word(&self) -> &AtomicU32 {
        &self.line.0[self.slot % LANES]
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
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

    /// One request fewer.
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
            self.trials.fetch_add(1, Relaxed);
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
            self.trials.fetch_sub(1, Relaxed);
        }
        withdrawn
    }
}

/// The words of one snapshot's endpoints, by index, and the endpoint's index by slot.
#[derive(Debug)]
pub struct Loads {
    lines: Box<[Arc<Line>]>,
    slots: Box<[u32]>,
    members: Box<[u32]>,
}

const VACANT: u32 = u32::MAX;

impl Loads {
    /// The words at `slots` of `lines`, in the endpoints' order. Lines after the last one used are left out.
    pub(crate) fn new(lines: &[Arc<Line>], slots: Box<[u32]>) -> Self {
        let used = slots
            .iter()
            .max()
            .map_or(0, |&last| last as usize / LANES + 1);
        let mut members = vec![VACANT; used * LANES].into_boxed_slice();
        for (index, &slot) in slots.iter().enumerate() {
            members[slot as usize] = u32::try_from(index).expect("slots are 32 bits wide");
        }
        Self {
            lines: lines[..used].into(),
            slots,
            members,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn lines(&self) -> &[Arc<Line>] {
        &self.lines
    }

    /// The index of the endpoint whose word stands there, if it belongs to this snapshot.
    pub(crate) fn member(&self, line: usize, lane: usize) -> Option<usize> {
        let index = self.members[line * LANES + lane];
        (index != VACANT).then_some(index as usize)
    }

    pub(crate) fn place(&self, index: usize) -> (&Line, usize) {
        let slot = self.slots[index] as usize;
        (&self.lines[slot / LANES], slot % LANES)
    }

    pub(crate) fn is_available(&self, index: usize) -> bool {
        let (line, lane) = self.place(index);
        line.word(lane) < FLAGGED
    }

    /// Counts one more request in, if the endpoint may be picked.
    pub(crate) fn begin_if_available(&self, index: usize) -> bool {
        let (line, lane) = self.place(index);
        let available = line.word(lane) < FLAGGED;
        if available {
            line.begin(lane);
        }
        available
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
        Load::new(endpoint, Arc::new(Line::new()), 3, Arc::default())
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
        assert_eq!(load.trials.load(Relaxed), 1);
        assert!(load.claim_trial());
        assert!(!load.claim_trial());
        assert_eq!((load.in_flight(), load.trials.load(Relaxed)), (1, 0));
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
        assert_eq!(load.trials.load(Relaxed), 0);
        load.offer_trial();
        assert!(!load.claim_trial());
        load.restore();
        assert!(!load.is_removed() && !load.is_unreachable());
    }
}
