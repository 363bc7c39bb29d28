//! Responses to requests made by the client's methods.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, uri::PathAndQuery};
use http_body::Body;
use http_body_util::BodyExt;

use super::{
    body::{RequestBody, lossy},
    defaults::RESPONSE_LIMIT,
    error::Error,
    response::ResponseBody,
};
use crate::{attempts::Attempts, endpoint::Endpoint};

/// The response that [`RequestBuilder::send`](super::RequestBuilder::send) resolves to.
///
/// It is an [`http::Response`] (by [`Deref`]: `status()`, `headers()`, `extensions()` …) with methods that read its body.
///
/// ```no_run
/// use tower_headless::http::{Client, Error};
///
/// # async fn read(client: Client) -> Result<(), Error> {
/// let response = client.get("/users/42").await?;
/// if let Some(pod) = response.endpoint() {
///     println!("{} from {pod}", response.status());
/// }
/// let text = response.error_for_status()?.text().await?;
/// # Ok(())
/// # }
/// ```
///
/// # How much is read
///
/// [`bytes`](Self::bytes), [`text`](Self::text) and `json` hold the whole body in memory, up to the [response
/// limit](super::ClientBuilder::response_limit), 64 MiB by default. If its `Content-Length` is larger, nothing is read.
/// [`chunk`](Self::chunk) and [`into_body`](Self::into_body) have no limit: they hold no more than a connection's
/// windows.
///
/// # Errors
///
/// - [`Error::is_body`]: the pod failed while it sent the body.
/// - [`Error::is_timeout`]: the request's [timeout](super::RequestBuilder::timeout), which counts to the end of the
///   body, has passed.
/// - [`Error::is_limit`]: the body is larger than the limit.
/// - [`Error::is_request_body`]: the request's own body, which was still being sent, failed.
///
/// Each but the last names its pod ([`Error::endpoint`]), unless a [layer](super::Client::layer) has made the body. The
/// request was executed in any case, at least in part, and isn't sent again.
///
/// # Cancellation
///
/// Dropping it, or a future that reads it, cancels what is left: the connection is closed (HTTP/1.1), or the stream reset
/// (HTTP/2).
#[derive(Debug)]
pub struct Response {
    inner: http::Response<ResponseBody>,
    /// None if it was converted from a plain response.
    asked: Option<Asked>,
}

/// What a response's errors say of its request, and how much is read.
#[derive(Clone)]
pub(super) struct Asked {
    method: Method,
    path: Option<PathAndQuery>,
    response_limit: usize,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// How many bytes of the response are read at most. The request's extensions carry it from the builder to the sender.
#[derive(Clone, Copy)]
pub(super) struct ResponseLimit(pub(super) usize);

/// A body that is too large to be read as a whole.
#[derive(Debug, thiserror::Error)]
#[error("its body is larger than {0} bytes (`response_limit`): read it piece by piece (`chunk`)")]
struct BodyLimit(usize);

impl Asked {
    pub(super) fn of(request: &Request<RequestBody>, response_limit: usize) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            response_limit,
        }
    }

    /// Without the query, which may have secrets.
    fn text(&self) -> String {
        let path = self.path.as_ref().map_or("/", PathAndQuery::path);
        format!("{} {path}", self.method)
    }
}

impl Response {
    pub(super) fn new(inner: http::Response<ResponseBody>, asked: Asked) -> Self {
        let asked = Some(asked);
        Self { inner, asked }
    }

