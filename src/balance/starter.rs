//! Where the background task runs: in the runtime that the balancer is built or first used in. When that has ended, or
//! nobody drives it, the task moves to another one.
//!
//! ```text
//!            a runtime is there            its runtime ends
//!  ┌────────┐ ────────────────▶ ┌─────────┐ ──────────────▶ ┌────────┐  the next request that needs it starts it
//!  │ vacant │                   │ running │                 │ vacant │  in its own runtime
//!  └────────┘                   └─────────┘                 └────────┘
//!                                  │   ▲ a request in another runtime needs it, and its own (current-thread)
//!                                  └───┘ runtime hasn't been driven for a second: it moves to that other one
//! ```
//!
//! When the task moves, it keeps what it knows. What belongs to a runtime, such as timers and attempts under way,
//! begins anew.

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

/// How long the background task may stay unpolled after it was woken, before another runtime takes it over.
const STANDSTILL: Duration = Duration::from_secs(1);

/// The background task, which can go on in another runtime.
pub(super) trait Background: Send + 'static {
    /// Does all pending work. Ready when the task has ended for good.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The name of the service.
    fn service(&self) -> Option<Arc<str>>;

    /// The task goes on in another runtime: what belonged to the last one is dead.
    fn moved(&mut self);

    /// Makes a function that wakes the waiters when the task's runtime has ended, so that one of them starts the task
    /// in another runtime. The function is called without any lock.
    fn suspended(&self) -> Box<dyn FnOnce()>;
}

/// Starts the background task when there is a runtime for it.
pub(super) struct Starter {
    place: CheckedMutex<Place>,
}

struct Place {
    /// None once it has ended for good.
    task: Option<Box<dyn Background>>,
    /// The runtime that it runs in, if it runs.
    home: Option<Home>,
    /// The runtime that it ran in last.
    last: Option<Home>,
    /// How often it has been started. A spawned future ends when there has been a later start.
    starts: u64,
    /// How often it has been polled.
    polls: u64,
    waker: Option<Waker>,
    /// A `Watch` waits to see whether its runtime is driven.
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

    /// Takes the background task, for tests that run it themselves.
    #[cfg(all(test, tower_headless_shuttle))]
    pub(super) fn take(&self) -> Option<futures_util::future::BoxFuture<'static, ()>> {
        let mut task = self.place.lock().task.take()?;
        Some(Box::pin(poll_fn(move |cx| task.poll(cx))))
    }

    /// Starts the background task if it doesn't run. False if there is no runtime here, or the one here is ending.
    pub(super) fn start(self: &Arc<Self>) -> bool {
        let Some(here) = Home::here() else {
            return false;
        };
        // If it is locked, it is being polled or started, perhaps by the caller itself.
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

    /// Spawns the task in the current runtime. A runtime that is ending drops it at once.
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

    /// Wakes the task, and moves it to this runtime if its own doesn't poll it within `STANDSTILL`.
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
            service, "nothing drives the background task's runtime; the task moves to another one"
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
    /// Assigns the task to `here`. Returns the number of this start.
    fn start(&mut self, here: Home) -> u64 {
        self.starts += 1;
        self.home = Some(here);
        self.starts
    }
}

/// The future that polls the task in one runtime.
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
        // A panic ends the task for good, because its state may be half changed.
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

/// Dropped when its runtime ends, or when the task has ended.
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

/// The wait to see whether the task's runtime is driven.
struct Watch(Weak<Starter>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(starter) = self.0.upgrade() {
            starter.place.lock().is_watched = false;
        }
    }
}
