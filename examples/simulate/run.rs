//! The results of one simulation, and the figures computed from them.

use std::{ops::Range, time::Duration};

use crate::cluster::Call;

/// The results of a scenario with one policy.
pub(crate) struct Run {
    pub(crate) pods: usize,
    /// In the order in which the requests ended.
    pub(crate) records: Vec<Record>,
    /// In the order in which the pods got them.
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
    /// The part of requests that were answered.
    pub(crate) fn success(&self) -> f64 {
        self.success_in(Duration::ZERO..Duration::MAX)
    }

    /// The part answered of the requests that were sent in this time.
    pub(crate) fn success_in(&self, time: Range<Duration>) -> f64 {
        self.part(|record| time.contains(&record.at), Record::is_answered)
    }

    /// The part of requests that were answered within `limit`.
    pub(crate) fn within(&self, limit: Duration) -> f64 {
        self.part(
            |_| true,
            |record| record.is_answered() && record.took <= limit,
        )
    }

    fn part(&self, of: impl Fn(&Record) -> bool, which: impl Fn(&Record) -> bool) -> f64 {
        let (mut all, mut some) = (0_u32, 0_u32);
        for record in self.records.iter().filter(|record| of(record)) {
            all += 1;
            some += u32::from(which(record));
        }
        f64::from(some) / f64::from(all.max(1))
    }

    /// How many requests were not answered.
    pub(crate) fn lost(&self) -> usize {
        let lost = self.records.iter().filter(|record| !record.is_answered());
        lost.count()
    }

    /// The time within which this part of the answered requests was answered.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let answered = self.records.iter().filter(|record| record.is_answered());
        quantile(answered.map(|record| record.took).collect(), part)
    }

    /// Each pod's share of all requests that pods got.
    pub(crate) fn shares(&self) -> Vec<f64> {
        let mut counts = vec![0_u32; self.pods];
        for call in &self.calls {
            counts[call.pod] += 1;
        }
        let all = self.calls.len().max(1) as f64;
        counts.iter().map(|&count| f64::from(count) / all).collect()
    }

    /// The share of `pods` in the requests that pods got in this time.
    pub(crate) fn share_in(&self, pods: Range<usize>, time: Range<Duration>) -> f64 {
        let calls = self.calls.iter().filter(|call| time.contains(&call.at));
        let (mut all, mut some) = (0_u32, 0_u32);
        for call in calls {
            all += 1;
            some += u32::from(pods.contains(&call.pod));
        }
        f64::from(some) / f64::from(all.max(1))
    }

    /// How long after `since` the pod went on getting requests, until it got none for a second.
    pub(crate) fn in_for(&self, pod: usize, since: Duration) -> Option<Duration> {
        let calls = self.calls.iter().filter(|call| call.pod == pod);
        let mut last = since;
        for call in calls.skip_while(|call| call.at < since) {
            if call.at - last >= OUT {
                return Some(last - since);
            }
            last = call.at;
        }
        let end = self.calls.last().map_or(last, |call| call.at);
        (end - last >= OUT).then(|| last - since)
    }

    /// The pod's greatest share in any tenth of a second, until it got none for a second.
    pub(crate) fn worst_share(&self, pod: usize, since: Duration) -> f64 {
        let until = since.saturating_add(self.in_for(pod, since).unwrap_or(Duration::MAX));
        let end = self.calls.last().map_or(since, |call| call.at);
        let (mut worst, mut start) = (0.0_f64, since);
        let mut calls = self
            .calls
            .iter()
            .skip_while(|call| call.at < since)
            .peekable();
        while start <= until && start + WINDOW <= end {
            let (mut all, mut some) = (0_u32, 0_u32);
            while let Some(call) = calls.next_if(|call| call.at < start + WINDOW) {
                all += 1;
                some += u32::from(call.pod == pod);
            }
            worst = worst.max(f64::from(some) / f64::from(all.max(1)));
            start += WINDOW;
        }
        worst
    }

    /// The 99th percentile of the pod's requests in flight, sampled each millisecond.
    pub(crate) fn peak(&self, pod: usize, milliseconds: Range<usize>) -> usize {
        let samples = &self.samples[milliseconds];
        let in_flight = |sample: &Vec<usize>| sample.get(pod).copied().unwrap_or(0);
        quantile(samples.iter().map(in_flight).collect(), 0.99)
    }
}

/// A pod that gets no request for this long counts as out.
const OUT: Duration = Duration::from_secs(1);

const WINDOW: Duration = Duration::from_millis(100);

/// The smallest value that this part of `values` doesn't exceed.
pub(crate) fn quantile<T: Copy + Default + Ord>(mut values: Vec<T>, part: f64) -> T {
    let rank = (values.len() as f64 * part).ceil() as usize;
    match values.len() {
        0 => T::default(),
        len => *values.select_nth_unstable(rank.clamp(1, len) - 1).1,
    }
}

impl Record {
    pub(crate) fn is_answered(&self) -> bool {
        self.outcome == Outcome::Answered
    }
}
