//! Where the endpoints come from.

#[cfg(feature = "dns")]
pub(crate) mod dns;
#[cfg(feature = "kube")]
pub(crate) mod endpoint_slices;
mod failure_log;
pub(crate) mod fallback;
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

/// How often a set that never changes is told at most. Hints to look again come in answer to a set, too.
const PACE: Duration = Duration::from_secs(1);

/// A source of endpoints: it yields the whole set, again and again.
///
/// The balancer polls it from its one background task and from nowhere else; what it yields is what requests see.
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
/// /// The pods' addresses, or an error: then the last set stays.
/// async fn registered() -> io::Result<Vec<SocketAddr>> {
///     let pods = timeout(Duration::from_secs(5), ask()).await??; // a registry that hangs is no registry
///     match pods.is_empty() {
///         // It would be believed at once. Only `Ok` an empty set if the registry is sure of it.
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
/// One that is to hear of refusals as well, and look again then, implements the trait. One method is required:
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
    /// - `Ok`: the whole set as it is now, in any order; repetitions count once. Yield it after every successful look,
    ///   changed or not: an unchanged set costs a comparison, and tells the balancer that its knowledge is fresh.
    /// - `Ok` with an empty set: there are no pods. The balancer believes it at once: it drops all that it has, and requests wait
    ///   for others up to the ready timeout. If the source isn't sure, it should yield `Err` instead.
    ///   [`Dns`](crate::Dns) has an empty answer [confirmed](crate::OnEmpty) for 10 s before it yields it.
    /// - `Err`: a look failed. The set stays as it is, and the error is what a caller who waits for endpoints gets to
    ///   see. The source goes on. The reader logs the error, each text once in ten minutes; a source needn't.
    /// - An empty set may be followed at once by an `Err` that says why it is empty. That is no failure of the source.
    ///
    /// `Pending` arranges for a wakeup, as ever. A source with nothing more to say stays pending.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>>;

    /// Hints that the set may be out of date: look again, as soon as the source can afford it.
    ///
    /// Comes often while no endpoint accepts requests; the source limits its own pace.
    fn refresh(&mut self) {}

    /// Hints that `endpoint` refused a connection. By default, as good as [`refresh`](Self::refresh).
    fn refused(&mut self, endpoint: &Endpoint) {
        let _ = endpoint;
        self.refresh();
    }

    /// Hints that `endpoint`, which [refused](Self::refused), accepts connections again. By default, nothing follows.
    fn accepted(&mut self, endpoint: &Endpoint) {
        let _ = endpoint;
    }

    /// Hints that requests ask for the pod of this name, which may or may not be in the set. By default, nothing follows.
    ///
    /// For a source that learns pods' names one by one, as [`Dns`](crate::Dns) does. Comes once a minute for as long as
    /// anybody asks, and soon when somebody begins to; where requests ask for hundreds of names, a little more often.
    ///
    /// Returns whether the source makes use of such hints. If not, as by default, it gets no more of them.
    fn wanted(&mut self, pod: &str) -> bool {
        let _ = pod;
        false
    }

    /// How old the last set was when it was yielded; zero unless the source had kept it from before.
    ///
    /// A clone of a source that nobody has polled for a while may have nothing better than an old set. The balancer counts
    /// its [staleness](crate::Balance::staleness) from the set's true age. A source that yields what it has just learnt
    /// needn't implement this.
    fn age(&self) -> Duration {
        Duration::ZERO
    }

    /// The name of the service that this finds the pods of, such as `nginx-headless.default`, for errors to tell; none by
    /// default. [`BalanceBuilder::name`](crate::BalanceBuilder::name) comes before it.
    fn name(&self) -> Option<String> {
        None
    }

    /// What the source tells of itself, for [`Balance::explain`](crate::Balance::explain): by default, only that it is
    /// `custom`. The balancer asks after it has polled the source.
    fn report(&self) -> DiscoveryReport {
        DiscoveryReport::new("custom")
    }

    /// This source as the primary, with `other` as its fallback while this one can't be asked: see [`Fallback`].
    fn or<D: Discovery>(self, other: D) -> Fallback<Self, D>
    where
        Self: Sized,
    {
        Fallback::new(self, other)
    }
}

/// A boxed source, which may be chosen at run time: `Box<dyn Discovery>`.
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

/// A set of endpoints that never changes. A [`refresh`](Discovery::refresh) has it told again, once a second at most.
///
/// ```
/// use tower_headless::StaticEndpoints;
///
/// let pods = StaticEndpoints::new(["10.244.1.7:80".parse()?, "10.244.2.4:80".parse()?]);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// Endpoints of which more is known than the address are collected:
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
    /// When it was told; none if that is to be done.
    told: Option<Instant>,
}

impl StaticEndpoints {
    /// The endpoints at `addresses`.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        addresses.into_iter().map(Endpoint::new).collect()
    }

    /// The set, if it is to be told.
    fn next(&mut self) -> Option<Vec<Endpoint>> {
        if self.told.is_some() {
            return None;
        }
        self.told = Some(Instant::now());
        Some(self.endpoints.clone())
    }
}

impl FromIterator<Endpoint> for StaticEndpoints {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            told: None,
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

    /// The set is as true as ever: a [`Fallback`] that hears it needn't wait for anything newer.
    fn refresh(&mut self) {
        self.told = self.told.filter(|told| told.elapsed() < PACE);
    }
}

/// Begins anew: a clone tells its set from the start.
impl Clone for StaticEndpoints {
    fn clone(&self) -> Self {
        self.endpoints.iter().cloned().collect()
    }
}
