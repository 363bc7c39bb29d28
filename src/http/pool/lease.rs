//! A response's hold on its connection.

use std::sync::Weak;

use super::{
    Pool,
    connection::{Http1, Reserved, Stream},
};
use crate::{
    counters::Closed,
    error::BoxError,
    http::{cause::h2_cause, reclaim::Reclaimed},
};

/// What a response holds of its connection.
pub(in crate::http) struct Lease(Leased);

enum Leased {
    Http1(Box<Http1>, Weak<Pool>),
    Http2(Stream),
}

impl Lease {
    pub(in crate::http) fn new(connection: Reserved, pool: Weak<Pool>) -> Self {
        Self(match connection {
            Reserved::Http1(connection) => Leased::Http1(connection, pool),
            Reserved::Http2(stream) => Leased::Http2(stream),
        })
    }

    /// The stream of an upgraded HTTP/1.1 connection, which no longer speaks HTTP; none if it is gone.
    pub(in crate::http) async fn claim(&mut self) -> Option<Reclaimed> {
        let Leased::Http1(connection, _) = &mut self.0 else {
            return None;
        };
        let stream = connection.claim.take().await?;
        connection.hints.upgraded();
        Some(stream)
    }

    /// Notes that the client closes the connection that it has upgraded.
    pub(in crate::http) fn ends_upgraded(&self) {
        if let Leased::Http1(connection, _) = &self.0 {
            connection.hints.ending().because(Closed::Client);
        }
    }

    /// Notes that the response has failed with this error.
    pub(in crate::http) fn failed(&self, error: &hyper::Error) {
        match &self.0 {
            Leased::Http1(connection, _) => connection.hints.ending().failed_request(error),
            Leased::Http2(stream) if h2_cause(error).is_none_or(h2::Error::is_io) => {
                stream.http2().ending().failed_request(error);
            }
            Leased::Http2(_) => {}
        }
    }

    /// Whether the connection has ended with its runtime.
    pub(in crate::http) fn is_cut_off(&self) -> bool {
        match &self.0 {
            Leased::Http1(connection, _) => connection.hints.is_cut_off(),
            Leased::Http2(stream) => stream.http2().is_cut_off(),
        }
    }

    /// Why the request's own body failed, if it did.
    pub(in crate::http) fn take_body_error(&self) -> Option<BoxError> {
        match &self.0 {
            Leased::Http1(connection, _) => connection.claim.take_body_error(),
            Leased::Http2(stream) => stream.fate().take_body_error(),
        }
    }

    /// Notes that nobody reads the rest of the response. An HTTP/1.1 connection closes when this is dropped.
    pub(in crate::http) fn give_up(&self) {
        if let Leased::Http2(stream) = &self.0 {
            stream.fate().give_up();
        }
    }

    /// Gives the connection back: the response has been read to its end.
    pub(in crate::http) fn release(self) {
        match self.0 {
            Leased::Http1(connection, pool) => Pool::release(&pool, connection),
            Leased::Http2(_) => {}
        }
    }
}
