//! Which pod a request goes to if it names none: by its key, or by its session.

use http::{Response, request::Parts};

#[cfg(feature = "sessions")]
use super::session::{Session, Sticky};
use super::{error::Error, key_from::Keys, response::ResponseBody};
use crate::{endpoint::Endpoint, route::Route};

/// What a client looks for in its requests.
pub(super) struct Affinity {
    pub(super) keys: Keys,
    #[cfg(feature = "sessions")]
    pub(super) sessions: Option<std::sync::Arc<Sticky>>,
}

/// What a request's answer must be reported to, besides its caller.
pub(super) struct Followed {
    #[cfg(feature = "sessions")]
    session: Session,
}

/// Where a request goes, and what its answer must be reported to.
pub(super) type Led = (Route, Option<Box<Followed>>);

impl Affinity {
    /// Where a request with this head goes, and whether its answer must be reported. A request for one pod keeps that
    /// pod, and has no session. `known` finds the pod that a route is for.
    #[cfg_attr(
        not(feature = "sessions"),
        expect(unused_variables, reason = "nobody asks for a session's pod")
    )]
    pub(super) fn lead(
        &self,
        head: &Parts,
        known: impl Fn(&Route) -> Option<Endpoint>,
    ) -> Option<Led> {
        let told = head.extensions.get::<Route>();
        if told.is_some_and(|route| route.is_for_one() || route.preferred().is_some()) {
            return None;
        }
        let mut route = told.cloned().unwrap_or_default();
        if route.requested_key().is_none()
            && let Some(key) = self.keys.find(head)
        {
            route = route.key(key);
        }
        #[cfg(feature = "sessions")]
        if let Some(sticky) = &self.sessions {
            let session = Session::of(sticky, &head.headers, known);
            let route = session.lead(route);
            return Some((route, Some(Box::new(Followed { session }))));
        }
        Some((route, None))
    }
}

#[cfg_attr(
    not(feature = "sessions"),
    expect(unused_variables, reason = "no session follows")
)]
impl Followed {
    /// Notes that the request is late at `pod`, and is hedged.
    pub(super) fn hedged(&mut self, pod: &Endpoint) {
        #[cfg(feature = "sessions")]
        self.session.hedged(pod);
    }

    /// Notes that the outcome at `pod` isn't retried, while the hedge may still answer better.
    pub(super) fn set_aside(&mut self, pod: &Endpoint) {
        #[cfg(feature = "sessions")]
        self.session.set_aside(pod);
    }

    /// Reports the answer. `is_overtaken` if the request was [hedged](crate::Hedge) and the second pod was faster.
    pub(super) fn answered(self, response: &mut Response<ResponseBody>, is_overtaken: bool) {
        #[cfg(feature = "sessions")]
        self.session.answered(response, is_overtaken);
    }

    /// Reports a failure.
    pub(super) fn failed(self, error: Error) -> Error {
        #[cfg(feature = "sessions")]
        let error = self.session.failed(error);
        error
    }
}
