//! Sticky sessions: the requests of one session go to the pod that answered the first of them, under any policy.
//!
//! ```text
//!  request, with a cookie ──▶ opened with the secret ──▶ Route::prefer (that pod), and the session's number for its key
//!  response, with Set-Cookie ◀── another pod than that has answered ◀── the policy's choice, where that pod is out
//! ```
//!
//! The cookie has all that is known of a session: nothing is kept here, and any client with the secret goes on with it. It is
//! encrypted and authenticated (AES-256-GCM, by the crate `cookie`). A hash of the pod's name, the usual way, would be enough to
//! find a pod that is there, but of one that is gone it couldn't be told from a forged one.

mod carrier;
mod seal;

pub use carrier::SameSite;
pub(super) use carrier::cookies;

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Response};

use self::{
    carrier::{Attributes, Carrier},
    seal::{Seal, Ticket},
};
use super::{error::Error, response::ResponseBody};
use crate::{
    endpoint::Endpoint,
    route::{PodId, Route},
};

/// Sticky sessions, for [`ClientBuilder::sessions`](super::ClientBuilder::sessions): requests of one session go to one pod, for
/// as long as that accepts them. Off by default.
///
/// For gateways and proxies, which pass on what end users send, and return what pods answer, headers included. A request without
/// a session goes to any pod, as the policy says; its response gets a cookie, or a header, that names the pod that has answered.
/// The next request that brings it goes there.
///
/// ```
/// # fn main() -> Result<(), tower_headless::BoxError> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # let _entered = runtime.enter();
/// # let secret = [7; 32];
/// use tower_headless::http::{Client, Sessions};
///
/// // The same for all of the gateway's pods, as from a Kubernetes Secret.
/// let sessions = Sessions::cookie("shop-pod", &secret)
///     .secure(true)
///     .on_lost(|lost| eprintln!("{} is out: its session goes on at {}", lost.from(), lost.to()));
/// let client = Client::builder("http://shop-headless.default:80".parse()?)
///     .sessions(sessions)
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// - **What names the pod** is sealed with the secret: nobody else can read or forge it. One that is forged, cut short or sealed
///   with another secret counts as none: its request goes to any pod, and gets a new one. It is bound to the cookie's name, so
///   take another name for each service that end users reach at the same host.
/// - **Pods are known by their [stable name](Endpoint::stable_name)**: a StatefulSet's pod has its sessions again when it is
///   back, wherever it runs. A Deployment's has another name each time, and its sessions are lost with it. Where the source
///   tells no names, as A records don't, a session is with an address, whatever pod has it.
/// - **When the pod is out**, because it is gone, ejected, refuses connections or has failed this very request in a way that is
///   [retried](super::ClientBuilder::retries), the request goes on to another pod, and the session stays there:
///   [`on_lost`](Self::on_lost) is told, and the response names the new pod. Which one that is, the policy says. With
///   [`ConsistentHash`](crate::ConsistentHash) it is the pod of the request's key, or else of the session's own number. So
///   requests of one session that are under way at once agree on it, which under other policies they may not, and the sessions of
///   a lost pod are spread over all others. [`strict`](Self::strict) fails the request instead.
/// - **When the pod is late**, and requests are [hedged](super::ClientBuilder::hedge), another one may answer, but the session stays
///   with its pod. It is out, and the session goes on elsewhere, once the pod is passed over for being
///   [slow](crate::Hedge#slow-pods). A strict session's requests aren't hedged.
/// - **What comes first**: a [`Route`] to one pod ([`pod`](Route::pod), [`prefer`](Route::prefer)), and the session is left as it
///   is; then the session; then a key. A broadcast has no sessions.
/// - **A response is left alone** if it comes from the session's pod. So [`max_age`](Self::max_age) counts from the first one, or
///   the last change.
/// - **With a [`Subset`](crate::Subset)**, a pod outside of it counts as gone, unless the session is [strict](Self::strict).
///   Where clients with different subsets have one service's sessions in turn, have no subset.
/// - **A request that fails, or is given up**, has no response to name a pod: its session stays where it is.
/// - **Pods get** the cookie, too, as the request has it.
///
/// A session costs each of its requests the decryption of about a hundred bytes, and a look at the pods' names. Nothing is kept of
/// it. Needs the feature `sessions`.
#[derive(Clone)]
pub struct Sessions {
    carrier: Carrier,
    seal: Seal,
    is_strict: bool,
    on_lost: Option<Arc<OnLost>>,
    /// What is wrong with what it was given.
    flaw: Option<String>,
}

