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

mod cache_control;
mod carrier;
mod seal;
mod sticky;

pub use carrier::SameSite;
pub use sticky::SessionLost;
pub(super) use sticky::{Session, Sticky};

use std::{fmt, sync::Arc, time::Duration};

use http::HeaderName;

use self::{
    carrier::{Attributes, Carrier},
    seal::Seal,
    sticky::OnLost,
};

/// Sticky sessions, for [`ClientBuilder::sessions`](super::ClientBuilder::sessions): requests of one session go to one pod, for
/// as long as it accepts them. Off by default.
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
///     .on_lost(|lost| eprintln!("{} is out: its session goes on at {}", lost.old_pod(), lost.new_pod()));
/// let client = Client::builder("http://shop-headless.default:80".parse()?)
///     .sessions(sessions)
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// - **What names the pod** is sealed with the secret: nobody else can read or forge it. One that is forged, cut short or sealed
///   with another secret counts as none: its request goes to any pod, and gets a new one. It is bound to the cookie's name, so
///   take another name for each service that end users reach at the same host, and none that pods set themselves: where one
///   does, the response has ours after it, which is what browsers keep.
/// - **Pods are known by their [stable name](crate::Endpoint::stable_name)**: a StatefulSet's pod has its sessions again when it is
///   back, wherever it runs. A Deployment's has another name each time, and its sessions are lost with it. Where the source
///   tells no names, as A records don't, a session is with an address, whatever pod has it.
/// - **When the pod is out**, because it is gone, ejected, refuses connections or has failed this very request in a way that is
///   [retried](super::ClientBuilder::retries), the request goes on to another pod, and the session stays there:
///   [`on_lost`](Self::on_lost) is told, and the response names the new pod. Which one that is, the policy says. With
///   [`ConsistentHash`](crate::ConsistentHash) it is the pod of the request's key, or else of the session's own number. So
///   requests of one session that are under way at once agree on it, which under other policies they may not, and the sessions of
///   a lost pod are spread over all others. [`strict`](Self::strict) fails the request instead.
/// - **When the pod is late**, and requests are [hedged](super::ClientBuilder::hedge), another one may answer, but the session stays
///   with its pod, even if that answers with an error after all, unless that is retried. So it does while the pod is passed over
///   for being [slow](crate::Hedge#slow-pods): its sessions' requests go there all the same. A strict session's requests aren't hedged.
/// - **An error of another pod's**, with a status of 500 or above, neither begins a session nor moves one: what has failed there
///   may have kept nothing of it.
/// - **The first requests of one user** that are under way at once may begin sessions with several pods, of which browsers keep
///   the last. They have one pod where they have one [key](super::ClientBuilder::key_from) as well.
/// - **What comes first**: a [route](crate::Route) to one pod ([`pod`](crate::Route::pod), [`prefer`](crate::Route::prefer)), and
///   the session is left as it is; then the session; then a key. A broadcast has no sessions.
/// - **A response is left alone** if it comes from the session's pod, and nothing has to be said anew. So
///   [`max_age`](Self::max_age) counts from the first one, or the last change. One that tells a session is
///   [private](Self::mark_private).
/// - **With a [`Subset`](crate::Subset)**, a pod outside of it counts as gone, unless the session is [strict](Self::strict).
///   Where clients with different subsets have one service's sessions in turn, have no subset.
/// - **A request that fails, or is given up**, has no response to name a pod: its session stays where it is.
/// - **Pods get** the cookie, too, as the request has it.
///
/// A session costs each of its requests the decryption of about a hundred bytes, and a look at the pods' names. The client keeps
/// nothing of it. Needs the feature `sessions`.
#[derive(Clone)]
#[must_use = "settings do nothing until a client has them"]
pub struct Sessions {
    carrier: Carrier,
    seal: Seal,
    is_strict: bool,
    marks_private: bool,
    on_lost: Option<Arc<OnLost>>,
    /// What is wrong with what it was given.
    flaw: Option<String>,
}

impl Sessions {
    /// By a cookie of this name: of [path](Self::path) `/`, `HttpOnly`, `SameSite=Lax`, and kept until the browser is closed.
    ///
    /// The secret has 32 random bytes or more. A shorter one is an error of
    /// [`build`](super::ClientBuilder::build), and so is a name that can't be a cookie's. One that begins with `__Host-` or
    /// `__Secure-` has to be [`secure`](Self::secure), and `__Host-` of the path `/`: browsers refuse others.
    ///
    /// The response's `Set-Cookie` is marked as sensitive: `{:?}` and logs show `Sensitive` for its value.
    pub fn cookie(name: impl Into<Box<str>>, secret: impl AsRef<[u8]>) -> Self {
        let (name, kept) = (name.into(), Attributes::default());
        Self::new(Carrier::Cookie { name, kept }).with_secret(secret.as_ref())
    }

