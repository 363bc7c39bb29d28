//! Which requests may be sent again after a pod has failed them, and how.
//!
//! | what is known | sent again |
//! | --- | --- |
//! | not a byte was written | always; the balancer does it, and nothing comes here |
//! | written, and by the protocol's word not processed | if its body can be had again |
//! | written, and no byte of a response | if it is safe (RFC 9110 §9.2.1) and has no body, or its caller says that it is idempotent |
//! | a response has begun | never |

use std::net::SocketAddr;

use http::Request;
use tower::retry::budget::Budget;

use super::{
    body::{BoxRequest, RequestBody},
    error::{Error, Outcome},
};
use crate::endpoint::Endpoint;

/// Says of a request, in its extensions, that it may be executed twice: it is sent again, to another pod, if it is lost.
///
/// A body that comes as a stream is recorded while it is sent; one of more bytes than this can't be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent {
    /// How many bytes of the body are recorded at most.
    pub record: usize,
}

impl Default for Idempotent {
    /// Up to 64 KiB of a body.
    fn default() -> Self {
        Self { record: 64 * 1024 }
    }
}

/// Says of a request, in its extensions, which pods it is not to be sent to if there is another one that takes it.
///
/// For retries of one's own: the pod that has failed is in the error ([`Error::pod`](super::Error::pod)), and in the
/// extensions of a response as its [`Endpoint`].
#[derive(Clone, Debug, Default)]
pub struct Avoid(Vec<SocketAddr>);

impl Avoid {
    /// Avoids this pod, too.
    pub fn and(mut self, pod: &Endpoint) -> Self {
        self.0.push(pod.identity());
        self
    }

    pub(super) fn pods(&self) -> &[SocketAddr] {
        &self.0
    }
}

/// What it takes to send a request again.
pub(super) struct Replay {
    request: Request<RequestBody>,
    /// It may be executed twice.
    repeatable: bool,
    left: usize,
    avoid: Avoid,
    /// An earlier attempt may have been executed, whatever becomes of the later ones.
    lost: Option<Error>,
}

impl Replay {
    /// Keeps what it takes; nothing where the request could in no case be sent again. `may_refuse` says whether the pods
    /// speak a protocol that has a word for "not processed".
    pub(super) fn of(
        request: &mut Request<RequestBody>,
        times: usize,
        may_refuse: bool,
    ) -> Option<Box<Self>> {
        let marked = request.extensions().get::<Idempotent>().copied();
        let repeatable =
            marked.is_some() || (request.method().is_safe() && request.body().is_empty());
        if times == 0 || !(repeatable || may_refuse) {
            return None;
        }
        // Pods that may refuse are likely to speak gRPC, whose bodies all come as streams.
        request.body_mut().record(marked.unwrap_or_default().record);
        let avoid = request.extensions().get::<Avoid>().cloned();
        Some(Box::new(Self {
            request: again(request)?,
            repeatable,
            left: times,
            avoid: avoid.unwrap_or_default(),
            lost: None,
        }))
    }

    /// The request again, after `error`, and the pods that are to be avoided. If it may not be sent again, the error that
    /// says what its caller has to know.
    pub(super) fn again(
        &mut self,
        error: Error,
        budget: &impl Budget,
    ) -> Result<(BoxRequest, &Avoid), Error> {
        if !self.may_be_sent_again(&error) || self.left == 0 || !budget.withdraw() {
            return Err(match self.lost.take() {
                Some(lost) if error.is_unexecuted() => lost,
                _ => error,
            });
        }
        let Some(request) = again(&self.request) else {
            return Err(error);
        };
        self.left -= 1;
        if let Some(pod) = error.pod() {
            self.avoid = std::mem::take(&mut self.avoid).and(pod);
        }
        if !error.is_unexecuted() {
            self.lost = Some(error);
        }
        Ok((Box::new(request), &self.avoid))
    }

    fn may_be_sent_again(&self, error: &Error) -> bool {
        let allowed = match error.outcome() {
            Some(Outcome::Unprocessed) => true,
            Some(Outcome::Unknown) => self.repeatable,
            Some(Outcome::Abandoned) | None => false,
        };
        allowed && self.request.body().is_playable()
    }
}

/// The same request, if its body can be had again.
fn again(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let mut again = Request::new(request.body().again()?);
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    *again.version_mut() = request.version();
    // An empty map is cheaper made than cloned.
    if !request.headers().is_empty() {
        again.headers_mut().clone_from(request.headers());
    }
    if !request.extensions().is_empty() {
        again.extensions_mut().clone_from(request.extensions());
    }
    Some(again)
}
