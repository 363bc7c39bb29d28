//! The page, in one piece: HTML with its style and its script, which work under a policy that allows nothing else.

use std::sync::LazyLock;

use bytes::Bytes;

/// Cut where the nonce is put in.
static PARTS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let page = include_str!("page.html")
        .replacen("{{style}}", include_str!("page.css"), 1)
        .replacen("{{text}}", include_str!("text.js"), 1)
        .replacen("{{row}}", include_str!("row.js"), 1)
        .replacen("{{page}}", include_str!("page.js"), 1)
        .replacen("{{live}}", include_str!("live.js"), 1);
    let page: &'static str = Box::leak(page.into_boxed_str());
    page.split("{{nonce}}").collect()
});

/// The page, and the policy that lets its own style and script run, by a number that nobody can guess.
pub(super) fn page() -> (Bytes, String) {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    (PARTS.join(&*nonce).into(), policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_piece_and_each_has_a_nonce_of_its_own() {
        let (first, policy) = page();
        let text = std::str::from_utf8(&first).expect("text");
        assert!(!text.contains("{{"), "all is filled in");
        assert_eq!(text.matches("</script>").count(), 1);
        assert_eq!(text.matches("</style>").count(), 1);
        for elsewhere in ["http://", "https://", "@import", "url(", " src="] {
            assert!(!text.contains(elsewhere), "{elsewhere}");
        }
        assert_ne!(policy, page().1);
    }
}
