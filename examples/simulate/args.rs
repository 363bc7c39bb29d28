//! What the command line says.

use std::path::PathBuf;

use clap::Parser;

/// Runs the balancer's own code against simulated pods, on a clock that is simulated too, and compares its policies.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
pub(crate) struct Args {
    /// Which scenarios to run [default: all of them]
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,

    /// The same seed leads to the same figures
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Where to write the plots to
    #[arg(long, value_name = "DIR", default_value = "target/simulation")]
    pub(crate) out: PathBuf,

    /// Tell which scenarios there are, and do nothing
    #[arg(long)]
    pub(crate) list: bool,
}
