//! One endpoint's numbers.
//!
//! A request in flight holds a share of its endpoint, an `Arc` that nothing else holds but the endpoint itself: the count
//! of the shares is the count of the requests, and can't be wrong. What else is to be known of an endpoint is in its
//! [word](word).

mod loads;
mod record;
mod word;

pub(crate) use loads::Loads;
pub use record::EjectionReason;
pub(crate) use record::{Checked, Counts, News, Record, Verdict};
pub(crate) use word::{FLAGGED, LINES, Line, line_of};

use std::{
    ops::Deref,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use self::word::{COUNT, EJECTED, REMOVED, TRIAL, UNFIT, UNREACHABLE, Word, is_on_offer};
use crate::{endpoint::Endpoint, latency::Latency, signals::Signals};

/// One endpoint of a balancer, for as long as it is in the set or has requests.
#[derive(Debug)]
pub(crate) struct Load {
    share: Arc<Share>,
    slot: Option<usize>,
}

/// What a request in flight holds of its endpoint; nobody else does, but the endpoint itself.
#[derive(Debug)]
pub(crate) struct Share {
    endpoint: Endpoint,
    word: Word,
    record: Record,
    /// If the policy asks for it.
    latency: Option<Latency>,
    /// What part of its share the endpoint gets, as the bits of a floating-point number.
    warmth: AtomicU32,
    signals: Arc<Signals>,
    load: Weak<Load>,
}

impl Load {
    /// `endpoint` of the balancer that `signals` are of, with a word with it, or in `slot` of `line`, and with an average of
    /// its latency that decays in so long.
    pub(crate) fn new(
        endpoint: Endpoint,
        packed: Option<(Arc<Line>, usize)>,
        decay: Option<Duration>,
        signals: Arc<Signals>,
    ) -> Arc<Self> {
        let slot = packed.as_ref().map(|&(_, slot)| slot);
        let word = packed.map_or_else(Word::own, |(line, slot)| Word::packed(line, slot));
        let latency = decay.map(|decay| signals.latencies.latency(decay));
        Arc::new_cyclic(|load| Self {
            share: Arc::new(Share {
                endpoint,
                word,
                record: Record::default(),
                latency,
                warmth: AtomicU32::new(1_f32.to_bits()),
                signals,
                load: load.clone(),
            }),
            slot,
        })
    }

    pub(crate) fn slot(&self) -> Option<usize> {
        self.slot
    }

    /// How many requests the endpoint has.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        u32::try_from(Arc::strong_count(&self.share) - 1).unwrap_or(u32::MAX)
    }

    /// The word as it would be if it counted the requests, where it doesn't: those that were turned away a moment ago are among
    /// them.
    #[inline]
    fn busy(&self) -> u32 {
        match self.share.word.counting() {
            Some(word) => word.load(Relaxed),
            None => {
                let requests = self.in_flight().saturating_add(self.share.record.debts());
                self.word().load(Relaxed) | requests.min(COUNT)
            }
        }
    }

    /// A share, for a request that a pick has brought here.
    #[inline]
    pub(crate) fn share(&self) -> Arc<Share> {
        self.share.clone()
    }
}

impl Deref for Load {
    type Target = Share;

    #[inline]
    fn deref(&self) -> &Share {
        &self.share
    }
}

impl Share {
    #[inline]
    fn word(&self) -> &AtomicU32 {
        self.word.get()
    }

    /// The endpoint as it was known when it joined.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    #[inline]
    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    #[inline]
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    #[inline]
    pub(crate) fn latency(&self) -> Option<&Latency> {
        self.latency.as_ref()
    }

    /// What part of its share the endpoint gets, from 0 to 1.
    pub(crate) fn warmth(&self) -> f64 {
        f64::from(f32::from_bits(self.warmth.load(Relaxed)))
    }

    pub(crate) fn set_warmth(&self, part: f64) {
        self.warmth.store((part as f32).to_bits(), Relaxed);
    }

    /// The endpoint that this is a share of, unless it is gone.
    pub(crate) fn load(&self) -> Option<Arc<Load>> {
        self.load.upgrade()
    }

