//! A simulation of clients, a balancer each, and of pods that are slow, fail, hang, flap, come and go.
//!
//! ```text
//! cargo run --release --example simulate              # every scenario: a table each, and a plot
//! cargo run --release --example simulate -- --list
//! cargo run --release --example simulate -- hero --seed 7 --out plots
//! ```
//!
//! The clients are the crate's own [`Balance`](tower_headless::Balance) with the policies and the health of production;
//! simulated are the pods and the clock. So a minute takes a second, and the same seed leads to the same figures.

mod args;
mod client;
mod cluster;
mod event;
mod pod;
mod queue;
mod report;
mod run;
mod scenario;
mod world;

use clap::Parser;

use args::Args;
use client::CONTENDERS;
use world::simulate;

fn main() {
    let args = Args::parse();
    for scenario in scenario::all() {
        if !args.scenarios.is_empty() && !args.scenarios.iter().any(|name| name == scenario.name) {
            continue;
        }
        let runs: Vec<_> = CONTENDERS
            .iter()
            .map(|contender| simulate(&scenario, contender, args.seed))
            .collect();
        println!("{}", report::table(&scenario, &runs, args.seed));
    }
}
