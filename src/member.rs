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
mod status;
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

use self::{flags::COUNT, status_word::StatusWord};
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
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn members() -> [Arc<Member>; 2] {
        let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
        let signals = || Arc::new(Signals::new(tokio::time::Instant::now()));
        let packed = Some(Slots::default().take());
        [
            Member::new(endpoint.clone(), None, None, signals()),
            Member::new(endpoint, packed, None, signals()),
        ]
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
