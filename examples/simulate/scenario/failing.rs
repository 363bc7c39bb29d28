//! Scenarios with pods that answer with errors.

use std::time::Duration;

use super::{Scenario, s};
use crate::{pod::Condition, report};

/// When the fault begins.
const BEGIN: Duration = s(10);
const POD: usize = 7;

pub(super) fn all() -> Vec<Scenario> {
    vec![failing_fast(), failing_30(), flapping(), all_failing()]
}

fn failing_fast() -> Scenario {
    Scenario {
        duration: s(70),
        compares_health: true,
        ..Scenario::new(
            "failing-fast",
            "one of ten pods answers 503 at once, from 10 s on",
        )
    }
    .pod(BEGIN, POD, Condition::Failing(1.0))
    .mark(POD, "503")
    .figure("out after", |run| report::or_never(run.in_for(POD, BEGIN)))
    .figure("worst 100 ms", |run| {
        report::percent(run.worst_share(POD, BEGIN))
    })
    .figure("lost", |run| run.lost().to_string())
}

fn failing_30() -> Scenario {
    Scenario {
        duration: s(70),
        compares_health: true,
        ..Scenario::new(
            "failing-30",
            "one of ten pods answers 503 at once to 30 % of requests, from 10 s on",
        )
    }
    .pod(BEGIN, POD, Condition::Failing(0.3))
    .mark(POD, "503")
    .figure("out after", |run| report::or_never(run.in_for(POD, BEGIN)))
    .figure("lost", |run| run.lost().to_string())
}

fn flapping() -> Scenario {
    let mut scenario = Scenario {
        rate: 500.0,
        duration: s(600),
        compares_health: true,
        ..Scenario::new(
            "flapping",
            "one of ten pods answers 503 for 10 s of every 20, for 10 min",
        )
    };
    for begin in (0..600).step_by(20) {
        scenario = scenario.pod(s(begin), POD, Condition::Failing(1.0)).pod(
            s(begin + 10),
            POD,
            Condition::Healthy,
        );
    }
    scenario
        .mark(POD, "flapping")
        .figure("lost", |run| run.lost().to_string())
        .figure("last 5 min", |run| {
            let lost = run
                .records
                .iter()
                .filter(|record| record.at >= s(300) && !record.is_answered());
            lost.count().to_string()
        })
}

fn all_failing() -> Scenario {
    let mut scenario = Scenario {
        duration: s(30),
        compares_health: true,
        ..Scenario::new("all-failing", "all ten pods answer 503 from 10 s to 20 s")
    };
    for pod in 0..scenario.pods {
        scenario =
            scenario
                .pod(BEGIN, pod, Condition::Failing(1.0))
                .pod(s(20), pod, Condition::Healthy);
    }
    scenario
        .figure("meanwhile", |run| {
            report::success(run.success_in(BEGIN..s(20)))
        })
        .figure("first second after", |run| {
            report::success(run.success_in(s(20)..s(21)))
        })
        .figure("most of a pod", |run| {
            let share = |pod| run.share_in(pod..pod + 1, BEGIN..s(20));
            report::percent((0..10).map(share).fold(0.0, f64::max))
        })
}
