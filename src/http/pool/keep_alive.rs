//! What a pod announces of how long it keeps an idle HTTP/1.1 connection: `Keep-Alive: timeout=5, max=100`.
//!
//! The time counts from the head of the response. The pod's own clock starts at the response's end, which a client that
//! reads slowly sees much later: the head is never too late.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::times::DAY;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A connection isn't used in the last second of what was announced: the request would meet the pod as it closes.
const MARGIN: Duration = Duration::from_secs(1);

/// What a pod has announced of one connection.
#[derive(Debug, Default)]
pub(in crate::http) struct KeepAlive {
    /// Stands until the pod announces another one.
    timeout: Option<Duration>,
    until: Option<Instant>,
    /// How many more requests the pod takes.
    left: Option<u64>,
}

/// What one response says; none of it, mostly.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    timeout: Option<u64>,
    max: Option<u64>,
}

impl KeepAlive {
    /// A response has come, with these headers.
    pub(in crate::http) fn heed(&mut self, headers: &HeaderMap) {
        let said = Said::of(headers);
        if let Some(seconds) = said.timeout {
            // More is as good as no announcement.
            self.timeout = Some(Duration::from_secs(seconds)).filter(|time| *time <= DAY);
        }
        self.until = (self.timeout).map(|time| Instant::now() + time.saturating_sub(MARGIN));
        self.left = (said.max).or_else(|| self.left.map(|left| left.saturating_sub(1)));
    }

    /// Whether the pod takes no more requests over the connection, or is about to close it.
    pub(in crate::http) fn is_over(&self) -> bool {
        self.left == Some(0) || self.until.is_some_and(|until| Instant::now() >= until)
    }

    pub(in crate::http) fn until(&self) -> Option<Instant> {
        self.until
    }
}

impl Said {
    /// The least of each, where there are several. What can't be read isn't there.
    fn of(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        // Most say nothing, and few headers are sooner walked through than a name is hashed.
        if headers.keys().any(|name| *name == KEEP_ALIVE) {
            for value in headers.get_all(&KEEP_ALIVE) {
                said.note_all(value);
            }
        }
        said
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

/// Digits and nothing else; more of them than there is room for are a very large number.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(values: &[&str]) -> (Option<u64>, Option<u64>) {
        let said = Said::of(&headers(values));
        (said.timeout, said.max)
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |value: &&str| HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        let pairs = values.iter().map(|it| (KEEP_ALIVE.clone(), value(it)));
        pairs.collect()
    }

    #[test]
    fn what_is_announced_is_read_however_it_is_written() {
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
            assert_eq!(said(values), expected, "{values:?}");
        }
    }

    #[test]
    fn garbage_says_nothing() {
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
            assert_eq!(said(&[garbage]), (None, None), "{garbage:?}");
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
    fn so_many_requests_as_were_announced_are_sent() {
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
