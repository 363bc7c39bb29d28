//! Keeps a response that sets one user's session out of shared caches.
//!
//! `Set-Cookie` doesn't keep caches from storing a response (RFC 9111, section 7.3), and they don't know our own
//! header.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, CDN_CACHE_CONTROL},
};

/// Forbids shared caches to store a response (RFC 9111, section 5.2.2.7). The user's own cache may, as the pod says.
pub(super) fn make_private(headers: &mut HeaderMap) {
    make_field_private(headers, CACHE_CONTROL);
    // If it is there, a CDN ignores `Cache-Control` (RFC 9213, section 2.2).
    if headers.contains_key(CDN_CACHE_CONTROL) {
        make_field_private(headers, CDN_CACHE_CONTROL);
    }
}

/// Adds `private`, which overrides other directives. It is put in one line with them, for caches that read only one:
/// first, or last where the last one wins.
fn make_field_private(headers: &mut HeaderMap, name: HeaderName) {
    if is_private(headers, &name) {
        return;
    }
    let mut lines: Vec<_> = headers.get_all(&name).iter().collect();
    let private = HeaderValue::from_static("private");
    lines.insert(if is_dictionary(&name) { lines.len() } else { 0 }, &private);
    let lines: Vec<_> = lines.into_iter().map(HeaderValue::as_bytes).collect();
    // It is joined from valid values.
    if let Ok(value) = HeaderValue::try_from(lines.join(&b", "[..])) {
        headers.insert(name, value);
    }
}

/// Whether no shared cache stores the response. `no-store` doesn't count beside `must-understand`, because a cache that
/// knows the latter ignores it (section 5.2.2.3). `private` with an argument covers only some fields.
fn is_private(headers: &HeaderMap, name: &HeaderName) -> bool {
    let says = |directive: &str| {
        let all = headers.get_all(name).iter().flat_map(directives);
        let mut all = all.filter(|said| key(said).eq_ignore_ascii_case(directive.as_bytes()));
        let is_plain = |said: &[u8]| said.len() == directive.len();
        match is_dictionary(name) {
            true => all.last().is_some_and(is_plain),
            false => all.any(is_plain),
        }
    };
    says("private") || says("no-store") && !says("must-understand")
}

/// Whether the last of several equal keys wins (RFC 9213, section 2.1; RFC 8941, section 3.2): `private,
/// private="x-user"` covers only some fields.
fn is_dictionary(name: &HeaderName) -> bool {
    *name == CDN_CACHE_CONTROL
}

/// The name of a directive.
fn key(directive: &[u8]) -> &[u8] {
    let end = directive.iter().position(|&byte| byte == b'=');
    &directive[..end.unwrap_or(directive.len())]
}

/// Splits at commas outside of quotes. In quotes, a backslash escapes the next byte (RFC 9110, section 5.6.4).
fn directives(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = value.as_bytes().split(move |&byte| {
        is_quoted ^= byte == b'"' && !is_escaped;
        is_escaped = is_quoted && byte == b'\\' && !is_escaped;
        byte == b',' && !is_quoted
    });
    parts.map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_private(name: HeaderName, lines: &[&'static str]) -> HeaderMap {
        let lines = lines.iter().map(|line| {
            let value = HeaderValue::from_static(line);
            (name.clone(), value)
        });
        let mut headers: HeaderMap = lines.collect();
        make_private(&mut headers);
        headers
    }

    fn lines(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
        let lines = headers.get_all(name).into_iter();
        lines.map(|line| line.to_str().expect("text")).collect()
    }

    #[test]
    fn private_is_put_before_the_pod_s_directives() {
        for (said, expected) in [
            (&[][..], "private"),
            (
                &["public, max-age=600", "s-maxage=60"],
                "private, public, max-age=600, s-maxage=60",
            ),
            (
                &["private=\"x-user\", max-age=1"],
                "private, private=\"x-user\", max-age=1",
            ),
            (&["a=\"b, private, c\""], "private, a=\"b, private, c\""),
            (
                &[r#"a="b\", private, c""#],
                r#"private, a="b\", private, c""#,
            ),
            (&[r#"a="\\\", private""#], r#"private, a="\\\", private""#),
            (&["x-private"], "private, x-private"),
            (&["no-cache"], "private, no-cache"),
            (
                &["must-understand, no-store"],
                "private, must-understand, no-store",
            ),
        ] {
            let headers = made_private(CACHE_CONTROL, said);
            assert_eq!(lines(&headers, CACHE_CONTROL), [expected]);
            assert!(!headers.contains_key(CDN_CACHE_CONTROL));
        }
    }

    #[test]
    fn a_response_that_no_shared_cache_stores_is_left_unchanged() {
        for said in [
            &["max-age=1,Private"][..],
            &["no-store"],
            &["max-age=60", "NO-STORE , no-cache"],
            &[r#"a="b\\", private"#],
            &[r"a=\, private"],
        ] {
            assert_eq!(
                lines(&made_private(CACHE_CONTROL, said), CACHE_CONTROL),
                said
            );
        }
    }

    #[test]
    fn cdn_cache_control_is_made_private_too() {
        for (said, expected) in [
            (&["max-age=600"][..], "max-age=600, private"),
            (&["no-store"], "no-store"),
            (
                &["private=\"x-user\", private"],
                "private=\"x-user\", private",
            ),
            (
                &["private", "private=\"x-user\""],
                "private, private=\"x-user\", private",
            ),
            (&["no-store, no-store=?0"], "no-store, no-store=?0, private"),
        ] {
            let headers = made_private(CDN_CACHE_CONTROL, said);
            assert_eq!(lines(&headers, CDN_CACHE_CONTROL), [expected]);
            assert_eq!(lines(&headers, CACHE_CONTROL), ["private"]);
        }
    }
}
