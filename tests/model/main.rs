//! A model of the balancer: worlds made from seeds, on paused time. In them pods refuse, hang, fail, leave and return,
//! and users send requests and give them up. Every promise is checked after every step.
//!
//! ```sh
//! cargo test --test model                                     # 500 seeds
//! MODEL_SEEDS=100000 cargo test --release --test model        # more
//! MODEL_FIRST=500 MODEL_SEEDS=1000 cargo test --test model    # others
//! MODEL_SEED=17 cargo test --test model                       # one
//! MODEL_SURVEY=1 cargo test --test model                      # the first seed of each promise that is broken
//! ```
//!
//! ```text
//!  seed ──▶ generate ──▶ configuration and steps ──▶ world ──▶ promises kept after each step? ──▶ quiet: all as at first?
//!                              ▲                                        │ no                         │ no
//!                              └─────────── shrink, print ◀─────────────┴────────────────────────────┘
//! ```
//!
//! A seed makes the same world only while the generator stays the same. So failed runs are kept by their steps, in
//! `kept.rs`, as they are printed.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `plan.rs` | configurations and steps, as plain data |
//! | `generate.rs`, `stories.rs` | makes them from a seed |
//! | `subject.rs` | the balancer; nothing else names its parameters |
//! | `life.rs`, `pod.rs`, `cluster.rs` | the pods, one life after another, and discovery |
//! | `users.rs`, `broadcasts.rs` | requests, to one pod and to all, and their outcomes |
//! | `world.rs` | all of them together, step by step |
//! | `view.rs` | what can be seen at one time |
//! | `promises.rs`, `states.rs` | what holds at any time |
//! | `keys.rs`, `subsets.rs` | what holds for keys, and for subsets |
//! | `explained.rs` | what `explain` and the counters say |
//! | `failures.rs` | which requests may fail, and how |
//! | `quiet.rs` | what holds in the end |
//! | `shrink.rs`, `kept.rs` | how failed runs become short; those that were kept |

mod broadcasts;
mod cluster;
mod explained;
mod failures;
mod generate;
mod kept;
mod keys;
mod life;
#[path = "../support/lock.rs"]
mod lock;
mod plan;
mod pod;
mod promises;
mod quiet;
mod shrink;
mod states;
mod stories;
mod subject;
mod subsets;
mod users;
mod view;
mod world;

use std::{
    env,
    fmt::Write,
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

use kept::KEPT;
use shrink::{Case, shrink};
use world::run;

const SEEDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// The seeds that break a promise, in order: all of them, or only the first.
fn broken(seeds: Range<u64>, all: bool) -> Vec<(u64, Case)> {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let work = || {
        let mut found = Vec::new();
        while !stop.load(Relaxed) {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                break;
            }
            let (config, steps) = generate::world(seed);
            if let Err(broken) = run(&config, &steps) {
                stop.store(!all, Relaxed);
                let case = Case {
                    config,
                    steps,
                    broken,
                };
                found.push((seed, case));
            }
        }
        found
    };
    let mut found: Vec<_> = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let threads = threads.into_iter();
        threads
            .flat_map(|thread| thread.join().expect("a run"))
            .collect()
    });
    found.sort_by_key(|&(seed, _)| seed);
    found
}

/// The case as it goes into `kept.rs`.
fn pasteable(case: &Case) -> String {
    let mut text = String::new();
    let Case { config, broken, .. } = case;
    writeln!(text, "    Kept {{\n        name: \"{}\",", broken.promise).expect("a string");
    writeln!(text, "        config: {config:?},\n        steps: &[").expect("a string");
    for step in &case.steps {
        writeln!(text, "            Step::{step:?},").expect("a string");
    }
    text + "        ],\n    },"
}

#[test]
fn worlds_keep_all_promises() {
    let seeds = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("MODEL_FIRST").unwrap_or(0);
            first..first + number("MODEL_SEEDS").unwrap_or(SEEDS)
        }
    };
    let survey = number("MODEL_SURVEY").is_some();
    let mut found = broken(seeds, survey);
    let mut text = String::new();
    while let Some((seed, case)) = found.first() {
        let promise = case.broken.promise;
        let seeds = found
            .iter()
            .filter(|(_, case)| case.broken.promise == promise);
        writeln!(text, "seed {seed} (of {}): {}", seeds.count(), case.broken).expect("a string");
        let (_, case) = found.remove(0);
        found.retain(|(_, other)| survey && other.broken.promise != promise);
        let case = shrink(case);
        writeln!(text, "shrunk: {}\n{}\n", case.broken, pasteable(&case)).expect("a string");
    }
    assert!(text.is_empty(), "{text}");
}

#[test]
fn kept_runs_keep_all_promises() {
    let mut text = String::new();
    for kept in KEPT {
        if let Err(broken) = run(&kept.config, kept.steps) {
            writeln!(text, "{}\n    {broken}", kept.name).expect("a string");
        }
    }
    assert!(text.is_empty(), "\n{text}");
}

#[test]
fn equal_seeds_make_equal_worlds() {
    let differs = |&seed: &u64| {
        let (config, steps) = generate::world(seed);
        let [one, other] = [(); 2].map(|()| run(&config, &steps).ok());
        one != other
    };
    // Requests that wait for an endpoint are woken in the order in which they came, and all random draws come from the
    // seed.
    let differ: Vec<_> = (0..50).filter(differs).collect();
    assert!(differ.is_empty(), "{differ:?}");
}
