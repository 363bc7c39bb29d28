//! Which requests may be sent again after a pod has failed them, and how.
//!
//! | what is known | sent again |
//! | --- | --- |
//! | not a byte was written | always; the balancer does it, so this module never sees it |
//! | written, but the protocol says that it was not processed | if its body can be copied; once for each pod that refuses it, outside of the budget |
//! | written, and no byte of a response | if its method is safe (RFC 9110 §9.2.1) and it has no body, or its caller marks it idempotent |
//! | answered with a [retried status](super::ClientBuilder::retry_statuses) | as above, if there is a pod that has not been asked, and the answer has no negative `grpc-retry-pushback-ms` |
//! | a response has reached the caller | never |

use std::{ops::ControlFlow, task::Context, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::UPGRADE};

use super::{
    body::{KeptBody, PodRequest, RequestBody},
    error::{Error, Outcome},
    kept_head::KeptHead,
    response::ResponseBody,
};
use crate::{
    endpoint::Endpoint,
    error::line,
    hedge::{Charge, Hedges, Late},
    logs,
    outcome::{ByStatus, ClassifyHttp, GRPC_STATUS, Outcome as Health},
    retry::{Allowance, Attempts, Ended, Fate, Pushback, Told, UNAVAILABLE},
    route::Route,
};

/// The result of a request.
pub(super) type Answer = Result<Response<ResponseBody>, Error>;

/// How much of an answer is read while another pod is asked, to free its connection: more than any error page has.
const READ_AHEAD: usize = 16 * 1024;

/// With these statuses a pod may say when it wants to be asked again.
const WAITS: [StatusCode; 2] = [
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// Marks a request, in its extensions, as one that may be executed twice: it is sent again, to another pod, if it is
/// lost or answered with 502, 503 or 504.
///
/// A streamed body is recorded while it is sent, up to `record` bytes; a longer one can't be sent again.
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

/// How long a whole request may take, to the end of the response's body and with all retries. Put it into the request's
/// extensions. It overrides the client's [timeout](super::ClientBuilder::timeout); in a
/// [broadcast](super::Client::broadcast), it applies to each pod. `Duration::MAX` is no limit.
///
/// Use it in layers, and for requests of the client as a [`Service`](tower::Service);
/// [`RequestBuilder::timeout`](super::RequestBuilder::timeout) sets the same.
///
/// ```
/// use std::time::Duration;
/// use tower_headless::http::RequestTimeout;
///
/// let request = http::Request::get("/").extension(RequestTimeout(Duration::from_secs(2)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTimeout(pub Duration);

/// How often, and after which answers, a client sends requests again.
pub(super) struct Retries {
    pub(super) allowance: Allowance,
    /// Statuses that are retried at another pod.
    pub(super) statuses: Box<[StatusCode]>,
    pub(super) hedges: Option<Hedges>,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            allowance: Allowance::default(),
            statuses: UNAVAILABLE.into(),
            hedges: None,
        }
    }
}

/// What is needed to send a request again.
pub(super) struct Replay {
    head: KeptHead,
    body: KeptBody,
    /// Whether it may be executed twice.
    repeatable: bool,
    /// Whether it may be hedged: it changes nothing, so two pods may execute it at once.
    is_hedged: bool,
    attempts: Attempts<Answer>,
}

impl Replay {
    /// Keeps what a retry needs; nothing if the request can never be sent again. `may_refuse` says whether the pods'
    /// protocol can tell that a request was not processed.
    pub(super) fn of(
        request: &mut Request<RequestBody>,
        route: &Route,
        retries: &Retries,
        may_refuse: bool,
    ) -> Option<Box<Self>> {
        let marked = request.extensions().get::<Idempotent>().copied();
        let is_safe = request.method().is_safe() && request.body().is_empty();
        let repeatable = marked.is_some() || is_safe;
        let is_retried = retries.allowance.times > 0 && (repeatable || may_refuse);
        // An upgraded connection belongs to one pod.
        let is_hedged =
            retries.hedges.is_some() && is_safe && !request.headers().contains_key(UPGRADE);
        if !is_retried && !is_hedged {
            return None;
        }
        // Pods that can refuse probably speak gRPC, whose bodies are all streams.
        request.body_mut().record(marked.unwrap_or_default().record);
        let body = request.body().keep()?;
        Some(Box::new(Self {
            head: KeptHead::of(request),
            body,
            repeatable,
            is_hedged,
            attempts: Attempts::new(&retries.allowance, route.clone()),
        }))
    }

