//! The command line's arguments.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, error::ErrorKind};

use crate::scenario::{self, Scenario};

const ABOUT: &str = "\
Runs the balancer's own code against simulated pods, on a simulated clock, and
compares its policies: a table and a plot for each scenario.";

#[derive(Debug, Parser)]
#[command(
    name = "simulate",
    about = ABOUT,
    override_usage = "cargo run --release --example simulate -- [OPTIONS] [SCENARIO]..."
)]
pub(crate) struct Args {
    /// Which scenarios to run [default: all of them]
    #[arg(value_name = "SCENARIO")]
    names: Vec<String>,

    /// Seed of the random choices: it repeats a run
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Leave out the health checks, which eject pods that fail
    #[arg(long)]
    pub(crate) no_health: bool,

    /// Where to write the plots to
    #[arg(long, value_name = "DIR", default_value = "target/simulation")]
    pub(crate) out: PathBuf,

    /// List the scenarios, and do nothing
    #[arg(long)]
    pub(crate) list: bool,
}

impl Args {
    /// The requested scenarios. If a name is unknown, it ends the process with a message.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let mut all = scenario::all();
        let is_known = |name: &&String| all.iter().any(|scenario| scenario.name == **name);
        if let Some(name) = self.names.iter().find(|name| !is_known(name)) {
            let why = format!("there is no scenario {name:?}; --list tells which there are");
            Self::command().error(ErrorKind::InvalidValue, why).exit();
        }
        if !self.names.is_empty() {
            all.retain(|scenario| self.names.iter().any(|name| name == scenario.name));
        }
        all
    }
}
