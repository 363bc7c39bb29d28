//! Limits how often discovery is told which pods requests ask for by name: each name once a minute.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    route::PodName,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// How often a name is told.
pub(super) const EVERY: Duration = Duration::from_secs(60);

/// Four times as many names as [`Dns`](crate::Dns) looks up: `LINES` times `WAYS`.
const LINES: usize = 32;

/// How many names fit in a line, which is a cache line. If there are more, some are told more often than once a minute,
/// but no more than this many in a second.
const WAYS: usize = 8;

const UPPER: u64 = !(u32::MAX as u64);

/// When each name was last told, by hash. Requests read and write it without a lock.
#[derive(Debug)]
pub(super) struct Asked {
    epoch: Instant,
    /// Discovery doesn't use names.
    has_ended: AtomicBool,
    /// The upper half of a name's hash, and the seconds since the epoch, from one on. The lower half chooses the line.
    lines: [[AtomicU64; WAYS]; LINES],
}

impl Asked {
    pub(super) fn new(now: Instant) -> Self {
        let line = |_| std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            epoch: now,
            has_ended: AtomicBool::new(false),
            lines: std::array::from_fn(line),
        }
    }

    /// Discovery doesn't use names: nothing is due any more.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Relaxed);
    }

    /// Whether discovery uses names.
    pub(super) fn is_of_use(&self) -> bool {
        !self.has_ended.load(Relaxed)
    }

    /// Whether to tell discovery that the pod of this name is asked for. If true, the caller has to tell it.
    pub(super) fn is_due(&self, pod: PodName<'_>, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        pod.hash(&mut hasher);
        let hash = hasher.finish();
        let line = &self.lines[hash as usize % LINES];
        let second = now.saturating_duration_since(self.epoch).as_secs() + 1;
        let told = |slot: &AtomicU64| slot.load(Relaxed) & !UPPER;
        let is_same =
            |slot: &&AtomicU64| told(slot) > 0 && slot.load(Relaxed) & UPPER == hash & UPPER;
        let slot = match line.iter().find(is_same) {
            Some(slot) if second < told(slot) + EVERY.as_secs() => return false,
            Some(slot) => slot,
            None => line
                .iter()
                .min_by_key(|slot| told(slot))
                .expect("a line has slots"),
        };
        // The whole line has been told in this second: there are more names than fit.
        if told(slot) >= second {
            return false;
        }
        slot.store(hash & UPPER | second & !UPPER, Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_name_is_told_once_a_minute() {
        let now = Instant::now();
        let asked = Asked::new(now);
        for minute in 0..3 {
            let now = now + minute * EVERY;
            for pod in ["web-0", "web-1"] {
                assert!(asked.is_due(pod.into(), now));
                assert!(!asked.is_due(pod.into(), now + Duration::from_secs(59)));
            }
        }
    }

    /// How many of `names` names, all asked for again and again, are due in each of the seconds.
    fn due(names: usize, seconds: u32) -> Vec<usize> {
        let now = Instant::now();
        let asked = Asked::new(now);
        let pods: Vec<_> = (0..names).map(|pod| format!("shard-{pod}")).collect();
        let due = |second: u32| {
            let now = now + second * SECOND;
            let all = (0..3).flat_map(|_| &pods);
            all.filter(|pod| asked.is_due(pod.as_str().into(), now))
                .count()
        };
        (0..seconds).map(due).collect()
    }

    #[test]
    fn as_many_names_as_dns_looks_up_are_each_told_once_a_minute() {
        let due = due(64, 60);
        assert_eq!(due[0], 64);
        assert_eq!(due[1..], [0; 59]);
    }

    #[test]
    fn too_many_names_are_told_at_a_bounded_rate() {
        for names in [200, 500, 2000] {
            let due = due(names, 10);
            assert!(
                due.iter().all(|&due| due <= LINES * WAYS),
                "{names}: {due:?}"
            );
        }
    }

    #[test]
    fn after_end_names_are_of_no_use() {
        let asked = Asked::new(Instant::now());
        assert!(asked.is_of_use());
        asked.end();
        assert!(!asked.is_of_use());
    }
}
