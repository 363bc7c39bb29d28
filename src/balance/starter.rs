//! Where the background task runs: in the runtime that the balancer is built in or first used in, and in another one once
//! that has ended or stands still.
//!
//! ```text
//!            a runtime is there            its runtime ends
//!  ┌────────┐ ────────────────▶ ┌─────────┐ ──────────────▶ ┌────────┐  the next who needs it, in whatever runtime,
//!  │ vacant │                   │ running │                 │ vacant │  starts it there
//!  └────────┘                   └─────────┘                 └────────┘
//!                                  │   ▲ somebody in another runtime needs it, and nobody has driven its own
//!                                  └───┘ (current-thread) one for a second: it goes on in that other one
//! ```
//!
//! What the task knows stays here when it moves; what belongs to a runtime, timers and attempts under way, begins anew.

use std::{
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{runtime, time::sleep};

use crate::{
    home::Home,
    logs::{ENDPOINTS, debug, error},
    signals::Attendant,
    sync::CheckedMutex,
};

/// How long a runtime may leave the background task alone that has been woken, before another one takes it over.
const STANDSTILL: Duration = Duration::from_secs(1);

/// The background task, which can go on in another runtime.
pub(super) trait Background: Send + 'static {
    /// Goes on. Ready when there is nothing left to do, for good.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The name of the service.
    fn service(&self) -> Option<Arc<str>>;

    /// It goes on in another runtime: what belonged to the last one is dead.
    fn moved(&mut self);

    /// Tells those who wait for it that its runtime has ended: one of them may start it in another one. Called without any
    /// lock.
    fn suspended(&self) -> Box<dyn FnOnce()>;
}

/// Starts the background task, when there is a runtime to do so.
pub(super) struct Starter {
    place: CheckedMutex<Place>,
}

struct Place {
    /// None once it has ended for good.
    task: Option<Box<dyn Background>>,
    /// Where it runs, if it does.
    home: Option<Home>,
    /// Where it ran last.
    last: Option<Home>,
    /// How often it has been started: an earlier start's task ends when it learns of a later one.
    starts: u64,
    /// How often it has been polled.
    polls: u64,
    waker: Option<Waker>,
    /// Somebody waits to see whether its runtime is driven.
    is_watched: bool,
}

impl Starter {
    pub(super) fn new(task: impl Background) -> Self {
        Self {
            place: CheckedMutex::new(Place {
                task: Some(Box::new(task)),
                home: None,
                last: None,
                starts: 0,
                polls: 0,
                waker: None,
                is_watched: false,
            }),
        }
    }

    /// The background task, for those who run it themselves.
    #[cfg(all(test, tower_headless_shuttle))]
    pub(super) fn take(&self) -> Option<futures_util::future::BoxFuture<'static, ()>> {
        let mut task = self.place.lock().task.take()?;
        Some(Box::pin(poll_fn(move |cx| task.poll(cx))))
    }

    /// Starts the background task if it doesn't run and there is a runtime to do it. True unless it had to be started, and
    /// couldn't be, for want of one.
    pub(super) fn start(self: &Arc<Self>) -> bool {
        let Some(here) = Home::here() else {
            return false;
        };
        // If it is locked, it is being polled, or started, and perhaps by whoever calls this.
        let Some(mut place) = self.place.try_lock() else {
            return true;
        };
        match place.home {
            _ if place.task.is_none() => true,
            Some(home) => {
                if !home.runs_beside_us() && !std::mem::replace(&mut place.is_watched, true) {
                    let waker = place.waker.clone();
                    let polls = place.polls;
                    drop(place);
                    self.watch(waker, polls);
                }
                true
            }
            None => {
                let start = place.start(here);
                drop(place);
                self.spawn(start);
                self.is_at(start)
            }
        }
    }

    /// Runs in the runtime that this is called in. One that is about to end drops the task at once.
    fn spawn(self: &Arc<Self>, start: u64) {
        let shift = Shift {
            starter: self.clone(),
            start,
        };
        runtime::Handle::current().spawn(poll_fn(move |cx| shift.poll(cx)));
    }

    fn is_at(&self, start: u64) -> bool {
        let place = self.place.lock();
        place.task.is_none() || (place.home.is_some() && place.starts == start)
    }

    /// Takes the task over to this runtime if its own doesn't poll it for so long, though it is woken.
    fn watch(self: &Arc<Self>, waker: Option<Waker>, polls: u64) {
        if let Some(waker) = waker {
            waker.wake();
        }
        let watch = Watch(Arc::downgrade(self));
        runtime::Handle::current().spawn(async move {
            sleep(STANDSTILL).await;
            if let Some(starter) = watch.0.upgrade() {
                starter.take_over(polls);
            }
        });
    }

    fn take_over(self: &Arc<Self>, polls: u64) {
        let (Some(here), Some(mut place)) = (Home::here(), self.place.try_lock()) else {
            return;
        };
        let stands_still = place.home.is_some() && place.polls == polls && place.task.is_some();
        if !stands_still {
            return;
        }
        let service = place.task.as_ref().and_then(|task| task.service());
        debug!(
            ENDPOINTS,
            service, "the background task's runtime stands still: it goes on in another one"
        );
        let start = place.start(here);
        drop(place);
        self.spawn(start);
    }
}

impl Attendant for Starter {
    fn attend(self: Arc<Self>) -> bool {
        self.start()
    }
}

impl fmt::Debug for Starter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Starter").finish_non_exhaustive()
    }
}

impl Place {
    /// The number of the start that it is now for `here` to make.
    fn start(&mut self, here: Home) -> u64 {
        self.starts += 1;
        self.home = Some(here);
        self.starts
    }
}

/// The task in one runtime.
struct Shift {
    starter: Arc<Starter>,
    start: u64,
}

impl Shift {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut place = self.starter.place.lock();
        let Place {
            task: Some(task),
            home,
            last,
            starts,
            polls,
            waker,
            ..
        } = &mut *place
        else {
            return Poll::Ready(());
        };
        if *starts != self.start {
            return Poll::Ready(());
        }
        *polls += 1;
        match waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        let has_moved = last.is_some() && last != home;
        *last = *home;
        // A panic ends it for good: what it was about is half done.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if has_moved {
                task.moved();
            }
            task.poll(cx)
        }));
        match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => {}
            Err(_) => error!(
                ENDPOINTS,
                task.service(),
                "the balancer's background task panicked: the balancer is closed"
            ),
        }
        let task = place.task.take();
        drop(place);
        drop(task);
        Poll::Ready(())
    }
}

/// Its runtime has ended, or the task has.
impl Drop for Shift {
    fn drop(&mut self) {
        let mut place = self.starter.place.lock();
        if place.starts != self.start {
            return;
        }
        place.home = None;
        place.waker = None;
        let suspended = place.task.as_ref().map(|task| task.suspended());
        drop(place);
        if let Some(tell) = suspended {
            tell();
        }
    }
}

/// Somebody waits to see whether the task's runtime is driven.
struct Watch(Weak<Starter>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(starter) = self.0.upgrade() {
            starter.place.lock().is_watched = false;
        }
    }
}
