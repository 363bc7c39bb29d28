//! HTTP/2 connections that are too old: another one takes over before the old one stops, so that no request waits for a
//! handshake because of age.
//!
//! ```text
//!  takes requests ──▶ too old: a successor is dialled ──▶ it is there, or can't be had ──▶ takes no more ──▶ its last request
//!                     while the old one takes requests                                     (retired)         ends: closed
//! ```
//!
//! From the moment its successor is dialled, the old one does not count against the limit of connections.

use std::sync::{Arc, Weak};

use tokio::task;

use super::{Origin, Pool, connection::Http2, state::State};

use crate::logs::{CONNECTIONS, debug};

impl Pool {
    /// Has another connection made in the place of one that is too old.
    pub(super) fn succeed(self: &Arc<Self>, state: &mut State, old: &Arc<Http2>) {
        // What is being dialled will do for this one as well.
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
                debug!(CONNECTIONS, service, endpoint = %pod, "a connection is too old: another one takes over");
                let dialing = self.dial_for_all(room, Arc::downgrade(old));
                state.dialing.push(dialing);
            }
            // There are others.
            Err(_full) => old.retire(),
        }
    }

    /// The dial for all that this is called in has ended, for good or bad. Nobody who comes later is to have its error.
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
        // Some may wait for a place on the old one.
        self.freed.tell_all();
    }
}
