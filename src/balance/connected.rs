//! A pod's service over connections: each request has one to itself, or all share one.
//!
//! ```text
//!  poll_ready: a place is free ─▶ an idle connection, or connects ─▶ it is ready ─▶ call ─▶ response ─▶ idle again
//!                  │                       │                            │                     │
//!                  └── dropped: the place is free ── dropped: idle ◀────┘                     └── an error, or
//!                                                                                                 dropped: closed
//! ```
//!
//! A semaphore's permit is a place for a connection, first come, first served. A request with a permit takes the last
//! idle connection or makes one; so there are never more connections than permits. Nothing runs in the background: a
//! request that finds no connection makes one, and if it is cancelled meanwhile the next request does.
//!
//! Pools such as deadpool and bb8 take a connection back whenever its guard drops. That is wrong below cancellable
//! requests: half an exchange may still be on its way. They also have their own timers, and one pool for each address.

mod counted;
mod lease;
mod pool;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, poll_fn};
use pin_project_lite::pin_project;
use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use tower::Service;

use self::{
    lease::Lease,
    pool::{Place, Pool, Settings},
};
use crate::{
    counters::Closed,
    endpoint::Endpoint,
    error::{BoxError, Busy, NoRuntime},
    home::{Home, Timer},
    sync::Mutex,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The least time that a request stays in a pod's line after the wait timeout, if it finds no other pod.
const STAY: Duration = Duration::from_millis(100);

/// How to connect to pods that speak your own protocol, for [`BalanceBuilder::build_connected`].
///
/// `connect` makes a connection: a tower service from an [`Endpoint`] to the service of one connection (tower's `MakeService`),
/// such as a [`service_fn`](tower::service_fn). If it fails or takes too long, the pod refuses: the request goes
/// elsewhere.
///
/// | | [`pooled`](Self::pooled) | [`multiplexed`](Self::multiplexed) |
/// | --- | --- | --- |
/// | for protocols with | one exchange at a time | many at a time: numbered, or answered in order |
/// | connections to a pod | as many as are needed, up to a number | one (for each runtime that uses it) |
/// | a request | has one to itself, to the end of its response future | gets a clone |
/// | if all are in use | it waits, first come, first served; after the [wait timeout](Self::wait_timeout) it looks elsewhere | – |
/// | if it is cancelled | its connection is closed: the exchange is half done | nothing is closed |
///
/// A connection is dropped after an error:
///
/// - If its `poll_ready` fails, the caller doesn't see the error: the request uses another connection, or makes one. So
///   `poll_ready` should say whether the connection is still open.
/// - If a response fails, the caller gets the error. Only [`Unsent`](crate::Unsent) sends the request elsewhere. So put
///   errors that the pod has answered into the response, or name them in [`keep_after`](Self::keep_after). A connection
///   that can't tell in `poll_ready` that it is closed can still answer `Unsent` before it writes
///   (`examples/line_protocol.rs`).
///
/// When a pod leaves, its idle connections are closed at once, and the others when their responses end.
///
/// If a response goes on after its future is done, as a stream does, use `multiplexed`, or let the response hold what
/// it reads from.
///
/// A protocol of lines, one out and one back:
///
/// ```
/// use std::{sync::Arc, task::{Context, Poll}, time::Duration};
/// use futures::future::BoxFuture;
/// use tokio::{io::{AsyncBufReadExt, AsyncWriteExt, BufReader}, net::TcpStream, sync::Mutex, time::timeout};
/// use tower::{Service, service_fn};
/// use tower_headless::{Balance, BoxError, Connections, Endpoint, StaticEndpoints};
///
/// /// One exchange at a time uses it, so nobody waits for the lock.
/// struct Connection(Arc<Mutex<BufReader<TcpStream>>>);
///
/// impl Service<String> for Connection {
///     type Response = String;
///     type Error = BoxError;
///     type Future = BoxFuture<'static, Result<String, BoxError>>;
///
///     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
///         // If anything can be read, it is the end of the stream or unexpected data: use another connection.
///         let stream = self.0.try_lock()?;
///         let is_open = stream.get_ref().try_read(&mut [0]).is_err();
///         Poll::Ready(is_open.then_some(()).ok_or("it is closed".into()))
///     }
///
///     fn call(&mut self, line: String) -> Self::Future {
///         let stream = self.0.clone();
///         let exchange = async move {
///             let (mut stream, mut answer) = (stream.lock().await, String::new());
///             stream.write_all(format!("{line}\n").as_bytes()).await?;
///             stream.read_line(&mut answer).await?;
///             let is_whole = answer.ends_with('\n');
///             is_whole.then_some(answer).ok_or(BoxError::from("cut off"))
///         };
///         // No timeout applies but this one.
///         Box::pin(async move { timeout(Duration::from_secs(1), exchange).await? })
///     }
/// }
///
/// # async fn example() -> Result<(), BoxError> {
/// let connect = service_fn(|pod: Endpoint| async move {
///     let stream = BufReader::new(TcpStream::connect(pod.address()).await?);
///     Ok::<_, BoxError>(Connection(Arc::new(Mutex::new(stream))))
/// });
/// let pods = StaticEndpoints::new(["10.244.1.7:7000".parse()?]);
/// let balance = Balance::builder(pods).build_connected(Connections::pooled(8, connect));
/// let answer = balance.call_with("hello".to_owned(), Default::default()).await?;
/// # drop(answer);
/// # Ok(())
/// # }
/// ```
///
/// [`BalanceBuilder::build_connected`]: crate::BalanceBuilder::build_connected
#[must_use = "it does nothing until a balancer is built with it"]
pub struct Connections<S> {
    settings: Settings<S>,
}

impl<S: Send + 'static> Connections<S> {
    /// Each request has a connection to itself. Up to `most` (at least 1) are open to one pod at the same time.
    pub fn pooled<M>(most: usize, connect: M) -> Self
    where
        M: Service<Endpoint, Response = S> + Clone + Send + Sync + 'static,
        M::Error: Into<BoxError>,
        M::Future: Send + 'static,
    {
        Self::new(most, connect, None)
    }

    /// All requests in a runtime share one connection to a pod, each with a clone of its service.
    pub fn multiplexed<M>(connect: M) -> Self
    where
        M: Service<Endpoint, Response = S> + Clone + Send + Sync + 'static,
        M::Error: Into<BoxError>,
        M::Future: Send + 'static,
        S: Clone,
    {
        Self::new(1, connect, Some(S::clone))
    }

    fn new<M>(most: usize, connect: M, share: Option<fn(&S) -> S>) -> Self
    where
        M: Service<Endpoint, Response = S> + Clone + Send + Sync + 'static,
        M::Error: Into<BoxError>,
        M::Future: Send + 'static,
    {
        let connect = move |endpoint| -> BoxFuture<'static, _> {
            let mut connect = connect.clone();
            Box::pin(async move {
                let ready = poll_fn(|cx| connect.poll_ready(cx));
                ready.await.map_err(Into::into)?;
                connect.call(endpoint).await.map_err(Into::into)
            })
        };
        Self {
            settings: Settings {
                most: most.max(1),
                connect: Arc::new(connect),
                share,
                connect_timeout: CONNECT_TIMEOUT,
                wait_timeout: WAIT_TIMEOUT,
                keep_after: Arc::new(|_| false),
            },
        }
    }

    /// How long connecting may take until the connection is ready; 1 s by default. After that the pod counts as
    /// refusing.
    ///
    /// A background attempt to reach a pod that refuses takes 5 s at most, including this and the wait.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long a request waits for a connection while all of its pod's are in use; 1 s by default.
    ///
    /// After that it goes to another pod that it hasn't waited for yet. If there is none, it stays in line, and looks
    /// again after the same time. Once it has waited for the [ready timeout](crate::BalanceBuilder::ready_timeout) in
    /// all, it may try one more pod that may have room, for as long as it takes to connect or wait in line there. If
    /// that pod has no room either, the request fails with [`Error::is_busy`](crate::Error::is_busy).
    ///
    /// A wait doesn't count against the pod, which gets requests as before. If all of a pod's connections are stuck,
    /// [outlier detection](crate::OutlierDetection) finds out.
    ///
    /// With [`multiplexed`](Self::multiplexed), it is how long the shared connection may take to be ready for one more request; then
    /// the pod counts as refusing.
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.settings.wait_timeout = timeout;
        self
    }

    /// After which errors of a response to keep its connection; after none by default.
    pub fn keep_after(
        mut self,
        is_harmless: impl Fn(&BoxError) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.keep_after = Arc::new(is_harmless);
        self
    }

    /// The service of one endpoint.
    pub(super) fn of(&self, endpoint: &Endpoint) -> Connected<S> {
        let pool = Arc::new(Pool::new(endpoint.clone(), self.settings.clone()));
        pool.counted.set_pool(&pool);
        Connected {
            pool,
            stage: Mutex::default(),
        }
    }
}

