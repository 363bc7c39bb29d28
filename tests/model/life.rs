//! A pod's life, and what happens in it.

use std::{
    panic::resume_unwind,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use tokio::time::Instant;

use crate::{lock::lock, plan::Mood};

/// A pod's life: from when it joins to when it leaves.
pub(crate) struct Life {
    pub(crate) host: u8,
    /// The first set that it is in.
    pub(crate) born_in: u32,
    /// The set that the balancer knows.
    known: Arc<AtomicU32>,
    state: Mutex<State>,
}

struct State {
    mood: Mood,
    /// Since when the pod would answer every request at once.
    prompt_since: Option<Instant>,
    wakers: Vec<Waker>,
    service: Option<Weak<()>>,
    log: Log,
}

/// What has happened in a life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Log {
    /// Requests taken.
    pub(crate) begun: u32,
    /// Requests whose answers have not ended.
    pub(crate) open: u32,
    /// Requests without an answer yet, including those that wait for readiness, and the balancer's own attempts.
    pub(crate) waiting: u32,
    pub(crate) most_waiting: u32,
    /// Waits for readiness.
    pub(crate) stalled: u32,
    /// Successful answers.
    pub(crate) good: u32,
    /// What may count against the pod: failures, refusals, requests that were given up.
    pub(crate) bad: u32,
    /// Times it was not ready, or panicked.
    pub(crate) refusals: u32,
    pub(crate) handed_back: u32,
}

impl Life {
    pub(crate) fn new(host: u8, born_in: u32, known: &Arc<AtomicU32>) -> Arc<Self> {
        Arc::new(Self {
            host,
            born_in,
            known: known.clone(),
            state: Mutex::new(State {
                mood: Mood::Well,
                prompt_since: Some(Instant::now()),
                wakers: Vec::new(),
                service: None,
                log: Log::default(),
            }),
        })
    }

    /// The set that the balancer knows now.
    pub(crate) fn known(&self) -> u32 {
        self.known.load(Relaxed)
    }

    pub(crate) fn mood(&self) -> Mood {
        lock(&self.state).mood
    }

    pub(crate) fn set(&self, mood: Mood) {
        let mut state = lock(&self.state);
        state.mood = mood;
        state.prompt_since = match mood.is_prompt() {
            true => state.prompt_since.or_else(|| Some(Instant::now())),
            false => None,
        };
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn prompt_since(&self) -> Option<Instant> {
        lock(&self.state).prompt_since
    }

    pub(crate) fn log(&self) -> Log {
        lock(&self.state).log
    }

    pub(crate) fn note<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R {
        let mut state = lock(&self.state);
        let result = change(&mut state.log);
        state.log.most_waiting = state.log.most_waiting.max(state.log.waiting);
        result
    }

    /// A token for its service and the clones of it to hold.
    pub(crate) fn alive(&self) -> Arc<()> {
        let alive = Arc::new(());
        lock(&self.state).service = Some(Arc::downgrade(&alive));
        alive
    }

    /// Whether its service or a clone of it is still alive.
    pub(crate) fn is_held(&self) -> bool {
        let state = lock(&self.state);
        state
            .service
            .as_ref()
            .is_some_and(|it| it.strong_count() > 0)
    }

    /// Waits until the pod's mood is none of these.
    pub(crate) fn poll_other(&self, moods: &[Mood], cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if !moods.contains(&state.mood) {
            return Poll::Ready(());
        }
        state.wakers.push(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn panic(&self) -> ! {
        self.note(|log| (log.refusals, log.bad) = (log.refusals + 1, log.bad + 1));
        // Without the panic hook, so that nothing is printed.
        resume_unwind(Box::new("a pod's service panics"))
    }
}
