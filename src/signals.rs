//! Rare conditions that each pick checks with one load, and other state that all members of a balancer share.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    counters::BalanceTally,
    latency::Latencies,
    logs::Changes,
    sync::{
        Step,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
        step,
    },
};

/// The signals of one balancer.
#[derive(Debug)]
pub(crate) struct Signals {
    /// When the balancer's life began.
    epoch: Instant,
    /// The number of trials on offer, above four flag bits.
    flags: AtomicUsize,
    pub(crate) outage: Outage,
    owner: OnceLock<Weak<dyn Any + Send + Sync>>,
    attendant: OnceLock<Weak<dyn Attendant>>,
    /// The balancer's age, in nanoseconds, when its background task last ran, or a request last made sure that it runs.
    heard: AtomicU64,
    /// Wakes the background task for a review of the endpoints' health.
    pub(crate) review: Step<Arc<Notify>>,
    /// How many failures in a row cause a review at once; zero for none.
    failures: u32,
    /// Whether the endpoints' health is reviewed at all. If not, requests needn't read the clock when they begin to
    /// wait.
    is_reviewed: AtomicBool,
    /// Whether requests are hedged, so that late answers have to be known.
    is_hedged: AtomicBool,
    /// How long an endpoint may leave requests unanswered, in nanoseconds; zero if unknown.
    unresponsive_after: AtomicU64,
    pub(crate) latencies: Latencies,
    /// How many members there have been.
    members: AtomicU64,
    /// Limits how many changes of endpoints are logged one by one.
    pub(crate) changes: Changes,
    /// The name of the service, for errors and events.
    service: Option<Arc<str>>,
    /// The counters, if requests are counted.
    tally: Option<Arc<BalanceTally>>,
}

/// Makes sure that the background task runs.
pub(crate) trait Attendant: fmt::Debug + Send + Sync {
    /// Starts the task if it doesn't run. False if there is no runtime for it.
    fn attend(self: Arc<Self>) -> bool;
}

/// How long the background task may not have run, in nanoseconds, before a request's answer checks on it.
const QUIET_FOR: u64 = 1_000_000_000;

/// There was no pick since the last review.
const QUIET: usize = 1;

/// The next pick has to wake the background task.
const ASLEEP: usize = 1 << 1;

/// Some endpoint is new and gets less than its share (slow start).
const SLOW_START: usize = 1 << 2;

/// The background task's runtime has ended: the next pick has to start the task in its own.
const VACANT: usize = 1 << 3;

/// One trial. The count of trials is above the flags: it may be negative for a moment, if a trial is taken before it is
/// added, and that must not change the flags.
const A_TRIAL: usize = 1 << 4;

/// Conditions that a pick handles before it asks the policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PickFlags {
    /// A trial is on offer.
    pub(crate) trials: bool,
    /// Some endpoint is new and gets less than its share (slow start).
    pub(crate) slow_start: bool,
}

