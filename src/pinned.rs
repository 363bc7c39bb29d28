//! One pod, by its name, its number or its address; or all pods but one.
//!
//! Nothing is kept of the pod but what it is asked for by: where it is, the balancer's set says at each request. So it is followed
//! wherever it is rescheduled to, and nobody else gets its requests.

use std::{
    fmt,
    task::{Context, Poll},
};

use tower::Service;

use crate::{
    balance::{Balance, ResponseFuture},
    endpoint::Endpoint,
    error::{BoxError, Error},
    in_flight::Completion,
    route::{PodId, Route},
};

/// A [`Balance`] whose requests all go to one pod ([`Balance::pod`]), or to all but one ([`Balance::others`]); also of a
/// [`Retry`](crate::Retry) around one.
///
/// Cheap to make and to clone; it needs nothing before it is used, and there need not be such a pod yet.
///
/// # One pod
///
/// - **It is followed**: each request goes to the pod of that name as the set knows it by then, at whatever address.
/// - **While it is away**, or refuses connections, requests wait for it, up to the
///   [ready timeout](crate::BalanceBuilder::ready_timeout) of 5 s by default, from when each was made. Then they fail, unsent. A
///   Kubernetes pod is away from when it is deleted until its successor is ready: its `preStop` hook, in which it serves on, counts.
/// - **No other pod gets its requests**, whatever the policy, its health, or its zone say. A pod that is ejected or fails its
///   checks gets them as well: no other one would do. What comes of them counts for its health as ever.
/// - **How sure that is** is how sure the source is of its names: see [`Dns`](crate::Dns#pods-own-names).
///
/// The names are the hostnames of the pods, as SRV records and EndpointSlices tell them, and the names of the pods, as
/// EndpointSlices do. [`Dns`](crate::Dns) of A and AAAA records looks for the names that are asked for; the first request for one
/// may have to wait for about a second (`Dns::min_refresh`).
///
/// # All but one
///
/// The policy chooses as ever; where it chooses the one that is left out, it is asked again. A policy that looks for few
/// requests in flight may choose that one again and again: then it is the better of two others at random. A key goes on to its
/// next choice ([`ConsistentHash`](crate::ConsistentHash)).
///
/// # With a subset
///
/// One pod is reached though it isn't in the client's [`Subset`](crate::Subset); the others are those of
/// the subset, and substitutes where it has no other.
///
/// # Errors
///
/// Those of a [`Balance`]. Where the one pod accepts no requests within the ready timeout, the error
/// [is unreachable](Error::is_unreachable), has its [name](Error::pod), and tells whether it [is absent](Error::is_absent), where
/// it was last, and which other pods there are. An empty name, as of a variable that isn't set, is one that is absent, at once,
/// also where it is the one to be left out.
/// Where there is no pod but the one that is left out, it [is that there are none](Error::is_no_endpoints), at once.
///
/// # Cancellation
///
/// Dropping a request's future, at any time, leaves nothing behind.
#[derive(Clone)]
pub struct Pinned<T> {
    service: T,
    route: Route,
}

impl<S, C> Balance<S, C> {
    /// A service of one pod: by its hostname or name, `web-0`, or else as [`PodId`] says. See [`Pinned`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower::{Service, ServiceExt, service_fn};
    /// use tower_headless::{Balance, BoxError, Endpoint, StaticEndpoints};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let pod = |host, name: &str| Endpoint::new(([10, 244, 1, host], 80).into()).with_hostname(name);
    /// let pods: StaticEndpoints = [pod(7, "kv-0"), pod(4, "kv-1")].into_iter().collect();
    /// let balance = Balance::builder(pods).ready_timeout(Duration::from_millis(50));
    /// let balance = balance.build(|pod: &Endpoint| {
    ///     let address = pod.address();
    ///     service_fn(move |_: &str| async move { Ok::<_, BoxError>(address) })
    /// });
    /// let mut first = balance.pod("kv-0");
    /// assert_eq!(first.ready().await?.call("SET a 1").await?, "10.244.1.7:80".parse()?);
    ///
    /// let mut ninth = balance.pod("kv-9");
    /// let error = ninth.ready().await?.call("SET a 1").await.unwrap_err();
    /// assert_eq!(error.pod(), Some("kv-9"));
    /// assert_eq!(error.to_string(), "pod kv-9 isn't there; there are kv-1, kv-0");
    /// # Ok(())
    /// # }
    /// ```
    pub fn pod(&self, id: impl Into<PodId>) -> Pinned<Self>
    where
        C: Clone,
    {
        self.pinned(Route::new().pod(id))
    }

