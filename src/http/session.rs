//! Sticky sessions: the requests of a session go to the pod that answered its first one, under any policy.
//!
//! ```text
//!  request with a cookie ──▶ opened with the secret ──▶ Route::prefer (its pod), and the session's number as key
//!  response with Set-Cookie ◀── another pod has answered ◀── if the pod is out: the policy's choice
//! ```
//!
//! The cookie holds all that is known of a session. The client keeps nothing, and any client with the secret can
//! continue it. It is encrypted and authenticated (AES-256-GCM, by the crate `cookie`). The usual way, a hash of the
//! pod's name, is enough to find a pod that is there, but can't tell a pod that is gone from a forgery.

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
use super::header_name;

/// Sticky sessions, for [`ClientBuilder::sessions`](super::ClientBuilder::sessions): the requests of a session go to
/// one pod, as long as it accepts them. Off by default.
///
/// Made for gateways and proxies, which pass on what end users send and return what pods answer, headers included. A
/// request without a session goes to any pod, as the policy says. Its response gets a cookie, or a header, that names
/// the pod. The next request that brings it back goes to that pod.
///
/// ```
/// # fn main() -> Result<(), tower_headless::BoxError> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # let _entered = runtime.enter();
/// # let secret = [7; 32];
/// use tower_headless::http::{Client, Sessions};
///
/// // The gateway's pods share one secret, for example from a Kubernetes Secret.
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
/// - **The pod's name is sealed** with the secret: nobody else can read or forge it. A session that is forged, cut
///   short or sealed with another secret is ignored: its request goes to any pod, and gets a new one. The seal covers
///   the cookie's name. So use another name for each service that end users reach at the same host, and none that pods
///   set themselves: if a pod does, the response has our cookie after the pod's, and browsers keep the last.
/// - **Pods are known by their [stable name](crate::Endpoint::stable_name)**. A StatefulSet's pod has its sessions
///   again when it is back, wherever it runs. A Deployment's pod has another name each time, so its sessions are lost
///   with it. If the source tells no names, as with A records, a session stays with an address, whichever pod has it.
/// - **If the pod is out**, the request goes to another pod, and the session moves there: [`on_lost`](Self::on_lost) is
///   called, and the response names the new pod. A pod is out if it is gone, ejected, refuses connections, or has
///   failed this request in a way that is [retried](super::ClientBuilder::retries). The policy picks the new pod.
///   [`ConsistentHash`](crate::ConsistentHash) takes the request's key, or else the session's own number. So
///   simultaneous requests of one session agree on the new pod, which they may not under other policies, and the
///   sessions of a lost pod spread over all others. [`strict`](Self::strict) fails the request instead.
/// - **If the pod is late**, and requests are [hedged](super::ClientBuilder::hedge), another pod may answer, but the
///   session stays with its pod. It stays even if its pod then answers with an error, unless that is retried. It also
///   stays while its pod is passed over for being [slow](crate::Hedge#slow-pods): the session's requests go there all
///   the same. A strict session's requests aren't hedged.
/// - **An error of another pod** (status 500 or above) neither begins nor moves a session, because that pod may have
///   stored nothing of it.
/// - **A user's first requests**, if simultaneous, may begin sessions with several pods; browsers keep the last. If
///   they have the same [key](super::ClientBuilder::key_from), they get the same pod.
/// - **Order**: first a [route](crate::Route) to one pod ([`pod`](crate::Route::pod),
///   [`prefer`](crate::Route::prefer)), which leaves the session unchanged; then the session; then a key. A broadcast
///   has no sessions.
/// - **A response is left alone** if it comes from the session's pod and the session needs no new seal. So
///   [`max_age`](Self::max_age) counts from the first response, or the last change. A response that sets a session is
///   [private](Self::mark_private).
/// - **With a [`Subset`](crate::Subset)**, a pod outside of it counts as gone, unless the session is
///   [strict](Self::strict). If clients with different subsets serve the same sessions in turn, don't use subsets.
/// - **A request that fails or is cancelled** has no response to name a pod: its session stays where it is.
/// - **Pods get the cookie too**, exactly as the request has it.
///
/// Each request of a session costs the decryption of about a hundred bytes, and a search of the pods' names. The client
/// stores nothing. Needs the feature `sessions`.
#[derive(Clone)]
#[must_use = "settings do nothing until a client has them"]
pub struct Sessions {
    carrier: Carrier,
    seal: Seal,
    is_strict: bool,
    marks_private: bool,
    on_lost: Option<Arc<OnLost>>,
    /// What is wrong with the settings, if anything.
    flaw: Option<String>,
}

impl Sessions {
    /// Keeps sessions in a cookie of this name. It has [path](Self::path) `/`, `HttpOnly` and `SameSite=Lax`, and
    /// browsers keep it until they are closed.
    ///
    /// The secret is 32 or more random bytes. [`build`](super::ClientBuilder::build) fails with a shorter one, and with
    /// a name that can't be a cookie's. A name that begins with `__Host-` or `__Secure-` needs
    /// [`secure`](Self::secure), and `__Host-` needs the path `/`: browsers refuse others.
    ///
    /// The response's `Set-Cookie` is marked as sensitive: `{:?}` and logs show `Sensitive` for its value.
    pub fn cookie(name: impl Into<Box<str>>, secret: impl AsRef<[u8]>) -> Self {
        let (name, kept) = (name.into(), Attributes::default());
        Self::new(Carrier::Cookie { name, kept }).with_secret(secret.as_ref())
    }

