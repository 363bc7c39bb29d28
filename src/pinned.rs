//! [`Pinned`]: a service of one pod (by name, number or address), or of all pods but one.
//!
//! It keeps only the pod's id, and finds the pod in the balancer's set at each request. So the pod is followed wherever
//! it is rescheduled, and no other pod gets its requests.

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

/// A [`Balance`], or a [`Retry`](crate::Retry) around one, whose requests all go to one pod ([`Balance::pod`]), or to
/// any but one ([`Balance::others`]).
///
/// It is cheap to make and to clone. The pod needn't exist yet.
///
/// # One pod
///
/// - **It is followed**: each request goes to the pod that has the name by then, at whatever address.
/// - **While it is away**, or refuses connections, each request waits for it, up to the [ready
///   timeout](crate::BalanceBuilder::ready_timeout) (5 s by default), counted from when the request was made. Then it
///   fails, unsent. A Kubernetes pod is away from its deletion until its successor is ready. That includes its
///   `preStop` hook, though it still serves then.
/// - **No other pod gets its requests**, whatever the policy, its health or its zone. It gets them even if it is
///   ejected or fails its checks, because no other pod would do. Their outcomes count for its health as usual.
/// - **That is as sure as the source's names**: see [`Dns`](crate::Dns#pods-own-names).
///
/// The names are the pods' hostnames, from SRV records and EndpointSlices, and the pods' own names, from
/// EndpointSlices. With A and AAAA records, [`Dns`](crate::Dns) looks up the names that requests ask for. The first
/// request for a name waits for that lookup. If requests ask for more than four new names in a row, it may wait for
/// about a second (`Dns::min_refresh`).
///
/// # All but one
///
/// The policy chooses as usual; if it chooses the one that is left out, it is asked again. A policy that looks for few
/// requests in flight may choose that one again and again: then the request goes to the better of two random others. A
/// key goes on to its next choice ([`ConsistentHash`](crate::ConsistentHash)).
///
/// # With a subset
///
/// One pod is reached even if it isn't in the client's [`Subset`](crate::Subset). "The others" are those of the subset,
/// and substitutes if the subset has no other.
///
/// # Errors
///
/// Those of a [`Balance`]. If the one pod accepts no requests within the ready timeout, the error [is
/// unreachable](Error::is_unreachable). It has the pod's [name](Error::pod), and tells whether the pod [is
/// absent](Error::is_absent), where it was last, and which other pods there are. An empty name, such as that of a
/// variable that isn't set, is absent at once, also as the pod to leave out. If there is no pod but the one that is
/// left out, the error is [no endpoints](Error::is_no_endpoints), at once.
///
/// # Cancellation
///
/// Dropping a request's future at any time leaves nothing behind.
#[derive(Clone)]
pub struct Pinned<T> {
    service: T,
    route: Route,
}

impl<S, C> Balance<S, C> {
    /// A service of one pod, by its hostname or name (`web-0`), or else as [`PodId`] says. See [`Pinned`].
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

    /// A service of one pod, by its number in a StatefulSet: 3 is `web-3`. See [`PodId::ordinal`].
    pub fn pod_at(&self, ordinal: u32) -> Pinned<Self>
    where
        C: Clone,
    {
        self.pod(PodId::ordinal(ordinal))
    }

    /// A service of all pods but one. So a pod reaches its peers: it leaves itself out by its own name or address. See
    /// [`Pinned`].
    ///
    /// With A and AAAA records alone, use the address (`status.podIP`): a name leaves nobody out until it has been
    /// looked up. With an empty name, such as that of a variable that isn't set, each request fails at once, with an
    /// error that [is absent](Error::is_absent) and says so.
    ///
    /// Each request goes to one of the others. To ask all of them, use
    /// [`Broadcast::leave_out`](crate::Broadcast::leave_out).
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

    /// One pod as it is known now, by its hostname or name, or else as [`PodId`] says. `None` if it isn't there.
    pub fn endpoint(&self, id: impl Into<PodId>) -> Option<Endpoint> {
        let route = Route::new().pod(id);
        self.ask_for(&route);
        self.requested(&route)
    }

    fn pinned(&self, route: Route) -> Pinned<Self>
    where
        C: Clone,
    {
        // Asked for before discovery's first lookup, if possible, so that the lookup includes it.
        self.ask_for(&route);
        Pinned::new(self.clone(), route)
    }
}

impl<T> Pinned<T> {
    pub(crate) fn new(service: T, route: Route) -> Self {
        Self { service, route }
    }

    /// The balancer that the requests go through.
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
    /// The one pod as it is known now. `None` if it isn't there, and for [`others`](Balance::others).
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

    /// [`call`](Service::call) with a [`Route`]. The pod that it requests or leaves out is always this service's.
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