    /// After `answer`, the request to send again, with its route. If it may not be sent again, the answer for its
    /// caller.
    pub(super) fn next(
        &mut self,
        answer: Answer,
        retries: &Retries,
        has_other: impl FnOnce(&Route) -> bool,
    ) -> ControlFlow<Answer, (PodRequest, Route)> {
        let ended = self.ended(&answer, retries);
        let allowance = &retries.allowance;
        let again = || Some(again(&self.head, &self.body));
        (self.attempts).next(answer, &ended, allowance, has_other, again)
    }

    /// Whether no earlier attempt can have been executed.
    pub(super) fn is_first(&self) -> bool {
        !self.attempts.may_be_executed()
    }

    /// Whether a pod got an earlier attempt, executed or not.
    pub(super) fn was_sent(&self) -> bool {
        self.attempts.were_sent()
    }

    /// When to hedge the request, counted from now.
    pub(super) fn hedged_after(
        &self,
        retries: &Retries,
        late: impl FnOnce() -> Option<Duration>,
    ) -> Option<Late> {
        let hedges = retries.hedges.as_ref().filter(|_| self.is_hedged);
        hedges?.begin(self.attempts.route(), late)
    }

    /// The hedge of the attempt at `pod`, and its route, if there should be one; and whether the budget was charged for
    /// it.
    pub(super) fn beside(
        &self,
        pod: &Endpoint,
        charge: &mut Charge,
        retries: &Retries,
        has_other: impl FnOnce(&Route) -> bool,
    ) -> Option<(PodRequest, Route)> {
        let allowance = &retries.allowance;
        let route = self.attempts.beside(pod, allowance, has_other)?;
        let request = again(&self.head, &self.body);
        let is_allowed = retries.hedges.as_ref()?.allow(&*allowance.budget, charge);
        allowance
            .hedged(is_allowed, charge)
            .then_some((request, route))
    }

    /// Whether a response is good enough not to wait for the other pod's answer, which costs nothing. A 500 isn't: it
    /// may be the pod's fault. Nor is a 429: overloaded pods answer that fast.
    pub(super) fn is_good(response: &Response<ResponseBody>, retries: &Retries) -> bool {
        let status = status(response);
        !status.is_server_error()
            && !retries.statuses.contains(&status)
            && ByStatus.head(status, response.headers()) == Health::Success
    }

    /// Whether the caller gets this response, whatever came before.
    pub(super) fn is_final(&self, response: &Response<ResponseBody>, retries: &Retries) -> bool {
        let is_best = !self.attempts.has_aside() || Self::is_good(response, retries);
        is_best && !self.is_retried(response, retries)
    }

    /// Keeps the answer of one of two attempts, while the other one goes on.
    pub(super) fn set_aside(&mut self, answer: Answer, ended: &Ended) {
        self.attempts.set_aside(answer, ended);
    }

    /// Keeps the answer of one of two attempts, while the other one goes on, at `other` if a pod has it. Returns the
    /// request for a third attempt, with its route, if there should be one.
    pub(super) fn replace(
        &mut self,
        answer: Answer,
        ended: &Ended,
        other: Option<&Endpoint>,
        retries: &Retries,
        has_other: impl Fn(&Route) -> bool,
    ) -> Option<(PodRequest, Route)> {
        let allowance = &retries.allowance;
        let again = || Some(again(&self.head, &self.body));
        (self.attempts).replace(answer, ended, other, allowance, has_other, again)
    }

