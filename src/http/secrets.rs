//! Keeps secrets out of errors and `Debug`: queries, user information, credentials.

use http::{
    HeaderMap, HeaderName, Uri,
    header::{AUTHORIZATION, COOKIE, Entry, PROXY_AUTHORIZATION},
};

/// The text of a URI or path for errors: without its query, and without anything before an '@'.
///
/// A password may contain any character, even slashes. So an '@' after the first slash may end a password, and nothing
/// of such an authority is shown. In a plain path an '@' is an ordinary character.
pub(super) fn shown(text: &str) -> String {
    if is_plain_path(text) {
        return without_query(text).to_owned();
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            (Some(scheme), rest)
        }
        _ => (None, text),
    };
    let before = match scheme {
        // An unknown scheme may be the beginning of what the '@' ends.
        Some(scheme) if text.contains('@') && !is_http(scheme) => "…://".to_owned(),
        Some(scheme) => format!("{scheme}://"),
        None if text.starts_with("//") => "//".to_owned(),
        None => String::new(),
    };
    let rest = match scheme {
        Some(_) => rest,
        None => rest.strip_prefix("//").unwrap_or(rest),
    };
    let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if rest.contains('@') {
        return format!("{before}…");
    }
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{before}{host}{}", without_query(rest))
}

fn is_http(scheme: &str) -> bool {
    ["http", "https"]
        .iter()
        .any(|http| scheme.eq_ignore_ascii_case(http))
}

/// Whether it begins with exactly one slash. Some parsers treat a backslash as a slash, and drop line breaks and tabs.
pub(super) fn is_plain_path(text: &str) -> bool {
    let mut all = text.chars().filter(|it| !matches!(it, '\t' | '\r' | '\n'));
    all.next() == Some('/') && !matches!(all.next(), Some('/' | '\\'))
}

/// A URI for `Debug` and errors.
pub(super) fn shown_uri(uri: &Uri) -> String {
    shown(&uri.to_string())
}

fn without_query(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

/// Whether a header's values are credentials: if marked, `Debug` doesn't show them, and HTTP/2 doesn't index them.
pub(super) fn is_secret(name: &HeaderName) -> bool {
    SECRET.contains(name)
}

const SECRET: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// Marks credentials as sensitive.
pub(super) fn mark(headers: &mut HeaderMap) {
    for name in SECRET {
        if let Entry::Occupied(mut values) = headers.entry(name) {
            values
                .iter_mut()
                .for_each(|value| value.set_sensitive(true));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_user_information_are_not_shown() {
        for (text, expected) in [
            ("/cb?token=hunter2\n", "/cb"),
            ("/cb#hunter2", "/cb"),
            ("/@me/x y", "/@me/x y"),
            ("http://u:hunter2@web/ x", "http://web/ x"),
            ("http://u:hunter2@web:80/ x?y=z", "http://web:80/ x"),
            ("http://u@hunter2@web/ x", "http://web/ x"),
            ("http://u:hunter/2@web/", "http://…"),
            ("HTTP://hunter/2@web/", "HTTP://…"),
            ("http:///u:hunter2@web/x", "http://…"),
            ("http://web/?a=hunter2@b", "http://…"),
            ("ftp://u:hunter2@web/x", "…://web/x"),
            ("hunter2://u@web/x", "…://web/x"),
            ("ftp://web/x", "ftp://web/x"),
            ("///u:hunter2@evil", "//…"),
            ("//hunter/2@evil", "//…"),
            ("/\\u:hunter2@evil", "…"),
            ("/\t/u:hunter2@evil", "…"),
            ("\\\\u:hunter2@evil", "…"),
            (" http://u:hunter2@evil", "…"),
            ("http://u:hunter?2@web/", "http://…"),
            ("//bob:hunter2@evil/x", "//evil/x"),
            ("bob:hunter2@evil/x", "evil/x"),
            ("users?token=hunter2", "users"),
            ("?token=http://hunter2", ""),
            ("", ""),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }
}
