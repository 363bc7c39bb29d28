//! What can go wrong with an HTTP request, and its words.

use std::time::Duration;

use http::StatusCode;

use super::{pod_failure::Outcome, wait::Wait};
use crate::{
    endpoint::Endpoint,
    error::{BoxError, Error as BalanceError},
};

#[derive(Debug, thiserror::Error)]
pub(super) enum Kind {
    #[error("invalid request: {0}")]
    Request(String),
    #[error(
        "{other} is not this client's service, {service}: write a path alone, or set `allow_foreign_authority`"
    )]
    Foreign { other: String, service: String },
    /// Shows the balancer's own text.
    #[error(transparent)]
    Unsent(BalanceError),
    #[cfg_attr(
        not(feature = "sessions"),
        expect(dead_code, reason = "there are no sessions")
    )]
    #[error("its strict session needs pod {pod}")]
    SessionLost { pod: Box<str>, source: BalanceError },
    #[error(transparent)]
    NoAnswer(BalanceError),
    #[error("{} {status}", answered(.pod.as_ref(), None))]
    Status {
        pod: Option<Endpoint>,
        status: StatusCode,
    },
    #[error("pod {pod} failed; the request {outcome}")]
    Pod {
        pod: Endpoint,
        outcome: Outcome,
        source: BoxError,
    },
    #[error("{} is more than this client reads", response(.pod.as_ref()))]
    Limit {
        pod: Option<Endpoint>,
        source: BoxError,
    },
    #[error("the request's own body failed")]
    RequestBody(#[source] BoxError),
    #[error("{} failed while it sent its response", whose(.pod.as_ref()))]
    Body {
        pod: Option<Endpoint>,
        source: BoxError,
    },
    #[error("{} was cut off", response(.pod.as_ref()))]
    CutOff {
        pod: Option<Endpoint>,
        source: BoxError,
    },
    #[error("{} within {after:?} (`timeout`)", unanswered(.pod.as_ref()))]
    Unanswered {
        /// The pod that has the request, if there is only one.
        pod: Option<Endpoint>,
        after: Duration,
        source: Option<BoxError>,
    },
    #[error("no end of {} within {after:?} (`timeout`)", response_of(.pod.as_ref()))]
    Unended {
        pod: Option<Endpoint>,
        after: Duration,
        source: Option<BoxError>,
    },
    /// No pod can have executed the request, and none still has it.
    #[error("not {} within {after:?} (`timeout`){wait}", if *was_sent { "executed" } else { "sent" })]
    NotSent {
        after: Duration,
        wait: Wait,
        /// Whether a pod got the request, and refused it unprocessed.
        was_sent: bool,
    },
    #[error("a layer around the client failed: {0}")]
    Layer(BoxError),
    #[error("{} {status}", answered(.pod.as_ref(), Some(request)))]
    StatusOf {
        pod: Option<Endpoint>,
        status: StatusCode,
        /// Method and path.
        request: String,
    },
    #[cfg_attr(
        not(feature = "json"),
        expect(dead_code, reason = "nothing is decoded")
    )]
    #[error("{} is {why}", response(.pod.as_ref()))]
    Decode { pod: Option<Endpoint>, why: String },
}

impl Kind {
    /// Whether the source comes from the pod's connection, and not from the caller's body or a layer.
    pub(super) fn is_of_pod(&self) -> bool {
        matches!(
            self,
            Self::Pod { .. } | Self::Body { .. } | Self::Unanswered { .. } | Self::Unended { .. }
        )
    }
}

/// Without a pod, a layer or a test may have made the response.
fn response(pod: Option<&Endpoint>) -> String {
    pod.map_or_else(
        || "the response".into(),
        |pod| format!("the response of pod {pod}"),
    )
}

/// The text before a status.
fn answered(pod: Option<&Endpoint>, request: Option<&str>) -> String {
    match (pod, request) {
        (Some(pod), Some(request)) => format!("pod {pod} answered {request} with"),
        (Some(pod), None) => format!("pod {pod} answered"),
        (None, Some(request)) => format!("{request} was answered with"),
        (None, None) => "it was answered with".into(),
    }
}

fn unanswered(pod: Option<&Endpoint>) -> String {
    pod.map_or_else(
        || "no answer".into(),
        |pod| format!("no answer of pod {pod}"),
    )
}

fn whose(pod: Option<&Endpoint>) -> String {
    pod.map_or_else(|| "no pod".into(), |pod| format!("pod {pod}"))
}

fn response_of(pod: Option<&Endpoint>) -> String {
    pod.map_or_else(
        || "the response".into(),
        |pod| format!("pod {pod}'s response"),
    )
}
