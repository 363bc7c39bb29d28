//! The kit of the Kubernetes suite: a real control plane, and our own nodes.

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

/// The folder of what `tests/kubernetes/run` builds, and of the suite's logs.
const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target");

/// Whether this runs in the namespaces that `tests/kubernetes/run` makes. If not, prints that the test is skipped.
pub(crate) fn is_here(test: &str) -> bool {
    let is_here = env::var_os("TOWER_HEADLESS_KUBERNETES").is_some_and(|value| value == "1");
    if !is_here {
        // Directly to stderr, because the harness hides what passing tests print.
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
