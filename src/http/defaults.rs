//! The headers and base path that a client adds to its requests, and how much it reads of a whole response.

use http::{HeaderMap, HeaderValue, header::USER_AGENT, uri::PathAndQuery};

use super::secrets;

/// 64 MiB: far above what services answer in one piece (gRPC's own limit is 4 MiB, Finagle's 5, Armeria's 10), and far
/// below a process's memory. A pod that never stops sending costs its caller an error, not the process.
pub(super) const RESPONSE_LIMIT: usize = 64 << 20;

/// The settings, unchecked.
pub(super) struct DefaultSettings {
    pub(super) base_path: String,
    pub(super) headers: HeaderMap,
    pub(super) user_agent: Option<Result<HeaderValue, String>>,
    pub(super) response_limit: usize,
}

impl DefaultSettings {
    pub(super) fn new(base_path: &str) -> Self {
        Self {
            base_path: base_path.to_owned(),
            headers: HeaderMap::new(),
            user_agent: None,
            response_limit: RESPONSE_LIMIT,
        }
    }

    /// Returns what is wrong with the settings if they can't work.
    pub(super) fn build(self) -> Result<Defaults, String> {
        let mut headers = self.headers;
        secrets::mark(&mut headers);
        if let Some(agent) = self.user_agent {
            headers.insert(USER_AGENT, agent?);
        }
        Ok(Defaults {
            base_path: base_path(&self.base_path)?,
            headers,
            response_limit: self.response_limit,
        })
    }
}

/// What all requests of a client share.
pub(super) struct Defaults {
    /// Without a trailing slash; empty if there is none.
    base_path: Box<str>,
    headers: HeaderMap,
    /// In bytes.
    pub(super) response_limit: usize,
}

impl Defaults {
    /// A path below the base path; an empty path is the base path itself.
    pub(super) fn below(&self, path: &str) -> Option<String> {
        let is_below = !self.base_path.is_empty() && (path.is_empty() || path.starts_with('/'));
        is_below.then(|| format!("{}{path}", self.base_path))
    }

    /// Adds the headers that the request doesn't have.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in self.headers.keys() {
            if headers.contains_key(name) {
                continue;
            }
            for value in self.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }
}

fn base_path(path: &str) -> Result<Box<str>, String> {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return Ok(trimmed.into());
    }
    if !path.starts_with('/') || path.starts_with("//") {
        let path = secrets::shown(path);
        return Err(format!("the base path {path:?} has to begin with one '/'"));
    }
    if path.contains(['?', '#']) {
        let (why, path) = (
            "has a query or a fragment: put queries into the requests",
            secrets::shown(path),
        );
        return Err(format!("the base path {path:?} {why}"));
    }
    let parsed = path.parse::<PathAndQuery>();
    parsed.map_err(|error| format!("the base path {path:?}: {error}"))?;
    Ok(trimmed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(base_path: &str) -> Result<Defaults, String> {
        DefaultSettings::new(base_path).build()
    }

    #[test]
    fn paths_are_joined_by_one_slash() {
        for (base, path, whole) in [
            ("/api/v1", "/users", "/api/v1/users"),
            ("/api/v1/", "/users", "/api/v1/users"),
            ("/api/v1//", "/users/", "/api/v1/users/"),
            ("/api/v1", "/", "/api/v1/"),
            ("/api/v1/", "", "/api/v1"),
            ("/api/v1", "/users?a=/b", "/api/v1/users?a=/b"),
        ] {
            let joined = defaults(base).expect("a base path").below(path);
            assert_eq!(joined.as_deref(), Some(whole), "{base} and {path}");
        }
    }

    #[test]
    fn only_paths_are_put_below_a_base_path() {
        let base = defaults("/api").expect("a base path");
        for path in ["users", "?a=b", "http://web/users"] {
            assert_eq!(base.below(path), None, "{path}");
        }
        for none in ["", "/"] {
            let base = defaults(none).expect("no base path");
            assert_eq!(base.below("/users"), None, "{none:?}");
        }
    }

    #[test]
    fn an_invalid_base_path_is_refused() {
        for path in ["api", "//evil", "/a?b", "/a#b", "/a b", "http://web/api"] {
            let why = defaults(path).err().expect("it is none");
            assert!(
                why.contains(&format!("{:?}", secrets::shown(path))),
                "{why}"
            );
        }
    }

    #[test]
    fn a_request_s_own_header_wins_and_defaults_keep_all_their_lines() {
        let mut settings = DefaultSettings::new("/");
        for (name, value) in [("accept", "a"), ("accept", "b"), ("x-team", "default")] {
            (settings.headers).append(name, HeaderValue::from_static(value));
        }
        let defaults = settings.build().expect("defaults");
        let mut headers = HeaderMap::new();
        headers.insert("x-team", HeaderValue::from_static("own"));
        defaults.apply(&mut headers);
        let values = |name| Vec::from_iter(headers.get_all(name));
        assert_eq!(values("accept"), ["a", "b"]);
        assert_eq!(values("x-team"), ["own"]);
    }
}
