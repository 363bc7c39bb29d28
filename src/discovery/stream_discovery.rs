//! Any stream of sets as a source.

use std::{
    fmt,
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt, TryStreamExt, stream::BoxStream};

use super::{Discovery, DiscoveryReport};
use crate::{endpoint::Endpoint, error::BoxError};

/// Discovery by a stream. Each item is the whole set at that moment; an empty set is believed at once. [`Discovery`]
/// shows a stream that asks a registry every 10 s.
///
/// ```
/// use std::net::SocketAddr;
/// use tokio::sync::mpsc;
/// use tower_headless::{Balance, Endpoint, StreamDiscovery};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (sets, mut receiver) = mpsc::channel::<Vec<SocketAddr>>(16);
/// let discovery = StreamDiscovery::new(futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)));
/// let balance = Balance::builder(discovery).build(|endpoint: &Endpoint| endpoint.address());
///
/// sets.send(vec![([10, 244, 1, 7], 80).into(), ([10, 244, 2, 4], 80).into()]).await.expect("a receiver");
/// # drop(balance);
/// # }
/// ```
///
/// When the stream ends, the last set stays for ever. The stream isn't told of refused connections: it decides by
/// itself when to look.
pub struct StreamDiscovery {
    /// None once it has ended.
    sets: Option<BoxStream<'static, Result<Vec<Endpoint>, BoxError>>>,
}

impl StreamDiscovery {
    /// Discovery by a stream that can't fail. Its items are sets of [`Endpoint`]s, or of plain addresses.
    pub fn new<S>(sets: S) -> Self
    where
        S: Stream<Item: IntoIterator<Item: Into<Endpoint>>> + Send + 'static,
    {
        Self::fallible(sets.map(Ok::<_, BoxError>))
    }

    /// Discovery by a stream that can fail. An error leaves the set unchanged, and doesn't end the stream.
    ///
    /// ```
    /// use std::io;
    /// use futures::stream;
    /// use tower_headless::{Endpoint, StreamDiscovery};
    ///
    /// let set = vec![Endpoint::new(([10, 244, 1, 7], 80).into())];
    /// let answers = [Err(io::Error::other("the registry is away")), Ok(set)];
    /// let discovery = StreamDiscovery::fallible(stream::iter(answers));
    /// # drop(discovery);
    /// ```
    pub fn fallible<S, T, E>(sets: S) -> Self
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        T: IntoIterator<Item: Into<Endpoint>>,
        E: Into<BoxError> + 'static,
    {
        let set = |set: T| set.into_iter().map(Into::into).collect();
        Self {
            sets: Some(sets.map_ok(set).map_err(Into::into).boxed()),
        }
    }
}

impl Discovery for StreamDiscovery {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        let Some(sets) = &mut self.sets else {
            return Poll::Pending;
        };
        match ready!(sets.poll_next_unpin(cx)) {
            Some(answer) => Poll::Ready(answer),
            None => {
                self.sets = None;
                Poll::Pending
            }
        }
    }

    fn report(&self) -> DiscoveryReport {
        DiscoveryReport::new("stream")
    }
}

impl fmt::Debug for StreamDiscovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_ended = self.sets.is_none();
        let mut debug = f.debug_struct("StreamDiscovery");
        debug.field("has_ended", &has_ended).finish_non_exhaustive()
    }
}
