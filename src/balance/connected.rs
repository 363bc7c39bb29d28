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

mod connections;
mod lease;
mod pool;
mod stage;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::Service;

pub use connections::Connections;

use self::{lease::Lease, pool::Pool, stage::Stage};
use crate::{
    error::{BoxError, Busy, NoRuntime},
    home::Home,
    sync::Mutex,
};

/// The service of one pod, over [`Connections`]. Clones share the connections.
pub struct Connected<S> {
    pool: Arc<Pool<S>>,
    // A Mutex makes it `Sync` whatever `connect`'s futures are; it is never locked.
    stage: Mutex<Stage<S>>,
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
