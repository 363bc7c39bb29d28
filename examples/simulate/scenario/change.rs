//! Pods that come and go, as the Service says.

use super::{Scenario, Step, s};
use crate::{pod::Condition, run::Run};

pub(super) fn all() -> Vec<Scenario> {
    vec![new_pod(), new_pod_cold(), rolling()]
}

const NEW: usize = 10;

/// The first second of the new pod, as numbers of samples: milliseconds.
const FIRST_SECOND: std::ops::Range<usize> = 5_000..6_000;

fn new_pod() -> Scenario {
    joining(
        "new-pod",
        "a pod joins ten; how many requests it has at a time, and how many the fullest of the others",
    )
}

fn new_pod_cold() -> Scenario {
    joining(
        "new-pod-cold",
        "the same, and the new pod takes five times as long in its first 5 s",
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
    .figure("new, first second", |run| peak(run, NEW..NEW + 1))
    .figure("others", |run| peak(run, 0..NEW))
}

fn peak(run: &Run, pods: std::ops::Range<usize>) -> String {
    run.peak(pods, FIRST_SECOND).to_string()
}

/// A pod that is told to end leaves the Service, serves for two seconds more and closes: by then not all clients have
/// heard. The one in its place takes its time to warm up.
fn rolling() -> Scenario {
    let mut scenario = Scenario {
        clients: 5,
        lag: s(5),
        ..Scenario::new(
            "rolling",
            "ten pods are replaced, one every 5 s; clients learn of it up to 5 s later, pods close after 2 s",
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
