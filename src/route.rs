//! [`Route`]: what a request says about where it may go.

mod pod_id;
mod pod_name;

pub use pod_id::PodId;
pub(crate) use pod_name::PodName;

use std::sync::Arc;

use crate::{
    attempts::{AttemptCause, AttemptLog, RecordedTry, Recording},
    endpoint::Endpoint,
    member::MemberId,
    stable_hash::stable_hash,
};

/// What a request says about where it may go: a key, one pod, a preferred pod, or pods to avoid. Most requests say
/// nothing.
///
/// It travels with the request to the policy's `Picker`: through [`Balance::call_with`](crate::Balance::call_with) or,
/// with the HTTP client, in the request's extensions. An empty route costs nothing.
///
/// If it says several things, the requested [pod](Self::pod) comes first, then the [preferred](Self::prefer) one, then
/// the [key](Self::key). A pod that is [left out](Self::leave_out) never gets the request. A pod that is
/// [avoided](Self::avoid) gets it only if no other takes it.
///
/// ```
/// use tower::service_fn;
/// use tower_headless::{Balance, BoxError, ConsistentHash, Endpoint, Route, StaticEndpoints};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let pods = StaticEndpoints::new(["10.244.1.7:80".parse()?, "10.244.2.4:80".parse()?]);
/// let balance = Balance::builder(pods).policy(ConsistentHash::new()).build(|pod: &Endpoint| {
///     let pod = pod.clone();
///     service_fn(move |_: &str| std::future::ready(Ok::<_, BoxError>(pod.clone())))
/// });
/// let route = Route::new().key("user-42");
/// let pod = balance.call_with("GET /cart", route.clone()).await?;
/// assert_eq!(balance.call_with("GET /cart", route.clone()).await?, pod);
///
/// // It has failed: to the key's next pod.
/// let route = route.avoid(&pod);
/// assert!(route.avoids(&pod));
/// assert_ne!(balance.call_with("GET /cart", route).await?, pod);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// A route adds two errors: there is no such [pod](Self::pod) in time, or none but the one that is [left
/// out](Self::leave_out).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route(Option<Arc<Wishes>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wishes {
    key: Option<RouteKey>,
    pod: Option<PodId>,
    preferred: Option<PodId>,
    left_out: Option<PodId>,
    member: Option<Target>,
    avoid: Vec<Endpoint>,
    /// Whether the request fails rather than go to a pod that it avoids.
    only_others: bool,
    /// Whether this is a hedge, sent because an answer is late.
    second_try: bool,
    /// The log that its attempts are written to, and why there is this one.
    recorded: Option<RecordedTry>,
}

/// One endpoint of a balancer, for one life of it: another pod at its address is another target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) id: MemberId,
    /// The endpoint as it was when it was looked up.
    pub(crate) endpoint: Endpoint,
}

impl Route {
    /// Makes an empty route.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Sets the key of what the request is about. A policy that looks at keys, such as
    /// [`ConsistentHash`](crate::ConsistentHash), sends equal keys to the same pod. Other policies ignore it, and the
    /// balancer logs that once.
    pub fn key(self, key: impl Into<RouteKey>) -> Self {
        self.with(|wishes| wishes.key = Some(key.into()))
    }

    /// Requests one pod: no other gets the request. Name it by its hostname or its own name, or else as [`PodId`] says.
    ///
    /// While no such pod accepts it, the request waits, up to the [ready timeout](crate::BalanceBuilder::ready_timeout)
    /// (5 s by default). Then it fails with an error that [is unreachable](crate::Error::is_unreachable). A pod outside
    /// of the client's [subset](crate::Subset) is reached, too. [`Balance::pod`](crate::Balance::pod) is a service of
    /// such requests.
    pub fn pod(self, id: impl Into<PodId>) -> Self {
        self.with(|wishes| wishes.pod = Some(id.into()))
    }

    /// Prefers a pod, by its name or as [`PodId`] says: it gets the request if it accepts it. If that pod is gone, is
    /// ejected, refuses, or is [avoided](Self::avoid) or [left out](Self::leave_out), the pod of the [key](Self::key)
    /// or the policy's choice gets the request.
    ///
    /// So requests stay with a pod while it is well, under any policy. It makes no difference how many requests it has,
    /// how near or how new it is, or whether it is ejected only as [slow](crate::EjectionReason::Slow). A pod outside
    /// of the client's [subset](crate::Subset) counts as gone.
    pub fn prefer(self, id: impl Into<PodId>) -> Self {
        self.with(|wishes| wishes.preferred = Some(id.into()))
    }

    /// Leaves one pod out: it never gets the request. A peer leaves itself out in this way. If there is no other pod,
    /// the request fails at once with an error of [no endpoints](crate::Error::is_no_endpoints).
    ///
    /// With an empty name, which no pod has, the request fails at once with an error that [is
    /// absent](crate::Error::is_absent).
    ///
    /// [`Balance::others`](crate::Balance::others) is a service of such requests.
    pub fn leave_out(self, id: impl Into<PodId>) -> Self {
        self.with(|wishes| wishes.left_out = Some(id.into()))
    }

