//! The kit of the Kubernetes suite: a real control plane, and nodes of our own.

pub(crate) mod control_plane;
pub(crate) mod kubectl;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod relay;
mod sandbox;
pub(crate) mod stall;

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// What `tests/kubernetes/run` builds, and what the suite logs.
const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target");

/// Whether this is the namespace that `tests/kubernetes/run` makes. Elsewhere the test is skipped, by name.
pub(crate) fn is_here(test: &str) -> bool {
    let is_here = env::var_os("TOWER_HEADLESS_KUBERNETES").is_some_and(|value| value == "1");
    if !is_here {
        // Past the harness, which shows what passing tests print only on request.
        let _ = writeln!(io::stderr(), "SKIPPED {test}: needs `tests/kubernetes/run`");
    }
    is_here
}

pub(crate) fn tool(name: &str) -> PathBuf {
    Path::new(TARGET).join("tools").join(name)
}

/// A file below `target/kubernetes/logs`, which outlives the run.
fn log_file(name: &str) -> PathBuf {
    let file = Path::new(TARGET).join("kubernetes/logs").join(name);
    let folder = file.parent().expect("it is in a folder");
    std::fs::create_dir_all(folder).expect("target can be written to");
    file
}