impl<S> Clone for Connections<S> {
    fn clone(&self) -> Self {
        Self {
            settings: self.settings.clone(),
        }
    }
}

impl<S> fmt::Debug for Connections<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("most", &self.settings.most)
            .field("is_multiplexed", &self.settings.share.is_some())
            .field("connect_timeout", &self.settings.connect_timeout)
            .field("wait_timeout", &self.settings.wait_timeout)
            .finish_non_exhaustive()
    }
}

/// The service of one pod, over [`Connections`]. Clones share the connections.
pub struct Connected<S> {
    pool: Arc<Pool<S>>,
    // A Mutex makes it `Sync` whatever `connect`'s futures are; it is never locked.
    stage: Mutex<Stage<S>>,
}

/// How far a clone has come in getting a connection.
#[derive(Default)]
enum Stage<S> {
    #[default]
    New,
    Waits(NextPlace, Timer),
    Connects(Connecting<S>),
    /// It has a connection, which is polled until it is ready.
    Has(Lease<S>, Timer),
}

type NextPlace = BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>;

/// A connection that is being made.
struct Connecting<S> {
    connection: BoxFuture<'static, Result<S, BoxError>>,
    place: Place,
    timer: Timer,
    home: Home,
}

/// Why a request gets no connection to a pod: none is free, or none was ready in time.
#[derive(Debug, thiserror::Error)]
enum NoConnection {
    #[error("no connection came free within {0:?}: all {1} are in use")]
    Busy(Duration, usize),
    #[error("no connection within {0:?}")]
    Late(Duration),
}