type OnLost = dyn Fn(&SessionLost) + Send + Sync;

impl Sessions {
    /// By a cookie of this name: of [path](Self::path) `/`, `HttpOnly`, `SameSite=Lax`, and kept until the browser is closed.
    ///
    /// The secret has 32 bytes or more, which are random. A shorter one is an error of
    /// [`build`](super::ClientBuilder::build), and so is a name that no cookie can have.
    pub fn cookie(name: impl Into<Box<str>>, secret: impl AsRef<[u8]>) -> Self {
        let (name, kept) = (name.into(), Attributes::default());
        Self::new(Carrier::Cookie { name, kept }).with_secret(secret.as_ref())
    }

    /// By a header of this name, which the response has and the next request brings back: for callers that are programs. What
    /// else is said of cookies doesn't concern it.
    ///
    /// The secret has 32 bytes or more, which are random. A shorter one is an error of
    /// [`build`](super::ClientBuilder::build), and so is a name that no header can have.
    pub fn header<N>(name: N, secret: impl AsRef<[u8]>) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
    {
        let (name, flaw) = match name.try_into().map_err(Into::into) {
            Ok(name) => (name, None),
            Err(error) => (
                http::header::COOKIE,
                Some(format!("`Sessions::header`: {error}")),
            ),
        };
        let sessions = Self {
            flaw,
            ..Self::new(Carrier::Header(name))
        };
        sessions.with_secret(secret.as_ref())
    }

    fn new(carrier: Carrier) -> Self {
        Self {
            carrier,
            seal: Seal::new(),
            is_strict: false,
            on_lost: None,
            flaw: None,
        }
    }

    /// One secret more whose sessions go on, though new ones aren't made with it: for a change of the secret, until all clients
    /// have the new one, or the old sessions have ended.
    pub fn previous_secret(self, secret: impl AsRef<[u8]>) -> Self {
        self.with_secret(secret.as_ref())
    }

    fn with_secret(mut self, secret: &[u8]) -> Self {
        if let Err(flaw) = self.seal.add(secret) {
            self.flaw.get_or_insert(flaw);
        }
        self
    }

    /// Below which path browsers bring the cookie back; `/` if nothing is set. One that isn't a path is an error of
    /// [`build`](super::ClientBuilder::build).
    pub fn path(self, path: impl Into<Box<str>>) -> Self {
        self.kept(|kept| kept.path = path.into())
    }

    /// For how long browsers keep the cookie, in whole seconds, one at least; until they are closed if nothing is set.
    ///
    /// It is the browser that forgets it: one that comes later counts all the same.
    pub fn max_age(self, age: Duration) -> Self {
        self.kept(|kept| kept.max_age = Some(age))
    }

    /// Whether browsers bring the cookie back over HTTPS only; not so if nothing is set, as it isn't known here what they speak.
    pub fn secure(self, is_secure: bool) -> Self {
        self.kept(|kept| kept.secure = is_secure)
    }

    /// Whether the cookie is hidden from the scripts of a page; so if nothing is set.
    pub fn http_only(self, is_http_only: bool) -> Self {
        self.kept(|kept| kept.http_only = is_http_only)
    }

    /// Whether browsers bring the cookie along from other sites; [`SameSite::Lax`] if nothing is set.
    pub fn same_site(self, same_site: SameSite) -> Self {
        self.kept(|kept| kept.same_site = same_site)
    }

    fn kept(mut self, change: impl FnOnce(&mut Attributes)) -> Self {
        if let Carrier::Cookie { kept, .. } = &mut self.carrier {
            change(kept);
        }
        self
    }

    /// A session's pod and no other one: while it is away or refuses, the request waits for it, up to the
    /// [ready timeout](super::ClientBuilder::ready_timeout), and fails then with an error that
    /// [is a lost session](super::Error::is_session_lost). It gets the request though it is ejected.
    ///
    /// The session is lost for good if its pod is one of a Deployment. To begin a new one, send the request again without the
    /// cookie or the header, which makes it one that goes to any pod.
    pub fn strict(mut self) -> Self {
        self.is_strict = true;
        self
    }