    pub(crate) fn is_unreachable(&self) -> bool {
        self.word().load(Relaxed) & UNREACHABLE != 0
    }

    /// Whether picks take it.
    #[inline]
    pub(crate) fn is_available(&self) -> bool {
        self.word().load(Relaxed) < FLAGGED
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.word().load(Relaxed) & EJECTED != 0
    }

    /// Whether it is ejected, and nothing worse.
    pub(crate) fn is_only_ejected(&self) -> bool {
        self.word().load(Relaxed) & !TRIAL & !COUNT == EJECTED
    }

    pub(crate) fn is_unfit(&self) -> bool {
        self.word().load(Relaxed) & UNFIT != 0
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.word().load(Relaxed) & REMOVED != 0
    }

    /// Tells those who scan of one more request, which is to hold a share, unless the word carries a flag.
    #[inline]
    pub(crate) fn begin(&self) -> bool {
        let Some(word) = self.word.counting() else {
            return self.is_available();
        };
        // First the count and then the look: few words carry a flag.
        let available = word.fetch_add(1, Relaxed) < FLAGGED;
        if !available {
            word.fetch_sub(1, Relaxed);
        }
        available
    }

    /// Tells those who scan of one more request at an endpoint that is ejected, and nothing worse.
    pub(crate) fn begin_ejected(&self) -> bool {
        let is_ejected = self.is_only_ejected();
        if is_ejected && let Some(word) = self.word.counting() {
            word.fetch_add(1, Relaxed);
        }
        is_ejected
    }

    /// Tells those who scan of one request fewer.
    #[inline]
    pub(crate) fn end(&self) {
        self.end_all(1);
    }

    /// The same of several.
    #[inline]
    pub(crate) fn end_all(&self, requests: u32) {
        if let Some(word) = self.word.counting() {
            word.fetch_sub(requests, Relaxed);
        }
    }

    /// The endpoint left the set: no pick takes it any more.
    pub(crate) fn remove(&self) {
        self.withdraw_trial();
        self.word().fetch_or(REMOVED, Relaxed);
    }

    /// The endpoint is back in the set before its last request has ended. Whether it is fit is for its checks to say, first
    /// of all that it isn't if it is to wait for them.
    pub(crate) fn restore(&self) {
        self.word()
            .fetch_and(!(REMOVED | UNREACHABLE | EJECTED), Relaxed);
    }

    /// The endpoint refused a request. True if it was reachable until now.
    pub(crate) fn refuse(&self) -> bool {
        self.word().fetch_or(UNREACHABLE, Relaxed) & UNREACHABLE == 0
    }

    /// The endpoint accepts requests again.
    pub(crate) fn accept(&self) {
        if self.word().fetch_and(!UNREACHABLE, Relaxed) & EJECTED == 0 {
            self.withdraw_trial();
        }
    }

    /// Lets no pick take the endpoint, because of what its requests have come to. True if some did until now.
    pub(crate) fn eject(&self) -> bool {
        self.word().fetch_or(EJECTED, Relaxed) & EJECTED == 0
    }

    /// The opposite. True if none did until now.
    pub(crate) fn readmit(&self) -> bool {
        let was_ejected = self.word().fetch_and(!EJECTED, Relaxed) & EJECTED != 0;
        if was_ejected && !self.is_unreachable() {
            self.withdraw_trial();
        }
        was_ejected
    }

    /// Lets no pick take the endpoint, because of its checks. True if some did until now.
    pub(crate) fn set_unfit(&self) -> bool {
        !self.is_unfit() && self.set(UNFIT) & UNFIT == 0
    }

    /// The opposite. True if none did until now.
    pub(crate) fn set_fit(&self) -> bool {
        // A plain read first: most endpoints are fit, and every review says so.
        self.is_unfit() && self.clear(UNFIT) & UNFIT != 0
    }

    /// A new endpoint is to pass a check before it gets requests.
    pub(crate) fn hold_back(&self) {
        self.record.set_checked(Checked::Pending);
        self.set_unfit();
    }

