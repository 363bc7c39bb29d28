//! A member's status: whether picks may take it, and what puts it out and back in.
//!
//! All of it is in the [status word](super::status_word), which every change here updates in one atomic step.

use super::{
    Checked, MemberRef,
    flags::{COUNT, EJECTED, FLAGGED, REMOVED, TRIAL, UNFIT, UNREACHABLE, is_on_offer},
};
use crate::sync::atomic::Ordering::Relaxed;

impl MemberRef {
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
    use super::{super::tests::members, *};

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
}
