//! What the end of a request means for the endpoint that had it.

use crate::error::BoxError;

/// What a request's end means for its endpoint. Each request has one outcome, [reported](crate::InFlight::report) once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint did its part. An answer that the caller dislikes, such as a 404, is a success.
    Success,
    /// The endpoint failed: it broke the connection, didn't answer in time, or answered that it can't serve.
    Failure,
    /// The endpoint answered that it is overloaded, for example with 429. It gets fewer requests, but isn't ejected for
    /// it.
    Overload,
    /// It means nothing for the endpoint: the request was cancelled, or failed by the caller's own fault.
    Ignored,
}

impl Outcome {
    /// Whether the endpoint gets a failure penalty: it looks loaded for a while, so that failing fast doesn't attract
    /// requests.
    pub(crate) fn is_turned_away(self) -> bool {
        matches!(self, Self::Failure | Self::Overload)
    }
}

/// Decides a request's [`Outcome`] from its result, for protocols whose responses come whole.
///
/// Any closure of this form implements it:
///
/// ```
/// use tower_headless::{BoxError, OnResponse, Outcome};
///
/// let completion = OnResponse::by(|result: Result<&u32, &BoxError>| match result {
///     Ok(503) | Err(_) => Outcome::Failure,
///     Ok(_) => Outcome::Success,
/// });
/// # let _ = completion;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not decide the outcome of a response `{R}`",
    label = "this does not classify `{R}`",
    note = "give it a closure: `|result: Result<&{R}, &BoxError>| Outcome::Success`"
)]
pub trait Classify<R>: Send + Sync + 'static {
    /// The outcome of `result`. The error is that of the endpoint's service.
    fn classify(&self, result: Result<&R, &BoxError>) -> Outcome;
}

impl<R, F> Classify<R> for F
where
    F: Fn(Result<&R, &BoxError>) -> Outcome + Send + Sync + 'static,
{
    #[inline]
    fn classify(&self, result: Result<&R, &BoxError>) -> Outcome {
        self(result)
    }
}

/// Classifies by the result: a response is a success, an error a failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByResult;

impl<R> Classify<R> for ByResult {
    #[inline]
    fn classify(&self, result: Result<&R, &BoxError>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }
    }
}

#[cfg(feature = "http")]
pub(crate) use http::GRPC_STATUS;
#[cfg(feature = "http-body")]
pub use http::{ByStatus, ClassifyHttp};

#[cfg(feature = "http-body")]
mod http {
    use http::{HeaderMap, HeaderName, StatusCode};

    use super::Outcome;
    use crate::error::BoxError;

    /// Decides an HTTP request's [`Outcome`] from the head and the trailers of its response.
    #[cfg_attr(docsrs, doc(cfg(feature = "http-body")))]
    #[diagnostic::on_unimplemented(
        message = "`{Self}` does not decide the outcome of an HTTP response",
        label = "this does not classify responses",
        note = "`ByStatus` does; for another rule, implement `ClassifyHttp` for your own type: a closure couldn't see trailers"
    )]
    pub trait ClassifyHttp: Send + Sync + 'static {
        /// The outcome by the response's head.
        fn head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome;

        /// The outcome by its trailers, if they decide one. It replaces that of the head.
        fn trailers(&self, trailers: &HeaderMap) -> Option<Outcome> {
            let _ = trailers;
            None
        }

        /// The outcome of an error of the endpoint's service, if there was no response; a failure by default.
        fn error(&self, error: &BoxError) -> Outcome {
            let _ = error;
            Outcome::Failure
        }
    }

    /// Classifies by the status, of HTTP and of gRPC.
    ///
    /// | status | gRPC status | outcome |
    /// | --- | --- | --- |
    /// | 502, 503, 504 | `DEADLINE_EXCEEDED` (4), `UNAVAILABLE` (14) | failure |
    /// | 429 | `RESOURCE_EXHAUSTED` (8) | overload |
    /// | any other | any other | success |
    ///
    /// A 500 or an `INTERNAL` is the application's answer to one request, and may be the request's fault. The failures
    /// in the table mean that the endpoint can't serve (Envoy's `gateway-error`, and its mapping of gRPC's codes).
    #[derive(Clone, Copy, Debug, Default)]
    #[cfg_attr(docsrs, doc(cfg(feature = "http-body")))]
    pub struct ByStatus;

    impl ByStatus {
        /// The outcome by an HTTP status alone, for a head without a gRPC status.
        pub(crate) fn status(status: StatusCode) -> Outcome {
            match status.as_u16() {
                502..=504 => Outcome::Failure,
                429 => Outcome::Overload,
                _ => Outcome::Success,
            }
        }
    }

    impl ClassifyHttp for ByStatus {
        fn head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
            match status {
                // A gRPC response without messages has its status here.
                StatusCode::OK => grpc(headers).unwrap_or(Outcome::Success),
                _ => Self::status(status),
            }
        }

        fn trailers(&self, trailers: &HeaderMap) -> Option<Outcome> {
            grpc(trailers)
        }
    }

    /// gRPC's status: in the trailers, or in the head of a response without a body.
    pub(crate) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

    fn grpc(headers: &HeaderMap) -> Option<Outcome> {
        // Most responses have no trailers: don't hash for an empty map.
        if headers.is_empty() {
            return None;
        }
        Some(match headers.get(&GRPC_STATUS)?.as_bytes() {
            b"4" | b"14" => Outcome::Failure,
            b"8" => Outcome::Overload,
            _ => Outcome::Success,
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn status(code: u16) -> Outcome {
            let status = StatusCode::from_u16(code).expect("a status");
            ByStatus.head(status, &HeaderMap::new())
        }

        fn headers(status: &'static str) -> HeaderMap {
            let status = ("grpc-status", status);
            [status]
                .map(|(name, value)| {
                    (
                        name.parse().expect("a name"),
                        value.parse().expect("a value"),
                    )
                })
                .into_iter()
                .collect()
        }

        #[test]
        fn only_statuses_that_mean_the_endpoint_cannot_serve_are_failures() {
            assert_eq!([502, 503, 504].map(status), [Outcome::Failure; 3]);
            assert_eq!([200, 404, 500, 501].map(status), [Outcome::Success; 4]);
            assert_eq!(status(429), Outcome::Overload);
        }

        #[test]
        fn a_grpc_status_counts_in_trailers_and_in_a_head_without_a_body() {
            for (code, outcome) in [
                ("0", Outcome::Success),
                ("2", Outcome::Success),
                ("4", Outcome::Failure),
                ("8", Outcome::Overload),
                ("13", Outcome::Success),
                ("14", Outcome::Failure),
            ] {
                assert_eq!(ByStatus.trailers(&headers(code)), Some(outcome));
                assert_eq!(ByStatus.head(StatusCode::OK, &headers(code)), outcome);
            }
            assert_eq!(ByStatus.trailers(&HeaderMap::new()), None);
        }
    }
}