    /// Whether there is an answer for the caller if the other attempt doesn't end.
    pub(super) fn has_aside(&self) -> bool {
        self.attempts.has_aside()
    }

    pub(super) fn take_aside(&mut self) -> Option<Answer> {
        self.attempts.take_aside()
    }

    /// Reads on in the response of an earlier attempt.
    pub(super) fn poll_before(&mut self, cx: &mut Context<'_>) {
        if let Some(Ok(response)) = self.attempts.before() {
            response.body_mut().read_ahead(cx, READ_AHEAD);
        }
    }

    /// Whether another pod may give a better response. What this one says about retries is respected, even if it isn't
    /// retried.
    fn is_retried(&self, response: &Response<ResponseBody>, retries: &Retries) -> bool {
        let status = status(response);
        let is_wanted = self.repeatable && retries.statuses.contains(&status);
        if !is_wanted && !WAITS.contains(&status) {
            return false;
        }
        let pushback = Pushback::of(response.status(), response.headers());
        if let Some(delay) = pushback.and_then(Pushback::delay)
            && let Some(pod) = response.body().endpoint()
        {
            retries.allowance.delays.note(pod, delay);
        }
        is_wanted && pushback != Some(Pushback::Never) && !self.attempts.are_used_up()
    }

    /// The outcome of an attempt.
    pub(super) fn ended(&self, answer: &Answer, retries: &Retries) -> Ended {
        let (fate, pod, may_be_sent_again) = match answer {
            Ok(response) => {
                let is_retried = self.is_retried(response, retries);
                (Fate::Answered, response.body().endpoint(), is_retried)
            }
            Err(error) => match error.outcome() {
                Some(Outcome::Unprocessed) => {
                    let is_retried = retries.allowance.times > 0;
                    (Fate::Unprocessed, error.endpoint(), is_retried)
                }
                Some(Outcome::Unknown) => {
                    let is_retried = self.repeatable && !self.attempts.are_used_up();
                    (Fate::Lost, error.endpoint(), is_retried)
                }
                // A request that is unsent by now was offered to all pods.
                _ if error.is_unexecuted() => (Fate::Unsent, None, false),
                _ => (Fate::Lost, error.endpoint(), false),
            },
        };
        let is_good = |response| Self::is_good(response, retries);
        Ended {
            fate,
            endpoint: pod.cloned(),
            is_retried: may_be_sent_again && self.body.is_playable(),
            is_good: self.attempts.has_aside() && answer.as_ref().is_ok_and(is_good),
            told: logs::are_requests_told().then(|| Box::new(self.told(answer))),
        }
    }
}

impl Replay {
    /// What events say about an attempt.
    fn told(&self, answer: &Answer) -> Told {
        let (service, reason) = match answer {
            Ok(response) => (response.body().service(), response.status().to_string()),
            Err(error) => (error.shared_service(), line(error)),
        };
        Told {
            service: service.cloned(),
            method: Some(self.method().to_string()),
            reason,
        }
    }

    pub(super) fn method(&self) -> &Method {
        self.head.method()
    }
}

/// The status that an answer stands for: gRPC's `UNAVAILABLE` counts as 503 if the response has no body, so that it is
/// in the headers.
fn status(response: &Response<ResponseBody>) -> StatusCode {
    const GRPC_UNAVAILABLE: &[u8] = b"14";
    if !response.body().is_over() {
        return response.status();
    }
    let grpc = response.headers().get(&GRPC_STATUS);
    match grpc.map(HeaderValue::as_bytes) {
        Some(GRPC_UNAVAILABLE) => StatusCode::SERVICE_UNAVAILABLE,
        _ => response.status(),
    }
}

/// The request again.
fn again(head: &KeptHead, body: &KeptBody) -> PodRequest {
    head.with(body.again())
}
