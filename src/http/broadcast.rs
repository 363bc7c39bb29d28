//! The same request to every pod.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::{
    body::RequestBody,
    client::{Client, Prepared},
    error::Error,
    future::ResponseFuture,
    kept_head::again,
    response::ResponseBody,
};
use crate::{
    broadcast::{Broadcast, Kind},
    endpoint::Endpoint,
    error::BoxError,
    route::Route,
};

/// How pods answer a broadcast over HTTP.
const KIND: Kind<Response<ResponseBody>, Error> = Kind {
    error: Error::balance,
    check: success,
};

impl Client {
    /// Sends one request to every pod, whatever its method. See [`Broadcast`], and [`RequestBuilder::broadcast`] for a
    /// request made by the client's methods.
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
    /// - **Its body** is sent once to each pod, so it has to be there as a whole: `http_body_util`'s `Full<Bytes>` or `Empty`.
    ///   With a stream, the broadcast fails before anything is sent ([`Error::is_request`]);
    ///   [`broadcast_with`](Self::broadcast_with) takes one for each pod.
    /// - **What is lost is sent again** where that is safe, as with any request and within the same budget, but to the same
    ///   pod. Whatever status a pod answers, no other pod is asked instead.
    /// - **A timeout** of the request's own, or of the client's, is each pod's, to the end of its response's body. The
    ///   broadcast's are until the response begins.
    /// - **Successes** are the statuses below 400, where successes are counted: in `all`, `first`, `quorum` and `majority`. There
    ///   the others are errors that have a [status](Error::status). The stream has them all as responses.
    /// - A [`Route`] in the request's extensions is ignored.
    ///
    /// A response holds its connection, and counts as in flight, until its body has been read or dropped.
    ///
    /// [`RequestBuilder::broadcast`]: super::RequestBuilder::broadcast
    pub fn broadcast<B>(&self, request: Request<B>) -> Broadcast<Response<ResponseBody>, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if self.is_layered() {
            let request = request.map(RequestBody::new);
            let Some(copy) = again(&request) else {
                return Broadcast::failed(self.named(not_repeatable()));
            };
            // One that makes no sense does so for no pod.
            if let Err(error) = self.prepare(copy, None) {
                return Broadcast::failed(self.named(error));
            }
            return self.broadcast_layered(move |_| again(&request).ok_or_else(not_repeatable));
        }
        let prepared = match self.prepare(request, None) {
            Ok(prepared) if prepared.again().is_some() => prepared,
            Ok(_) => return Broadcast::failed(self.named(not_repeatable())),
            Err(error) => return Broadcast::failed(self.named(error)),
        };
        self.broadcast_prepared(move |_| prepared.again().ok_or_else(not_repeatable))
    }

    /// A request to every pod, made for each by `request`, when its turn comes; of bodies that are streams as well.
    ///
    /// Otherwise as [`broadcast`](Self::broadcast). A request that makes no sense is its pod's error.
    pub fn broadcast_with<B>(
        &self,
        mut request: impl FnMut(&Endpoint) -> Request<B> + Send + 'static,
    ) -> Broadcast<Response<ResponseBody>, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if self.is_layered() {
            return self.broadcast_layered(move |pod| Ok(request(pod).map(RequestBody::new)));
        }
        let client = self.clone();
        self.broadcast_prepared(move |pod| {
            let prepared = client.prepare(request(pod), None);
            prepared.map_err(|error| client.named(error))
        })
    }

    fn broadcast_prepared(
        &self,
        mut request: impl FnMut(&Endpoint) -> Result<Prepared, Error> + Send + 'static,
    ) -> Broadcast<Response<ResponseBody>, Error> {
        let client = self.clone();
        Broadcast::new(self.pods().roster(), KIND, move |target| {
            let route = Route::new().member(target.clone());
            match request(&target.endpoint) {
                Ok(prepared) => Box::pin(client.send(Prepared {
                    route,
                    errors: None,
                    ..prepared
                })),
                Err(error) => Box::pin(ResponseFuture::failed(error)),
            }
        })
    }

    /// Each request through the layers, and then to its pod.
    fn broadcast_layered(
        &self,
        mut request: impl FnMut(&Endpoint) -> Result<Request<RequestBody>, Error> + Send + 'static,
    ) -> Broadcast<Response<ResponseBody>, Error> {
        let client = self.clone();
        Broadcast::new(self.pods().roster(), KIND, move |target| {
            let mut request = match request(&target.endpoint) {
                Ok(request) => request,
                Err(error) => return Box::pin(ResponseFuture::failed(error)),
            };
            let route = Route::new().member(target.clone());
            request.extensions_mut().insert(route);
            // Who counts successes counts errors.
            Box::pin(client.wait_layered(request, false))
        })
    }
}

impl Prepared {
    /// The same request once more, if its body can be had twice.
    fn again(&self) -> Option<Self> {
        Some(Self {
            request: again(&self.request)?,
            time: self.time,
            route: Route::new(),
            tells_timeout: self.tells_timeout,
            errors: None,
            followed: None,
        })
    }
}

fn not_repeatable() -> Error {
    Error::request(
        "its body is a stream, which can be sent once: give a broadcast one that is there as a whole (`Full<Bytes>`), \
         or one for each pod (`broadcast_with`)",
    )
}

fn success(response: Response<ResponseBody>) -> Result<Response<ResponseBody>, Error> {
    let status = response.status();
    match status.is_client_error() || status.is_server_error() {
        true => Err(response.body().error(|pod| Error::answered(pod, status))),
        false => Ok(response),
    }
}
