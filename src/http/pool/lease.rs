//! A connection as a response has it.

use std::sync::Weak;

use super::{
    Pool,
    connection::{Http1, Reserved, Stream},
};

/// What a response holds of its connection.
pub(in crate::http) struct Lease(Held);

enum Held {
    Http1(Box<Http1>, Weak<Pool>),
    Http2(Stream),
}

impl Lease {
    pub(in crate::http) fn new(connection: Reserved, pool: Weak<Pool>) -> Self {
        Self(match connection {
            Reserved::Http1(connection) => Held::Http1(connection, pool),
            Reserved::Http2(stream) => Held::Http2(stream),
        })
    }

    /// The connection speaks HTTP no more. It is nobody else's.
    pub(in crate::http) fn upgraded(&self) {
        if let Held::Http1(connection, _) = &self.0 {
            connection.hints.upgraded();
        }
    }

    /// The connection has ended with its runtime.
    pub(in crate::http) fn is_cut_off(&self) -> bool {
        match &self.0 {
            Held::Http1(connection, _) => connection.hints.is_cut_off(),
            Held::Http2(stream) => stream.http2().is_cut_off(),
        }
    }

    /// The response has been read to its end: another may come over the connection.
    pub(in crate::http) fn release(self) {
        match self.0 {
            Held::Http1(connection, pool) => Pool::release(&pool, connection),
            Held::Http2(_) => {}
        }
    }
}
