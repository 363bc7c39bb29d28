//! Settings of requests that are made by the client's methods, and of how their responses are read.

use http::{HeaderMap, HeaderValue};

use super::ClientBuilder;

impl<D> ClientBuilder<D> {
    /// Headers of every request that hasn't any of their names; none by default. Called several times, the later ones take the
    /// place of those before of the same name.
    ///
    /// They are added to requests that are made by the client's [methods](crate::http::RequestBuilder), and to those of the client
    /// as a [`Service`](tower::Service), but not to [health checks](Self::health_check). A request's own header wins, with all of
    /// its lines.
    ///
    /// A request for [another service](Self::allow_foreign_authority) gets none of them, nor the [`User-Agent`](Self::user_agent): they
    /// may be credentials, and it may come of a redirect that a layer follows.
    pub fn default_headers(mut self, headers: HeaderMap) -> Self {
        self.defaults.headers.extend(headers);
        self
    }

    /// The `User-Agent` of every request that hasn't any; none by default, and then no such header is sent.
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

    /// Paths of requests are below this one: with `/api/v1`, `client.get("/users")` asks for `/api/v1/users`. By default, the path
    /// of the URI that the client was [built of](crate::http::Client::builder), if it has one; this takes its place.
    ///
    /// - A slash at its end changes nothing: `/api/v1/` is the same. An empty path of a request is the base path itself, `/api/v1`,
    ///   and `/` is `/api/v1/`.
    /// - It counts for requests made by [`Client::get`](crate::http::Client::get) and the other methods, also to one pod and to all.
    ///   Requests of the client as a [`Service`](tower::Service), whole URIs, and [health checks](Self::health_check) stay as they
    ///   are.
    ///
    /// A path below it has no segment `..`, percent-encoded or not: that is an [error](crate::http::Error::is_request), because
    /// servers would look above the base path. Without a base path, an empty path is an error, too.
    ///
    /// [`build`](Self::build) fails if it doesn't begin with one slash, has a query, or can't be a path.
    pub fn base_path(mut self, path: impl Into<String>) -> Self {
        self.defaults.base_path = path.into();
        self
    }

    /// How many bytes of a response's body [`bytes`](crate::http::Response::bytes), `text` and `json` read at most: 64 MiB by
    /// default. `usize::MAX` is no limit. A request may have [its own](crate::http::RequestBuilder::response_limit).
    ///
    /// It is on by default, so that a pod that sends without end takes no more than this of the process's memory for each response
    /// that is read. A larger body is the client's error ([`Error::is_limit`](crate::http::Error::is_limit)), and the pod isn't blamed.
    /// What is read piece by piece has no limit.
    pub fn response_limit(mut self, bytes: usize) -> Self {
        self.defaults.response_limit = bytes;
        self
    }
}
