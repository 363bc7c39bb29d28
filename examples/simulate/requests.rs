//! Polls the requests under way, and records their outcomes.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::future::BoxFuture;
use tower_headless::Error;

use crate::run::{Outcome, Record};

/// All requests of the simulation. Woken requests are polled in the order of their numbers, whichever was woken first.
/// A runtime with many tasks would guarantee no order.
#[derive(Default)]
pub(crate) struct Requests {
    /// By number; `None` if it has ended.
    all: Vec<Option<InFlight>>,
    in_flight: usize,
    woken: Woken,
    records: Vec<Record>,
}

pub(crate) type Sent = BoxFuture<'static, Result<(), Error>>;

struct InFlight {
    sent: Sent,
    waker: Waker,
    since: Duration,
}

/// The numbers of the requests to poll.
type Woken = Arc<Mutex<Vec<usize>>>;

struct WakeRequest {
    number: usize,
    woken: Woken,
}

impl Wake for WakeRequest {
    fn wake(self: Arc<Self>) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        woken.push(self.number);
    }
}

impl Requests {
    /// Adds a request, and returns its number.
    pub(crate) fn begin(&mut self, sent: Sent, now: Duration) -> usize {
        let number = self.all.len();
        let woken = self.woken.clone();
        self.all.push(Some(InFlight {
            sent,
            waker: Arc::new(WakeRequest { number, woken }).into(),
            since: now,
        }));
        self.in_flight += 1;
        self.poll(number, now);
        number
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight == 0
    }

    pub(crate) fn poll_woken(&mut self, now: Duration) {
        loop {
            let mut woken = {
                let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
                mem::take(&mut *woken)
            };
            if woken.is_empty() {
                return;
            }
            woken.sort_unstable();
            woken.dedup();
            for number in woken {
                self.poll(number, now);
            }
        }
    }

    fn poll(&mut self, number: usize, now: Duration) {
        let Some(request) = &mut self.all[number] else {
            return;
        };
        let cx = &mut Context::from_waker(&request.waker);
        if let Poll::Ready(result) = request.sent.as_mut().poll(cx) {
            let outcome = match result {
                Ok(()) => Outcome::Answered,
                Err(error) if error.is_unsent() => Outcome::Unsent,
                Err(_) => Outcome::Failed,
            };
            self.end(number, outcome, now);
        }
    }

    /// Cancels a request, unless it has ended.
    pub(crate) fn give_up(&mut self, number: usize, now: Duration) {
        self.end(number, Outcome::TimedOut, now);
    }

    fn end(&mut self, number: usize, outcome: Outcome, now: Duration) {
        if let Some(request) = self.all[number].take() {
            self.in_flight -= 1;
            self.records.push(Record {
                at: request.since,
                took: now - request.since,
                outcome,
            });
        }
    }

    /// Ends all requests, and returns their records.
    pub(crate) fn finish(mut self, now: Duration) -> Vec<Record> {
        for number in 0..self.all.len() {
            self.give_up(number, now);
        }
        self.records
    }
}
