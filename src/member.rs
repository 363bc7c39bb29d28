//! A member: one endpoint in a balancer's set, from joining to leaving.
//!
//! A pod that leaves the set and returns, even at its old address, is a new member: nothing of its former life counts.
//! So everything that is learnt of an endpoint is kept by member, never by address.
//!
//! Each request in flight holds a [`MemberRef`], an `Arc` that otherwise only the member itself holds: the count of the
//! references is the count of the requests, and can't be wrong. Picks read the member's
//! [status word](status_word); the background task reads its [`RequestStats`].

mod flags;
#[cfg(all(test, tower_headless_loom))]
mod interleavings;
mod members;
mod request_stats;
mod slots;
mod status_word;

pub(crate) use flags::FLAGGED;
pub use members::Members;
pub use request_stats::EjectionReason;
pub(crate) use request_stats::{Checked, Counts, News, OVERTAKEN, RequestStats, TrialVerdict};
pub(crate) use slots::{Slot, Slots};

use std::{
    ops::Deref,
    sync::{Arc, Weak},
    time::Duration,
};

use self::{
    flags::{COUNT, EJECTED, REMOVED, TRIAL, UNFIT, UNREACHABLE, is_on_offer},
    status_word::StatusWord,
};
use crate::{
    counters::EndpointTally,
    endpoint::Endpoint,
    latency::{Latency, Percentile},
    signals::Signals,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

/// Identifies a member among all that its balancer has ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(u64);

impl MemberId {
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) const fn numbered(number: u64) -> Self {
        Self(number)
    }
}

/// One endpoint of a balancer, from when it joins the set until it has left and its last request has ended.
#[derive(Debug)]
pub(crate) struct Member {
    member_ref: Arc<MemberRef>,
}

/// The part of a member that its requests in flight hold; nothing else does but the member itself.
#[derive(Debug)]
pub(crate) struct MemberRef {
    endpoint: Endpoint,
    id: MemberId,
    word: StatusWord,
    stats: RequestStats,
    /// The average latency, if the policy asks for it.
    latency: Option<Latency>,
    /// The 95th percentile of latencies, measured only if requests are hedged.
    percentile: Percentile,
    /// What part of its share a new endpoint gets (slow start), as the bits of an `f32`.
    slow_start_share: AtomicU32,
    /// It is unreachable only because it is new, and has refused nothing.
    unready: AtomicBool,
    signals: Arc<Signals>,
    /// The counters, if requests are counted.
    tally: Option<Arc<EndpointTally>>,
    member: Weak<Member>,
}

impl Member {
    /// A new member for `endpoint`, in the balancer of `signals`. With a `slot`, its status word is packed with the
    /// others'; with a `decay`, its average latency is kept, with this decay.
    pub(crate) fn new(
        endpoint: Endpoint,
        slot: Option<Slot>,
        decay: Option<Duration>,
        signals: Arc<Signals>,
    ) -> Arc<Self> {
        let tally = signals.tally().map(|all| all.endpoint());
        let latency = decay.map(|decay| signals.latencies.latency(decay));
        Arc::new_cyclic(|member| Self {
            member_ref: Arc::new(MemberRef {
                endpoint,
                id: MemberId(signals.next_member()),
                word: slot.map_or_else(StatusWord::own, StatusWord::packed),
                stats: RequestStats::default(),
                latency,
                percentile: Percentile::default(),
                slow_start_share: AtomicU32::new(1_f32.to_bits()),
                unready: AtomicBool::new(false),
                signals,
                tally,
                member: member.clone(),
            }),
        })
    }

    /// How many requests are in flight there, up to the ends of their responses.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        u32::try_from(Arc::strong_count(&self.member_ref) - 1).unwrap_or(u32::MAX)
    }

    /// How many of them have no answer yet. A response that streams has one.
    pub(crate) fn waiting(&self) -> u32 {
        self.in_flight().saturating_sub(self.stats.streaming())
    }

    /// Status flags plus load, for either layout of the word. The load is the requests in flight plus the failure
    /// penalties.
    #[inline]
    fn loaded(&self) -> u32 {
        match self.word.counting() {
            Some(word) => word.load(Relaxed),
            None => {
                let requests = self.in_flight().saturating_add(self.stats.penalties());
                self.word().load(Relaxed) | requests.min(COUNT)
            }
        }
    }

    /// A reference, for a request that a pick has brought here.
    #[inline]
    pub(crate) fn member_ref(&self) -> Arc<MemberRef> {
        self.member_ref.clone()
    }
}

