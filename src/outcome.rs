//! What a request's end says of the endpoint that had it.

use crate::error::BoxError;

/// What a request's end says of its endpoint. Each request has one, reported [once](crate::InFlight::report).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint did its part. An answer that the caller dislikes, such as a 404, is a success.
    Success,
    /// The endpoint failed: it broke the connection, let the time for an answer pass, or said that it can't serve.
    Failure,
    /// The endpoint has too much to do and says so, as by 429. It gets fewer requests, but is not to blame.
    Overload,
    /// It says nothing: the request was cancelled, or failed for the caller's own fault.
    Ignored,
}

impl Outcome {
    /// Whether the endpoint is to look as loaded as if it had worked on the request: what is turned away fast must not attract
    /// more.
    pub(crate) fn is_turned_away(self) -> bool {
        matches!(self, Self::Failure | Self::Overload)
    }
}

/// Says what the result of a request is, for a protocol whose responses come whole.
///
/// Any closure of this form is one:
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
    message = "`{Self}` does not tell what the response `{R}` says of its pod",
    label = "this classifies no `{R}`",
    note = "give it a closure: `|result: Result<&{R}, &BoxError>| Outcome::Success`"
)]
pub trait Classify<R>: Send + Sync + 'static {
    /// What `result` says of its endpoint; the error is the endpoint service's own.
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

/// A response is a success, an error a failure.
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

    /// Says what an HTTP response is, from its head and its trailers.
    #[cfg_attr(docsrs, doc(cfg(feature = "http-body")))]
    #[diagnostic::on_unimplemented(
        message = "`{Self}` does not tell what an HTTP response says of its pod",
        label = "this classifies no responses",
        note = "`ByStatus` does; for another rule, implement `ClassifyHttp` for a type of your own: closures have no trailers to look at"
    )]
    pub trait ClassifyHttp: Send + Sync + 'static {
        /// What the response's head says.
        fn head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome;

        /// What its trailers say, if they say anything: it then counts instead of what the head has said.
        fn trailers(&self, trailers: &HeaderMap) -> Option<Outcome> {
            let _ = trailers;
            None
        }

        /// What an error of the endpoint's service says, where there was no response; a failure, unless this says otherwise.
        fn error(&self, error: &BoxError) -> Outcome {
            let _ = error;
            Outcome::Failure
        }
    }

    /// By the status, of HTTP and of gRPC.
    ///
    /// | status | gRPC status | outcome |
    /// | --- | --- | --- |
    /// | 502, 503, 504 | `DEADLINE_EXCEEDED` (4), `UNAVAILABLE` (14) | failure |
    /// | 429 | `RESOURCE_EXHAUSTED` (8) | overload |
    /// | any other | any other | success |
    ///
    /// A 500, as an `INTERNAL`, is what the application says of one request, which may be to blame itself; what is in the
    /// table says that the endpoint can't serve (Envoy's `gateway-error`, and its mapping of gRPC's codes).
    #[derive(Clone, Copy, Debug, Default)]
    #[cfg_attr(docsrs, doc(cfg(feature = "http-body")))]
    pub struct ByStatus;

    impl ByStatus {
        /// What a status says, in a head that can't have gRPC's.
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
        // An empty map is what most responses' trailers are; nothing is hashed for it.
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
        fn what_says_that_it_cannot_serve_is_a_failure() {
            assert_eq!([502, 503, 504].map(status), [Outcome::Failure; 3]);
            assert_eq!([200, 404, 500, 501].map(status), [Outcome::Success; 4]);
            assert_eq!(status(429), Outcome::Overload);
        }

        #[test]
        fn grpc_says_it_in_trailers_or_in_a_head_alone() {
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