impl<S> Pool<S> {
    /// The error that all connections are in use.
    fn busy(&self) -> Busy {
        let Settings {
            wait_timeout, most, ..
        } = self.settings;
        Busy {
            why: Arc::new(NoConnection::Busy(wait_timeout, most)),
            waited: wait_timeout,
        }
    }
}

impl<S: Send + 'static> Stage<S> {
    /// Looks for a connection, or for a place for one.
    fn begin(pool: &Arc<Pool<S>>, here: Home) -> Self {
        let wait = || Timer::after(pool.settings.wait_timeout);
        if let Some(lease) = pool.share(here) {
            return Self::Has(lease, wait());
        }
        match pool.places.clone().try_acquire_owned() {
            Ok(place) => Self::at(Place::new(place), pool, here),
            Err(_) => Self::Waits(Box::pin(pool.places.clone().acquire_owned()), wait()),
        }
    }

    /// Fills a place with an idle connection, or a new one.
    fn at(place: Place, pool: &Arc<Pool<S>>, here: Home) -> Self {
        match pool.take(place, here) {
            Ok(lease) => Self::Has(lease, Timer::after(pool.settings.wait_timeout)),
            Err(place) => Self::connects(place, pool, here),
        }
    }

    /// Fills a place with a new connection.
    fn connects(place: Place, pool: &Arc<Pool<S>>, here: Home) -> Self {
        Self::Connects(Connecting {
            connection: (pool.settings.connect)(pool.endpoint.clone()),
            place,
            timer: Timer::after(pool.settings.connect_timeout),
            home: here,
        })
    }

    /// Whether this stage can finish if only the current runtime is driven.
    fn goes_on_here(&self) -> bool {
        match self {
            Self::New | Self::Waits(..) => true,
            Self::Connects(connecting) => connecting.home.runs_beside_us(),
            Self::Has(lease, _) => lease.home().is_none_or(|home| home.runs_beside_us()),
        }
    }

    /// Drives the stage until it has a connection that is ready.
    fn poll<Req>(
        &mut self,
        pool: &Arc<Pool<S>>,
        here: Home,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>>
    where
        S: Service<Req>,
        S::Error: Into<BoxError>,
    {
        let settings = &pool.settings;
        loop {
            let next = match self {
                Self::New => Self::begin(pool, here),
                Self::Waits(place, timer) => match place.as_mut().poll(cx) {
                    Poll::Ready(Ok(place)) => Self::at(Place::new(place), pool, here),
                    Poll::Ready(Err(closed)) => return Poll::Ready(Err(closed.into())),
                    Poll::Pending => {
                        std::task::ready!(timer.poll(cx));
                        if settings.share.is_some() {
                            return Poll::Ready(Err(
                                NoConnection::Late(settings.wait_timeout).into()
                            ));
                        }
                        *timer = Timer::after(settings.wait_timeout.max(STAY));
                        return Poll::Ready(Err(pool.busy().into()));
                    }
                },
                Self::Connects(connecting) => match connecting.connection.as_mut().poll(cx) {
                    Poll::Ready(Err(error)) => {
                        pool.counted.failed(&error);
                        return Poll::Ready(Err(error));
                    }
                    Poll::Ready(Ok(connection)) => {
                        let Self::Connects(connecting) = std::mem::take(self) else {
                            continue;
                        };
                        let Connecting {
                            place, timer, home, ..
                        } = connecting;
                        Self::Has(pool.add(connection, place, home), timer)
                    }
                    Poll::Pending => {
                        std::task::ready!(connecting.timer.poll(cx));
                        pool.counted.timed_out();
                        return Poll::Ready(Err(
                            NoConnection::Late(settings.connect_timeout).into()
                        ));
                    }
                },
                Self::Has(lease, timer) => match lease.poll_ready(cx) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                    Poll::Ready(Err(error)) if lease.is_new() => {
                        lease.discard(Closed::Peer);
                        return Poll::Ready(Err(error));
                    }
                    // It broke while it was idle, which says nothing about the pod.
                    Poll::Ready(Err(_)) => match lease.discard(Closed::Peer) {
                        Some(place) => Self::at(place, pool, here),
                        None => Self::New,
                    },
                    Poll::Pending => {
                        std::task::ready!(timer.poll(cx));
                        if lease.is_new() {
                            lease.discard(Closed::Client);
                            return Poll::Ready(Err(
                                NoConnection::Late(settings.connect_timeout).into()
                            ));
                        }
                        // A connection that others use may only be busy.
                        if settings.share.is_some() {
                            return Poll::Ready(Err(
                                NoConnection::Late(settings.wait_timeout).into()
                            ));
                        }
                        // An idle connection is stuck. Other idle ones may be, too, so a new one is made.
                        match lease.discard(Closed::Client) {
                            Some(place) => Self::connects(place, pool, here),
                            None => Self::New,
                        }
                    }
                },
            };
            *self = next;
        }
    }
}

