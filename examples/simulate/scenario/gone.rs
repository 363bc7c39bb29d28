//! Scenarios with pods that die while discovery still names them.

use super::{Scenario, Step, s};
use crate::pod::Condition;

pub(super) fn all() -> Vec<Scenario> {
    vec![killed(), two_pods()]
}

fn killed() -> Scenario {
    Scenario {
        clients: 5,
        lag: s(5),
        duration: s(30),
        ..Scenario::new(
            "killed",
            "one of ten pods is killed; clients learn of it up to 5 s later",
        )
    }
    .pod(s(10), 3, Condition::Dead)
    .step(
        s(10),
        Step::Members((0..10).filter(|&pod| pod != 3).collect()),
    )
    .mark(3, "killed")
    .figure("lost", |run| run.lost().to_string())
}

fn two_pods() -> Scenario {
    Scenario {
        pods: 2,
        rate: 200.0,
        ..Scenario::new(
            "two-pods",
            "one of two pods is dead for 20 s of 60, and the Service still names it",
        )
    }
    .pod(s(20), 1, Condition::Dead)
    .pod(s(40), 1, Condition::Healthy)
    .mark(1, "dead")
    .figure("lost", |run| run.lost().to_string())
    .figure("back after", |run| {
        let back = run
            .calls
            .iter()
            .find(|call| call.pod == 1 && call.at >= s(40));
        crate::report::or_never(back.map(|call| call.at - s(40)))
    })
}
