//! Whether a name server takes EDNS (RFC 6891): an OPT record in the question that says how large the answer may be.
//!
//! Most do. Some refuse such a question (§7: FORMERR; or NOTIMP, or BADVERS), and some firewalls drop it. A server that
//! answers only without an OPT record is asked without one for a while, then with one again, because it may have been
//! replaced.

use tokio::time::{Duration, Instant};

use crate::sync::Mutex;

/// How long a server is asked without an OPT record. A wrong guess costs little: answers above 512 bytes go over TCP.
/// Trying again costs little too: a packet if the server refuses, half of its time if it is silent.
const WITHOUT: Duration = Duration::from_secs(600);

/// What is known about one server.
#[derive(Debug, Default)]
pub(super) struct Edns {
    without_until: Mutex<Option<Instant>>,
}

impl Edns {
    /// Whether to send an OPT record now.
    pub(super) fn is_tried(&self, now: Instant) -> bool {
        self.without_until.lock().is_none_or(|until| now >= until)
    }

    /// Notes that the server answers without an OPT record, and didn't with one.
    pub(super) fn is_missing(&self, now: Instant) {
        *self.without_until.lock() = Some(now + WITHOUT);
    }

    /// Notes that the server answers with an OPT record.
    pub(super) fn is_there(&self) {
        *self.without_until.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_edns_is_tried_with_it_again_after_a_while() {
        let (edns, now) = (Edns::default(), Instant::now());
        assert!(edns.is_tried(now));
        edns.is_missing(now);
        assert!(!edns.is_tried(now + WITHOUT / 2));
        assert!(edns.is_tried(now + WITHOUT));
        edns.is_missing(now);
        edns.is_there();
        assert!(edns.is_tried(now));
    }
}
