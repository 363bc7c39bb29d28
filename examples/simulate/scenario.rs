//! What a simulation is of: pods, what becomes of them, who sends how much, and what to look at afterwards.

mod catalog;
mod work;

pub(crate) use catalog::all;
pub(crate) use work::Work;

use std::time::Duration;

use crate::{pod::Condition, run::Run};

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// How many there are at the beginning: numbers 0 to this.
    pub(crate) pods: usize,
    /// How many requests a pod works on at a time.
    pub(crate) workers: usize,
    pub(crate) work: Work,
    pub(crate) clients: usize,
    /// Requests a second, of all clients together.
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
    /// When a caller gives up.
    pub(crate) timeout: Option<Duration>,
    /// How late a client's discovery may learn of a change.
    pub(crate) lag: Duration,
    pub(crate) steps: Vec<(Duration, Step)>,
    /// The pods to look at, and what is the matter with them.
    pub(crate) marked: Vec<(usize, &'static str)>,
    pub(crate) figures: Vec<Figure>,
}

/// Something that happens by the script.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Pod(usize, Condition),
    /// These are the pods of the Service from now on.
    Members(Vec<usize>),
}

/// A column of the scenario's own.
pub(crate) struct Figure {
    pub(crate) title: &'static str,
    pub(crate) of: fn(&Run) -> String,
}

impl Scenario {
    fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            pods: 10,
            workers: 64,
            work: Work::web(),
            clients: 1,
            rate: 2_000.0,
            duration: Duration::from_secs(60),
            timeout: None,
            lag: Duration::ZERO,
            steps: Vec::new(),
            marked: Vec::new(),
            figures: Vec::new(),
        }
    }

    fn step(mut self, at: Duration, step: Step) -> Self {
        self.steps.push((at, step));
        self
    }

    /// `pod` is in this condition from the time `at` on.
    fn pod(self, at: Duration, pod: usize, condition: Condition) -> Self {
        self.step(at, Step::Pod(pod, condition))
    }

    fn mark(mut self, pod: usize, what: &'static str) -> Self {
        self.marked.push((pod, what));
        self
    }

    fn figure(mut self, title: &'static str, of: fn(&Run) -> String) -> Self {
        self.figures.push(Figure { title, of });
        self
    }
}