    /// Avoids one more pod: it gets the request only if no other takes it.
    ///
    /// This is for retries of your own. The pod that failed is in the balancer's error
    /// ([`Error::endpoint`](crate::Error::endpoint)) and in the HTTP client's
    /// (`tower_headless::http::Error::endpoint`). The pod that answered is in an HTTP response
    /// (`tower_headless::http::ResponseBody::endpoint`). [`RetryLayer`](crate::RetryLayer) and the HTTP client avoid
    /// the pods that failed by themselves.
    pub fn avoid(self, endpoint: &Endpoint) -> Self {
        self.with(|wishes| wishes.avoid.push(endpoint.clone()))
    }

    /// Records the request's attempts in this log: each attempt's pod, why it went there, its outcome and its waits.
    /// With an HTTP client, use [`RequestBuilder::attempts`](crate::http::RequestBuilder::attempts) instead.
    ///
    /// It doesn't change where the request goes.
    pub fn record(self, log: &AttemptLog) -> Self {
        let (log, why) = (log.clone(), AttemptCause::First);
        self.with(|wishes| wishes.recorded = Some(RecordedTry { log, why }))
    }

    /// The log that the request's attempts are written to, if there is one.
    #[inline]
    pub(crate) fn log(&self) -> Option<&AttemptLog> {
        Some(&self.0.as_ref()?.recorded.as_ref()?.log)
    }

    /// The route for another try of the request, with the cause of that try.
    pub(crate) fn again(self, cause: AttemptCause) -> Self {
        match self.log() {
            None => self,
            Some(_) => self.with(|wishes| {
                if let Some(recorded) = &mut wishes.recorded {
                    recorded.why = cause;
                }
            }),
        }
    }

    /// An otherwise empty route that is recorded in a new log, if this route is recorded.
    #[cfg(feature = "http")]
    pub(crate) fn recorded_apart(&self) -> Self {
        match self.log() {
            None => Self::new(),
            Some(_) => Self::new().record(&AttemptLog::new()),
        }
    }

    /// The writer for a try of the request, if it is recorded.
    pub(crate) fn recording(&self) -> Option<Recording> {
        let recorded = self.0.as_ref()?.recorded.as_ref()?;
        Some(Recording::new(recorded.clone()))
    }

    /// Requests one endpoint, however healthy it is: no other gets the request, nor a later life of this one.
    ///
    /// While it refuses connections, the request waits, up to the ready timeout.
    pub(crate) fn member(self, target: Target) -> Self {
        self.with(|wishes| wishes.member = Some(target))
    }

    /// Makes the request fail at once, rather than go to a pod that it avoids, if no other takes it.
    pub(crate) fn only_others(self) -> Self {
        self.with(|wishes| (wishes.only_others, wishes.second_try) = (true, false))
    }

    /// Like [`only_others`](Self::only_others), for a hedge. It may also go to a pod that is passed over, because that
    /// is more likely to answer than a first try that seems to hang.
    pub(crate) fn second_try(self) -> Self {
        self.with(|wishes| (wishes.only_others, wishes.second_try) = (true, true))
    }

    pub(crate) fn is_second_try(&self) -> bool {
        self.0.as_ref().is_some_and(|wishes| wishes.second_try)
    }

    pub(crate) fn is_only_others(&self) -> bool {
        self.0.as_ref().is_some_and(|wishes| wishes.only_others)
    }

    fn with(mut self, change: impl FnOnce(&mut Wishes)) -> Self {
        change(Arc::make_mut(self.0.get_or_insert_default()));
        self
    }

    /// Whether the route says nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The [key](Self::key), if there is one.
    pub fn requested_key(&self) -> Option<&RouteKey> {
        self.0.as_ref()?.key.as_ref()
    }

    /// The name of the requested [pod](Self::pod), if one is requested by its name.
    pub fn requested_pod(&self) -> Option<&str> {
        self.requested()?.name()
    }

    /// The requested [pod](Self::pod), if there is one.
    pub(crate) fn requested(&self) -> Option<&PodId> {
        self.0.as_ref()?.pod.as_ref()
    }

    /// The name of the pod that is [preferred](Self::prefer), if one is preferred by its name.
    pub fn preferred_pod(&self) -> Option<&str> {
        self.preferred()?.name()
    }

    /// The pod that is [preferred](Self::prefer), if there is one.
    pub(crate) fn preferred(&self) -> Option<&PodId> {
        self.0.as_ref()?.preferred.as_ref()
    }

    /// The pod that is [left out](Self::leave_out), if there is one.
    pub(crate) fn left_out(&self) -> Option<&PodId> {
        self.0.as_ref()?.left_out.as_ref()
    }

