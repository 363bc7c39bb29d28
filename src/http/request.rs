//! The client's request methods, and the requests they build.

mod content;
mod content_type;

use std::{
    fmt,
    future::{Future, IntoFuture},
    time::Duration,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{CONTENT_TYPE, HOST},
};

use self::content_type::Content;
use super::{
    address,
    body::RequestBody,
    client::Client,
    error::Error,
    header_name,
    replay::{Idempotent, RequestTimeout},
    reply::{Asked, Response, ResponseLimit},
    secrets,
    send::SendFuture,
};
use crate::{
    attempts::AttemptLog,
    broadcast::Broadcast,
    route::{Route, RouteKey},
};

/// Writes the request methods of a client that has `fn builder_of(&self, Method, &str) -> RequestBuilder`.
macro_rules! request_methods {
    ($client:ty) => {
        impl $client {
            /// A GET of `path`. It may be a whole URI of the service, too.
            ///
            /// See [`RequestBuilder`](crate::http::RequestBuilder) for its response and its errors.
            pub fn get(&self, path: impl AsRef<str>) -> $crate::http::RequestBuilder {
                self.request(::http::Method::GET, path)
            }

            /// A HEAD of `path`.
            pub fn head(&self, path: impl AsRef<str>) -> $crate::http::RequestBuilder {
                self.request(::http::Method::HEAD, path)
            }

            /// A POST to `path`.
            pub fn post(&self, path: impl AsRef<str>) -> $crate::http::RequestBuilder {
                self.request(::http::Method::POST, path)
            }

            /// A PUT to `path`.
            pub fn put(&self, path: impl AsRef<str>) -> $crate::http::RequestBuilder {
                self.request(::http::Method::PUT, path)
            }

            /// A PATCH of `path`.
            pub fn patch(&self, path: impl AsRef<str>) -> $crate::http::RequestBuilder {
                self.request(::http::Method::PATCH, path)
            }

            /// A DELETE of `path`.
            pub fn delete(&self, path: impl AsRef<str>) -> $crate::http::RequestBuilder {
                self.request(::http::Method::DELETE, path)
            }

            /// An OPTIONS of `path`.
            pub fn options(&self, path: impl AsRef<str>) -> $crate::http::RequestBuilder {
                self.request(::http::Method::OPTIONS, path)
            }

            /// A request with any method.
            pub fn request(
                &self,
                method: ::http::Method,
                path: impl AsRef<str>,
            ) -> $crate::http::RequestBuilder {
                self.builder_of(method, path.as_ref())
            }
        }
    };
}

pub(super) use request_methods;

request_methods!(Client);

impl Client {
    /// Sends a request that is already built, for example by [`RequestBuilder::build`]. Its response has methods to
    /// read the body, unlike that of [`call`](tower::Service::call). It is sent unchanged: its path isn't below the
    /// base path, unless it was built so.
    ///
    /// ```no_run
    /// # async fn send(client: tower_headless::http::Client) -> Result<(), tower_headless::http::Error> {
    /// let request = client.get("/users").response_limit(1 << 20).build()?;
    /// let users = client.execute(request).await?.text().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`RequestBuilder::send`].
    pub fn execute<B: Into<RequestBody>>(&self, request: Request<B>) -> SendFuture {
        SendFuture::new(self.clone(), Ok(request.map(Into::into)))
    }

    fn builder_of(&self, method: Method, path: &str) -> RequestBuilder {
        RequestBuilder::new(self.clone(), method, path)
    }

    pub(super) fn response_limit(&self, own: Option<usize>) -> usize {
        own.unwrap_or(self.defaults().response_limit)
    }
}

