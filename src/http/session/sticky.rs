//! The session of one request: where it leads the request, and what it adds to the response.

use std::{fmt, sync::Arc};

use http::{HeaderMap, Response};

use super::{
    cache_control,
    carrier::Carrier,
    seal::{Opened, Seal, Ticket},
};
use crate::{
    endpoint::Endpoint,
    http::{error::Error, response::ResponseBody},
    route::{PodId, Route},
};

pub(super) type OnLost = dyn Fn(&SessionLost) + Send + Sync;

/// A session whose pod was out, and which has moved to another pod.
#[derive(Clone, Debug)]
pub struct SessionLost {
    old_pod: Box<str>,
    new_pod: Endpoint,
}

impl SessionLost {
    /// The [stable name](Endpoint::stable_name) of the session's former pod, which may no longer exist.
    pub fn old_pod(&self) -> &str {
        &self.old_pod
    }

    /// The pod that answered instead.
    pub fn new_pod(&self) -> &Endpoint {
        &self.new_pod
    }
}

impl fmt::Display for SessionLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { old_pod, new_pod } = self;
        write!(
            f,
            "the session's pod {old_pod} is out; it goes on at pod {new_pod}"
        )
    }
}

/// The sessions of a client.
pub(in crate::http) struct Sticky {
    pub(super) carrier: Carrier,
    pub(super) seal: Seal,
    pub(super) is_strict: bool,
    pub(super) marks_private: bool,
    pub(super) on_lost: Option<Arc<OnLost>>,
}

/// The session of one request, or the one that it begins.
pub(in crate::http) struct Session {
    sticky: Arc<Sticky>,
    brought: Option<Opened>,
    /// The session's pod, if it is known by a name when the request is made. The pod that answers may have been known
    /// only by its address when it joined the set.
    home: Option<Endpoint>,
    /// Whether its pod has the request and is late, so that another pod has it, too.
    is_late: bool,
    /// Whether its pod has answered or lost the request without a retry, so that only a hedge is still running.
    is_set_aside: bool,
}

impl Session {
    /// Reads the session from a request's headers. `known` finds the pod that a route is for.
    pub(in crate::http) fn of(
        sticky: &Arc<Sticky>,
        headers: &HeaderMap,
        known: impl Fn(&Route) -> Option<Endpoint>,
    ) -> Self {
        let name = sticky.carrier.name();
        let mut gone = None;
        // Browsers send a cookie for each path it was set for. One whose pod is there counts first, because a cookie of
        // another path is never replaced.
        let found = sticky.carrier.find(headers, |text| {
            let brought = sticky.seal.open(name, text)?;
            let pod = PodId::from(&*brought.ticket.pod);
            let is_named = pod.name().is_some();
            match known(&Route::new().pod(pod)) {
                Some(home) => Some((brought, Some(home).filter(|_| is_named))),
                None => {
                    gone.get_or_insert(brought);
                    None
                }
            }
        });
        let (brought, home) = match found {
            Some((brought, home)) => (Some(brought), home),
            None => (gone, None),
        };
        Self {
            sticky: sticky.clone(),
            brought,
            home,
            is_late: false,
            is_set_aside: false,
        }
    }

    /// Adds the session's pod to the request's own route.
    pub(in crate::http) fn lead(&self, route: Route) -> Route {
        let Some(Opened { ticket, .. }) = &self.brought else {
            return route;
        };
        let Ticket { id, pod } = ticket;
        if self.sticky.is_strict {
            return route.pod(pod.clone());
        }
        let route = match route.requested_key() {
            Some(_) => route,
            None => route.key(*id),
        };
        route.prefer(pod.clone())
    }

    /// Whether `pod` is the session's, by any of its names: they may not all have been known when the session began.
    fn is_home(&self, pod: &Endpoint) -> bool {
        let is_called = |it: &Opened| PodId::from(&*it.ticket.pod).is(pod);
        let is_known = |home: &Endpoint| home.is_same_pod(pod);
        self.brought.as_ref().is_some_and(is_called) || self.home.as_ref().is_some_and(is_known)
    }

    /// Notes that the request is late at `pod`, and is hedged.
    pub(in crate::http) fn hedged(&mut self, pod: &Endpoint) {
        self.is_late = self.is_home(pod);
    }

    /// Notes that the outcome at `pod` isn't retried, and that the hedge is still running.
    pub(in crate::http) fn set_aside(&mut self, pod: &Endpoint) {
        self.is_set_aside |= self.is_home(pod);
    }

    /// Adds the session to the response, unless its caller knows the pod already. A pod that was only late, or whose
    /// answer was set aside, keeps the session.
    pub(in crate::http) fn answered(
        self,
        response: &mut Response<ResponseBody>,
        is_overtaken: bool,
    ) {
        let Some(pod) = response.body().endpoint() else {
            return;
        };
        let stays = self.is_home(pod) || is_overtaken && self.is_late || self.is_set_aside;
        let Self {
            sticky, brought, ..
        } = self;
        let next = match brought {
            Some(Opened { ticket, is_current }) if stays => {
                if is_current && !sticky.carrier.is_taken(response.headers()) {
                    return;
                }
                ticket
            }
            _ if response.status().is_server_error() => return,
            brought => {
                let old = brought.map(|it| it.ticket);
                let next = Ticket {
                    id: old.as_ref().map_or_else(rand::random, |ticket| ticket.id),
                    pod: pod.stable_name().into(),
                };
                if let (Some(hook), Some(ticket)) = (&sticky.on_lost, old) {
                    hook(&SessionLost {
                        old_pod: ticket.pod,
                        new_pod: pod.clone(),
                    });
                }
                next
            }
        };
        sticky.tell(&next, response.headers_mut());
    }

    /// Makes the error that of a lost session, if no other pod may have the request.
    pub(in crate::http) fn failed(self, error: Error) -> Error {
        match self.brought {
            Some(it) if self.sticky.is_strict => error.of_session(it.ticket.pod),
            _ => error,
        }
    }
}

impl Sticky {
    fn tell(&self, ticket: &Ticket, headers: &mut HeaderMap) {
        if let Some(text) = self.seal.seal(self.carrier.name(), ticket) {
            self.carrier.add(headers, text);
            if self.marks_private {
                cache_control::make_private(headers);
            }
        }
    }
}