    /// By a header of this name, which the response has and the next request brings back: for callers that are programs. The
    /// settings of cookies don't apply to it.
    ///
    /// The secret has 32 random bytes or more. A shorter one is an error of
    /// [`build`](super::ClientBuilder::build), and so is a name that can't be a header's.
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
            marks_private: true,
            on_lost: None,
            flaw: None,
        }
    }

    /// Another secret that opens sessions, but seals no new ones. A session that it has sealed is sealed anew with the first secret,
    /// in the next response of its pod.
    ///
    /// To change the secret without losing a session, take three steps, each of them at all clients before the next:
    ///
    /// 1. `Sessions::cookie(name, old).previous_secret(new)`: all can read the new one, and nobody seals with it yet. Without
    ///    this step, a client that is still without it would take a session that another one has sealed for none.
    /// 2. `Sessions::cookie(name, new).previous_secret(old)`: sessions are sealed anew as they are used. While this step is
    ///    being taken, a cookie may change back and forth; its session stays where it is.
    /// 3. `Sessions::cookie(name, new)`, once sessions that nobody has used since may be lost: they get any pod, and
    ///    [`on_lost`](Self::on_lost) isn't told.
    pub fn previous_secret(self, secret: impl AsRef<[u8]>) -> Self {
        self.with_secret(secret.as_ref())
    }

    fn with_secret(mut self, secret: &[u8]) -> Self {
        if let Err(flaw) = self.seal.add(secret) {
            self.flaw.get_or_insert(flaw);
        }
        self
    }

    /// Below which path browsers bring the cookie back; `/` by default. One that isn't a path is an error of
    /// [`build`](super::ClientBuilder::build).
    pub fn path(self, path: impl Into<Box<str>>) -> Self {
        self.kept(|kept| kept.path = path.into())
    }

    /// For how long browsers keep the cookie, in whole seconds, one at least; until they are closed by default.
    ///
    /// Only the browser forgets it: if it comes later, it still counts.
    pub fn max_age(self, age: Duration) -> Self {
        self.kept(|kept| kept.max_age = Some(age))
    }

    /// Whether browsers bring the cookie back over HTTPS only; off by default, because the client can't know what they speak.
    pub fn secure(self, is_secure: bool) -> Self {
        self.kept(|kept| kept.secure = is_secure)
    }

    /// Whether the cookie is hidden from the scripts of a page; on by default.
    pub fn http_only(self, is_http_only: bool) -> Self {
        self.kept(|kept| kept.http_only = is_http_only)
    }

    /// Whether browsers bring the cookie along from other sites; [`SameSite::Lax`] by default.
    ///
    /// Take [`SameSite::None`] where other sites send users back with a POST, as for payments and SAML: a cookie that is `Lax`
    /// doesn't come along, and the response begins another session in its place.
    pub fn same_site(self, same_site: SameSite) -> Self {
        self.kept(|kept| kept.same_site = same_site)
    }

    fn kept(mut self, change: impl FnOnce(&mut Attributes)) -> Self {
        if let Carrier::Cookie { kept, .. } = &mut self.carrier {
            change(kept);
        }
        self
    }

    /// Whether a session has its pod and no other one; off by default. While the pod is away or refuses, the request waits for it,
    /// up to the [ready timeout](super::ClientBuilder::ready_timeout), and then fails with an error that
    /// [is a lost session](super::Error::is_session_lost). The pod gets the request even if it is ejected.
    ///
    /// The session is lost for good if its pod is one of a Deployment. To begin a new one, send the request again without the
    /// cookie or the header, which makes it one that goes to any pod.
    pub fn strict(mut self, is_strict: bool) -> Self {
        self.is_strict = is_strict;
        self
    }

    /// Whether a response that tells a session gets `Cache-Control: private`; on by default.
    ///
    /// Otherwise a shared cache or a CDN in front may hand one user's session to all: `Set-Cookie` doesn't keep it from that
    /// (RFC 9111, section 7.3). The directive is added before what the pod says, and rules whatever that is: of `public,
    /// max-age=600` users' own caches keep the ten minutes, and shared ones store nothing. The same goes for
    /// `CDN-Cache-Control`, if the pod sets it, but there the directive comes last, for the last one rules (RFC 9213, section
    /// 2.1). A response that is `private` or `no-store` is left as it is. Other fields that some caches go by
    /// (`Surrogate-Control`, `X-Accel-Expires`) aren't looked at.
    ///
    /// If you turn it off, no cache in front may store responses that set the cookie, or have the header.
    pub fn mark_private(mut self, marks_private: bool) -> Self {
        self.marks_private = marks_private;
        self
    }

    /// What to do when a session has moved to another pod: count it, or log it. It is called for each request whose session's pod
    /// is out, when another pod has answered without an error, and should be quick.
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
                marks_private: self.marks_private,
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
