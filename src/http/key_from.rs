//! Where a request's key comes from if it names none.

use std::{borrow::Cow, fmt, sync::Arc};

use http::{HeaderName, request::Parts};
use percent_encoding::percent_decode_str;

use super::{
    cookies::{self, cookies},
    header_name,
};
use crate::route::RouteKey;

/// Where a request's [key](crate::Route::key) comes from if it names none; for
/// [`ClientBuilder::key_from`](super::ClientBuilder::key_from).
///
/// The key is the text or the bytes that it finds: a header `x-user: 42` goes to the same pod as
/// [`Route::key("42")`](crate::Route::key), but the number 42 goes to another one. An empty value is no key, so that
/// requests without a user don't all go to one pod.
#[derive(Clone)]
#[must_use = "a source does nothing until a client has it"]
pub struct KeyFrom(Result<Source, String>);

#[derive(Clone)]
enum Source {
    Header(HeaderName),
    Cookie(Box<str>),
    PathSegment(usize),
    Own(Arc<OwnSource>),
}

type OwnSource = dyn Fn(&Parts) -> Option<RouteKey> + Send + Sync;

impl KeyFrom {
    /// The value of a header, unchanged; of several, the first that isn't empty. [`build`](super::ClientBuilder::build)
    /// fails if the name can't be a header's.
    pub fn header<N>(name: N) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>> + AsRef<[u8]>,
    {
        Self(match header_name::parse(name) {
            Ok(name) => Ok(Source::Header(name)),
            Err(error) => Err(format!("`KeyFrom::header`: {error}")),
        })
    }

    /// The value of a cookie, unchanged; of several, the first that isn't empty. [`build`](super::ClientBuilder::build)
    /// fails if the name can't be a cookie's.
    pub fn cookie(name: impl Into<Box<str>>) -> Self {
        let name = name.into();
        Self(match cookies::flaw(&name) {
            None => Ok(Source::Cookie(name)),
            Some(flaw) => Err(format!("`KeyFrom::cookie`: {flaw}")),
        })
    }

    /// One segment of the path, counted from 0: in `/users/42/cart`, 0 is `users` and 1 is `42`.
    ///
    /// An empty segment counts: in `//42`, `42` is segment 1. The query doesn't count. Percent-encoding is decoded,
    /// because `/users/j%6fe` and `/users/joe` are the same (RFC 3986, section 6.2.2.2); an encoded slash (`%2F`)
    /// separates nothing.
    pub fn path_segment(index: usize) -> Self {
        Self(Ok(Source::PathSegment(index)))
    }

    /// What your function finds in the request's head, for example in its extensions, where a gateway keeps the user.
    ///
    /// It is called for each request that names no key, in the caller's task, and should be fast.
    ///
    /// ```
    /// use tower_headless::{RouteKey, http::KeyFrom};
    ///
    /// #[derive(Clone)]
    /// struct User(u64);
    ///
    /// let source = KeyFrom::new(|head| Some(head.extensions.get::<User>()?.0.into()));
    /// ```
    pub fn new(source: impl Fn(&Parts) -> Option<RouteKey> + Send + Sync + 'static) -> Self {
        Self(Ok(Source::Own(Arc::new(source))))
    }
}

/// Sources of keys, in order.
#[derive(Clone)]
pub(super) struct Keys(Box<[Source]>);

impl Keys {
    /// Returns what is wrong with a source, if it can't work.
    pub(super) fn new(sources: Vec<KeyFrom>) -> Result<Self, String> {
        let sources: Result<_, _> = sources.into_iter().map(|KeyFrom(source)| source).collect();
        sources.map(Self)
    }

    /// The first key that a source finds.
    pub(super) fn find(&self, head: &Parts) -> Option<RouteKey> {
        self.0.iter().find_map(|source| source.find(head))
    }
}

impl Source {
    fn find(&self, head: &Parts) -> Option<RouteKey> {
        match self {
            Self::Header(name) => {
                let mut values = head.headers.get_all(name).iter();
                values.find_map(|value| key(value.as_bytes()))
            }
            Self::Cookie(name) => cookies(&head.headers, name).find_map(key),
            Self::PathSegment(index) => {
                let path = head.uri.path().strip_prefix('/')?;
                let segment = path.split('/').nth(*index)?;
                let segment: Cow<'_, [u8]> = percent_decode_str(segment).into();
                key(&segment)
            }
            Self::Own(source) => source(head),
        }
    }
}

fn key(bytes: &[u8]) -> Option<RouteKey> {
    (!bytes.is_empty()).then(|| bytes.into())
}

impl fmt::Debug for KeyFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(Source::Header(name)) => write!(f, "KeyFrom::header({:?})", name.as_str()),
            Ok(Source::Cookie(name)) => write!(f, "KeyFrom::cookie({name:?})"),
            Ok(Source::PathSegment(index)) => write!(f, "KeyFrom::path_segment({index})"),
            Ok(Source::Own(_)) => f.write_str("KeyFrom::new(..)"),
            Err(error) => f.write_str(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn find(source: KeyFrom, uri: &str, headers: &[(&str, &str)]) -> Option<RouteKey> {
        let request = headers
            .iter()
            .fold(Request::get(uri), |request, (name, value)| {
                request.header(*name, *value)
            });
        let (head, ()) = request.body(()).expect("a request").into_parts();
        Keys::new(vec![source]).expect("sources").find(&head)
    }

    #[test]
    fn segments_are_counted_from_0_and_decoded() {
        let find = |index, uri| find(KeyFrom::path_segment(index), uri, &[]);
        for (index, uri, key) in [
            (0, "/users/42?x=1", Some("users")),
            (1, "/users/42?x=1", Some("42")),
            (1, "http://web/users/42", Some("42")),
            (1, "/users/j%6Fe", Some("joe")),
            (1, "/users/a%2fb/c", Some("a/b")),
            (1, "/users/100%", Some("100%")),
            (1, "//42", Some("42")),
            (0, "//42", None),
            (1, "/users/", None),
            (2, "/users/42", None),
            (0, "/", None),
            (0, "*", None),
        ] {
            assert_eq!(
                find(index, uri),
                key.map(RouteKey::from),
                "{index} of {uri}"
            );
        }
    }

    #[test]
    fn a_header_gives_its_first_value_that_isn_t_empty() {
        let find = |headers| find(KeyFrom::header("X-User"), "/", headers);
        assert_eq!(
            find(&[("x-user", "a b%20"), ("x-user", "c")]),
            Some("a b%20".into())
        );
        assert_eq!(find(&[("x-user", ""), ("x-user", "a")]), Some("a".into()));
        assert_eq!(find(&[("x-user", "")]), None);
        assert_eq!(find(&[("x-other", "a")]), None);
    }

    #[test]
    fn a_cookie_gives_its_first_value_that_isn_t_empty_in_any_header() {
        let find = |headers| find(KeyFrom::cookie("user"), "/", headers);
        assert_eq!(
            find(&[("cookie", "a=1; user=j%6fe;user=2")]),
            Some("j%6fe".into())
        );
        assert_eq!(
            find(&[("cookie", "a=1; user="), ("cookie", "user=\"3\"")]),
            Some("\"3\"".into())
        );
        let name = "J\u{fc}rgen";
        let cookies = format!("a={name}; user={name}");
        let headers = [("cookie", &*cookies)];
        assert_eq!(find(&headers), Some(name.into()));
        assert_eq!(find(&[("cookie", "xuser=1; User=2; user=")]), None);
    }
}