/// A request that is being built, made by [`Client::get`] and the other methods. Await it, or call
/// [`send`](Self::send), to send it.
///
/// ```no_run
/// use std::time::Duration;
/// use tower_headless::http::{Client, Error};
///
/// # async fn search(client: Client) -> Result<(), Error> {
/// let response = client
///     .get("/users")
///     .query(&[("name", "Zoë"), ("limit", "10")])
///     .bearer_auth("token")
///     .timeout(Duration::from_secs(2))
///     .send()
///     .await?
///     .error_for_status()?;
/// println!("{}", response.text().await?);
/// # Ok(())
/// # }
/// ```
///
/// Its path begins with a slash and is below the client's [base path](super::ClientBuilder::base_path); or it is a
/// whole URI of the service. A path that begins with two slashes names another host (RFC 3986 §4.2), so it is an error,
/// like a URI of [another service](Error::is_foreign). An empty path, or only a query (`?a=b`), is an error unless
/// there is a base path. `*` is for OPTIONS. Below a base path no segment may be `..`, percent-encoded or not, with
/// path parameters (`..;a=b`) or without: servers would look above it.
///
/// The client's [default headers](super::ClientBuilder::default_headers) are added when it is sent. Redirects are not
/// followed: a 3xx is an ordinary answer.
///
/// # Errors
///
/// A request that makes no sense, for example with a line break in a header or a body that can't be encoded, fails when
/// it is sent: [`Error::is_request`]. The text says what is wrong; of several errors it is the first. No status is an
/// error by itself: see [`Response::error_for_status`](super::Response::error_for_status).
#[must_use = "a request is sent when it is awaited"]
pub struct RequestBuilder {
    client: Client,
    request: Result<Request<RequestBody>, Error>,
    aim: Option<Aim>,
    content: Content,
    /// Overrides the client's limit.
    response_limit: Option<usize>,
}

/// Which pod a request is for, or which one it avoids, whatever its own route says.
pub(super) struct Aim {
    pub(super) route: Route,
    /// The `Host` header, if the request has none itself.
    pub(super) host: Option<HeaderValue>,
}

impl Aim {
    pub(super) fn apply<B>(self, request: &mut Request<B>) {
        let route: Option<Route> = request.extensions_mut().remove();
        let route = route.unwrap_or_default().pinned_as(&self.route);
        request.extensions_mut().insert(route);
        if let Some(host) = self.host {
            request.headers_mut().entry(HOST).or_insert(host);
        }
    }
}

impl RequestBuilder {
    pub(super) fn new(client: Client, method: Method, path: &str) -> Self {
        let request = uri(&client, path).map(|uri| {
            let mut request = Request::new(RequestBody::EMPTY);
            *request.method_mut() = method;
            *request.uri_mut() = uri;
            request
        });
        Self {
            response_limit: None,
            client,
            request,
            aim: None,
            content: Content::default(),
        }
    }

    /// Makes the request for one pod, or for all but one.
    pub(super) fn aimed(mut self, aim: Aim) -> Self {
        self.aim = Some(aim);
        self
    }

    /// Adds a header, and keeps those of the same name. `Authorization`, `Proxy-Authorization` and `Cookie` are marked
    /// sensitive: `Debug` doesn't show them, and HTTP/2 doesn't index them.
    pub fn header<N, V>(self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>> + AsRef<[u8]>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        self.try_with(|request, content| {
            let name = header_name::parse(name).map_err(Error::request)?;
            let mut value: HeaderValue = value.try_into().map_err(|error| {
                Error::request(format_args!("the header {name}: {}", error.into()))
            })?;
            if secrets::is_secret(&name) {
                value.set_sensitive(true);
            }
            if name == CONTENT_TYPE {
                content.forget(request);
            }
            request.headers_mut().append(name, value);
            Ok(())
        })
    }

    /// Adds headers, and replaces those of the same names. Credentials are marked sensitive, as by
    /// [`header`](Self::header).
    pub fn headers(self, mut headers: HeaderMap) -> Self {
        secrets::mark(&mut headers);
        self.try_with(|request, content| {
            if headers.contains_key(CONTENT_TYPE) {
                content.forget(request);
            }
            request.headers_mut().extend(headers);
            Ok(())
        })
    }

