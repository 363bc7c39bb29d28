//! Cookies in requests and responses.

use http::{HeaderMap, header::COOKIE};

/// The values of a request's cookies of this name, unchanged (RFC 6265, section 5.4, but in bytes: browsers send
/// cookies from scripts as UTF-8).
pub(super) fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let texts = headers.get_all(COOKIE).into_iter();
    let pairs = texts.flat_map(|text| text.as_bytes().split(|&byte| byte == b';'));
    let pairs = pairs.filter_map(pair);
    pairs.filter_map(move |(found, value)| (found == name.as_bytes()).then_some(value))
}

/// The name of the cookie that a response sets.
#[cfg(feature = "sessions")]
pub(super) fn name(set_cookie: &[u8]) -> Option<&[u8]> {
    let pair_of = set_cookie.split(|&byte| byte == b';').next()?;
    Some(pair(pair_of)?.0)
}

/// Splits into name and value.
fn pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let middle = text.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (&text[..middle], &text[middle + 1..]);
    Some((name.trim_ascii(), value.trim_ascii()))
}

/// Why no cookie can have this name, if so.
pub(super) fn flaw(name: &str) -> Option<String> {
    let is_name = !name.is_empty() && name.bytes().all(is_token);
    (!is_name).then(|| format!("no cookie can have the name {name:?}"))
}

/// RFC 9110, section 5.6.2; RFC 6265, section 4.1.1, requires it of a cookie's name.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn found(headers: &[&[u8]]) -> Vec<Vec<u8>> {
        let values = headers.iter().map(|text| {
            let value = HeaderValue::from_bytes(text).expect("a header's value");
            (COOKIE, value)
        });
        let headers: HeaderMap = values.collect();
        cookies(&headers, "lb").map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn a_non_ascii_byte_leaves_the_other_cookies_readable() {
        for text in [
            &b"name=J\xc3\xbcrgen; lb=1"[..],
            b"lb=1; name=J\xc3\xbcrgen",
            b"a=\xe9; lb=1; \xff; \xe9=2",
        ] {
            assert_eq!(found(&[text]), [b"1"], "{text:?}");
        }
        assert_eq!(found(&[b"lb=\xe9"]), [b"\xe9"]);
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_each_header() {
        let headers: [&[u8]; 3] = [b"xlb=0; LB=0; lb; lb =1;lb= 2 ;;", b"=0; ;lb=a=b", b"lb="];
        assert_eq!(found(&headers), [&b"1"[..], b"2", b"a=b", b""]);
    }

    #[test]
    fn an_invalid_cookie_name_has_a_flaw() {
        for name in ["", "a b", "a=b", "a;b", "\u{e9}"] {
            assert!(flaw(name).is_some(), "{name}");
        }
        assert_eq!(flaw("__Host-lb.1"), None);
    }
}
