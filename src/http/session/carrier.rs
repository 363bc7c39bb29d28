//! Carries a session's text from a response to the next request: a cookie, or a header.

use std::{str, time::Duration};

use cookie::{Cookie, time};
use http::{HeaderMap, HeaderName, HeaderValue, header::SET_COOKIE};

use crate::http::cookies::{self, cookies};

#[derive(Clone, Debug)]
pub(super) enum Carrier {
    Cookie { name: Box<str>, kept: Attributes },
    Header(HeaderName),
}

/// The attributes of a cookie.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    pub(super) path: Box<str>,
    pub(super) max_age: Option<Duration>,
    pub(super) secure: bool,
    pub(super) http_only: bool,
    pub(super) same_site: SameSite,
}

/// When browsers send a cookie with a request that another site has caused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// Never.
    Strict,
    /// When the user has followed a link.
    #[default]
    Lax,
    /// Always. Browsers require such a cookie to be `Secure`, so it is.
    None,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            path: "/".into(),
            max_age: None,
            secure: false,
            http_only: true,
            same_site: SameSite::Lax,
        }
    }
}

impl Carrier {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Cookie { name, .. } => name,
            Self::Header(name) => name.as_str(),
        }
    }

    /// What is wrong with it, if it can't be a header.
    pub(super) fn flaw(&self) -> Option<String> {
        let Self::Cookie { name, kept } = self else {
            return None;
        };
        let is_path = |byte: u8| byte.is_ascii_graphic() && byte != b';';
        if !kept.path.starts_with('/') || !kept.path.bytes().all(is_path) {
            return Some(format!("no cookie can have the path {:?}", kept.path));
        }
        cookies::flaw(name).or_else(|| kept.prefix_flaw(name))
    }

    /// The first text in a request's headers that `read` accepts.
    pub(super) fn find<T>(
        &self,
        headers: &HeaderMap,
        mut read: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        match self {
            Self::Cookie { name, .. } => {
                let mut texts = cookies(headers, name).map(unquoted);
                texts.find_map(|text| read(str::from_utf8(text).ok()?))
            }
            Self::Header(name) => {
                let mut texts = headers.get_all(name).iter();
                texts.find_map(|text| read(text.to_str().ok()?))
            }
        }
    }

    /// Whether a response already sets the cookie or the header.
    pub(super) fn is_taken(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Cookie { name, .. } => {
                let mut all = headers.get_all(SET_COOKIE).iter();
                all.any(|cookie| cookies::name(cookie.as_bytes()) == Some(name.as_bytes()))
            }
            Self::Header(name) => headers.contains_key(name),
        }
    }

    /// Adds the session's text to a response's headers, beside the pod's own cookies.
    pub(super) fn add(&self, headers: &mut HeaderMap, text: String) {
        match self {
            Self::Cookie { name, kept } => {
                let cookie = kept.cookie(name, text).to_string();
                if let Some(value) = sensitive(cookie) {
                    headers.append(SET_COOKIE, value);
                }
            }
            Self::Header(name) => {
                if let Some(value) = sensitive(text) {
                    headers.insert(name, value);
                }
            }
        }
    }
}

impl Attributes {
    fn is_secure(&self) -> bool {
        self.secure || self.same_site == SameSite::None
    }

    /// Why browsers would silently refuse a name with one of the prefixes of RFC 6265bis, section 4.1.3.
    fn prefix_flaw(&self, name: &str) -> Option<String> {
        let has = |prefix: &str| {
            let start = name.get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        let (is_host, is_secure) = (has("__Host-"), self.is_secure());
        if (is_host || has("__Secure-")) && !is_secure {
            return Some(format!("the cookie {name:?} has to be `secure(true)`"));
        }
        if is_host && &*self.path != "/" {
            let path = &self.path;
            return Some(format!(
                "the cookie {name:?} has to be of the path \"/\", not {path:?}"
            ));
        }
        None
    }

    fn cookie<'a>(&'a self, name: &'a str, text: String) -> Cookie<'a> {
        let cookie = Cookie::build((name, text))
            .path(&*self.path)
            .http_only(self.http_only)
            .secure(self.is_secure())
            .same_site(match self.same_site {
                SameSite::Strict => cookie::SameSite::Strict,
                SameSite::Lax => cookie::SameSite::Lax,
                SameSite::None => cookie::SameSite::None,
            });
        match self.max_age {
            // With 0 seconds browsers would delete it at once.
            Some(age) => {
                let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX).max(1);
                cookie.max_age(time::Duration::seconds(seconds)).build()
            }
            None => cookie.build(),
        }
    }
}

/// Removes the quotes that clients of an older standard (RFC 2109) put around a value.
fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value.strip_prefix(b"\"");
    let inner = inner.and_then(|value| value.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(name: &str, kept: Attributes) -> Carrier {
        let name = name.into();
        Carrier::Cookie { name, kept }
    }

    #[test]
    fn invalid_names_and_paths_have_a_flaw() {
        let path = |path: &str| Attributes {
            path: path.into(),
            ..Attributes::default()
        };
        assert!(cookie("lb", path("/a b")).flaw().is_some());
        assert!(cookie("a b", path("/")).flaw().is_some());
        for bad in ["", "shop", "/a;b", "/a\r\nb", "/\u{e9}"] {
            assert!(cookie("lb", path(bad)).flaw().is_some(), "{bad}");
        }
        assert_eq!(cookie("lb.1", path("/shop/%20")).flaw(), None);
    }

    #[test]
    fn prefixed_cookie_names_need_what_browsers_require() {
        let flaw = |name, secure, same_site, path: &str| {
            let kept = Attributes {
                path: path.into(),
                secure,
                same_site,
                ..Attributes::default()
            };
            cookie(name, kept).flaw()
        };
        let (lax, none) = (SameSite::Lax, SameSite::None);
        for name in ["__Host-lb", "__host-lb", "__Secure-lb"] {
            let why = flaw(name, false, lax, "/").expect("it isn't secure");
            assert!(why.contains("secure(true)"), "{why}");
            assert_eq!(flaw(name, true, lax, "/"), None, "{name}");
            assert_eq!(flaw(name, false, none, "/"), None, "{name}");
        }
        let why = flaw("__Host-lb", true, lax, "/shop").expect("not of all paths");
        assert!(why.contains("\"/shop\""), "{why}");
        assert_eq!(flaw("__Secure-lb", true, lax, "/shop"), None);
        assert_eq!(flaw("__Hostlb", false, lax, "/shop"), None);
    }

    #[test]
    fn a_max_age_below_a_second_becomes_one_second() {
        for (age, seconds) in [
            (Duration::from_millis(1), "1"),
            (Duration::from_secs(3600), "3600"),
            (Duration::MAX, "9223372036854775807"),
        ] {
            let kept = Attributes {
                max_age: Some(age),
                ..Attributes::default()
            };
            let cookie = kept.cookie("lb", "x".into()).to_string();
            assert!(cookie.contains(&format!("; Max-Age={seconds}")), "{cookie}");
        }
    }
}