    /// The body: bytes or text, or any [`http_body::Body`] by [`RequestBody::new`].
    ///
    /// A stream can be sent only once. If its pod fails, no other pod gets the request, unless nothing of the stream
    /// has been read or the request is [`idempotent`](Self::idempotent).
    ///
    /// ```no_run
    /// use http_body_util::StreamBody;
    /// use tower_headless::http::{Client, Error, RequestBody};
    ///
    /// # async fn upload(client: Client) -> Result<(), Error> {
    /// client.post("/notes").body("hello").await?;
    /// # let frames = futures::stream::iter([Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::new()))]);
    /// client.put("/file").body(RequestBody::new(StreamBody::new(frames))).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The `Content-Type` stays as you set it. One that an earlier [form](Self::form) or JSON body has set is removed.
    pub fn body(self, body: impl Into<RequestBody>) -> Self {
        self.try_with(|request, content| {
            content.forget(request);
            *request.body_mut() = body.into();
            Ok(())
        })
    }

    /// Says that the request may be executed twice. So it is sent again if it is lost, or answered with 502, 503 or
    /// 504; see [`Idempotent`].
    pub fn idempotent(self) -> Self {
        self.extension(Idempotent::default())
    }

    /// How long the whole request may take, to the end of the response's body and with all retries. It overrides the
    /// client's [timeout](super::ClientBuilder::timeout); `Duration::MAX` is no limit. It is a [`RequestTimeout`] in
    /// the request's extensions.
    pub fn timeout(self, whole: Duration) -> Self {
        self.extension(RequestTimeout(whole))
    }

    /// How many bytes of the response's body [`bytes`](super::Response::bytes), `text` and `json` read at most. It
    /// overrides the [client's limit](super::ClientBuilder::response_limit). `usize::MAX` is no limit.
    pub fn response_limit(mut self, bytes: usize) -> Self {
        self.response_limit = Some(bytes);
        self
    }

    /// The request's [key](Route::key): with [`ConsistentHash`](crate::ConsistentHash), requests of one key go to one
    /// pod. It overrides a key that the client [finds itself](super::ClientBuilder::key_from). Keys from a header or
    /// the path are text, so write `.key("7")` to match them: `.key(7)` is another key. The rest of the request's route
    /// stays. Of this crate's other policies none looks at it, and the client logs that once.
    pub fn key(self, key: impl Into<RouteKey>) -> Self {
        let route = self.own_route().key(key);
        self.route(route)
    }

    /// Where the request wants to go; see [`Route`]. It replaces the route that was set before, including its
    /// [key](Self::key).
    pub fn route(self, route: Route) -> Self {
        let route = match self.own_route().log() {
            Some(log) if route.log().is_none() => route.record(log),
            _ => route,
        };
        self.extension(route)
    }

    /// Records each attempt in the response, or in the error: which pod, why that one, what came of it, and how long it
    /// waited for what. See [`Attempts`](crate::Attempts).
    ///
    /// ```no_run
    /// # async fn get(client: tower_headless::http::Client) -> Result<(), tower_headless::http::Error> {
    /// let answer = client.get("/users").attempts().await;
    /// let attempts = match &answer {
    ///     Ok(response) => response.attempts(),
    ///     Err(error) => error.attempts(),
    /// };
    /// if let Some(attempts) = attempts.filter(|attempts| attempts.list.len() > 1) {
    ///     eprintln!("it took more than one attempt:\n{attempts}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// For a gRPC call, or any request of the client as a [`Service`](tower::Service), put
    /// [`Route::record`] into the request's extensions.
    pub fn attempts(self) -> Self {
        let route = self.own_route().record(&AttemptLog::new());
        self.extension(route)
    }

    fn own_route(&self) -> Route {
        let request = self.request.as_ref().ok();
        let route = request.and_then(|request| request.extensions().get());
        route.cloned().unwrap_or_default()
    }

