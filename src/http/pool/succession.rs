//! Replaces HTTP/2 connections that are too old: the successor takes over before the old one stops, so that no request
//! waits for a handshake because of age.
//!
//! ```text
//!  takes requests ──▶ too old: a successor is dialled ──▶ it is connected, or failed ──▶ takes no more ──▶ its last request
//!                     while the old one takes requests                                   (retired)         ends: closed
//! ```
//!
//! From when its successor is dialled, the old connection doesn't count against the limit.

use std::sync::{Arc, Weak};

use tokio::task;

use super::{Origin, Pool, connection::Http2, state::State};

use crate::logs::{CONNECTIONS, debug};

impl Pool {
    /// Connects a successor for a connection that is too old.
    pub(super) fn succeed(self: &Arc<Self>, state: &mut State, old: &Arc<Http2>) {
        // The current dial will do for this one as well.
        if state.dialing().is_some() {
            if !old.age.allows_one_more() {
                old.retire();
            }
            return;
        }
        old.vacate();
        match self.take_room(state) {
            Ok(room) => {
                let Origin { pod, service } = &*self.named.origin;
                debug!(CONNECTIONS, service, endpoint = %pod, "a connection is too old; connecting its successor");
                let dialing = self.dial_for_all(room, Arc::downgrade(old));
                state.dialing.push(dialing);
            }
            // There are other connections.
            Err(_full) => old.retire(),
        }
    }

    /// Ends the dial for all requests, successful or not. Later requests must not get its error.
    pub(super) fn end_dial(&self, replaced: &Weak<Http2>) {
        let old = replaced.upgrade();
        if let Some(old) = &old {
            old.retire();
        }
        let mut state = self.state.lock();
        let ended = task::try_id();
        state.dialing.retain(|it| Some(it.dial.task()) != ended);
        if old.is_some() {
            state.drop_those_that_are_over();
        }
        drop(state);
        // Some requests may wait for a place on the old connection.
        self.freed.tell_all();
    }
}
