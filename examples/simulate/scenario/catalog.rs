//! The scenarios.

use std::time::Duration;

use super::Scenario;
use crate::pod::Condition;

const START: Duration = Duration::ZERO;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// All of them, in the order they are run in.
pub(crate) fn all() -> Vec<Scenario> {
    vec![hero(), one_20ms()]
}

fn hero() -> Scenario {
    Scenario::new(
        "hero",
        "one slow pod (+200 ms) and one that answers 503 at once, of ten",
    )
    .pod(START, 3, Condition::Slow(ms(200)))
    .pod(START, 7, Condition::Failing(1.0))
    .mark(3, "slow")
    .mark(7, "503")
}

fn one_20ms() -> Scenario {
    let mut scenario = Scenario::new("one-20ms", "one pod of 20 ms among nine of 1 ms");
    scenario.work = super::Work::log_normal(1);
    scenario
        .pod(START, 3, Condition::Cold(20.0))
        .mark(3, "20 ms")
}