    /// Keeps sessions in a header of this name, which the response has and the next request must send back: for callers
    /// that are programs. The settings of cookies don't apply to it.
    ///
    /// The secret is 32 or more random bytes. [`build`](super::ClientBuilder::build) fails with a shorter one, and with
    /// a name that can't be a header's.
    pub fn header<N>(name: N, secret: impl AsRef<[u8]>) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>> + AsRef<[u8]>,
    {
        let (name, flaw) = match header_name::parse(name) {
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

    /// Adds a secret that opens sessions, but seals none. A session that was sealed with it is sealed again with the
    /// first secret, in its pod's next response.
    ///
    /// To change the secret without losing sessions, take three steps. Finish each step at all clients before the next:
    ///
    /// 1. `Sessions::cookie(name, old).previous_secret(new)`: all clients can read the new secret, and none seals with
    ///    it yet. Without this step, a client that doesn't know the new secret yet would ignore sessions that another
    ///    one has sealed with it.
    /// 2. `Sessions::cookie(name, new).previous_secret(old)`: sessions are sealed again as they are used. During this
    ///    step a cookie may change back and forth; its session stays where it is.
    /// 3. `Sessions::cookie(name, new)`, once you can afford to lose the sessions that were not used since: they get
    ///    any pod, and [`on_lost`](Self::on_lost) isn't called.
    pub fn previous_secret(self, secret: impl AsRef<[u8]>) -> Self {
        self.with_secret(secret.as_ref())
    }

    fn with_secret(mut self, secret: &[u8]) -> Self {
        if let Err(flaw) = self.seal.add(secret) {
            self.flaw.get_or_insert(flaw);
        }
        self
    }

    /// The path below which browsers send the cookie; `/` by default. [`build`](super::ClientBuilder::build) fails if
    /// it isn't a path.
    pub fn path(self, path: impl Into<Box<str>>) -> Self {
        self.kept(|kept| kept.path = path.into())
    }

    /// How long browsers keep the cookie, in whole seconds, one at least; by default until they are closed.
    ///
    /// Only the browser enforces this: if the cookie comes later, it still counts.
    pub fn max_age(self, age: Duration) -> Self {
        self.kept(|kept| kept.max_age = Some(age))
    }

    /// Whether browsers send the cookie over HTTPS only; off by default, because the client can't know whether they use
    /// it.
    pub fn secure(self, is_secure: bool) -> Self {
        self.kept(|kept| kept.secure = is_secure)
    }

    /// Whether the cookie is hidden from a page's scripts; on by default.
    pub fn http_only(self, is_http_only: bool) -> Self {
        self.kept(|kept| kept.http_only = is_http_only)
    }

    /// Whether browsers send the cookie with requests from other sites; [`SameSite::Lax`] by default.
    ///
    /// Use [`SameSite::None`] if other sites send users back with a POST, as for payments and SAML: browsers don't send
    /// a `Lax` cookie then, and the response begins another session in its place.
    pub fn same_site(self, same_site: SameSite) -> Self {
        self.kept(|kept| kept.same_site = same_site)
    }

    fn kept(mut self, change: impl FnOnce(&mut Attributes)) -> Self {
        if let Carrier::Cookie { kept, .. } = &mut self.carrier {
            change(kept);
        }
        self
    }

    /// Whether a session may have no other pod than its own; off by default. While that pod is away or refuses, the
    /// request waits for it, up to the [ready timeout](super::ClientBuilder::ready_timeout), and then fails with an
    /// error that [is a lost session](super::Error::is_session_lost). The pod gets the request even if it is ejected.
    ///
    /// If the pod belongs to a Deployment, the session is lost for good. To begin a new one, send the request again
    /// without the cookie or the header; then it goes to any pod.
    pub fn strict(mut self, is_strict: bool) -> Self {
        self.is_strict = is_strict;
        self
    }

    /// Whether a response that sets a session gets `Cache-Control: private`; on by default.
    ///
    /// Otherwise a shared cache or a CDN may give one user's session to others: `Set-Cookie` doesn't prevent caching
    /// (RFC 9111, section 7.3). `private` is put before the pod's own directives, and overrides them: with `public,
    /// max-age=600` users' own caches still keep the ten minutes, and shared caches store nothing. The same goes for
    /// `CDN-Cache-Control`, if the pod sets it, but there `private` comes last, because the last directive wins (RFC
    /// 9213, section 2.1). A response that is `private` or `no-store` is left unchanged. Other headers that some caches
    /// obey (`Surrogate-Control`, `X-Accel-Expires`) aren't looked at.
    ///
    /// If you turn it off, no cache in front of the gateway may store responses that set the cookie or have the header.
    pub fn mark_private(mut self, marks_private: bool) -> Self {
        self.marks_private = marks_private;
        self
    }

    /// Called when a session has moved to another pod: count it, or log it. It is called for each request whose
    /// session's pod is out, after another pod has answered without an error, and should be fast.
    pub fn on_lost(mut self, hook: impl Fn(&SessionLost) + Send + Sync + 'static) -> Self {
        self.on_lost = Some(Arc::new(hook));
        self
    }

    /// Checks the settings. Returns what is wrong with them if they can't work.
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
