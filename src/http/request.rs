//! Requests, made by hand: the client's everyday words.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header::HOST};
use http_body_util::Full;
use tower::ServiceExt;

use super::{
    client::Client,
    error::Error,
    replay::{Idempotent, RequestTimeout},
    response::ResponseBody,
};
use crate::{
    broadcast::Broadcast,
    route::{Route, RouteKey},
};

impl Client {
    /// A GET of `path`.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A POST to `path`.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// Any request.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        RequestBuilder::new(self.clone(), method, path)
    }
}

/// A request in the making. Awaiting it sends it.
#[must_use = "a request is sent when it is awaited"]
pub struct RequestBuilder {
    client: Client,
    request: Result<Request<Full<Bytes>>, Error>,
    aim: Option<Aim>,
}

/// Which pod a request is for, or isn't, whatever else it says.
pub(super) struct Aim {
    pub(super) route: Route,
    /// The `Host` of a request that has none.
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
        let invalid = |error: &dyn fmt::Display| Error::request(format_args!("{path:?}: {error}"));
        let request = match path.parse::<Uri>() {
            Ok(uri) if path.starts_with('/') || uri.scheme().is_some() => {
                let mut request = Request::new(Full::default());
                *request.method_mut() = method;
                *request.uri_mut() = uri;
                Ok(request)
            }
            Ok(_) => Err(invalid(&"a path begins with '/'")),
            Err(error) => Err(invalid(&error)),
        };
        Self {
            client,
            request,
            aim: None,
        }
    }

    /// For one pod, or for all but one.
    pub(super) fn aimed(mut self, aim: Aim) -> Self {
        self.aim = Some(aim);
        self
    }

    /// Adds a header.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        self.request = self.request.and_then(|mut request| {
            let name = name
                .try_into()
                .map_err(|error| Error::request(error.into()))?;
            let value = value
                .try_into()
                .map_err(|error| Error::request(error.into()))?;
            request.headers_mut().append(name, value);
            Ok(request)
        });
        self
    }

    /// The body. For one that comes as a stream, call the client as a [`Service`](tower::Service).
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        if let Ok(request) = &mut self.request {
            *request.body_mut() = Full::new(body.into());
        }
        self
    }

    /// It may be executed twice, and so is sent again if it is lost.
    pub fn idempotent(self) -> Self {
        self.extension(Idempotent::default())
    }

    /// How long all of it may take, to the end of the response's body.
    pub fn timeout(self, whole: Duration) -> Self {
        self.extension(RequestTimeout(whole))
    }

    /// The [key](Route::key) of what it is about, beside what else its route says. It comes before a key that the client
    /// [finds itself](super::ClientBuilder::key_from). What a header or the path says is text, so that `.key(7)` is another key than
    /// the header `7`: say `.key("7")`.
    pub fn key(self, key: impl Into<RouteKey>) -> Self {
        let route = self.request.as_ref().ok();
        let route = route.and_then(|request| request.extensions().get::<Route>());
        let route = route.cloned().unwrap_or_default().key(key);
        self.route(route)
    }

    /// Where it wants to go; see [`Route`]. It takes the place of the one before, key included.
    pub fn route(self, route: Route) -> Self {
        self.extension(route)
    }

    /// Sends it to every pod; see [`Client::broadcast`]. One that is for one pod, or for all but one, is an error.
    pub fn broadcast(self) -> Broadcast<Response<ResponseBody>, Error> {
        match self.request {
            Ok(_) if self.aim.is_some() => Broadcast::failed(Error::request(
                "it is for one pod, or for all but one, and can't be for all: ask the client itself",
            )),
            Ok(request) => self.client.broadcast(request),
            Err(error) => Broadcast::failed(error),
        }
    }

    fn extension<T: Clone + Send + Sync + 'static>(mut self, extension: T) -> Self {
        if let Ok(request) = &mut self.request {
            request.extensions_mut().insert(extension);
        }
        self
    }
}

impl IntoFuture for RequestBuilder {
    type Output = Result<Response<ResponseBody>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self {
            client,
            request,
            aim,
        } = self;
        Box::pin(async move {
            let mut request = request?;
            if let Some(aim) = aim {
                aim.apply(&mut request);
            }
            client.oneshot(request).await
        })
    }
}

impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
