//! Which address family's endpoints are used.
//!
//! ```text
//!               all of its endpoints refuse, and there are some of the other
//!  preferred ──────────────────────────────────────────────────────────────▶ other
//!            ◀──────────────────────────────────────────────────────────────
//!               the same; or nothing is left of what refused
//! ```
//!
//! RFC 8305 in spirit: the preferred family first, the other one where that leads nowhere. It tries single addresses against
//! each other, which is not to be had here: which two addresses are one pod's is not known, and a pod has to count once.

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

/// How long one family is kept at least where both refuse; it doubles up to the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// After this long a change of family is another story.
const LONG_AGO: Duration = Duration::from_secs(60);

/// What is known of the families' endpoints.
#[derive(Default)]
pub(super) struct Families {
    /// Those in use that refuse connections.
    refusing: HashSet<SocketAddr>,
    /// Those of the preferred family that did when it was left; none while it is used.
    left: Option<HashSet<SocketAddr>>,
    /// When the family was last changed, and how long from then it is kept at least.
    changed: Option<(Instant, Duration)>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The endpoints that there are.
#[derive(Clone, Copy)]
pub(super) struct Sets<'a> {
    pub(super) in_use: &'a [Endpoint],
    /// Those that could be used instead; none if that isn't known.
    pub(super) other: Option<&'a [Endpoint]>,
    /// Those of the preferred family; none if they aren't known.
    pub(super) preferred: Option<&'a [Endpoint]>,
}

impl Families {
    /// Whether the family is used that is not the preferred one.
    pub(super) fn is_other(&self) -> bool {
        self.left.is_some()
    }

    pub(super) fn refused(&mut self, endpoint: &Endpoint) {
        self.refusing.insert(endpoint.address());
    }

    pub(super) fn accepted(&mut self, endpoint: &Endpoint) {
        self.refusing.remove(&endpoint.address());
    }

    /// The set in use is another one.
    pub(super) fn retain(&mut self, in_use: &[Endpoint]) {
        if !self.refusing.is_empty() {
            let addresses: HashSet<_> = in_use.iter().map(Endpoint::address).collect();
            self.refusing.retain(|address| addresses.contains(address));
        }
    }

    /// Waits until the other family is to be used.
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

    /// Whether the preferred family has been left, and has endpoints again of which none refused.
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