    /// What to do when a session has moved to another pod: a counter, or a line in the log. It is called for each request that
    /// finds its session's pod out, when another one has answered, and should be quick.
    pub fn on_lost(mut self, hook: impl Fn(&SessionLost) + Send + Sync + 'static) -> Self {
        self.on_lost = Some(Arc::new(hook));
        self
    }

    /// As requests need them; or what is wrong with them.
    pub(super) fn build(self) -> Result<Sticky, String> {
        match self.flaw.or_else(|| self.carrier.flaw()) {
            Some(flaw) => Err(flaw),
            None => Ok(Sticky {
                carrier: self.carrier,
                seal: self.seal,
                is_strict: self.is_strict,
                on_lost: self.on_lost,
            }),
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("carrier", &self.carrier)
            .field("strict", &self.is_strict)
            .finish_non_exhaustive()
    }
}

/// A session whose pod was out, and which goes on at another one.
#[derive(Clone, Debug)]
pub struct SessionLost {
    from: Box<str>,
    to: Endpoint,
}

impl SessionLost {
    /// The [stable name](Endpoint::stable_name) of the pod that the session was with. There may be no such pod any more.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The pod that has answered in its stead.
    pub fn to(&self) -> &Endpoint {
        &self.to
    }
}

/// The sessions of a client.
pub(super) struct Sticky {
    carrier: Carrier,
    seal: Seal,
    is_strict: bool,
    on_lost: Option<Arc<OnLost>>,
}

/// The session of one request, or the one that it begins.
pub(super) struct Session {
    sticky: Arc<Sticky>,
    ticket: Option<Ticket>,
    /// Its pod, if it has a name, as that is known when the request is made. What answers may have been known by its address only
    /// when it joined the set.
    home: Option<Endpoint>,
}

impl Session {
    /// The session that a request's headers tell. `known` tells what is known now of the pod that a route is for.
    pub(super) fn of(
        sticky: &Arc<Sticky>,
        headers: &HeaderMap,
        known: impl Fn(&Route) -> Option<Endpoint>,
    ) -> Self {
        let name = sticky.carrier.name();
        let open = |text: &str| sticky.seal.open(name, text);
        let ticket = sticky.carrier.find(headers, open);
        let pod = ticket.as_ref().map(|ticket| PodId::from(&*ticket.pod));
        let named = pod.filter(|pod| pod.name().is_some());
        Self {
            sticky: sticky.clone(),
            ticket,
            home: named.and_then(|pod| known(&Route::new().pod(pod))),
        }
    }

    /// Where its request goes, beside what that says itself.
    pub(super) fn lead(&self, route: Route) -> Route {
        let Some(Ticket { id, pod }) = &self.ticket else {
            return route;
        };
        if self.sticky.is_strict {
            return route.pod(pod.clone());
        }
        let route = match route.requested_key() {
            Some(_) => route,
            None => route.key(*id),
        };
        route.prefer(pod.clone())
    }

    /// Its request has been answered: the response tells the pod, unless the caller knows that. A pod that was only late is
    /// still the session's.
    pub(super) fn answered(self, response: &mut Response<ResponseBody>, is_overtaken: bool) {
        let Self {
            sticky,
            ticket,
            home,
        } = self;
        if is_overtaken && ticket.is_some() {
            return;
        }
        let pod = response.body().pod();
        // By any of its names, which may not all have been known when the session began.
        let is_home = home.is_some_and(|home| home.is_same_pod(pod));
        let is_its_own = |ticket: &Ticket| is_home || PodId::from(&*ticket.pod).is(pod);
        if ticket.as_ref().is_some_and(is_its_own) {
            return;
        }
        let next = Ticket {
            id: ticket
                .as_ref()
                .map_or_else(rand::random, |ticket| ticket.id),
            pod: pod.stable_name().into(),
        };
        if let (Some(hook), Some(ticket)) = (&sticky.on_lost, ticket) {
            hook(&SessionLost {
                from: ticket.pod,
                to: pod.clone(),
            });
        }
        if let Some(text) = sticky.seal.seal(sticky.carrier.name(), &next) {
            sticky.carrier.add(response.headers_mut(), text);
        }
    }

    /// Its request has failed: where no other pod may have it, for want of the session's.
    pub(super) fn failed(self, error: Error) -> Error {
        match self.ticket {
            Some(ticket) if self.sticky.is_strict => error.of_session(ticket.pod),
            _ => error,
        }
    }
}
