//! One request to every pod.

use std::{
    convert::identity,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::{
    body::RequestBody,
    client::{Client, Prepared, Terms},
    error::Error,
    future::ResponseFuture,
    kept_head::again,
    reply::{self, Asked},
    response::ResponseBody,
};
use crate::{
    broadcast::{Asking, Broadcast, Kind},
    endpoint::Endpoint,
    error::{BoxError, SharedError},
    route::Route,
};

type Plain = Response<ResponseBody>;

/// How a broadcast of plain requests treats its answers.
const PLAIN: Kind<Plain, Error> = Kind {
    error: Error::balance,
    check: success,
};

/// How a broadcast made by the client's methods treats its answers.
const BY_METHODS: Kind<reply::Response, Error> = Kind {
    error: Error::balance,
    check: reply::Response::error_for_status,
};

impl Client {
    /// Sends one request to every pod, whatever its method. See [`Broadcast`]. [`RequestBuilder::broadcast`] does so
    /// for a request made by the client's methods; its responses have methods to read the body.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use tower_headless::http::Client;
    ///
    /// # async fn invalidate(client: Client) -> Result<(), tower_headless::http::Error> {
    /// let purge = client.post("/purge").body("user-42").broadcast();
    /// let purged = purge.deadline(Duration::from_secs(2)).all().await?;
    /// for (pod, error) in &purged.failed {
    ///     println!("{pod} still has it: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// - **Its body** is sent to each pod, so it must be complete: `http_body_util`'s `Full<Bytes>` or `Empty`. With a
    ///   stream, the broadcast fails before anything is sent ([`Error::is_request`]);
    ///   [`broadcast_with`](Self::broadcast_with) takes one stream for each pod.
    /// - **A lost request is sent again** if that is safe, like any request and within the same budget, but to the same
    ///   pod. Whatever status a pod answers, no other pod is asked instead.
    /// - **A timeout** of the request, or of the client, applies to each pod, to the end of its response's body. The
    ///   broadcast's own timeouts count only until the response begins.
    /// - **Successes** are the statuses below 400, in the methods that count successes: `all`, `first`, `quorum` and
    ///   `majority`. There, other statuses are errors that have a [status](Error::status). The stream returns all of
    ///   them as responses.
    /// - A [`Route`] in the request's extensions is ignored. If [attempts](super::RequestBuilder::attempts) are
    ///   recorded, each response and error has those of its own pod.
    ///
    /// A response holds its connection, and counts as in flight, until its body has been read or dropped.
    ///
    /// [`RequestBuilder::broadcast`]: super::RequestBuilder::broadcast
    pub fn broadcast<B>(&self, request: Request<B>) -> Broadcast<Response<ResponseBody>, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.broadcast_as(request, PLAIN, identity)
    }

    /// [`broadcast`](Self::broadcast) of a request made by the client's methods.
    pub(super) fn broadcast_asked(
        &self,
        request: Request<RequestBody>,
        asked: Asked,
    ) -> Broadcast<reply::Response, Error> {
        let made = move |answer| reply::Response::new(answer, asked.clone());
        self.broadcast_as(request, BY_METHODS, made)
    }

    fn broadcast_as<B, T>(
        &self,
        request: Request<B>,
        kind: Kind<T, Error>,
        made: impl Fn(Plain) -> T + Clone + Send + Unpin + 'static,
    ) -> Broadcast<T, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        T: Send + 'static,
    {
        if self.is_layered() {
            let request = request.map(RequestBody::new);
            let Some(copy) = again(&request) else {
                return Broadcast::failed(self.named(not_repeatable()));
            };
            // A request that makes no sense makes none for any pod.
            if let Err(error) = self.prepare(copy, None) {
                return Broadcast::failed(self.named(error));
            }
            let request = move |_: &Endpoint| again(&request).ok_or_else(not_repeatable);
            return self.broadcast_layered(request, kind, made);
        }
        let prepared = match self.prepare(request, None) {
            Ok(prepared) if prepared.again().is_some() => prepared,
            Ok(_) => return Broadcast::failed(self.named(not_repeatable())),
            Err(error) => return Broadcast::failed(self.named(error)),
        };
        let prepared = move |_: &Endpoint| prepared.again().ok_or_else(not_repeatable);
        self.broadcast_prepared(prepared, kind, made)
    }

    /// Sends a request to every pod. `request` makes each one when its pod's turn comes, so its body may be a stream.
    ///
    /// In all else it is like [`broadcast`](Self::broadcast). A request that makes no sense is an error of its pod.
    pub fn broadcast_with<B>(
        &self,
        mut request: impl FnMut(&Endpoint) -> Request<B> + Send + 'static,
    ) -> Broadcast<Response<ResponseBody>, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if self.is_layered() {
            let request = move |pod: &Endpoint| Ok(request(pod).map(RequestBody::new));
            return self.broadcast_layered(request, PLAIN, identity);
        }
        let client = self.clone();
        let prepared = move |pod: &Endpoint| {
            let prepared = client.prepare(request(pod), None);
            prepared.map_err(|error| client.named(error))
        };
        self.broadcast_prepared(prepared, PLAIN, identity)
    }

    fn broadcast_prepared<T: Send + 'static>(
        &self,
        mut request: impl FnMut(&Endpoint) -> Result<Prepared, Error> + Send + 'static,
        kind: Kind<T, Error>,
        made: impl Fn(Plain) -> T + Clone + Send + Unpin + 'static,
    ) -> Broadcast<T, Error> {
        let client = self.clone();
        Broadcast::new(self.pods().roster(), kind, move |target| {
            let future = match request(&target.endpoint) {
                Ok(Prepared { request, terms }) => {
                    let terms = Terms {
                        route: terms.route.recorded_apart().member(target.clone()),
                        errors: None,
                        ..terms
                    };
                    client.send(request, terms)
                }
                Err(error) => ResponseFuture::failed(error),
            };
            Box::pin(Answering {
                future,
                made: made.clone(),
            })
        })
    }

    /// Sends each request through the layers, then to its pod.
    fn broadcast_layered<T: Send + 'static>(
        &self,
        mut request: impl FnMut(&Endpoint) -> Result<Request<RequestBody>, Error> + Send + 'static,
        kind: Kind<T, Error>,
        made: impl Fn(Plain) -> T + Clone + Send + Unpin + 'static,
    ) -> Broadcast<T, Error> {
        let client = self.clone();
        Broadcast::new(self.pods().roster(), kind, move |target| {
            let future = match request(&target.endpoint) {
                Ok(mut request) => {
                    let said: Option<Route> = request.extensions_mut().remove();
                    let route = said.unwrap_or_default().recorded_apart();
                    request
                        .extensions_mut()
                        .insert(route.member(target.clone()));
                    // No statuses: a broadcast that counts successes must see errors.
                    client.wait_layered(request, false)
                }
                Err(error) => ResponseFuture::failed(error),
            };
            Box::pin(Answering {
                future,
                made: made.clone(),
            })
        })
    }
}