impl Signals {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            flags: AtomicUsize::new(0),
            outage: Outage::default(),
            owner: OnceLock::new(),
            attendant: OnceLock::new(),
            heard: AtomicU64::new(0),
            review: step(Arc::default()),
            failures: 0,
            is_reviewed: AtomicBool::new(false),
            is_hedged: AtomicBool::new(false),
            unresponsive_after: AtomicU64::new(0),
            latencies: Latencies::default(),
            members: AtomicU64::new(0),
            changes: Changes::default(),
            service: None,
            tally: None,
        }
    }

    /// Sets the name of the service.
    pub(crate) fn named(self, service: Option<Arc<str>>) -> Self {
        Self { service, ..self }
    }

    /// The name of the service, if it is known.
    pub(crate) fn service(&self) -> Option<&Arc<str>> {
        self.service.as_ref()
    }

    /// Sets whether requests are counted.
    pub(crate) fn counted(self, is_counted: bool) -> Self {
        let tally = is_counted.then(|| Arc::new(BalanceTally::new(self.epoch)));
        Self { tally, ..self }
    }

    /// The counters, if requests are counted.
    #[inline]
    pub(crate) fn tally(&self) -> Option<&Arc<BalanceTally>> {
        self.tally.as_ref()
    }

    /// The number of the next member.
    pub(crate) fn next_member(&self) -> u64 {
        self.members.fetch_add(1, Relaxed)
    }

    /// Has the endpoints' health reviewed; at once after this many failures in a row.
    pub(crate) fn reviewed(self, failures: Option<u32>) -> Self {
        Self {
            flags: AtomicUsize::new(QUIET | ASLEEP),
            failures: failures.unwrap_or(0),
            is_reviewed: AtomicBool::new(true),
            ..self
        }
    }

    /// The balancer's age at `now`, in nanoseconds: a time that fits in one word.
    #[inline]
    pub(crate) fn age(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// The time at which the balancer was this old, in milliseconds.
    pub(crate) fn at(&self, millis: u64) -> Instant {
        self.epoch + Duration::from_millis(millis)
    }

    /// The balancer's age now, in milliseconds.
    pub(crate) fn millis(&self) -> u64 {
        self.age(Instant::now()) / 1_000_000
    }

    /// For how long there has been an outage, if there is one.
    pub(crate) fn outage_for(&self, now: Instant) -> Option<Duration> {
        let since = self.outage.since.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_nanos(self.age(now).saturating_sub(since)))
    }

    /// How many failures in a row cause a review at once, if any number does.
    pub(crate) fn consecutive_failures(&self) -> Option<u32> {
        (self.failures != 0).then_some(self.failures)
    }

    /// Begins an outage, unless there is one, and returns its beginning.
    pub(crate) fn begin_outage(&self, now: Instant) -> Instant {
        self.epoch + Duration::from_nanos(self.outage.begin(self.age(now)))
    }

    /// Whether a pick has anything to handle before it asks the policy.
    #[inline]
    pub(crate) fn has_flags(&self) -> bool {
        self.flags.load(Relaxed) != 0
    }

    /// [`heed`](Self::heed), if there are flags. True if a trial is on offer.
    pub(crate) fn heed_if_any(&self) -> bool {
        self.has_flags() && self.heed().trials
    }

    /// A pick has come: wakes or starts the background task if that is due. Returns what the pick has to handle itself.
    #[cold]
    pub(crate) fn heed(&self) -> PickFlags {
        let flags = self.flags.load(Relaxed);
        if flags & (QUIET | ASLEEP) != 0 {
            let before = self.flags.fetch_and(!(QUIET | ASLEEP), Relaxed);
            if before & ASLEEP != 0 {
                self.review.notify_one();
            }
        }
        if flags & VACANT != 0 {
            self.end_vacancy();
        }
        PickFlags {
            trials: flags >= A_TRIAL,
            slow_start: flags & SLOW_START != 0,
        }
    }

    /// The background task's runtime has ended.
    pub(crate) fn vacate(&self) {
        self.flags.fetch_or(VACANT, Relaxed);
    }

    fn end_vacancy(&self) {
        self.flags.fetch_and(!VACANT, Relaxed);
        if !self.attend() {
            self.vacate();
        }
    }

    /// Sets what runs the background task. Only the first call counts.
    pub(crate) fn attended_by(&self, attendant: Weak<dyn Attendant>) {
        let _ = self.attendant.set(attendant);
    }

    /// Makes sure that the background task runs. False if there is no runtime for it here.
    fn attend(&self) -> bool {
        let attendant = self.attendant.get().and_then(Weak::upgrade);
        attendant.is_none_or(Attendant::attend)
    }

    /// Notes that the background task runs, at this age.
    pub(crate) fn hear(&self, age: u64) {
        self.heard.store(age, Relaxed);
    }

    /// An answer has come, at this age. If the background task hasn't run for long, its runtime may not be driven:
    /// checks on it.
    #[inline]
    pub(crate) fn listen(&self, age: u64) {
        if age.saturating_sub(self.heard.load(Relaxed)) > QUIET_FOR {
            self.look_after(age);
        }
    }

    #[cold]
    fn look_after(&self, age: u64) {
        self.hear(age);
        self.attend();
    }

    /// Sets whether some endpoint is new and gets less than its share.
    pub(crate) fn set_slow_start(&self, slow_start: bool) {
        if slow_start {
            self.flags.fetch_or(SLOW_START, Relaxed);
        } else {
            self.flags.fetch_and(!SLOW_START, Relaxed);
        }
    }

    /// Begins to look out for picks. False if there was none since the last call.
    pub(crate) fn look_out(&self) -> bool {
        self.flags.fetch_or(QUIET, Relaxed) & QUIET == 0
    }

    /// Has the next pick wake the background task. False if there was a pick since [`look_out`](Self::look_out).
    pub(crate) fn fall_asleep(&self) -> bool {
        let asleep = |flags| (flags & QUIET != 0).then_some(flags | ASLEEP);
        self.flags.fetch_update(Relaxed, Relaxed, asleep).is_ok()
    }

    pub(crate) fn add_trial(&self) {
        self.flags.fetch_add(A_TRIAL, Relaxed);
    }

    pub(crate) fn take_trial(&self) {
        self.flags.fetch_sub(A_TRIAL, Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn trials(&self) -> usize {
        self.flags.load(Relaxed) / A_TRIAL
    }

    #[inline]
    pub(crate) fn is_reviewed(&self) -> bool {
        self.is_reviewed.load(Relaxed)
    }

    #[inline]
    pub(crate) fn is_hedged(&self) -> bool {
        self.is_hedged.load(Relaxed)
    }

    /// Requests are hedged from now on. Reviews are on from now on, because they learn when an answer is late.
    pub(crate) fn begin_hedging(&self) {
        self.is_hedged.store(true, Relaxed);
        if !self.is_reviewed.swap(true, Relaxed) {
            self.flags.fetch_or(QUIET | ASLEEP, Relaxed);
        }
    }

    pub(crate) fn set_unresponsive_after(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.unresponsive_after.store(nanos, Relaxed);
    }

    /// How long an endpoint may leave requests unanswered, if that is known. A request that is cancelled sooner proves
    /// nothing.
    pub(crate) fn unresponsive_after(&self) -> Option<Duration> {
        let nanos = self.unresponsive_after.load(Relaxed);
        (nanos != 0).then(|| Duration::from_nanos(nanos))
    }

    /// An endpoint has failed this many requests in a row.
    pub(crate) fn failed(&self, in_a_row: u32) {
        // Notified only once: the background task reviews all endpoints, and reviews them again by itself.
        if in_a_row == self.failures {
            self.review.notify_one();
        }
    }

    /// Sets the owner of these signals. Only the first call counts.
    pub(crate) fn belong_to<T: Any + Send + Sync>(&self, owner: &Arc<T>) {
        let owner: Weak<T> = Arc::downgrade(owner);
        let _ = self.owner.set(owner);
    }

    /// The owner of these signals, unless it is gone.
    ///
    /// A request under way finds its balancer here when it needs it. Holding the balancer would cost each request two
    /// updates of a reference count that all threads share.
    pub(crate) fn owner<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.owner.get()?.upgrade()?.downcast().ok()
    }
}

