//! One pod, or all pods but one, over HTTP.

use std::{
    fmt,
    net::IpAddr,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;
use tower::Service;

use super::{
    body::RequestBody,
    client::Client,
    error::Error,
    future::ResponseFuture,
    request::{Aim, RequestBuilder, request_methods},
    response::ResponseBody,
    send::SendFuture,
};
use crate::{
    endpoint::Endpoint,
    error::BoxError,
    route::{PodId, Route},
};

/// A [`Client`] whose requests all go to one pod ([`Client::pod`]), or to all but one ([`Client::others`]).
///
/// [`Pinned`](crate::Pinned) says what that means: the client follows the pod, waits for it, and sends its requests to
/// no other pod.
///
/// - **Retries** stay on the pod. A request that is lost with its connection is sent again if that is safe, within the
///   client's budget, and waits for the pod like a new one. 503 is an ordinary answer here, because there is no other
///   pod to ask.
/// - **`Host` and `:authority`** name the service, as for all requests of the client. With [`own_host`](Self::own_host)
///   they name the pod, so that a pod can notice a request that was meant for another one.
/// - **A [`Route`]** in a request's extensions applies, except its `pod` and `leave_out`.
#[derive(Clone)]
pub struct PodClient {
    client: Client,
    route: Route,
    own_host: bool,
}

impl Client {
    /// A client of one pod: by its hostname or name, `web-0`, or by anything else that a [`PodId`] can be. See
    /// [`PodClient`].
    ///
    /// ```no_run
    /// use tower_headless::http::Client;
    ///
    /// # async fn write(client: Client) -> Result<(), tower_headless::http::Error> {
    /// let primary = client.pod("kv-0");
    /// primary.put("/user-42").body("...").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pod(&self, id: impl Into<PodId>) -> PodClient {
        self.pinned(Route::new().pod(id))
    }

    /// A client of one pod of a StatefulSet, by its number: 3 is `web-3`. See [`PodId::ordinal`].
    pub fn pod_at(&self, ordinal: u32) -> PodClient {
        self.pod(PodId::ordinal(ordinal))
    }

    /// A client of all pods but one, for a pod's requests to its peers: each request goes to one of the others, and
    /// [`broadcast`](super::RequestBuilder::broadcast) asks each of them. See
    /// [`Balance::others`](crate::Balance::others).
    pub fn others(&self, than: impl Into<PodId>) -> PodClient {
        self.pinned(Route::new().leave_out(than))
    }

    /// What is known of one pod now; see [`Balance::endpoint`](crate::Balance::endpoint).
    pub fn endpoint(&self, id: impl Into<PodId>) -> Option<Endpoint> {
        self.pods().endpoint(id)
    }

    fn pinned(&self, route: Route) -> PodClient {
        self.pods().ask_for(&route);
        PodClient {
            client: self.clone(),
            route,
            own_host: false,
        }
    }
}

request_methods!(PodClient);

impl PodClient {
    /// Makes `Host` and `:authority` name the pod, `web-0.nginx-headless.default`, if its name is known: because it was
    /// asked for by name, or from the set at the time. A request's own `Host` stays.
    ///
    /// So a pod, or a proxy before it, can refuse what is meant for another pod: between a pod's end and the next DNS
    /// lookup, another pod may have its address.
    pub fn own_host(mut self) -> Self {
        self.own_host = true;
        self
    }

    /// What is known of the one pod now. None if it isn't there, and for [`others`](Client::others).
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.client.pods().requested(&self.route)
    }

    /// Sends a request that is already built to the pod, or to one of the others; see [`Client::execute`].
    pub fn execute<B: Into<RequestBody>>(&self, request: Request<B>) -> SendFuture {
        let mut request = request.map(Into::into);
        self.aim().apply(&mut request);
        self.client.execute(request)
    }

    fn builder_of(&self, method: Method, path: &str) -> RequestBuilder {
        let builder = RequestBuilder::new(self.client.clone(), method, path);
        builder.aimed(self.aim())
    }

    fn aim(&self) -> Aim {
        Aim {
            route: self.route.clone(),
            host: self.host(),
        }
    }

    /// The pod's `Host`, if it is wanted and known.
    fn host(&self) -> Option<HeaderValue> {
        if !self.own_host {
            return None;
        }
        let pod = self.route.requested_pod().map(str::to_owned);
        let pod = pod.or_else(|| Some(self.endpoint()?.hostname()?.to_owned()))?;
        let service = self.client.authority();
        let is_address =
            service.host().starts_with('[') || service.host().parse::<IpAddr>().is_ok();
        let host = format!("{pod}.{service}");
        HeaderValue::from_str(&host).ok().filter(|_| !is_address)
    }
}

impl<B> Service<Request<B>> for PodClient
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Service::<Request<B>>::poll_ready(&mut self.client, cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.aim().apply(&mut request);
        self.client.call(request)
    }
}

impl fmt::Debug for PodClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodClient")
            .field("route", &self.route)
            .field("own_host", &self.own_host)
            .field("client", &self.client)
            .finish()
    }
}
