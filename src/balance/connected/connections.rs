//! [`Connections`]: how a user's own protocol connects to pods, and how its connections are shared.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::{BoxFuture, poll_fn};
use tower::Service;

use super::{
    Connected,
    pool::{Pool, Settings},
};
use crate::{endpoint::Endpoint, error::BoxError, sync::Mutex};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// the pod counts as refusing. While it is being made, the [connect timeout](Self::connect_timeout) counts if that is
    /// longer.
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
    pub(in super::super) fn of(&self, endpoint: &Endpoint) -> Connected<S> {
        let pool = Arc::new(Pool::new(endpoint.clone(), self.settings.clone()));
        let counting: Weak<Pool<S>> = Arc::downgrade(&pool);
        pool.counted.set_pool(counting);
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
