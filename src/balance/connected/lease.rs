//! The connection of one request: to itself, with the place that it takes, or shared.

use std::{
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use tower::Service;

use super::pool::{Connection, Place, Pool};
use crate::{counters::Closed, error::BoxError, home::Home};

pub(super) struct Lease<S> {
    /// None once it has been given up.
    connection: Option<Connection<S>>,
    // Dropped after the connection, so that there are never more connections than places.
    place: Option<Place>,
    pool: Weak<Pool<S>>,
    is_new: bool,
    /// Whether the next request may have it.
    is_good: bool,
}

impl<S> Pool<S> {
    /// The shared connection, if this pool shares one and has it.
    pub(super) fn share(self: &Arc<Self>, here: Home) -> Option<Lease<S>> {
        let connection = self.shared(here)?;
        Some(Lease::new(self, connection, None, false))
    }

    /// Takes a connection that is there; if there is none, gives the place back.
    pub(super) fn take(self: &Arc<Self>, mut place: Place, here: Home) -> Result<Lease<S>, Place> {
        if self.settings.share.is_some() {
            // Another request may have made it while this one waited for the place.
            return self.share(here).ok_or(place);
        }
        match self.take_idle(&mut place, here) {
            Some(idle) => Ok(Lease::new(self, idle, Some(place), false)),
            None => Err(place),
        }
    }

    /// Leases a connection that was just made, and adds it to the pool if it is shared.
    pub(super) fn add(self: &Arc<Self>, service: S, place: Place, here: Home) -> Lease<S> {
        let id = self.number();
        let opened = self.counted.opened();
        let connection = |service| Connection {
            service,
            home: here,
            id,
            opened: opened.clone(),
        };
        let Some(share) = self.settings.share else {
            return Lease::new(self, connection(service), Some(place), true);
        };
        let own = connection(share(&service));
        self.put(connection(service), None);
        Lease::new(self, own, None, true)
    }
}

impl<S> Lease<S> {
    fn new(
        pool: &Arc<Pool<S>>,
        connection: Connection<S>,
        place: Option<Place>,
        is_new: bool,
    ) -> Self {
        Self {
            connection: Some(connection),
            place,
            pool: Arc::downgrade(pool),
            is_new,
            is_good: true,
        }
    }

    /// Whether the connection was made for this request.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The runtime that the connection lives in.
    pub(super) fn home(&self) -> Option<Home> {
        self.connection.as_ref().map(|connection| connection.home)
    }

    pub(super) fn poll_ready<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>
    where
        S: Service<Req>,
        S::Error: Into<BoxError>,
    {
        match &mut self.connection {
            Some(connection) => connection.service.poll_ready(cx).map_err(Into::into),
            None => Poll::Ready(Err("the connection has been given up".into())),
        }
    }

    /// Sends the request. From here on the connection is kept only if the exchange [ends](Self::end) well.
    pub(super) fn call<Req>(&mut self, request: Req) -> Option<S::Future>
    where
        S: Service<Req>,
    {
        // A shared connection stays good for the others.
        self.is_good = self.place.is_none();
        let connection = self.connection.as_mut()?;
        Some(connection.service.call(request))
    }

    /// The exchange has ended, with this error if any: keeps the connection or discards it.
    pub(super) fn end(mut self, error: Option<&BoxError>) {
        let pool = self.pool.upgrade();
        let is_kept = error.is_none_or(|error| {
            let keep_after = pool.as_ref().map(|pool| &pool.settings.keep_after);
            keep_after.is_some_and(|keep_after| keep_after(error))
        });
        match is_kept {
            true => self.is_good = true,
            false => drop(self.discard(Closed::Lost)),
        }
    }

    /// Closes the connection; if it is shared, no new request gets it. Returns the place, if it had one, for another
    /// connection.
    pub(super) fn discard(&mut self, why: Closed) -> Option<Place> {
        let connection = self.connection.take()?;
        connection.opened.ends(why);
        if self.place.is_none()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.forget(connection.id);
        }
        drop(connection);
        self.place.take()
    }
}

impl<S> Drop for Lease<S> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if !self.is_good {
            // Its request was cancelled.
            connection.opened.ends(Closed::Client);
        } else if let Some(pool) = self.pool.upgrade()
            && let Some(place) = self.place.take()
        {
            pool.put(connection, Some(place));
        }
    }
}
