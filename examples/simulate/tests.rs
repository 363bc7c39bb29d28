//! The simulation itself, tested: that a seed repeats it, and that it agrees with what is known of queues.

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

/// A bit of everything that may go wrong.
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
fn a_seed_repeats_the_table() {
    let table = |seed| report::table(&Contest::hold(trouble(), seed, false));
    let first = table(1);
    assert_eq!(first, table(1));
    let other = table(2).replace("seed 2", "seed 1");
    assert_ne!(first, other);
}

/// One pod with one worker, both of the pauses between requests and of the work without memory (M/M/1): the time to
/// an answer has an exponential distribution too, of the mean 1 ÷ (1 ÷ 5 ms − 100 ÷ s) = 10 ms.
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
fn a_pod_that_hangs_goes_on_where_it_was() {
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
fn a_pod_that_dies_loses_what_it_has_and_one_that_closes_does_not() {
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
fn scenarios_have_names_of_their_own() {
    let mut names: Vec<_> = scenario::all().iter().map(|it| it.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

/// What the first policy makes of it.
fn run(scenario: Scenario) -> Run {
    let mut contest = Contest::hold(scenario, 1, true);
    contest.entries.swap_remove(0).run
}
