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
mod contest;
mod event;
mod pod;
mod queue;
mod report;
mod run;
mod scenario;
#[cfg(test)]
mod tests;
mod world;

use clap::Parser;

use args::Args;
use contest::Contest;

fn main() {
    let args = Args::parse();
    let scenarios = args.scenarios();
    if args.list {
        for scenario in scenarios {
            println!("{:<14}{}", scenario.name, scenario.about);
        }
        return;
    }
    for scenario in scenarios {
        let contest = Contest::hold(scenario, args.seed, args.no_health);
        println!("{}", report::table(&contest));
    }
}
