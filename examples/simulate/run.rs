//! What came of one simulation, and the questions it answers.

use std::time::Duration;

use crate::cluster::Call;

/// What one policy made of a scenario.
pub(crate) struct Run {
    pub(crate) policy: &'static str,
    pub(crate) pods: usize,
    /// In the order the requests ended in.
    pub(crate) records: Vec<Record>,
    /// In the order the pods got them in.
    pub(crate) calls: Vec<Call>,
    /// How many requests each pod had, once a millisecond.
    pub(crate) samples: Vec<Vec<usize>>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    /// When it was sent.
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    /// A pod answered with an error, or died with the request.
    Failed,
    /// Its caller gave up.
    TimedOut,
    /// No pod took it.
    Unsent,
}

impl Run {
    /// The part of the requests that were answered.
    pub(crate) fn success(&self) -> f64 {
        let answered = self.records.iter().filter(|record| record.is_answered());
        answered.count() as f64 / self.records.len() as f64
    }

    /// The time within which this part of the answered requests were.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let answered = self.records.iter().filter(|record| record.is_answered());
        let mut took: Vec<_> = answered.map(|record| record.took).collect();
        if took.is_empty() {
            return Duration::ZERO;
        }
        let rank = (took.len() as f64 * part).ceil() as usize;
        let index = rank.clamp(1, took.len()) - 1;
        *took.select_nth_unstable(index).1
    }

    /// Each pod's part of all requests that pods got.
    pub(crate) fn shares(&self) -> Vec<f64> {
        let mut counts = vec![0_u32; self.pods];
        for call in &self.calls {
            counts[call.pod] += 1;
        }
        let all = self.calls.len().max(1) as f64;
        counts.iter().map(|&count| f64::from(count) / all).collect()
    }
}

impl Record {
    pub(crate) fn is_answered(&self) -> bool {
        self.outcome == Outcome::Answered
    }
}
