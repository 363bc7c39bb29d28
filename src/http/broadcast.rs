//! The same request to every pod.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::{
    client::{Client, Prepared},
    error::Error,
    future::ResponseFuture,
    replay::again,
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
    /// The same request to every pod, whatever its method. See [`Broadcast`], and [`RequestBuilder::broadcast`] for one with
    /// the client's words.
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
    ///   pod. A pod's answer is its answer, whatever the status.
    /// - **A timeout** of the request's own, or of the client's, is each pod's, to the end of its response's body. The
    ///   broadcast's are until the response begins.
    /// - **Successes** are the statuses below 400, where successes are counted: in `all`, `first`, `quorum` and `majority`. There
    ///   the others are errors that have a [status](Error::status_code). The stream has them all as responses.
    /// - A [`Route`] in the request's extensions counts for nothing.
    ///
    /// A response holds its connection, and counts as in flight, until its body has been read or dropped.
    ///
    /// [`RequestBuilder::broadcast`]: super::RequestBuilder::broadcast
    pub fn broadcast<B>(&self, request: Request<B>) -> Broadcast<Response<ResponseBody>, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let prepared = match self.prepare(request, None) {
            Ok((prepared, _)) if prepared.again().is_some() => prepared,
            Ok(_) => return Broadcast::failed(not_repeatable()),
            Err(error) => return Broadcast::failed(error),
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
        let client = self.clone();
        self.broadcast_prepared(move |pod| {
            let (prepared, _) = client.prepare(request(pod), None)?;
            Ok(prepared)
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
                Ok(prepared) => Box::pin(client.send(prepared, route)),
                Err(error) => Box::pin(ResponseFuture::failed(error)),
            }
        })
    }
}

impl Prepared {
    /// The same request once more, if its body can be had twice.
    fn again(&self) -> Option<Self> {
        Some(Self {
            request: again(&self.request)?,
            timeout: self.timeout,
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
        true => Err(Error::answered(response.body().pod().clone(), status)),
        false => Ok(response),
    }
}
