//! What an answer asks of retries of its request: to wait, or not to happen.
//!
//! | in the answer | what it asks |
//! | --- | --- |
//! | `grpc-retry-pushback-ms`, not negative | no retry there for that time (gRFC A6) |
//! | `grpc-retry-pushback-ms`, negative or no number of 32 bits | no retry, anywhere (gRFC A6) |
//! | `Retry-After` with 429 or 503, in seconds or as a date | no retry there for that time, or before that date (RFC 9110 §10.2.3) |
//! | any other `Retry-After` | nothing |

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, StatusCode,
    header::{DATE, HeaderName, RETRY_AFTER},
};

const GRPC: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What an answer asks of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Never send its request again.
    Never,
    /// Send no retries to the endpoint for this time.
    After(Duration),
}

impl Pushback {
    /// What an answer asks for, if anything.
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        if let Some(millis) = headers.get(GRPC) {
            let millis = millis.to_str().ok().and_then(|text| text.parse().ok());
            let millis = millis.and_then(|millis: i32| u64::try_from(millis).ok());
            return Some(match millis {
                Some(millis) => Self::After(Duration::from_millis(millis)),
                None => Self::Never,
            });
        }
        let waits = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        let after = waits.contains(&status).then(|| retry_after(headers));
        after.flatten().map(Self::After)
    }

    pub(crate) fn delay(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(delay) => Some(delay),
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large means the largest.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let then = httpdate::parse_http_date(text).ok()?;
    // Measured by the answer's own clock, if its `Date` says what that shows.
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(|date| httpdate::parse_http_date(date).ok());
    then.duration_since(now.unwrap_or_else(wall_clock)).ok()
}

#[expect(clippy::disallowed_methods, reason = "a date is wall time")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, headers: &[(&'static str, &str)]) -> Option<Pushback> {
        let status = StatusCode::from_u16(status).expect("a status");
        let headers = headers.iter().map(|(name, value)| {
            let value = value.parse().expect("a value");
            (HeaderName::from_static(name), value)
        });
        Pushback::of(status, &headers.collect())
    }

    fn after(seconds: u64) -> Option<Pushback> {
        Some(Pushback::After(Duration::from_secs(seconds)))
    }

    #[test]
    fn grpc_s_pushback_is_a_number_of_32_bits_or_means_never() {
        let of = |value| of(200, &[("grpc-retry-pushback-ms", value)]);
        assert_eq!(of("0"), after(0));
        assert_eq!(of("3000"), after(3));
        for never in ["-1", "-2147483648", "", "soon", "1.5", "99999999999"] {
            assert_eq!(of(never), Some(Pushback::Never), "{never}");
        }
    }

    #[test]
    fn retry_after_is_in_seconds_or_a_date_and_nothing_else() {
        for status in [429, 503] {
            let of = |value| of(status, &[("retry-after", value)]);
            assert_eq!(of("0"), after(0));
            assert_eq!(of(" 120"), after(120));
            assert_eq!(of("99999999999999999999999"), after(u64::MAX));
            for nothing in ["-1", "", "soon", "1.5", "Wed, 99 Oct 2015 07:28:00 GMT"] {
                assert_eq!(of(nothing), None, "{nothing}");
            }
            assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), None, "it is over");
            let far = of("Fri, 31 Dec 9999 23:59:59 GMT").and_then(Pushback::delay);
            assert!(far > Some(Duration::from_secs(1_000_000)));
        }
        assert_eq!(of(200, &[("retry-after", "1")]), None);
        assert_eq!(of(301, &[("retry-after", "1")]), None);
    }

    #[test]
    fn a_date_is_measured_by_the_answer_s_own_clock() {
        let dates = [
            ("retry-after", "Wed, 21 Oct 2015 07:28:10 GMT"),
            ("date", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ];
        assert_eq!(of(503, &dates), after(10));
    }
}