    /// [`pod`](Self::pod) by its number in a StatefulSet: 3 is `web-3`. See [`PodId::ordinal`].
    pub fn pod_at(&self, ordinal: u32) -> Pinned<Self>
    where
        C: Clone,
    {
        self.pod(PodId::ordinal(ordinal))
    }

    /// A service of all pods but one, as a pod's peers are for itself: by its own name or address. See [`Pinned`].
    ///
    /// With A and AAAA records alone, the address (`status.podIP`) is the better one: a name has to be looked up first, and
    /// until that is done, it leaves nobody out. With an empty name, as of a variable that isn't set, each request fails at once, with
    /// an error that [is absent](Error::is_absent) and says so.
    ///
    /// Each request goes to one of the others. To ask all of them: [`Broadcast::leave_out`](crate::Broadcast::leave_out).
    ///
    /// ```no_run
    /// # use tower_headless::{Balance, Endpoint, StaticEndpoints};
    /// # let discovery = StaticEndpoints::new([]);
    /// # let balance = Balance::builder(discovery).build(|pod: &Endpoint| pod.address());
    /// // env: [{ name: POD_IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }]
    /// let myself = std::env::var("POD_IP")?;
    /// let peers = balance.others(myself);
    /// # drop(peers);
    /// # Ok::<_, std::env::VarError>(())
    /// ```
    pub fn others(&self, than: impl Into<PodId>) -> Pinned<Self>
    where
        C: Clone,
    {
        self.pinned(Route::new().leave_out(than))
    }

    /// What is known now of one pod: by its hostname or name, or else as [`PodId`] says. None if it isn't there.
    pub fn endpoint(&self, id: impl Into<PodId>) -> Option<Endpoint> {
        let route = Route::new().pod(id);
        self.ask_for(&route);
        self.requested(&route)
    }

    fn pinned(&self, route: Route) -> Pinned<Self>
    where
        C: Clone,
    {
        // Before discovery's first look, if it can be.
        self.ask_for(&route);
        Pinned::new(self.clone(), route)
    }
}

impl<T> Pinned<T> {
    pub(crate) fn new(service: T, route: Route) -> Self {
        Self { service, route }
    }

    /// What the requests go through.
    pub fn get_ref(&self) -> &T {
        &self.service
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.service
    }

    pub(crate) fn route(&self) -> &Route {
        &self.route
    }
}

impl<S, C> Pinned<Balance<S, C>> {
    /// What is known of the one pod now. None if it isn't there, and for [`others`](Balance::others).
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.service.requested(&self.route)
    }

    /// Sends a request: [`call`](Service::call) without `poll_ready` before it.
    pub fn send<Req>(&self, request: Req) -> ResponseFuture<S, Req, C>
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        C: Completion<S::Response> + Clone,
    {
        self.service.call_with(request, self.route.clone())
    }

    /// [`call`](Service::call) with a [`Route`]; which pod it asks for or leaves out is as this service has it.
    pub fn call_with<Req>(&self, request: Req, route: Route) -> ResponseFuture<S, Req, C>
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        C: Completion<S::Response> + Clone,
    {
        self.service
            .call_with(request, route.pinned_as(&self.route))
    }
}

impl<S, C, Req> Service<Req> for Pinned<Balance<S, C>>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    C: Completion<S::Response> + Clone,
{
    type Response = C::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Service::<Req>::poll_ready(&mut self.service, cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.send(request)
    }
}

impl<T: fmt::Debug> fmt::Debug for Pinned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned")
            .field("route", &self.route)
            .field("service", &self.service)
            .finish()
    }
}
