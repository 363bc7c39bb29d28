//! Names, in the form in which the server compares them.

/// A name as the zone keeps it: lower case, without the trailing dot.
pub(super) fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Panics at the caller if a message can't hold the name.
#[track_caller]
pub(super) fn check(name: &str) {
    let longest = name.split('.').max_by_key(|label| label.len());
    let label = longest.unwrap_or_default();
    assert!(
        label.len() < 64,
        "a DNS name's labels have 63 bytes at most (RFC 1035 §2.3.4): {label:?}"
    );
    assert!(
        normal(name).len() < 254,
        "a DNS name has 253 characters at most (RFC 1035 §2.3.4): {name:?}"
    );
}
