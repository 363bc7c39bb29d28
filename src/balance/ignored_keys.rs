//! Notices keys that the policy ignores.

use crate::{
    route::Route,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// Whether requests have had keys that the policy ignores. Each would be sent to any pod, and nobody would notice.
#[derive(Debug)]
pub(super) struct IgnoredKeys {
    /// The policy ignores keys.
    pub(super) does_ignore: bool,
    has_seen: AtomicBool,
}

impl IgnoredKeys {
    pub(super) fn new() -> Self {
        Self {
            does_ignore: false,
            has_seen: AtomicBool::new(false),
        }
    }

    /// True for the first request whose key is ignored. It isn't if the request is for one pod or prefers one: sessions
    /// do so under any policy, and have a key besides.
    pub(super) fn is_first(&self, route: &Route) -> bool {
        self.does_ignore
            && route.requested_key().is_some()
            && !route.is_for_one()
            && route.preferred().is_none()
            // Loaded first, because swaps of all threads would contend.
            && !self.has_seen.load(Relaxed)
            && !self.has_seen.swap(true, Relaxed)
    }

    /// Whether there has been such a request.
    pub(super) fn has_seen(&self) -> bool {
        self.has_seen.load(Relaxed)
    }
}