/// The beginning of the current outage, if there is one: since when no endpoint accepts requests.
///
/// ```text
///            a pick finds no endpoint
///   ┌──────┐ ───────────────────────▶ ┌────────┐   for the ready timeout   ┌───────────────┐
///   │ none │                          │ outage │ ────────────────────────▶ │ calls fail at │
///   └──────┘ ◀─────────────────────── └────────┘                           │ once          │
///      ▲      an endpoint accepts a request                                └───────────────┘
///      └───────────────────────────────────────────────────────────────────────────┘
/// ```
#[derive(Debug, Default)]
pub(crate) struct Outage {
    /// The balancer's age then, in nanoseconds, plus one; zero while there is none.
    since: AtomicU64,
}

impl Outage {
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.since.load(Relaxed) != 0
    }

    /// Begins an outage at this age, unless there is one. Returns the age at which it began.
    fn begin(&self, age: u64) -> u64 {
        let since = age.saturating_add(1);
        match self.since.compare_exchange(0, since, Relaxed, Relaxed) {
            Ok(_) => since - 1,
            Err(earlier) => earlier - 1,
        }
    }

    /// An endpoint has accepted a request. True if that ends an outage.
    #[inline]
    pub(crate) fn end(&self) -> bool {
        self.is_on() && self.since.swap(0, Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_to_notice_an_outage_sets_its_beginning() {
        let now = Instant::now();
        let signals = Signals::new(now);
        let outage = &signals.outage;
        assert!(!outage.end());
        assert_eq!(signals.begin_outage(now), now);
        assert_eq!(signals.begin_outage(now + Duration::from_secs(3)), now);
        assert!(outage.end());
        let later = now + Duration::from_secs(9);
        assert_eq!(signals.begin_outage(later), later);
    }
}
