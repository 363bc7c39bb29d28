//! The page in one piece: HTML with its style and script. They work under a content security policy that allows nothing
//! else.

use std::sync::LazyLock;

use bytes::Bytes;

/// The page, cut at the places for the nonce.
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

/// The page, and the content security policy that lets its own style and script run, by a nonce that nobody can guess.
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
    fn each_answer_of_the_page_is_complete_and_has_its_own_nonce() {
        let (first, policy) = page();
        let text = std::str::from_utf8(&first).expect("text");
        assert!(!text.contains("{{"), "a placeholder is left");
        assert_eq!(text.matches("</script>").count(), 1);
        assert_eq!(text.matches("</style>").count(), 1);
        for elsewhere in ["http://", "https://", "@import", "url(", " src="] {
            assert!(!text.contains(elsewhere), "{elsewhere}");
        }
        assert_ne!(policy, page().1);
    }
}
