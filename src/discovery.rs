//! Where the endpoints come from.

#[cfg(feature = "dns")]
pub(crate) mod dns;
#[cfg(feature = "kube")]
pub(crate) mod endpoint_slices;
mod failure_log;
pub(crate) mod fallback;
#[cfg(any(feature = "dns", feature = "kube"))]
mod families;
#[cfg(any(feature = "dns", feature = "kube"))]
mod filter;
mod report;
#[cfg(feature = "dns")]
pub(crate) mod schedule;
#[cfg(any(feature = "dns", feature = "kube"))]
mod shared;
pub(crate) mod stream_discovery;

pub(crate) use failure_log::FailureLog;
pub use report::DiscoveryReport;

use std::{
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::{endpoint::Endpoint, error::BoxError};
use fallback::Fallback;

/// A set that never changes is yielded at most this often: hints to look again may themselves follow a yielded set.
const PACE: Duration = Duration::from_secs(1);

/// A source of endpoints: it yields the whole set, again and again.
///
/// The balancer polls it from its one background task only, and sends requests to the set that it yields.
/// [`Dns`](crate::Dns), `EndpointSlices` (feature `kube`), [`StaticEndpoints`] and
/// [`StreamDiscovery`](crate::StreamDiscovery) come with the crate.
///
/// A source of your own is most easily a stream. This one asks a registry every 10 s:
///
/// ```
/// use std::{io, net::SocketAddr, time::Duration};
/// use futures::stream;
/// use tokio::time::{sleep, timeout};
/// use tower_headless::{StreamDiscovery, http::Client};
///
/// # async fn ask() -> io::Result<Vec<SocketAddr>> { Ok(vec![([10, 244, 1, 7], 80).into()]) }
/// /// The pods' addresses. On an error the last set stays.
/// async fn registered() -> io::Result<Vec<SocketAddr>> {
///     let pods = timeout(Duration::from_secs(5), ask()).await??; // a registry that hangs has failed
///     match pods.is_empty() {
///         // An empty set is believed at once: return it only if the registry is sure.
///         true => Err(io::Error::other("the registry names no pods")),
///         false => Ok(pods),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_headless::BoxError> {
/// let looks = stream::unfold(Duration::ZERO, |pause| async move {
///     sleep(pause).await;
///     Some((registered().await, Duration::from_secs(10)))
/// });
/// let discovery = StreamDiscovery::fallible(looks);
/// let client = Client::builder("http://carts:80".parse()?).discovery(discovery).build()?;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
///
/// To be told of refused connections, and to look again then, implement the trait. One method is required:
///
/// ```
/// use std::task::{Context, Poll, ready};
/// use tokio::sync::mpsc;
/// use tower_headless::{BoxError, Discovery, Endpoint};
///
/// /// Sets of endpoints that another part of the program sends.
/// struct Channel(mpsc::Receiver<Vec<Endpoint>>);
///
/// impl Discovery for Channel {
///     fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
///         match ready!(self.0.poll_recv(cx)) {
///             Some(set) => Poll::Ready(Ok(set)),
///             None => Poll::Pending, // the last set stays
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source of pods",
    label = "this finds no pods",
    note = "give it `Dns::new(\"web-headless.default:80\".parse()?)`, `EndpointSlices` (feature `kube`), or `StaticEndpoints::new(addresses)`",
    note = "a stream of sets is a source with `StreamDiscovery::new(stream)`"
)]
pub trait Discovery: Send + 'static {
    /// Waits for the next answer.
    ///
    /// - `Ok`: the whole set as it is now, in any order; duplicates count once. Yield it after every successful look,
    ///   even if nothing changed: that costs one comparison, and tells the balancer that its set is fresh.
    /// - `Ok` with an empty set: there are no pods. The balancer believes it at once: it drops all endpoints, and
    ///   requests wait for new ones up to the ready timeout. If the source isn't sure, it should yield `Err` instead.
    ///   [`Dns`](crate::Dns) yields an empty set only after it has been [confirmed](crate::OnEmpty) for 10 s.
    /// - `Err`: a look failed. The last set stays, and callers who time out waiting for endpoints get this error. Keep
    ///   looking afterwards. The balancer logs the error, each text once in ten minutes, so the source needn't.
    /// - An `Err` right after an empty set gives the reason why it is empty. It doesn't count as a failure of the
    ///   source.
    ///
    /// `Pending` must arrange for a wakeup, as usual. A source with nothing more to say stays pending.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>>;

    /// Hints that the set may be out of date: look again as soon as the source can afford it.
    ///
    /// This is called often while no endpoint accepts requests, so the source must limit its own pace.
    fn refresh(&mut self) {}

    /// Hints that `endpoint` refused a connection. By default, this calls [`refresh`](Self::refresh).
    fn refused(&mut self, endpoint: &Endpoint) {
        let _ = endpoint;
        self.refresh();
    }

    /// Hints that `endpoint`, which [refused](Self::refused), accepts connections again. Does nothing by default.
    fn accepted(&mut self, endpoint: &Endpoint) {
        let _ = endpoint;
    }

    /// Hints that requests ask for the pod of this name, whether it is in the set or not. Does nothing by default.
    ///
    /// It serves sources that look up pods' names one by one, as [`Dns`](crate::Dns) does. It is called soon after the
    /// first request for a name, then once a minute while requests ask for it; a little more often if they ask for
    /// hundreds of names.
    ///
    /// Returns whether the source uses such hints. If not, as by default, it gets no more of them.
    fn wanted(&mut self, pod: &str) -> bool {
        let _ = pod;
        false
    }

    /// How old the last set was when it was yielded. Zero by default; only a source that yields stored sets returns
    /// more.
    ///
    /// For example, the clone of a source that wasn't polled for a while may have only an old set to yield. The
    /// balancer adds this age to its [staleness](crate::Balance::staleness). A source that yields only what it has just
    /// learnt needn't implement this.
    fn age(&self) -> Duration {
        Duration::ZERO
    }

    /// The name of the service whose pods this finds, such as `nginx-headless.default`, for errors and logs. None by
    /// default. [`BalanceBuilder::name`](crate::BalanceBuilder::name) overrides it.
    fn name(&self) -> Option<String> {
        None
    }

    /// What the source says about itself in [`Balance::explain`](crate::Balance::explain): by default, only that it is
    /// `custom`. The balancer calls this each time after it has polled the source.
    fn report(&self) -> DiscoveryReport {
        DiscoveryReport::new("custom")
    }

    /// Uses this source, and falls back to `other` while this one fails: see [`Fallback`].
    fn or<D: Discovery>(self, other: D) -> Fallback<Self, D>
    where
        Self: Sized,
    {
        Fallback::new(self, other)
    }
}

