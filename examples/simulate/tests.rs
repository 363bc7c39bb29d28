//! Tests of the simulation itself: a seed repeats it, and it agrees with queueing theory.

use std::time::Duration;

use crate::{
    contest::Contest,
    pod::Condition,
    report,
    run::Run,
    scenario::{self, Scenario, Step, Work},
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A bit of everything that can go wrong.
fn trouble() -> Scenario {
    let steps = vec![
        (s(1), Step::Pod(0, Condition::Failing(0.5))),
        (s(1), Step::Pod(1, Condition::Hung)),
        (s(1), Step::Pod(2, Condition::Dead)),
        (s(2), Step::Members(vec![0, 1, 2, 3, 5])),
        (s(3), Step::Pod(1, Condition::Healthy)),
        (s(3), Step::Pod(2, Condition::Healthy)),
    ];
    Scenario {
        pods: 5,
        clients: 3,
        rate: 300.0,
        duration: s(4),
        timeout: Some(Duration::from_millis(500)),
        lag: s(1),
        steps,
        compares_health: true,
        ..Scenario::new("trouble", "a bit of everything")
    }
}

#[test]
fn the_same_seed_gives_the_same_table() {
    let table = |seed| report::table(&Contest::hold(trouble(), seed, false));
    let first = table(1);
    assert_eq!(first, table(1));
    let other = table(2).replace("seed 2", "seed 1");
    assert_ne!(first, other);
}

/// One pod with one worker; both the pauses between requests and the work are memoryless (M/M/1). Then the time to an
/// answer is exponentially distributed, too, with the mean 1 ÷ (1 ÷ 5 ms − 100 ÷ s) = 10 ms.
#[test]
fn one_worker_agrees_with_queueing_theory() {
    let run = run(Scenario {
        pods: 1,
        workers: 1,
        rate: 100.0,
        duration: s(300),
        work: Work::Exponential {
            mean: Duration::from_millis(5),
        },
        ..Scenario::new("queue", "one pod, one worker")
    });
    for part in [0.5, 0.9, 0.99] {
        let expected = 0.010 * -f64::ln(1.0 - part);
        let found = run.quantile(part).as_secs_f64();
        assert!((found / expected - 1.0).abs() < 0.1, "{part}: {found} s");
    }
}

#[test]
fn a_hung_pod_resumes_its_requests() {
    let mut scenario = Scenario {
        pods: 1,
        rate: 100.0,
        duration: s(3),
        ..Scenario::new("hung", "one pod")
    };
    scenario.steps = vec![
        (s(1), Step::Pod(0, Condition::Hung)),
        (s(2), Step::Pod(0, Condition::Healthy)),
    ];
    let run = run(scenario);
    assert_eq!(run.lost(), 0);
    let hung = |record: &&crate::run::Record| (s(1)..s(2)).contains(&record.at);
    for record in run.records.iter().filter(hung) {
        assert!(record.at + record.took >= s(2), "{record:?}");
    }
}

#[test]
fn a_pod_that_dies_loses_its_requests_and_one_that_closes_does_not() {
    let lost = |condition| {
        let mut scenario = Scenario {
            pods: 2,
            rate: 1_000.0,
            duration: s(2),
            ..Scenario::new("gone", "one of two pods")
        };
        scenario.steps = vec![(s(1), Step::Pod(0, condition))];
        run(scenario).lost()
    };
    assert!((1..10).contains(&lost(Condition::Dead)));
    assert_eq!(lost(Condition::Closed), 0);
}

#[test]
fn titles_fit_their_plots() {
    for scenario in scenario::all() {
        assert!(scenario.about.len() <= 72, "{}", scenario.about);
    }
}

#[test]
fn scenarios_have_unique_names() {
    let mut names: Vec<_> = scenario::all().iter().map(|it| it.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

/// Runs the scenario with the first policy.
fn run(scenario: Scenario) -> Run {
    let mut contest = Contest::hold(scenario, 1, true);
    contest.entries.swap_remove(0).run
}