    /// Adds a value for the layers around the client, or for the client itself: one value of each type.
    pub fn extension<T: Clone + Send + Sync + 'static>(self, extension: T) -> Self {
        self.with(|request| drop(request.extensions_mut().insert(extension)))
    }

    /// Sends the request to every pod, or for a client of [`others`](super::Client::others), to all but one; see
    /// [`Client::broadcast`].
    ///
    /// ```no_run
    /// # async fn replicate(client: tower_headless::http::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let peers = client.others(std::env::var("POD_IP")?);
    /// let copies = peers.put("/user-42").body("...").broadcast().majority().await?;
    /// for (pod, copy) in copies {
    ///     println!("{pod}: {}", copy.text().await?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A request of a client of [one pod](super::Client::pod) can't be broadcast: that is an error.
    pub fn broadcast(self) -> Broadcast<Response, Error> {
        let left_out = match self.aim.as_ref().map(|aim| &aim.route) {
            Some(route) if route.is_for_one() => {
                return Broadcast::failed(self.client.named(Error::request(
                    "a request for one pod can't be broadcast: use the client itself, or `others`",
                )));
            }
            route => route.and_then(Route::left_out).cloned(),
        };
        let broadcast = match self.request {
            Ok(request) => {
                let limit = self.client.response_limit(self.response_limit);
                let asked = Asked::of(&request, limit);
                self.client.broadcast_asked(request, asked)
            }
            Err(error) => Broadcast::failed(self.client.named(error)),
        };
        match left_out {
            Some(pod) => broadcast.leave_out(pod),
            None => broadcast,
        }
    }

    /// Builds the request, for [`Client::execute`], or for a client as a [`Service`](tower::Service). Its extensions
    /// have the [`Route`] to its pod; the client's default headers are not added yet. Only `execute` respects its
    /// [response limit](Self::response_limit).
    ///
    /// # Errors
    ///
    /// The errors that [`send`](Self::send) returns before anything is sent ([`Error::is_request`]).
    pub fn build(self) -> Result<Request<RequestBody>, Error> {
        let mut request = self.request.map_err(|error| self.client.named(error))?;
        if let Some(aim) = self.aim {
            aim.apply(&mut request);
        }
        if let Some(limit) = self.response_limit {
            request.extensions_mut().insert(ResponseLimit(limit));
        }
        Ok(request)
    }

    /// Sends the request when the future is first polled. Awaiting the builder itself does the same.
    ///
    /// You can [spawn](tokio::spawn), join or instrument the future: it is `Send`, `Unpin` and `'static`. It must be
    /// polled within a tokio runtime. Dropping it cancels the request.
    ///
    /// # Errors
    ///
    /// If the request makes no sense, no pod takes it, its pod fails, or there is no answer in time: see [`Error`].
    pub fn send(self) -> SendFuture {
        SendFuture::new(self.client.clone(), self.build())
    }

    /// Copies the request. None if its body is a stream, or if it has an error already.
    pub fn try_clone(&self) -> Option<Self> {
        let mut request = super::kept_head::again(self.request.as_ref().ok()?)?;
        let route = self.own_route();
        if route.log().is_some() {
            // The copy gets a log of its own.
            let route = route.record(&AttemptLog::new());
            request.extensions_mut().insert(route);
        }
        let aim = self.aim.as_ref().map(|aim| Aim {
            route: aim.route.clone(),
            host: aim.host.clone(),
        });
        Some(Self {
            client: self.client.clone(),
            request: Ok(request),
            aim,
            content: self.content,
            response_limit: self.response_limit,
        })
    }

    fn with(self, change: impl FnOnce(&mut Request<RequestBody>)) -> Self {
        self.try_with(|request, _| {
            change(request);
            Ok(())
        })
    }

    /// Keeps the first error.
    fn try_with(
        mut self,
        change: impl FnOnce(&mut Request<RequestBody>, &mut Content) -> Result<(), Error>,
    ) -> Self {
        if let Ok(request) = &mut self.request
            && let Err(error) = change(request, &mut self.content)
        {
            self.request = Err(error);
        }
        self
    }
}