    /// Lets one request try an endpoint that is out.
    pub(crate) fn offer_trial(&self) {
        let word = self.set(TRIAL);
        if word & (UNREACHABLE | EJECTED) == 0 || word & REMOVED != 0 {
            self.withdraw_trial();
        }
    }

    /// Takes the trial on offer, if there is one, for a request that is to hold a share.
    pub(crate) fn claim_trial(&self) -> bool {
        // A plain read first: every pick asks every endpoint while a trial is on offer.
        let claimed = is_on_offer(self.word().load(Relaxed)) && self.withdraw_trial();
        if claimed && let Some(word) = self.word.counting() {
            word.fetch_add(1, Relaxed);
        }
        claimed
    }

    fn withdraw_trial(&self) -> bool {
        self.clear(TRIAL) & TRIAL != 0
    }

    /// Sets a flag that a trial depends on; returns the word before.
    fn set(&self, flag: u32) -> u32 {
        let before = self.word().fetch_or(flag, Relaxed);
        self.count_trial(before, before | flag);
        before
    }

    /// Clears a flag that a trial depends on; returns the word before.
    fn clear(&self, flag: u32) -> u32 {
        let before = self.word().fetch_and(!flag, Relaxed);
        self.count_trial(before, before & !flag);
        before
    }

    /// Each change of the word is one step from before to after, so that the trials are counted right whoever else is at it.
    fn count_trial(&self, before: u32, after: u32) {
        match (is_on_offer(before), is_on_offer(after)) {
            (false, true) => self.signals.add_trial(),
            (true, false) => self.signals.take_trial(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads() -> [Arc<Load>; 2] {
        let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
        let signals = || Arc::new(Signals::new(tokio::time::Instant::now()));
        let packed = Some((Arc::new(Line::new()), 3));
        [
            Load::new(endpoint.clone(), None, None, signals()),
            Load::new(endpoint, packed, None, signals()),
        ]
    }

    #[test]
    fn a_trial_is_taken_once_and_only_while_unreachable() {
        for load in loads() {
            load.offer_trial();
            assert!(!load.claim_trial(), "a reachable endpoint needs no trial");
            assert!(load.refuse());
            assert!(!load.refuse(), "the second refusal is no news");
            load.offer_trial();
            load.offer_trial();
            assert_eq!(load.signals.trials(), 1);
            assert!(load.claim_trial());
            assert!(!load.claim_trial());
            assert_eq!(load.signals.trials(), 0);
            load.accept();
            assert!(!load.is_unreachable());
            load.end();
            assert_eq!(load.word().load(Relaxed), 0);
        }
    }

    #[test]
    fn a_removed_endpoint_offers_no_trial() {
        for load in loads() {
            load.refuse();
            load.offer_trial();
            load.remove();
            assert_eq!(load.signals.trials(), 0);
            load.offer_trial();
            assert!(!load.claim_trial());
            load.restore();
            assert!(!load.is_removed() && !load.is_unreachable());
        }
    }

    #[test]
    fn no_trial_is_on_offer_while_unfit() {
        for load in loads() {
            load.eject();
            load.offer_trial();
            assert!(load.set_unfit() && !load.set_unfit());
            assert_eq!(load.signals.trials(), 0);
            assert!(!load.claim_trial() && !load.begin() && !load.begin_ejected());
            assert!(load.set_fit() && !load.set_fit());
            assert_eq!(load.signals.trials(), 1);
            assert!(load.claim_trial());
            assert_eq!(load.signals.trials(), 0);
            load.set_unfit();
            load.offer_trial();
            assert_eq!(load.signals.trials(), 0);
            load.remove();
            load.set_fit();
            assert_eq!(load.signals.trials(), 0);
        }
    }

    #[test]
    fn shares_are_requests() {
        for load in loads() {
            assert!(load.begin());
            let share = load.share();
            assert_eq!(load.in_flight(), 1);
            share.end();
            drop(share);
            assert_eq!(load.in_flight(), 0);
            load.refuse();
            let word = load.word().load(Relaxed);
            assert!(!load.begin());
            assert_eq!(
                load.word().load(Relaxed),
                word,
                "what is refused leaves no trace"
            );
        }
    }
}
