//! Scenarios: the pods and what happens to them, the load, and the figures to look at afterwards.

mod change;
mod failing;
mod gone;
mod slow;
mod work;

pub(crate) use work::Work;

use std::{ops::Range, time::Duration};

use crate::{pod::Condition, run::Run};

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// How many pods there are at the beginning, numbered from 0.
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
    /// In the plot, a later answer counts as useless.
    pub(crate) limit: Option<Duration>,
    /// How late a client's discovery may learn of a change.
    pub(crate) lag: Duration,
    pub(crate) steps: Vec<(Duration, Step)>,
    /// The pods to look at, and what is wrong with them.
    pub(crate) marked: Vec<(Range<usize>, &'static str)>,
    pub(crate) figures: Vec<Figure>,
    /// Whether the figures without health checks are worth a look.
    pub(crate) compares_health: bool,
    /// Whether the pods' requests are counted all the time.
    pub(crate) samples: bool,
}

/// A scripted step.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Pod(usize, Condition),
    /// These are the pods of the Service from now on.
    Members(Vec<usize>),
}

/// A column that only this scenario has.
pub(crate) struct Figure {
    pub(crate) title: &'static str,
    pub(crate) of: fn(&Run) -> String,
}

/// All scenarios, in the order in which they run.
pub(crate) fn all() -> Vec<Scenario> {
    let all = [slow::all(), failing::all(), gone::all(), change::all()];
    all.into_iter().flatten().collect()
}

impl Scenario {
    pub(crate) fn new(name: &'static str, about: &'static str) -> Self {
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
            limit: None,
            lag: Duration::ZERO,
            steps: Vec::new(),
            marked: Vec::new(),
            figures: Vec::new(),
            compares_health: false,
            samples: false,
        }
    }

    fn step(mut self, at: Duration, step: Step) -> Self {
        self.steps.push((at, step));
        self
    }

    /// Puts `pod` into this condition at the time `at`.
    fn pod(self, at: Duration, pod: usize, condition: Condition) -> Self {
        self.step(at, Step::Pod(pod, condition))
    }

    fn mark(self, pod: usize, what: &'static str) -> Self {
        self.mark_all(pod..pod + 1, what)
    }

    fn mark_all(mut self, pods: Range<usize>, what: &'static str) -> Self {
        self.marked.push((pods, what));
        self
    }

    fn figure(mut self, title: &'static str, of: fn(&Run) -> String) -> Self {
        self.figures.push(Figure { title, of });
        self
    }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
