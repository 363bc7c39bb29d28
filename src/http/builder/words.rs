//! Settings of requests made by the client's methods, and of how their responses are read.

use http::{HeaderMap, HeaderValue};

use super::ClientBuilder;

impl<D> ClientBuilder<D> {
    /// Headers for every request that has none of the same name; none by default. A later call replaces headers of the
    /// same name that an earlier one set.
    ///
    /// They are added to requests that are made by the client's [methods](crate::http::RequestBuilder), and to those of
    /// the client as a [`Service`](tower::Service), but not to [health checks](Self::health_check). A request's own
    /// header wins, with all its lines.
    ///
    /// A request for [another service](Self::allow_foreign_authority) gets neither these headers nor the
    /// [`User-Agent`](Self::user_agent): they may be credentials, and the request may come from a redirect that a layer
    /// follows.
    pub fn default_headers(mut self, headers: HeaderMap) -> Self {
        self.defaults.headers.extend(headers);
        self
    }

    /// The `User-Agent` of every request that has none; not sent by default.
    ///
    /// [`build`](Self::build) fails if it can't be a header's value.
    pub fn user_agent<V>(mut self, agent: V) -> Self
    where
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        let agent = agent.try_into().map_err(Into::into);
        let agent = agent.map_err(|error: http::Error| format!("the user agent: {error}"));
        self.defaults.user_agent = Some(agent);
        self
    }

    /// The path below which requests go: with `/api/v1`, `client.get("/users")` asks for `/api/v1/users`. The default
    /// is the path of the URI that the client was [built from](crate::http::Client::builder), if it has one.
    ///
    /// - A trailing slash makes no difference: `/api/v1/` is the same. A request's empty path is the base path itself,
    ///   `/api/v1`, and `/` is `/api/v1/`.
    /// - It applies to requests made by [`Client::get`](crate::http::Client::get) and the other methods, including
    ///   those to one pod and to all. Requests of the client as a [`Service`](tower::Service), whole URIs, and [health
    ///   checks](Self::health_check) are left unchanged.
    ///
    /// A path below it may have no `..` segment, percent-encoded or not: that is an
    /// [error](crate::http::Error::is_request), because servers would look above the base path. Without a base path, an
    /// empty path is an error, too.
    ///
    /// [`build`](Self::build) fails if it doesn't begin with one slash, has a query, or can't be a path.
    pub fn base_path(mut self, path: impl Into<String>) -> Self {
        self.defaults.base_path = path.into();
        self
    }

    /// How many bytes of a response's body [`bytes`](crate::http::Response::bytes), `text` and `json` read at most: 64
    /// MiB by default. `usize::MAX` is no limit. A request may have [its
    /// own](crate::http::RequestBuilder::response_limit).
    ///
    /// It is on by default so that a pod that never stops sending can't fill the process's memory. A larger body is the
    /// client's error ([`Error::is_limit`](crate::http::Error::is_limit)), and the pod isn't blamed. Bodies that are
    /// read piece by piece have no limit.
    pub fn response_limit(mut self, bytes: usize) -> Self {
        self.defaults.response_limit = bytes;
        self
    }
}