    /// Whether this pod is [left out](Self::leave_out).
    pub(crate) fn leaves_out(&self, endpoint: &Endpoint) -> bool {
        self.left_out().is_some_and(|id| id.is(endpoint))
    }

    /// This route, with the requested and the left-out pod of `other`, which override its own.
    pub(crate) fn pinned_as(self, other: &Self) -> Self {
        if self.is_empty() {
            return other.clone();
        }
        let (pod, left_out) = (other.requested().cloned(), other.left_out().cloned());
        self.with(|wishes| {
            wishes.pod = pod.or(wishes.pod.take());
            wishes.left_out = left_out.or(wishes.left_out.take());
        })
    }

    /// The requested endpoint, if there is one.
    pub(crate) fn requested_member(&self) -> Option<&Target> {
        self.0.as_ref()?.member.as_ref()
    }

    /// Whether only one endpoint will do.
    pub(crate) fn is_for_one(&self) -> bool {
        self.requested().is_some() || self.requested_member().is_some()
    }

    /// Whether this pod is [avoided](Self::avoid) or [left out](Self::leave_out). Another pod at an avoided pod's
    /// address is not avoided.
    pub fn avoids(&self, endpoint: &Endpoint) -> bool {
        let mut avoided = self.avoided().iter();
        avoided.any(|avoided| avoided.is_same_pod(endpoint)) || self.leaves_out(endpoint)
    }

    /// The pods that are [avoided](Self::avoid).
    pub fn avoided(&self) -> &[Endpoint] {
        self.0
            .as_ref()
            .map(|wishes| &*wishes.avoid)
            .unwrap_or_default()
    }
}

/// The key of a request in its [`Route`]: text, bytes, or a number.
///
/// The number 7 and the text `"7"`, for example from a header, are different keys, with different pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteKey(Key);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Number(u64),
    Bytes(Arc<[u8]>),
}

impl RouteKey {
    /// A 64-bit hash that is the same in every process, on every platform and in every version of this crate. It is
    /// XXH3 without a seed, of the text or bytes, or of the number's eight bytes in little-endian order.
    #[inline]
    pub fn stable_hash(&self) -> u64 {
        match &self.0 {
            Key::Number(number) => stable_hash(&number.to_le_bytes()),
            Key::Bytes(bytes) => stable_hash(bytes),
        }
    }
}

impl From<&[u8]> for RouteKey {
    fn from(bytes: &[u8]) -> Self {
        Self(Key::Bytes(bytes.into()))
    }
}

impl From<&str> for RouteKey {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<String> for RouteKey {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

macro_rules! from_numbers {
    ($($number:ty),*) => { $(
        impl From<$number> for RouteKey {
            /// Equal numbers are equal keys, whatever their type; negative ones are taken modulo 2⁶⁴.
            fn from(number: $number) -> Self {
                Self(Key::Number(number as u64))
            }
        }
    )* };
}

from_numbers!(u8, u16, u32, u64, usize, i32, i64);

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, host], 80).into())
    }

    #[test]
    fn an_empty_route_is_one_word() {
        assert_eq!(size_of::<Route>(), size_of::<usize>());
        assert!(Route::new().is_empty() && !Route::new().key(1).is_empty());
    }

    #[test]
    fn another_pod_at_an_avoided_address_is_not_avoided() {
        let route = Route::new()
            .avoid(&endpoint(1).with_pod_uid("a"))
            .avoid(&endpoint(2));
        assert!(route.avoids(&endpoint(1)) && route.avoids(&endpoint(2).with_pod_uid("c")));
        assert!(!route.avoids(&endpoint(1).with_pod_uid("b")) && !route.avoids(&endpoint(3)));
    }

    /// Guards the hash: a change would send keys elsewhere, and make two versions of a client disagree.
    #[test]
    fn the_hash_of_a_key_never_changes() {
        for (key, expected) in [
            (RouteKey::from(""), 0x2d06_8005_38d3_94c2),
            (RouteKey::from("user-42"), 0x50fe_4b21_cf7b_09cd),
            (RouteKey::from(&[0, 255][..]), 0xa99b_043a_346c_8bf3),
            (RouteKey::from(42), 0xd5a6_f8c8_38df_27c8),
            (RouteKey::from(-1), 0x5111_c7e4_7d78_4413),
        ] {
            assert_eq!(key.stable_hash(), expected, "{key:?}");
        }
        assert_eq!(
            RouteKey::from(7_u8).stable_hash(),
            RouteKey::from(7_i64).stable_hash()
        );
    }

    #[test]
    fn keys_are_equal_by_value() {
        let key = |route: Route| route.requested_key().cloned();
        assert_eq!(
            key(Route::new().key("a")),
            key(Route::new().key(String::from("a")))
        );
        assert_eq!(key(Route::new().key(42)), key(Route::new().key(42_u64)));
        assert_ne!(key(Route::new().key("42")), key(Route::new().key(42)));
        assert_eq!(key(Route::new().pod("web-0")), None);
    }
}
