//! What brings a session's text from a response to the next request: a cookie, or a header.

use std::time::Duration;

use cookie::{Cookie, time};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};

#[derive(Clone, Debug)]
pub(super) enum Carrier {
    Cookie { name: Box<str>, kept: Attributes },
    Header(HeaderName),
}

/// How browsers keep a cookie.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    pub(super) path: Box<str>,
    pub(super) max_age: Option<Duration>,
    pub(super) secure: bool,
    pub(super) http_only: bool,
    pub(super) same_site: SameSite,
}

/// When browsers bring a cookie along with a request that another site has caused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// Never.
    Strict,
    /// When its user has followed a link.
    #[default]
    Lax,
    /// Always. Browsers want such a cookie to be `Secure`, and so it is.
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

    /// What is wrong with it, if no header can be made of it.
    pub(super) fn flaw(&self) -> Option<String> {
        let Self::Cookie { name, kept } = self else {
            return None;
        };
        if name.is_empty() || !name.bytes().all(is_token) {
            return Some(format!("no cookie can have the name {name:?}"));
        }
        let is_path = |byte: u8| byte.is_ascii_graphic() && byte != b';';
        if !kept.path.starts_with('/') || !kept.path.bytes().all(is_path) {
            return Some(format!("no cookie can have the path {:?}", kept.path));
        }
        None
    }

    /// The first text in a request's headers that `read` makes something of.
    pub(super) fn find<T>(
        &self,
        headers: &HeaderMap,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        match self {
            Self::Cookie { name, .. } => cookies(headers, name).find_map(|it| read(it.value())),
            Self::Header(name) => {
                let mut texts = headers.get_all(name).iter();
                texts.find_map(|text| read(text.to_str().ok()?))
            }
        }
    }

    /// Adds a text to a response's headers, beside the pod's own cookies.
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
    fn cookie<'a>(&'a self, name: &'a str, text: String) -> Cookie<'a> {
        let cookie = Cookie::build((name, text))
            .path(&*self.path)
            .http_only(self.http_only)
            .secure(self.secure || self.same_site == SameSite::None)
            .same_site(match self.same_site {
                SameSite::Strict => cookie::SameSite::Strict,
                SameSite::Lax => cookie::SameSite::Lax,
                SameSite::None => cookie::SameSite::None,
            });
        match self.max_age {
            // Of 0 seconds, it would be forgotten at once.
            Some(age) => {
                let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX).max(1);
                cookie.max_age(time::Duration::seconds(seconds)).build()
            }
            None => cookie.build(),
        }
    }
}

/// A request's cookies of this name.
pub(in crate::http) fn cookies<'a>(
    headers: &'a HeaderMap,
    name: &'a str,
) -> impl Iterator<Item = Cookie<'a>> {
    let texts = headers.get_all(COOKIE).into_iter();
    let texts = texts.filter_map(|text| text.to_str().ok());
    let all = texts.flat_map(Cookie::split_parse).filter_map(Result::ok);
    all.filter(move |cookie| cookie.name() == name)
}

fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// RFC 9110, section 5.6.2, which RFC 6265, section 4.1.1, wants of a cookie's name.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(name: &str, kept: Attributes) -> Carrier {
        let name = name.into();
        Carrier::Cookie { name, kept }
    }

    #[test]
    fn what_no_header_can_be_made_of_has_a_flaw() {
        let path = |path: &str| Attributes {
            path: path.into(),
            ..Attributes::default()
        };
        assert!(cookie("lb", path("/a b")).flaw().is_some());
        for name in ["", "a b", "a=b", "a;b", "\u{e9}"] {
            assert!(cookie(name, path("/")).flaw().is_some(), "{name}");
        }
        for bad in ["", "shop", "/a;b", "/a\r\nb", "/\u{e9}"] {
            assert!(cookie("lb", path(bad)).flaw().is_some(), "{bad}");
        }
        assert_eq!(cookie("__Host-lb.1", path("/shop/%20")).flaw(), None);
    }

    #[test]
    fn a_cookie_that_lasts_for_less_than_a_second_lasts_for_one() {
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