impl<S, Req> Service<Req> for Connected<S>
where
    S: Service<Req> + Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ConnectedFuture<S::Future, S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let Some(here) = Home::here() else {
            return Poll::Ready(Err(NoRuntime.into()));
        };
        let stage = self.stage.get_mut();
        if !stage.goes_on_here() {
            *stage = Stage::New;
        }
        let polled = stage.poll(&self.pool, here, cx);
        // After `Busy` it keeps its place in line, for when it is polled again.
        if let Poll::Ready(Err(error)) = &polled
            && !error.is::<Busy>()
        {
            *stage = Stage::New;
        }
        polled
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let stage = self.stage.get_mut();
        let Stage::Has(mut lease, _) = std::mem::take(stage) else {
            return ConnectedFuture {
                future: None,
                lease: None,
            };
        };
        ConnectedFuture {
            future: lease.call(request),
            lease: Some(lease),
        }
    }
}

/// A clone shares the pool, but not the connection that the original has reserved.
impl<S> Clone for Connected<S> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            stage: Mutex::new(Stage::New),
        }
    }
}

impl<S> fmt::Debug for Connected<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("endpoint", &self.pool.endpoint)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of a [`Connected`] service: the connection's own future, and the connection.
    ///
    /// If dropped before it is done, it closes its connection, unless that is [shared](Connections::multiplexed).
    pub struct ConnectedFuture<F, S> {
        // Declared first, so dropped before the lease: the place becomes free when nothing of the exchange is left.
        #[pin]
        future: Option<F>,
        lease: Option<Lease<S>>,
    }
}

impl<F, S, T, E> Future for ConnectedFuture<F, S>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Ready(Err(
                "called before it was ready, or polled after its end".into()
            ));
        };
        let result = std::task::ready!(future.poll(cx)).map_err(Into::into);
        this.future.set(None);
        if let Some(lease) = this.lease.take() {
            lease.end(result.as_ref().err());
        }
        Poll::Ready(result)
    }
}

impl<F, S> fmt::Debug for ConnectedFuture<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectedFuture").finish_non_exhaustive()
    }
}
