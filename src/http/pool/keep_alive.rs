//! How long a pod says it keeps an idle HTTP/1.1 connection: `Keep-Alive: timeout=5, max=100`.
//!
//! The time is counted from the head of the response. The pod counts from the end of the response, but a slow reader
//! sees that much later; the head is never too late.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::times::DAY;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A connection isn't used in the last second before its announced end: the pod might be closing it.
const MARGIN: Duration = Duration::from_secs(1);

/// What a pod has announced for one connection.
#[derive(Debug, Default)]
pub(in crate::http) struct KeepAlive {
    /// Valid until the pod announces another.
    timeout: Option<Duration>,
    until: Option<Instant>,
    /// How many more requests the pod takes.
    left: Option<u64>,
}

/// What one response says; usually nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Announced {
    timeout: Option<u64>,
    max: Option<u64>,
}

impl KeepAlive {
    /// Reads the headers of a response.
    pub(in crate::http) fn heed(&mut self, headers: &HeaderMap) {
        let announced = Announced::of(headers);
        if let Some(seconds) = announced.timeout {
            // A longer time is as good as no announcement.
            self.timeout = Some(Duration::from_secs(seconds)).filter(|time| *time <= DAY);
        }
        self.until = (self.timeout).map(|time| Instant::now() + time.saturating_sub(MARGIN));
        self.left = (announced.max).or_else(|| self.left.map(|left| left.saturating_sub(1)));
    }

    /// Whether the pod takes no more requests on the connection, or will close it soon.
    pub(in crate::http) fn is_over(&self) -> bool {
        self.left == Some(0) || self.until.is_some_and(|until| Instant::now() >= until)
    }

    pub(in crate::http) fn until(&self) -> Option<Instant> {
        self.until
    }
}

impl Announced {
    /// The lowest of each value, if there are several. Values that can't be parsed are ignored.
    fn of(headers: &HeaderMap) -> Self {
        let mut announced = Self::default();
        // Most responses say nothing, and a walk through few headers is faster than hashing a name.
        if headers.keys().any(|name| *name == KEEP_ALIVE) {
            for value in headers.get_all(&KEEP_ALIVE) {
                announced.note_all(value);
            }
        }
        announced
    }

    fn note_all(&mut self, value: &HeaderValue) {
        let text = value.to_str().unwrap_or_default();
        for parameter in text.split([',', ';']) {
            self.note(parameter);
        }
    }

    fn note(&mut self, parameter: &str) {
        let Some((name, value)) = parameter.split_once('=') else {
            return;
        };
        let Some(value) = number(value.trim().trim_matches('"')) else {
            return;
        };
        let name = name.trim();
        let noted = if name.eq_ignore_ascii_case("timeout") {
            &mut self.timeout
        } else if name.eq_ignore_ascii_case("max") {
            &mut self.max
        } else {
            return;
        };
        *noted = Some(noted.map_or(value, |before| before.min(value)));
    }
}

/// Only digits; a number that is too large counts as the largest.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(values: &[&str]) -> (Option<u64>, Option<u64>) {
        let announced = Announced::of(&headers(values));
        (announced.timeout, announced.max)
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |value: &&str| HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        let pairs = values.iter().map(|it| (KEEP_ALIVE.clone(), value(it)));
        pairs.collect()
    }

    #[test]
    fn every_spelling_is_read() {
        for (values, expected) in [
            (&["timeout=5"][..], (Some(5), None)),
            (&["timeout=5, max=100"], (Some(5), Some(100))),
            (&["timeout = 5 ,max = 100"], (Some(5), Some(100))),
            (&["Max=1;TIMEOUT=\"7\""], (Some(7), Some(1))),
            (&["timeout=5", "max=9"], (Some(5), Some(9))),
            (&["timeout=60", "timeout=5, timeout=30"], (Some(5), None)),
            (&["timeout=0, max=0"], (Some(0), Some(0))),
            (&["timeout=99999999999999999999999"], (Some(u64::MAX), None)),
            (&["foo=1, timeout=5, bar"], (Some(5), None)),
        ] {
            assert_eq!(announced(values), expected, "{values:?}");
        }
    }

    #[test]
    fn unparsable_values_are_ignored() {
        for garbage in [
            "",
            ",",
            "=",
            "timeout",
            "timeout=",
            "timeout=-1",
            "timeout=+5",
            "timeout=5s",
            "timeout=5.5",
            "timeout=0x5",
            "timeout: 5",
            "time out=5",
            "timeout=5=6",
            "é",
            "max=١",
        ] {
            assert_eq!(announced(&[garbage]), (None, None), "{garbage:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_over_a_second_before_the_pod_closes_it() {
        let mut it = KeepAlive::default();
        it.heed(&HeaderMap::new());
        assert_eq!((it.until(), it.is_over()), (None, false));
        it.heed(&headers(&["timeout=5"]));
        tokio::time::advance(Duration::from_millis(3_999)).await;
        assert!(!it.is_over());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(it.is_over());
        it.heed(&HeaderMap::new());
        assert!(!it.is_over(), "the time begins anew with each response");
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(it.is_over(), "and stands though it isn't said again");
        it.heed(&headers(&["timeout=99999999999999999999"]));
        assert_eq!((it.until(), it.is_over()), (None, false));
        for short in ["timeout=1", "timeout=0"] {
            it.heed(&headers(&[short]));
            assert!(it.is_over(), "{short}");
        }
    }

    #[test]
    fn no_more_requests_are_sent_than_announced() {
        let mut it = KeepAlive::default();
        it.heed(&headers(&["max=2"]));
        assert!(!it.is_over());
        it.heed(&HeaderMap::new());
        assert!(!it.is_over(), "one more");
        it.heed(&HeaderMap::new());
        assert!(it.is_over());
        it.heed(&headers(&["max=1"]));
        assert!(!it.is_over());
    }
}