    /// The pod that answered. None if a [layer](super::Client::layer), a test, or the client itself (a gRPC
    /// [status](super::Client#grpc)) made the response.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.inner.body().endpoint()
    }

    /// What came of the request, attempt by attempt, up to this response. None unless
    /// [recorded](super::RequestBuilder::attempts). It is in the response's extensions.
    pub fn attempts(&self) -> Option<&Attempts> {
        self.inner.extensions().get()
    }

    /// The response, unless its status is an error: 400 to 599.
    ///
    /// # Errors
    ///
    /// If the status is one ([`Error::is_status`], [`Error::status`]). The error names the pod, the status, and the
    /// request's method and path, without its query. The body is dropped: if it matters, check the status yourself. The
    /// connection closes unless the whole body has arrived.
    pub fn error_for_status(self) -> Result<Self, Error> {
        match self.error_for_status_ref() {
            Ok(_) => Ok(self),
            Err(error) => Err(error),
        }
    }

    /// Like [`error_for_status`](Self::error_for_status), but borrows the response.
    ///
    /// # Errors
    ///
    /// If the status is 400 to 599.
    pub fn error_for_status_ref(&self) -> Result<&Self, Error> {
        let status = self.inner.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(self);
        }
        let error = self.body().error(|pod| match &self.asked {
            Some(asked) => Error::status_of(pod, status, asked.text()),
            None => Error::answered(pod, status),
        });
        Err(match self.attempts() {
            Some(attempts) => error.with_attempts(attempts.clone()),
            None => error,
        })
    }

    /// Reads the whole body, up to the [response limit](super::ClientBuilder::response_limit).
    ///
    /// # Errors
    ///
    /// If it can't be [read](Self#errors) to its end.
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
        let limit = self.response_limit();
        if self.inner.body().size_hint().lower() > limit as u64 {
            return Err(self.too_large(limit));
        }
        let Some(first) = self.chunk().await? else {
            return Ok(Bytes::new());
        };
        if first.len() > limit {
            return Err(self.too_large(limit));
        }
        // Most bodies are one piece, which need not be copied.
        let Some(second) = self.chunk().await? else {
            return Ok(first);
        };
        let mut whole = BytesMut::from(&*first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if chunk.len() > limit - whole.len() {
                return Err(self.too_large(limit));
            }
            whole.extend_from_slice(&chunk);
            next = self.chunk().await?;
        }
        Ok(whole.freeze())
    }

    /// Reads the whole body as text, up to the [response limit](super::ClientBuilder::response_limit).
    ///
    /// It is read as UTF-8, whatever charset its `Content-Type` names; invalid bytes become U+FFFD, as in reqwest
    /// without its feature `charset`. A byte order mark stays.
    ///
    /// # Errors
    ///
    /// If it can't be [read](Self#errors) to its end.
    pub async fn text(self) -> Result<String, Error> {
        Ok(lossy(self.bytes().await?))
    }

    /// Reads the whole body as JSON, up to the [response limit](super::ClientBuilder::response_limit). The status and
    /// the `Content-Type` don't matter.
    ///
    /// # Errors
    ///
    /// If it can't be [read](Self#errors) to its end, or isn't the JSON of a `T` ([`Error::is_decode`]). That error
    /// names the pod, the type, the line and the column, and nothing from the body, which may be secret.
    #[cfg(feature = "json")]
    #[cfg_attr(docsrs, doc(cfg(feature = "json")))]
    pub async fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, Error> {
        let origin = self.body().origin().clone();
        let bytes = self.bytes().await?;
        let decoded = super::json::decode(&bytes);
        decoded.map_err(|why| origin.error(|pod| Error::decode(pod, why)))
    }

    /// Waits for the next piece of the body; none at its end. Trailers are skipped: [`into_body`](Self::into_body) has
    /// them.
    ///
    /// ```no_run
    /// # async fn read(client: tower_headless::http::Client) -> Result<(), tower_headless::http::Error> {
    /// let mut response = client.get("/export").await?;
    /// while let Some(chunk) = response.chunk().await? {
    ///     println!("{} bytes", chunk.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// You may drop its future and call it again: no piece is lost.
    ///
    /// # Errors
    ///
    /// If it can't be [read](Self#errors) on. There is no limit.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.inner.body_mut().frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The body, as an [`http_body::Body`].
    pub fn into_body(self) -> ResponseBody {
        self.inner.into_body()
    }

    /// The plain response, as the client returns it as a [`Service`](tower::Service).
    pub fn into_inner(self) -> http::Response<ResponseBody> {
        self.inner
    }

    fn response_limit(&self) -> usize {
        let asked = self.asked.as_ref();
        asked.map_or(RESPONSE_LIMIT, |asked| asked.response_limit)
    }

    fn too_large(&self, limit: usize) -> Error {
        let limit = BodyLimit(limit);
        self.body().error(|pod| Error::limit(pod, limit))
    }
}

impl Deref for Response {
    type Target = http::Response<ResponseBody>;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for Response {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}

/// Has the default response limit; its errors don't have the request's path.
impl From<http::Response<ResponseBody>> for Response {
    fn from(inner: http::Response<ResponseBody>) -> Self {
        Self { inner, asked: None }
    }
}

impl From<Response> for http::Response<ResponseBody> {
    fn from(response: Response) -> Self {
        response.inner
    }
}
