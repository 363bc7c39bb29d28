//! Scenarios with pods that are slow or hang, and with requests of different cost.

use std::time::Duration;

use super::{Scenario, Work, ms, s};
use crate::{pod::Condition, report};

pub(super) fn all() -> Vec<Scenario> {
    vec![hero(), slow(), one_20ms(), hung(), uneven(), large()]
}

fn hero() -> Scenario {
    Scenario {
        compares_health: true,
        ..Scenario::new(
            "hero",
            "one slow pod (+200 ms) and one that answers 503 at once, of ten",
        )
    }
    .pod(s(0), 3, Condition::Slow(ms(200)))
    .pod(s(0), 7, Condition::Failing(1.0))
    .mark(3, "slow")
    .mark(7, "503")
}

/// Modelled on linkerd's comparison of round robin with its own policies.
fn slow() -> Scenario {
    Scenario {
        pods: 11,
        // It works on all requests at once, however long they take.
        workers: 1_000,
        limit: Some(s(1)),
        rate: 1_000.0,
        compares_health: true,
        ..Scenario::new("slow", "one of eleven pods takes 2 s, for 30 s of 60")
    }
    .pod(s(15), 3, Condition::Slow(s(2)))
    .pod(s(45), 3, Condition::Healthy)
    .mark(3, "slow")
    .figure("within 1 s", |run| report::success(run.within(s(1))))
}

fn one_20ms() -> Scenario {
    Scenario {
        work: Work::log_normal(1),
        ..Scenario::new("one-20ms", "one pod of 20 ms among nine of 1 ms")
    }
    .pod(s(0), 3, Condition::Cold(20.0))
    .mark(3, "20 ms")
}

fn hung() -> Scenario {
    Scenario {
        duration: s(8),
        timeout: Some(s(1)),
        compares_health: true,
        ..Scenario::new(
            "hung",
            "one of ten pods hangs for 3 s of 8; callers give up after 1 s",
        )
    }
    .pod(s(2), 3, Condition::Hung)
    .pod(s(5), 3, Condition::Healthy)
    .mark(3, "hung")
    .figure("lost", |run| run.lost().to_string())
}

/// All pods are alike and 68 % busy. The policy still makes a difference, because it decides where the long requests
/// go.
fn uneven() -> Scenario {
    let (short, long) = (Duration::from_millis(2), Duration::from_millis(40));
    let kinds = (
        Work::Exponential { mean: short },
        Work::Exponential { mean: long },
    );
    Scenario {
        workers: 4,
        rate: 7_000.0,
        duration: s(20),
        work: Work::Mixed(Box::new(kinds), 0.05),
        ..Scenario::new(
            "uneven",
            "ten good pods; one request in twenty takes twenty times as long",
        )
    }
}

fn large() -> Scenario {
    let mut scenario = Scenario {
        pods: 1_000,
        clients: 20,
        rate: 20_000.0,
        duration: s(10),
        ..Scenario::new(
            "large",
            "ten slow pods (+200 ms) and ten that answer 503 at once, of 1,000",
        )
    };
    for pod in 0..10 {
        scenario = scenario.pod(s(0), pod, Condition::Slow(ms(200)));
        scenario = scenario.pod(s(0), 10 + pod, Condition::Failing(1.0));
    }
    scenario.mark_all(0..10, "slow").mark_all(10..20, "503")
}