impl Deref for Member {
    type Target = MemberRef;

    #[inline]
    fn deref(&self) -> &MemberRef {
        &self.member_ref
    }
}

impl MemberRef {
    #[inline]
    fn word(&self) -> &AtomicU32 {
        self.word.get()
    }

    /// The endpoint as it was known when it joined.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn id(&self) -> MemberId {
        self.id
    }

    #[inline]
    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    #[inline]
    pub(crate) fn stats(&self) -> &RequestStats {
        &self.stats
    }

    /// The counters of its requests, if they are counted.
    #[inline]
    pub(crate) fn tally(&self) -> Option<&EndpointTally> {
        self.tally.as_deref()
    }

    #[inline]
    pub(crate) fn latency(&self) -> Option<&Latency> {
        self.latency.as_ref()
    }

    /// The 95th percentile of its latencies; unknown unless requests are hedged.
    #[inline]
    pub(crate) fn percentile(&self) -> &Percentile {
        &self.percentile
    }

    /// What part of its share the endpoint gets, from 0 to 1.
    pub(crate) fn slow_start_share(&self) -> f64 {
        f64::from(f32::from_bits(self.slow_start_share.load(Relaxed)))
    }

    pub(crate) fn set_slow_start_share(&self, part: f64) {
        self.slow_start_share
            .store((part as f32).to_bits(), Relaxed);
    }

    /// The member that this refers to, unless it has left and is gone.
    pub(crate) fn member(&self) -> Option<Arc<Member>> {
        self.member.upgrade()
    }

    pub(crate) fn is_unreachable(&self) -> bool {
        self.has(UNREACHABLE)
    }

    /// Whether picks take it: the word has no flag.
    #[inline]
    pub(crate) fn is_available(&self) -> bool {
        self.word().load(Relaxed) < FLAGGED
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.has(EJECTED)
    }

    /// Whether it is out only because it is ejected.
    pub(crate) fn is_only_ejected(&self) -> bool {
        self.word().load(Relaxed) & !TRIAL & !COUNT == EJECTED
    }

    pub(crate) fn is_unfit(&self) -> bool {
        self.has(UNFIT)
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.has(REMOVED)
    }

    /// Whether a trial is on offer: one request may try it.
    pub(crate) fn has_trial(&self) -> bool {
        is_on_offer(self.word().load(Relaxed))
    }

    fn has(&self, flag: u32) -> bool {
        self.word().load(Relaxed) & flag != 0
    }

    /// Counts one more request in the word, if it is packed, unless the word has a flag. The request then has to hold a
    /// reference.
    #[inline]
    pub(crate) fn begin(&self) -> bool {
        let Some(word) = self.word.counting() else {
            return self.is_available();
        };
        // Counts first and checks then, because few words have a flag.
        let available = word.fetch_add(1, Relaxed) < FLAGGED;
        if !available {
            word.fetch_sub(1, Relaxed);
        }
        available
    }

    /// [`begin`](Self::begin) for an endpoint that is out only because it is ejected.
    pub(crate) fn begin_ejected(&self) -> bool {
        let is_ejected = self.is_only_ejected();
        if is_ejected && let Some(word) = self.word.counting() {
            word.fetch_add(1, Relaxed);
        }
        is_ejected
    }

    /// [`begin`](Self::begin) for a request that is for this endpoint alone, even if it is ejected or unfit. `None` if
    /// the endpoint has left, or refuses requests and has no trial on offer. Otherwise whether this request is its
    /// trial.
    pub(crate) fn begin_requested(&self) -> Option<bool> {
        let before = match self.word().load(Relaxed) {
            // Even if it is unfit.
            word if word & TRIAL != 0 => self.change(|word| word & !TRIAL),
            word => word,
        };
        let is_trial = before & TRIAL != 0;
        let refuses = before & UNREACHABLE != 0 && !is_trial;
        if refuses || before & REMOVED != 0 {
            return None;
        }
        if let Some(word) = self.word.counting() {
            word.fetch_add(1, Relaxed);
        }
        Some(is_trial)
    }

    /// Counts one request out of the word, if it is packed.
    #[inline]
    pub(crate) fn end(&self) {
        self.end_all(1);
    }

    /// Counts several requests out of the word, if it is packed.
    #[inline]
    pub(crate) fn end_all(&self, requests: u32) {
        if let Some(word) = self.word.counting() {
            word.fetch_sub(requests, Relaxed);
        }
    }

    /// The endpoint left the set: no pick takes it any more, and no trial is offered.
    pub(crate) fn remove(&self) {
        self.change(|word| (word | REMOVED) & !TRIAL);
    }

    /// The endpoint refused a request. True if it was reachable until now.
    pub(crate) fn refuse(&self) -> bool {
        // A trial of an ejected endpoint has to wait until the endpoint is reachable again.
        let refuse = |word| match word & UNREACHABLE {
            0 => (word | UNREACHABLE) & !TRIAL,
            _ => word,
        };
        let is_new = self.change(refuse) & UNREACHABLE == 0;
        if is_new {
            self.unready.store(false, Relaxed);
            self.count_unreachable();
        } else {
            self.end_unready();
        }
        is_new
    }

    /// Marks a new endpoint that has to be ready before it gets requests: unreachable, but it has refused nothing.
    pub(crate) fn set_unready(&self) {
        self.unready.store(true, Relaxed);
        self.set(UNREACHABLE);
    }

    /// Whether it is unreachable only because it is new.
    pub(crate) fn is_unready(&self) -> bool {
        self.unready.load(Relaxed)
    }

    /// It has refused an attempt: if it was new, from now on it is unreachable for that.
    pub(crate) fn end_unready(&self) {
        if self.is_unready() && self.unready.swap(false, Relaxed) {
            self.count_unreachable();
        }
    }

    fn count_unreachable(&self) {
        if let Some(tally) = self.tally() {
            tally.became_unreachable();
        }
    }

    /// The endpoint accepts requests again. True if it was unreachable until now.
    pub(crate) fn accept(&self) -> bool {
        let is_new = self.clear(UNREACHABLE, EJECTED);
        self.unready.store(false, Relaxed);
        is_new
    }

    /// Ejects the endpoint: no pick takes it. True if it wasn't ejected before.
    pub(crate) fn eject(&self) -> bool {
        !self.is_ejected() && self.set(EJECTED)
    }

    /// Ends an ejection. True if there was one.
    pub(crate) fn readmit(&self) -> bool {
        // A plain read first, here and below: every review calls this, and most endpoints are well.
        self.is_ejected() && self.clear(EJECTED, UNREACHABLE)
    }

    /// Takes the endpoint out because of its checks: no pick takes it. True if it was fit before.
    pub(crate) fn set_unfit(&self) -> bool {
        !self.is_unfit() && self.set(UNFIT)
    }

    /// Its checks pass. True if it was unfit before.
    pub(crate) fn set_fit(&self) -> bool {
        self.is_unfit() && self.change(|word| word & !UNFIT) & UNFIT != 0
    }

    /// Marks a new endpoint that has to pass a check before it gets requests.
    pub(crate) fn hold_back(&self) {
        self.stats.set_checked(Checked::Pending);
        self.set_unfit();
    }

    /// Offers a trial: one request may try an endpoint that is out.
    pub(crate) fn offer_trial(&self) {
        self.change(|word| {
            let is_out = word & (UNREACHABLE | EJECTED) != 0;
            let may_be_tried = is_out && word & REMOVED == 0;
            word | if may_be_tried { TRIAL } else { 0 }
        });
    }

    /// Takes the trial on offer, if there is one. The request then has to hold a reference.
    pub(crate) fn claim_trial(&self) -> bool {
        // A plain read first: every pick asks every endpoint while a trial is on offer.
        if !self.has_trial() {
            return false;
        }
        let withdraw = |word| {
            if is_on_offer(word) {
                word & !TRIAL
            } else {
                word
            }
        };
        let claimed = is_on_offer(self.change(withdraw));
        if claimed && let Some(word) = self.word.counting() {
            word.fetch_add(1, Relaxed);
        }
        claimed
    }

    /// How many requests the word counts.
    #[cfg(test)]
    pub(crate) fn counted(&self) -> u32 {
        self.word().load(Relaxed) & COUNT
    }

    /// True if the flag is new.
    fn set(&self, flag: u32) -> bool {
        self.change(|word| word | flag) & flag == 0
    }

    /// Clears a reason to be out, and the trial with it unless there is the `other` reason. True if the flag was set.
    fn clear(&self, flag: u32, other: u32) -> bool {
        let trial = |word| if word & other == 0 { TRIAL } else { 0 };
        self.change(|word| word & !(flag | trial(word))) & flag != 0
    }

    /// Changes the flags; returns the word before. All flags change here, in one atomic step, so that the number
    /// of trials on offer is right whatever other threads do.
    fn change(&self, change: impl Fn(u32) -> u32) -> u32 {
        let changed = self
            .word()
            .fetch_update(Relaxed, Relaxed, |word| Some(change(word)));
        let before = changed.unwrap_or_else(|word| word);
        match (is_on_offer(before), is_on_offer(change(before))) {
            (false, true) => self.signals.add_trial(),
            (true, false) => self.signals.take_trial(),
            _ => {}
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> [Arc<Member>; 2] {
        let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
        let signals = || Arc::new(Signals::new(tokio::time::Instant::now()));
        let packed = Some(Slots::default().take());
        [
            Member::new(endpoint.clone(), None, None, signals()),
            Member::new(endpoint, packed, None, signals()),
        ]
    }

    #[test]
    fn a_trial_is_taken_once_and_only_while_unreachable() {
        for member in members() {
            member.offer_trial();
            assert!(!member.claim_trial(), "a reachable endpoint needs no trial");
            assert!(member.refuse());
            assert!(!member.refuse(), "the second refusal is no news");
            member.offer_trial();
            member.offer_trial();
            assert_eq!(member.signals.trials(), 1);
            assert!(member.claim_trial());
            assert!(!member.claim_trial());
            assert_eq!(member.signals.trials(), 0);
            member.accept();
            assert!(!member.is_unreachable());
            member.end();
            assert_eq!(member.word().load(Relaxed), 0);
        }
    }

    #[test]
    fn a_removed_endpoint_offers_no_trial() {
        for member in members() {
            member.refuse();
            member.offer_trial();
            member.remove();
            assert_eq!(member.signals.trials(), 0);
            member.offer_trial();
            assert!(!member.claim_trial() && !member.has_trial());
        }
    }

    #[test]
    fn a_trial_ends_with_the_last_reason_for_it() {
        for member in members() {
            member.refuse();
            member.eject();
            member.offer_trial();
            assert!(member.has_trial());
            assert!(member.accept());
            assert_eq!(member.signals.trials(), 1, "it is ejected, too");
            assert!(member.readmit());
            assert_eq!(member.signals.trials(), 0);
            assert!(member.refuse());
            assert!(!member.has_trial(), "of a former refusal nothing is left");
            member.accept();
            member.eject();
            member.offer_trial();
            member.refuse();
            assert!(!member.has_trial(), "it is tried after its back-off");
        }
    }

    #[test]
    fn no_trial_is_on_offer_while_unfit() {
        for member in members() {
            member.eject();
            member.offer_trial();
            assert!(member.set_unfit() && !member.set_unfit());
            assert_eq!(member.signals.trials(), 0);
            assert!(!member.claim_trial() && !member.begin() && !member.begin_ejected());
            assert!(member.set_fit() && !member.set_fit());
            assert_eq!(member.signals.trials(), 1);
            assert!(member.claim_trial());
            assert_eq!(member.signals.trials(), 0);
            member.set_unfit();
            member.offer_trial();
            assert_eq!(member.signals.trials(), 0);
            member.remove();
            member.set_fit();
            assert_eq!(member.signals.trials(), 0);
        }
    }

    #[test]
    fn a_request_for_this_endpoint_alone_begins_whatever_its_health() {
        for member in members() {
            assert_eq!(member.begin_requested(), Some(false));
            member.set_unfit();
            member.eject();
            assert_eq!(member.begin_requested(), Some(false));
            member.refuse();
            assert_eq!(member.begin_requested(), None, "it has to accept first");
            member.offer_trial();
            assert_eq!(member.begin_requested(), Some(true));
            assert_eq!(member.begin_requested(), None, "of trials there is one");
            member.offer_trial();
            member.accept();
            member.remove();
            assert_eq!(member.begin_requested(), None);
            member.set_fit();
            assert_eq!(member.signals.trials(), 0);
            member.end_all(3);
            let count = member.word().load(Relaxed) & COUNT;
            assert_eq!(count, 0, "what has not begun leaves no trace");
        }
    }

    #[test]
    fn a_request_in_flight_is_a_reference() {
        for member in members() {
            assert!(member.begin());
            let request = member.member_ref();
            assert_eq!(member.in_flight(), 1);
            request.end();
            drop(request);
            assert_eq!(member.in_flight(), 0);
            member.refuse();
            let word = member.word().load(Relaxed);
            assert!(!member.begin());
            assert_eq!(
                member.word().load(Relaxed),
                word,
                "what is refused leaves no trace"
            );
        }
    }
}
