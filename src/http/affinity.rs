//! Which pod a request stays with that doesn't say so itself: by its key, or by its session.

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

/// What a request's answer is for, beside its caller.
pub(super) struct Followed {
    #[cfg(feature = "sessions")]
    session: Session,
}

/// Where a request goes, and what its answer is for.
pub(super) type Led = (Route, Option<Box<Followed>>);

impl Affinity {
    /// Where a request with this head goes, and whether its answer is followed. One that is for a pod already goes there, and has
    /// no session. `known` tells what is known now of the pod that a route is for.
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
    /// The request is at `pod`, which is late, and goes to another one, too.
    pub(super) fn hedged(&mut self, pod: &Endpoint) {
        #[cfg(feature = "sessions")]
        self.session.hedged(pod);
    }

    /// What has come of the request at `pod` isn't retried, but that is hedged, and the other pod may answer better.
    pub(super) fn set_aside(&mut self, pod: &Endpoint) {
        #[cfg(feature = "sessions")]
        self.session.set_aside(pod);
    }

    /// The request has its answer: of a second pod, if it was [hedged](crate::Hedge) and that has overtaken the first one.
    pub(super) fn answered(self, response: &mut Response<ResponseBody>, is_overtaken: bool) {
        #[cfg(feature = "sessions")]
        self.session.answered(response, is_overtaken);
    }

    /// The request has failed.
    pub(super) fn failed(self, error: Error) -> Error {
        #[cfg(feature = "sessions")]
        let error = self.session.failed(error);
        error
    }
}
