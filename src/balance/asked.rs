//! Which pods requests ask for by name, as far as discovery has to be told: each once a minute.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    time::Duration,
};

use tokio::time::Instant;

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How often a name is told.
pub(super) const EVERY: Duration = Duration::from_secs(60);

/// As many as [`Dns`](crate::Dns) looks up. Two names that share a slot are told more often.
const SLOTS: usize = 64;

/// When names were last told, by their hashes. Requests look at it without a lock.
#[derive(Debug)]
pub(super) struct Asked {
    epoch: Instant,
    /// The upper half of a name's hash, and the seconds since the epoch, from one on.
    slots: [AtomicU64; SLOTS],
}

impl Asked {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Whether discovery is to be told that the pod of this name is asked for, which it is then.
    pub(super) fn is_due(&self, pod: &str, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        pod.hash(&mut hasher);
        let hash = hasher.finish();
        let upper = hash & !u64::from(u32::MAX);
        let slot = &self.slots[hash as usize % SLOTS];
        let seconds = now.saturating_duration_since(self.epoch).as_secs() + 1;
        let last = slot.load(Relaxed);
        let is_known = last != 0 && last & !u64::from(u32::MAX) == upper;
        if is_known && seconds < (last & u64::from(u32::MAX)) + EVERY.as_secs() {
            return false;
        }
        slot.store(upper | seconds & u64::from(u32::MAX), Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_once_a_minute() {
        let now = Instant::now();
        let asked = Asked::new(now);
        for minute in 0..3 {
            let now = now + minute * EVERY;
            for pod in ["web-0", "web-1"] {
                assert!(asked.is_due(pod, now));
                assert!(!asked.is_due(pod, now + Duration::from_secs(59)));
            }
        }
    }
}
