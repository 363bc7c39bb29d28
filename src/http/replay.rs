//! Which requests may be sent again after a pod has failed them, and how.
//!
//! | what is known | sent again |
//! | --- | --- |
//! | not a byte was written | always; the balancer does it, and nothing comes here |
//! | written, and by the protocol's word not processed | if its body can be had again |
//! | written, and no byte of a response | if it is safe (RFC 9110 §9.2.1) and has no body, or its caller says that it is idempotent |
//! | answered with one of the [statuses](super::ClientBuilder::retry_statuses) that are retried | the same, if there is a pod that has not been asked |
//! | a response has reached the caller | never |

use std::{net::SocketAddr, ops::ControlFlow, task::Context, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode};

use super::{
    body::{BoxRequest, RequestBody},
    error::{Error, Outcome},
    response::ResponseBody,
};
use crate::{
    endpoint::Endpoint,
    retry::{self, RETRIES, SharedBudget, UNAVAILABLE},
};

/// What becomes of a request.
pub(super) type Answer = Result<Response<ResponseBody>, Error>;

/// How much of an answer is read while another pod is asked, so that its connection is free for others: more than any page
/// that says that there is nothing to see.
const READ_AHEAD: usize = 16 * 1024;

/// Says of a request, in its extensions, that it may be executed twice: it is sent again, to another pod, if it is lost or
/// answered with 502, 503 or 504.
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

/// How long all of a request may take, in its extensions.
#[derive(Clone, Copy)]
pub(super) struct RequestTimeout(pub(super) Duration);

/// How often, and after which answers, a client's requests are sent again.
pub(super) struct Retries {
    /// Of one request, at most.
    pub(super) times: usize,
    /// Of all of them.
    pub(super) budget: SharedBudget,
    /// Answers that are asked for again elsewhere.
    pub(super) statuses: Box<[StatusCode]>,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            times: RETRIES,
            budget: retry::default_budget(),
            statuses: UNAVAILABLE.into(),
        }
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

    pub(super) fn route(&self) -> crate::route::Route {
        let route = crate::route::Route::new();
        self.0
            .iter()
            .fold(route, |route, &address| route.avoid(&address.into()))
    }
}

/// What it takes to send a request again.
pub(super) struct Replay {
    request: BoxRequest,
    /// It may be executed twice.
    repeatable: bool,
    left: usize,
    avoid: Avoid,
    /// What became of the last attempt that may have been executed, whatever becomes of the later ones.
    before: Option<Box<Answer>>,
}

impl Replay {
    /// Keeps what it takes; nothing where the request could in no case be sent again. `may_refuse` says whether the pods
    /// speak a protocol that has a word for "not processed".
    pub(super) fn of(
        request: &mut Request<RequestBody>,
        times: usize,
        may_refuse: bool,
    ) -> Option<Self> {
        let marked = request.extensions().get::<Idempotent>().copied();
        let repeatable =
            marked.is_some() || (request.method().is_safe() && request.body().is_empty());
        if times == 0 || !(repeatable || may_refuse) {
            return None;
        }
        // Pods that may refuse are likely to speak gRPC, whose bodies all come as streams.
        request.body_mut().record(marked.unwrap_or_default().record);
        let avoid = request.extensions().get::<Avoid>().cloned();
        Some(Self {
            request: again(request)?,
            repeatable,
            left: times,
            avoid: avoid.unwrap_or_default(),
            before: None,
        })
    }

    /// The request again, after `answer`. If it may not be sent again, the answer that its caller has to know.
    pub(super) fn next(
        &mut self,
        answer: Answer,
        retries: &Retries,
        has_other: impl FnOnce(&Avoid) -> bool,
    ) -> ControlFlow<Answer, BoxRequest> {
        let is_wanted = self.left > 0 && self.may_be_sent_again(&answer, retries);
        if !is_wanted || !self.has_where(&answer, has_other) || !retries.budget.withdraw() {
            return ControlFlow::Break(self.most_telling(answer));
        }
        let Some(request) = again(&self.request) else {
            return ControlFlow::Break(answer);
        };
        match &answer {
            Ok(response) => tracing::debug!(status = %response.status(), "request sent again"),
            Err(error) => tracing::debug!(%error, "request sent again"),
        }
        self.left -= 1;
        if !answer.as_ref().is_err_and(Error::is_unexecuted) {
            self.before = Some(Box::new(answer));
        }
        ControlFlow::Continue(request)
    }

    /// The pods that are not to have the request again.
    pub(super) fn avoid(&self) -> &Avoid {
        &self.avoid
    }

    /// Reads on what an earlier attempt was answered.
    pub(super) fn poll_before(&mut self, cx: &mut Context<'_>) {
        if let Some(Ok(response)) = self.before.as_deref_mut() {
            response.body_mut().read_ahead(cx, READ_AHEAD);
        }
    }

    /// Avoids the pod that has failed. One that was lost with a request may have it again if no other one takes it; one
    /// that has answered would answer the same.
    fn has_where(&mut self, answer: &Answer, has_other: impl FnOnce(&Avoid) -> bool) -> bool {
        let pod = match answer {
            Ok(response) => Some(response.body().pod()),
            Err(error) => error.pod(),
        };
        if let Some(pod) = pod {
            self.avoid = std::mem::take(&mut self.avoid).and(pod);
        }
        answer.is_err() || has_other(&self.avoid)
    }

    /// That one attempt was not executed doesn't say that the request was not.
    fn most_telling(&mut self, answer: Answer) -> Answer {
        match self.before.take() {
            Some(before) if answer.as_ref().is_err_and(Error::is_unexecuted) => *before,
            _ => answer,
        }
    }

    /// Whether a response is one that another pod may better.
    pub(super) fn is_retried(&self, response: &Response<ResponseBody>, retries: &Retries) -> bool {
        self.repeatable && retries.statuses.contains(&status(response))
    }

    fn may_be_sent_again(&self, answer: &Answer, retries: &Retries) -> bool {
        let is_allowed = match answer {
            Ok(response) => self.is_retried(response, retries),
            Err(error) => match error.outcome() {
                Some(Outcome::Unprocessed) => true,
                Some(Outcome::Unknown) => self.repeatable,
                Some(Outcome::Abandoned) | None => false,
            },
        };
        is_allowed && self.request.body().is_playable()
    }
}

/// The status that an answer stands for: gRPC's `UNAVAILABLE` is 503, where it comes without a body and so in the headers.
fn status(response: &Response<ResponseBody>) -> StatusCode {
    const GRPC_UNAVAILABLE: &[u8] = b"14";
    let grpc = response.headers().get("grpc-status");
    match grpc.map(HeaderValue::as_bytes) {
        Some(GRPC_UNAVAILABLE) => StatusCode::SERVICE_UNAVAILABLE,
        _ => response.status(),
    }
}

/// The same request, if its body can be had again.
fn again(request: &Request<RequestBody>) -> Option<BoxRequest> {
    let mut again = Box::new(Request::new(request.body().again()?));
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