/// The URI that `path` stands for: a path below the client's base path, or a whole URI.
fn uri(client: &Client, path: &str) -> Result<Uri, Error> {
    let shown = || secrets::shown(path);
    let invalid = |error: &dyn fmt::Display| Error::request(format_args!("{:?}: {error}", shown()));
    address::Service::check_text(path)?;
    let below = client.defaults().below(path);
    let uri = below.as_deref().unwrap_or(path).parse::<Uri>();
    let uri = uri.map_err(
        |error| match path.is_empty() || path.starts_with(['?', '#']) {
            true => invalid(&"a path begins with '/'"),
            false => invalid(&error),
        },
    )?;
    // Some parsers take `/\host` for `//host`.
    if path.starts_with('/') && !secrets::is_plain_path(path) {
        return Err(client.service().another_host(path));
    }
    if below.is_some() && climbs(uri.path()) {
        let why = "a path below a base path has no `..` in it, nor `..;`: write a whole URI of the service";
        return Err(invalid(&why));
    }
    match below.is_some() || path.starts_with('/') || uri.scheme().is_some() || path == "*" {
        true => Ok(uri),
        false => Err(invalid(&"a path begins with '/'")),
    }
}

/// Whether a path has a `..` segment, in any spelling that servers may decode: encoded once or several times, after a
/// backslash, or with path parameters (RFC 3986 §3.3), which some servers drop before they resolve the path.
fn climbs(path: &str) -> bool {
    let mut path = path.to_ascii_lowercase();
    while path.contains("%25") {
        path = path.replace("%25", "%");
    }
    let path = path.replace("%2e", ".").replace("%3b", ";");
    let path = path.replace("%2f", "/").replace("%5c", "/");
    path.split(['/', '\\'])
        .any(|segment| segment.split(';').next() == Some(".."))
}

impl IntoFuture for RequestBuilder {
    type Output = <SendFuture as Future>::Output;
    type IntoFuture = SendFuture;

    fn into_future(self) -> SendFuture {
        self.send()
    }
}

/// Hides the query, `Authorization` and `Cookie`.
impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RequestBuilder");
        match &self.request {
            Ok(request) => shown
                .field("method", request.method())
                .field("uri", &secrets::shown_uri(request.uri()))
                .field("headers", request.headers()),
            Err(error) => shown.field("error", error),
        };
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::climbs;

    fn spelled(spellings: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::sample::select(spellings).prop_map(str::to_owned)
    }

    fn dot() -> impl Strategy<Value = String> {
        spelled(&[".", "%2e", "%2E", "%252e", "%25252E"])
    }

    fn slash() -> impl Strategy<Value = String> {
        spelled(&["/", "\\", "%2f", "%2F", "%5c", "%5C", "%252f"])
    }

    fn parameters() -> impl Strategy<Value = String> {
        spelled(&["", ";", ";x=1", "%3b", "%3B", "%253bx", ";..", ";a;b"])
    }

    /// Segments that don't lead up, with the separator before each.
    fn beside() -> impl Strategy<Value = String> {
        let segment = spelled(&["", "a", ".", "...", "..a", "a..", "%2e", ".%20.", "..%00"]);
        let segments = prop::collection::vec((slash(), segment, parameters()), 0..4);
        segments.prop_map(|all| {
            let all = all
                .into_iter()
                .map(|(slash, segment, parameters)| slash + &segment + &parameters);
            all.collect()
        })
    }

    proptest! {
        #[test]
        fn every_spelling_of_a_segment_that_leads_up_is_found(
            before in beside(),
            up in (slash(), dot(), dot(), parameters()),
            after in beside(),
        ) {
            let (slash, one, other, parameters) = up;
            let path = format!("/{before}{slash}{one}{other}{parameters}{after}");
            prop_assert!(climbs(&path), "{path}");
        }

        #[test]
        fn segments_that_do_not_lead_up_are_let_through(path in beside()) {
            prop_assert!(!climbs(&path), "{path}");
        }
    }
}
