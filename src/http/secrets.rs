//! What is kept out of errors and of `Debug`: queries, user information, credentials.

use http::{
    HeaderMap, HeaderName, Uri,
    header::{AUTHORIZATION, COOKIE, Entry, PROXY_AUTHORIZATION},
};

/// What a caller has written for a URI or a path, as errors show it: without its query, and without its user information.
pub(super) fn shown(text: &str) -> String {
    let (before, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            (text.len() - rest.len(), rest)
        }
        _ if text.starts_with("//") => (2, &text[2..]),
        // A path, in which an '@' is like any other character.
        _ if text.starts_with('/') => return without_query(text).to_owned(),
        _ => (0, text),
    };
    let before = &text[..before];
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    // A password may have a slash in it, and then what looks like a port is its beginning.
    if host.contains(':') && rest.contains('@') {
        return format!("{before}…");
    }
    format!("{before}{host}{}", without_query(rest))
}

/// A URI as `Debug` and errors show it.
pub(super) fn shown_uri(uri: &Uri) -> String {
    shown(&uri.to_string())
}

fn without_query(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

/// Whether a header's values are credentials: `Debug` doesn't show those that are marked, and HTTP/2 doesn't index them.
pub(super) fn is_secret(name: &HeaderName) -> bool {
    SECRET.contains(name)
}

const SECRET: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// Marks the values of headers that are credentials.
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
