//! Whether a name server takes EDNS (RFC 6891): an OPT record in the question, which says how large the answer may be.
//!
//! Most do. Some refuse such a question (§7: FORMERR; or NOTIMP, or BADVERS), some firewalls swallow it. Whoever answers
//! without it only is asked without it for a while, and then with it again: the server may have been replaced.

use tokio::time::{Duration, Instant};

use crate::sync::Mutex;

/// For how long a server is asked without an OPT record. A wrong guess costs little: answers of more than 512 bytes go over
/// TCP. So does a try: a packet where the server refuses, half of its time where it is silent.
const WITHOUT: Duration = Duration::from_secs(600);

/// What is known of one server.
#[derive(Debug, Default)]
pub(super) struct Edns {
    without_until: Mutex<Option<Instant>>,
}

impl Edns {
    /// Whether to send an OPT record.
    pub(super) fn is_tried(&self, now: Instant) -> bool {
        self.without_until.lock().is_none_or(|until| now >= until)
    }

    /// The server answers without one, and didn't with one.
    pub(super) fn is_missing(&self, now: Instant) {
        *self.without_until.lock() = Some(now + WITHOUT);
    }

    /// The server answers with one.
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
