//! Which address family's endpoints are in use.
//!
//! ```text
//!               all of its endpoints refuse, and there are some of the other
//!  preferred ──────────────────────────────────────────────────────────────▶ other
//!            ◀──────────────────────────────────────────────────────────────
//!               the same; or nothing is left of what refused
//! ```
//!
//! It follows RFC 8305 in spirit: the preferred family first, the other one if that doesn't connect. The RFC races
//! single addresses against each other. That isn't possible here: nobody knows which two addresses are the same pod's,
//! and a pod must count once.

use std::{
    collections::HashSet,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::endpoint::Endpoint;

/// How long one family is kept at least if both refuse; doubles from the shortest up to the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A change of family after this long starts again with [`SHORTEST`].
const LONG_AGO: Duration = Duration::from_secs(60);

/// Which family is in use, and which endpoints refuse.
#[derive(Default)]
pub(super) struct Families {
    /// The endpoints in use that refuse connections.
    refusing: HashSet<SocketAddr>,
    /// The preferred family's endpoints that refused when it was left; none while it is in use.
    left: Option<HashSet<SocketAddr>>,
    /// When the family last changed, and how long it is kept from then.
    changed: Option<(Instant, Duration)>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The endpoints of both families.
#[derive(Clone, Copy)]
pub(super) struct Sets<'a> {
    pub(super) in_use: &'a [Endpoint],
    /// The endpoints that could be used instead; none if they aren't known.
    pub(super) other: Option<&'a [Endpoint]>,
    /// The preferred family's endpoints; none if they aren't known.
    pub(super) preferred: Option<&'a [Endpoint]>,
}

impl Families {
    /// Whether the family in use isn't the preferred one.
    pub(super) fn is_other(&self) -> bool {
        self.left.is_some()
    }

    pub(super) fn refused(&mut self, endpoint: &Endpoint) {
        self.refusing.insert(endpoint.address());
    }

    pub(super) fn accepted(&mut self, endpoint: &Endpoint) {
        self.refusing.remove(&endpoint.address());
    }

    /// Forgets endpoints that aren't in the set in use any more.
    pub(super) fn retain(&mut self, in_use: &[Endpoint]) {
        if !self.refusing.is_empty() {
            let addresses: HashSet<_> = in_use.iter().map(Endpoint::address).collect();
            self.refusing.retain(|address| addresses.contains(address));
        }
    }

    /// Waits until it is time to use the other family.
    pub(super) fn poll_change(&mut self, sets: Sets<'_>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_back(sets) {
            self.change();
            return Poll::Ready(());
        }
        let refuses = |endpoint: &Endpoint| self.refusing.contains(&endpoint.address());
        let is_useless = !sets.in_use.is_empty() && sets.in_use.iter().all(refuses);
        if !is_useless || sets.other.is_some_and(<[_]>::is_empty) {
            self.timer = None;
            return Poll::Pending;
        }
        if let Some((at, pause)) = self.changed {
            let timer = || Box::pin(sleep_until(at + pause));
            ready!(self.timer.get_or_insert_with(timer).as_mut().poll(cx));
        }
        self.change();
        Poll::Ready(())
    }

    /// Whether the preferred family was left, and now has endpoints none of which refused then.
    fn is_back(&self, sets: Sets<'_>) -> bool {
        let (Some(left), Some(preferred)) = (&self.left, sets.preferred) else {
            return false;
        };
        let mut addresses = preferred.iter().map(Endpoint::address);
        !preferred.is_empty() && !addresses.any(|address| left.contains(&address))
    }

    fn change(&mut self) {
        let refusing = std::mem::take(&mut self.refusing);
        self.left = match self.left {
            None => Some(refusing),
            Some(_) => None,
        };
        let now = Instant::now();
        let recent = self.changed.filter(|(at, _)| now < *at + LONG_AGO);
        let pause = recent.map_or(SHORTEST, |(_, pause)| LONGEST.min(2 * pause));
        self.changed = Some((now, pause));
        self.timer = None;
    }
}
