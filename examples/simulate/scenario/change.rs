//! Scenarios with pods that come and go, as discovery says.

use std::ops::Range;

use super::{Scenario, Step, s};
use crate::{
    pod::Condition,
    run::{Run, quantile},
};

pub(super) fn all() -> Vec<Scenario> {
    vec![new_pod(), new_pod_cold(), rolling()]
}

const NEW: usize = 10;

/// The new pod's first second, in milliseconds.
const FIRST_SECOND: Range<usize> = 5_000..6_000;

fn new_pod() -> Scenario {
    joining(
        "new-pod",
        "a pod joins ten; how many requests it has at a time in its first second",
    )
}

fn new_pod_cold() -> Scenario {
    joining(
        "new-pod-cold",
        "a pod joins ten, and takes five times as long in its first 5 s",
    )
    .pod(s(5), NEW, Condition::Cold(5.0))
    .pod(s(10), NEW, Condition::Healthy)
}

fn joining(name: &'static str, about: &'static str) -> Scenario {
    Scenario {
        clients: 10,
        rate: 10_000.0,
        duration: s(15),
        samples: true,
        ..Scenario::new(name, about)
    }
    .step(s(5), Step::Members((0..=NEW).collect()))
    .mark(NEW, "new")
    .figure("new: in flight", |run| {
        run.peak(NEW, FIRST_SECOND).to_string()
    })
    .figure("others: in flight", |run| others(run).to_string())
}

/// The median of the other pods.
fn others(run: &Run) -> usize {
    let peaks = (0..NEW).map(|pod| run.peak(pod, FIRST_SECOND));
    quantile(peaks.collect(), 0.5)
}

/// A pod that is told to end leaves the Service, serves for two more seconds and closes. By then some clients don't
/// know yet. Its successor is slow while it warms up.
fn rolling() -> Scenario {
    let mut scenario = Scenario {
        clients: 5,
        lag: s(5),
        ..Scenario::new(
            "rolling",
            "ten pods are replaced in turn; clients hear of it up to 5 s later",
        )
    };
    for old in 0..10 {
        let (at, new) = (s(5 + 5 * old as u64), old + 10);
        scenario = scenario
            .pod(at, new, Condition::Cold(5.0))
            .pod(at + s(5), new, Condition::Healthy)
            .step(at, Step::Members((old + 1..=new).collect()))
            .pod(at + s(2), old, Condition::Closed);
    }
    scenario.figure("lost", |run| run.lost().to_string())
}