/// A request to one pod, whose answer is converted to the broadcast's type.
struct Answering<F> {
    future: ResponseFuture,
    made: F,
}

impl<T, F> Future for Answering<F>
where
    F: Fn(Plain) -> T + Unpin,
{
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.future).poll(cx));
        Poll::Ready(answer.map(&self.made))
    }
}

impl<T, F> Asking<T, Error> for Answering<F>
where
    F: Fn(Plain) -> T + Unpin + Send,
{
    fn is_unsent(&self) -> bool {
        self.future.is_unsent()
    }

    fn refusal(&self) -> Option<SharedError> {
        self.future.refusal()
    }
}

impl Prepared {
    /// A copy of the request, if its body can be copied.
    fn again(&self) -> Option<Self> {
        Some(Self {
            request: again(&self.request)?,
            terms: Terms {
                timeout: self.terms.timeout,
                outer: self.terms.outer,
                route: self.terms.route.recorded_apart(),
                tells_timeout: self.terms.tells_timeout,
                names_pod: self.terms.names_pod,
                errors: None,
                followed: None,
            },
        })
    }
}

fn not_repeatable() -> Error {
    Error::request(
        "its body is a stream, which can be sent once: give a broadcast one that is there as a whole (`Full<Bytes>`), \
         or one for each pod (`broadcast_with`)",
    )
}

fn success(response: Plain) -> Result<Plain, Error> {
    let status = response.status();
    match status.is_client_error() || status.is_server_error() {
        true => Err(response.body().error(|pod| Error::answered(pod, status))),
        false => Ok(response),
    }
}
