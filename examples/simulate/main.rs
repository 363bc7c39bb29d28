//! A simulation of clients with a balancer each, and of pods that are slow, fail, hang, flap, come and go.
//!
//! ```text
//! cargo run --release --example simulate              # every scenario: a table each, and a plot
//! cargo run --release --example simulate -- --list
//! cargo run --release --example simulate -- hero --seed 7 --out plots
//! ```
//!
//! The clients are the crate's real [`Balance`](tower_headless::Balance), with its policies and outlier detection. Only
//! the pods and the clock are simulated. So a minute takes a second, and the same seed gives the same figures.
//!
//! `scenario/` says what the pods do. To add a policy, add an entry in `client.rs`. `world.rs` moves the time. The
//! README's picture, `hero.svg`, is made by `cargo run --release --example simulate -- hero --out examples/simulate`.

mod args;
mod client;
mod cluster;
mod contest;
mod event;
mod plot;
mod pod;
mod queue;
mod report;
mod requests;
mod run;
mod scenario;
#[cfg(test)]
mod tests;
mod world;

use std::{error::Error, fs};

use clap::Parser;

use args::Args;
use contest::Contest;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let scenarios = args.scenarios();
    if args.list {
        for scenario in scenarios {
            println!("{:<14}{}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    fs::create_dir_all(&args.out)?;
    for scenario in scenarios {
        let contest = Contest::hold(scenario, args.seed, args.no_health);
        println!("{}", report::table(&contest));
        let file = format!("{}.svg", contest.scenario.name);
        plot::write(&contest, &args.out.join(file))?;
    }
    println!("Plots: {}", args.out.display());
    Ok(())
}
