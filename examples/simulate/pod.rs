//! One simulated pod: some workers, a queue before them, and its fault, if any.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use futures::channel::oneshot;

use crate::{event::Event, queue::Queue};

/// How long an answer without work takes: an immediate error.
const AT_ONCE: Duration = Duration::from_micros(200);

/// The condition of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Condition {
    #[default]
    Healthy,
    /// Each request takes this much longer.
    Slow(Duration),
    /// Each request takes this many times as long, as in a program that is still warming up.
    Cold(f64),
    /// This part of the requests gets an error, at once.
    Failing(f64),
    /// It takes requests, but works on them only once its condition changes.
    Hung,
    /// It refuses requests, and finishes those it has.
    Closed,
    /// It refuses requests, and loses those it had.
    Dead,
}

/// A request, with all its random values drawn in advance, so that every policy gets the same requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// How long a healthy pod works on it.
    pub(crate) work: Duration,
    /// From 0 to 1. A pod that fails a part of the requests fails those with the least luck.
    pub(crate) luck: f64,
}

/// A pod's answer.
pub(crate) type Answer = Result<(), &'static str>;

pub(crate) struct Job {
    pub(crate) request: Request,
    /// The caller may have gone; the pod doesn't notice, and works all the same.
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// A request that a worker has, or that is being refused.
struct Running {
    answer: oneshot::Sender<Answer>,
    says: Answer,
    has_worker: bool,
}

pub(crate) struct Pod {
    number: usize,
    condition: Condition,
    idle: usize,
    waiting: VecDeque<Job>,
    running: BTreeMap<u64, Running>,
    /// Requests whose work was due to end while the pod hung.
    overdue: Vec<u64>,
    taken: u64,
}

impl Pod {
    pub(crate) fn new(number: usize, workers: usize) -> Self {
        Self {
            number,
            condition: Condition::Healthy,
            idle: workers,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            overdue: Vec::new(),
            taken: 0,
        }
    }

    pub(crate) fn accepts(&self) -> bool {
        !matches!(self.condition, Condition::Closed | Condition::Dead)
    }

    /// How many requests it has, whether or not anybody still waits for them.
    pub(crate) fn in_flight(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    pub(crate) fn take(&mut self, job: Job, queue: &mut Queue<Event>) {
        match self.condition {
            Condition::Failing(part) if job.request.luck < part => {
                let refused = Running {
                    answer: job.answer,
                    says: Err("503 Service Unavailable"),
                    has_worker: false,
                };
                self.run(refused, AT_ONCE, queue);
            }
            _ => {
                self.waiting.push_back(job);
                self.begin(queue);
            }
        }
    }

    /// Ends the work on a request.
    pub(crate) fn finish(&mut self, job: u64, queue: &mut Queue<Event>) {
        if self.condition == Condition::Hung {
            self.overdue.push(job);
            return;
        }
        // It is gone if the pod has died since.
        if let Some(running) = self.running.remove(&job) {
            self.idle += usize::from(running.has_worker);
            let _ = running.answer.send(running.says);
        }
        self.begin(queue);
    }

    pub(crate) fn change(&mut self, condition: Condition, queue: &mut Queue<Event>) {
        self.condition = condition;
        if condition == Condition::Dead {
            self.waiting.clear();
            for running in std::mem::take(&mut self.running).into_values() {
                self.idle += usize::from(running.has_worker);
            }
        }
        for job in std::mem::take(&mut self.overdue) {
            self.finish(job, queue);
        }
        self.begin(queue);
    }

    /// Gives the first in the queue to the idle workers.
    fn begin(&mut self, queue: &mut Queue<Event>) {
        while self.condition != Condition::Hung
            && self.idle > 0
            && let Some(job) = self.waiting.pop_front()
        {
            self.idle -= 1;
            let work = job.request.work;
            let takes = match self.condition {
                Condition::Slow(more) => work + more,
                Condition::Cold(times) => work.mul_f64(times),
                _ => work,
            };
            let running = Running {
                answer: job.answer,
                says: Ok(()),
                has_worker: true,
            };
            self.run(running, takes, queue);
        }
    }

    fn run(&mut self, running: Running, takes: Duration, queue: &mut Queue<Event>) {
        let job = self.taken;
        self.taken += 1;
        self.running.insert(job, running);
        let pod = self.number;
        queue.after(takes, Event::Finished { pod, job });
    }
}
