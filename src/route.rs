//! What a request says of where it wants to go.

use std::sync::Arc;

use crate::endpoint::Endpoint;

/// What a request says of where it wants to go: by key, to one pod, or away from some. Most requests say nothing.
///
/// It travels with the request, through [`Balance::call_with`](crate::Balance::call_with) or, with the HTTP client, in the
/// request's extensions, and reaches the policy's `Picker`. An empty one costs nothing.
///
/// ```
/// use tower_headless::{Endpoint, Route};
///
/// let failed = Endpoint::new(([10, 244, 1, 7], 80).into());
/// let route = Route::new().key("user-42").avoid(&failed);
/// assert!(route.avoids(&failed) && !Route::new().avoids(&failed));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route(Option<Arc<Wishes>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wishes {
    key: Option<RouteKey>,
    pod: Option<Box<str>>,
    avoid: Vec<Endpoint>,
    /// It fails rather than go to one that it avoids.
    only_others: bool,
}

impl Route {
    /// A route that says nothing.
    pub const fn new() -> Self {
        Self(None)
    }

    /// The key of what the request is about: a policy that looks at keys sends equal ones to the same pod. Others ignore it.
    pub fn key(self, key: impl Into<RouteKey>) -> Self {
        self.with(|wishes| wishes.key = Some(key.into()))
    }

    /// The one pod that is wanted, by its hostname or its own name: no other one gets the request.
    ///
    /// While no pod of that name accepts it, the request waits, up to the
    /// [ready timeout](crate::BalanceBuilder::ready_timeout), and fails then with an error that
    /// [is unreachable](crate::Error::is_unreachable).
    pub fn pod(self, name: impl Into<Box<str>>) -> Self {
        self.with(|wishes| wishes.pod = Some(name.into()))
    }

    /// One pod more that gets the request only if no other one takes it.
    ///
    /// For retries of one's own. The pod that failed is in the balancer's error
    /// ([`Error::endpoint`](crate::Error::endpoint)) and in the HTTP client's (`http::Error::pod`). The pod that answered is
    /// in the extensions of an HTTP response, as its [`Endpoint`]. [`RetryLayer`](crate::RetryLayer) and the HTTP client avoid
    /// the pods that failed by themselves.
    pub fn avoid(self, endpoint: &Endpoint) -> Self {
        self.with(|wishes| wishes.avoid.push(endpoint.clone()))
    }

    /// The pods that it avoids don't get it though no other one takes it: it fails at once instead.
    pub(crate) fn only_others(self) -> Self {
        self.with(|wishes| wishes.only_others = true)
    }

    pub(crate) fn is_only_others(&self) -> bool {
        self.0.as_ref().is_some_and(|wishes| wishes.only_others)
    }

    fn with(mut self, change: impl FnOnce(&mut Wishes)) -> Self {
        change(Arc::make_mut(self.0.get_or_insert_default()));
        self
    }

    /// Whether it says nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The [key](Self::key), if there is one.
    pub fn requested_key(&self) -> Option<&RouteKey> {
        self.0.as_ref()?.key.as_ref()
    }

    /// The name of the one [pod](Self::pod) that is wanted, if there is one.
    pub fn requested_pod(&self) -> Option<&str> {
        self.0.as_ref()?.pod.as_deref()
    }

    /// Whether this pod is to be [avoided](Self::avoid). Another pod at its address is not.
    pub fn avoids(&self, endpoint: &Endpoint) -> bool {
        self.avoided()
            .iter()
            .any(|avoided| avoided.is_same_pod(endpoint))
    }

    /// The pods to be [avoided](Self::avoid).
    pub fn avoided(&self) -> &[Endpoint] {
        self.0
            .as_ref()
            .map(|wishes| &*wishes.avoid)
            .unwrap_or_default()
    }
}

/// What a request is about, as a [`Route`] tells it: text, bytes, or a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteKey(Key);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Number(u64),
    Bytes(Arc<[u8]>),
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
