//! How a clone of a pod's service gets its connection, stage by stage.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use tower::Service;

use super::{
    lease::Lease,
    pool::{Place, Pool, Settings},
};
use crate::{
    counters::Closed,
    error::{BoxError, Busy, timed_out},
    home::{Home, Timer},
};

/// How far a clone has come in getting a connection.
#[derive(Default)]
pub(super) enum Stage<S> {
    #[default]
    New,
    Waits(NextPlace, Timer),
    Connects(Connecting<S>),
    /// It has a connection, which is polled until it is ready.
    Has(Lease<S>, Timer),
}

type NextPlace = BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>;

/// A connection that is being made.
pub(super) struct Connecting<S> {
    connection: BoxFuture<'static, Result<S, BoxError>>,
    place: Place,
    timer: Timer,
    home: Home,
}

/// The least time that a request stays in a pod's line after the wait timeout, if it finds no other pod.
const STAY: Duration = Duration::from_millis(100);

impl<S: Send + 'static> Stage<S> {
    /// Looks for a connection, or for a place for one.
    fn begin(pool: &Arc<Pool<S>>, here: Home) -> Self {
        let settings = &pool.settings;
        if let Some(lease) = pool.share(here) {
            return Self::Has(lease, Timer::after(settings.wait_timeout));
        }
        match pool.places.clone().try_acquire_owned() {
            Ok(place) => Self::at(Place::new(place), pool, here),
            Err(_) => {
                let place = Box::pin(pool.places.clone().acquire_owned());
                Self::Waits(place, Timer::after(settings.place_timeout()))
            }
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
    pub(super) fn goes_on_here(&self) -> bool {
        match self {
            Self::New | Self::Waits(..) => true,
            Self::Connects(connecting) => connecting.home.runs_beside_us(),
            Self::Has(lease, _) => lease.home().is_none_or(|home| home.runs_beside_us()),
        }
    }

    /// Drives the stage until it has a connection that is ready.
    pub(super) fn poll<Req>(
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
                            return Poll::Ready(Err(late(settings.place_timeout())));
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
                        return Poll::Ready(Err(late(settings.connect_timeout)));
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
                            return Poll::Ready(Err(late(settings.connect_timeout)));
                        }
                        // A connection that others use may only be busy.
                        if settings.share.is_some() {
                            return Poll::Ready(Err(late(settings.wait_timeout)));
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

/// Why a request gets no connection to a pod: none is free, or none was ready in time.
#[derive(Debug, thiserror::Error)]
enum NoConnection {
    #[error("no connection came free within {0:?}: all {1} are in use")]
    Busy(Duration, usize),
    #[error("no connection within {0:?}")]
    Late(Duration),
}

/// The error that no connection was ready in time. By its kind, the balancer sees that this is no refusal.
fn late(after: Duration) -> BoxError {
    timed_out(NoConnection::Late(after))
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
