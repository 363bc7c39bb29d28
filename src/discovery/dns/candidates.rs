//! Which of the full names that a short one may stand for is in use.
//!
//! ```text
//!            a candidate has pods ──▶ pinned ──▶ is it the first? ── yes ──▶ that's it
//!   none ◀── its absence is confirmed ──┘  ▲           │ no
//!                                          │           ▼ every 40 s, or 10 s
//!                    this one from now on ─┴── an earlier one has pods
//! ```
//!
//! A later candidate may have answered only because the first one had no pods at that moment. Without the looks back, a
//! wildcard or a public name with the same text would keep the client for ever. Or the first name server was away, and
//! its stand-in doesn't know the first candidate: then the earlier candidates are tried again sooner.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rand::RngExt;
use tokio::time::{Sleep, sleep};

use super::{
    lookup::Resolve,
    name::Name,
    walk::{Looks, Step, Walk, Walked},
};

/// The pause between looks at the candidates before the pinned one: less than a minute, including the look.
const AGAIN: Duration = Duration::from_secs(40);

/// The shorter pause after such a look has failed, or after the negative answer came from a stand-in for a failing name
/// server.
const SOON: Duration = Duration::from_secs(10);

/// The candidates of a name, and the one in use.
pub(super) struct Candidates<R> {
    /// The shortest time between two looks, by the user's setting.
    floor: Duration,
    names: Arc<[Arc<str>]>,
    pinned: Option<Arc<str>>,
    /// Fires when the candidates before the pinned one are due; none if there are no such candidates.
    timer: Option<Pin<Box<Sleep>>>,
    walk: Option<Walk<R>>,
}

impl<R: Resolve> Candidates<R> {
    /// Begins without candidates. `floor` is the shortest time between two looks.
    pub(super) fn new(floor: Duration) -> Self {
        Self {
            floor,
            names: Arc::default(),
            pinned: None,
            timer: None,
            walk: None,
        }
    }

    pub(super) fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    pub(super) fn pinned(&self) -> Option<&Arc<str>> {
        self.pinned.as_ref()
    }

    /// Sets the current candidates. If they changed, the pin is lost; a single candidate is pinned at once.
    pub(super) fn learn(&mut self, names: Vec<Arc<str>>) {
        if *names == *self.names {
            return;
        }
        self.names = names.into();
        self.forget();
        if let [only] = &*self.names {
            self.pinned = Some(only.clone());
        }
    }

    /// Pins a candidate. `is_provisional`: the negative answer for those before it came from a stand-in.
    pub(super) fn pin(&mut self, name: &Arc<str>, is_provisional: bool) {
        self.forget();
        self.pinned = Some(name.clone());
        self.wait(pause(is_provisional));
    }

    /// Unpins a candidate that is confirmed to have nothing any more, if there are others to walk over.
    pub(super) fn release(&mut self) {
        if self.names.len() > 1 {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.pinned = None;
        self.timer = None;
        self.walk = None;
    }

    /// The candidates that would be preferred to the pinned one.
    fn earlier(&self) -> Arc<[Arc<str>]> {
        let pinned = self.pinned.as_ref();
        let before = |name: &&Arc<str>| pinned.is_some_and(|pinned| *name != pinned);
        self.names.iter().take_while(before).cloned().collect()
    }

    fn wait(&mut self, time: Duration) {
        let time = time.mul_f64(rand::rng().random_range(0.9..=1.0));
        let is_first = self.earlier().is_empty();
        self.timer = (!is_first).then(|| Box::pin(sleep(time.max(self.floor))));
    }

    /// Looks at the candidates before the pinned one from time to time. As soon as one of them has something, pins that
    /// one. `name` is the name as the user wrote it.
    pub(super) fn poll_earlier(
        &mut self,
        name: &Name,
        looks: impl Fn() -> Looks<R>,
        cx: &mut Context<'_>,
    ) -> Poll<(Arc<str>, Vec<Step>)> {
        loop {
            let Some(timer) = &mut self.timer else {
                return Poll::Pending;
            };
            let Some(walk) = &mut self.walk else {
                ready!(timer.as_mut().poll(cx));
                self.walk = Some(Walk::new(self.earlier(), looks()));
                continue;
            };
            let walked = ready!(walk.poll(&name.to_string(), cx));
            self.walk = None;
            match walked {
                Walked::Found {
                    name,
                    steps,
                    is_provisional,
                } => {
                    self.pin(&name, is_provisional);
                    return Poll::Ready((name, steps));
                }
                Walked::Nothing(nothing) => self.wait(pause(nothing.is_provisional)),
                Walked::Failed(_) => self.wait(SOON),
            }
        }
    }
}

/// The pause after a look that found nothing at the candidates before the pinned one.
fn pause(is_provisional: bool) -> Duration {
    match is_provisional {
        true => SOON,
        false => AGAIN,
    }
}