/// A boxed source, for a choice at run time: `Box<dyn Discovery>`.
impl<D: Discovery + ?Sized> Discovery for Box<D> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        (**self).poll_next(cx)
    }

    fn refresh(&mut self) {
        (**self).refresh();
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        (**self).refused(endpoint);
    }

    fn accepted(&mut self, endpoint: &Endpoint) {
        (**self).accepted(endpoint);
    }

    fn wanted(&mut self, pod: &str) -> bool {
        (**self).wanted(pod)
    }

    fn age(&self) -> Duration {
        (**self).age()
    }

    fn name(&self) -> Option<String> {
        (**self).name()
    }

    fn report(&self) -> DiscoveryReport {
        (**self).report()
    }
}

/// A set of endpoints that never changes. It is yielded once, and again on [`refresh`](Discovery::refresh), at most
/// once a second.
///
/// ```
/// use tower_headless::StaticEndpoints;
///
/// let pods = StaticEndpoints::new(["10.244.1.7:80".parse()?, "10.244.2.4:80".parse()?]);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// To give more than addresses, such as weights, collect endpoints:
///
/// ```
/// use tower_headless::{Endpoint, StaticEndpoints};
///
/// let large = Endpoint::new("10.244.1.7:80".parse()?).with_weight(3);
/// let small = Endpoint::new("10.244.2.4:80".parse()?);
/// let pods: StaticEndpoints = [large, small].into_iter().collect();
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct StaticEndpoints {
    endpoints: Vec<Endpoint>,
    /// When the set was last yielded; none if it is due.
    yielded: Option<Instant>,
}

impl StaticEndpoints {
    /// The endpoints at `addresses`.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        addresses.into_iter().map(Endpoint::new).collect()
    }

    /// The set, if it is due.
    fn next(&mut self) -> Option<Vec<Endpoint>> {
        if self.yielded.is_some() {
            return None;
        }
        self.yielded = Some(Instant::now());
        Some(self.endpoints.clone())
    }
}

impl FromIterator<Endpoint> for StaticEndpoints {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            yielded: None,
        }
    }
}

impl Discovery for StaticEndpoints {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        self.next()
            .map_or(Poll::Pending, |set| Poll::Ready(Ok(set)))
    }

    fn report(&self) -> DiscoveryReport {
        DiscoveryReport::new("static")
    }

    /// Yields the set again, so that a [`Fallback`] that waits for a new answer gets one.
    fn refresh(&mut self) {
        self.yielded = self.yielded.filter(|yielded| yielded.elapsed() < PACE);
    }
}

/// A clone yields its set anew.
impl Clone for StaticEndpoints {
    fn clone(&self) -> Self {
        self.endpoints.iter().cloned().collect()
    }
}
