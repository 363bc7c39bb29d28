//! This crate's examples as programs, and cargo with the settings that built the test.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

/// Builds this example, and returns its path. `cargo test` builds examples, but `cargo test --test …` doesn't.
pub fn built(example: &str) -> PathBuf {
    let built = cargo("build")
        .args(["--quiet", "--example", example])
        .status();
    let built = built.as_ref().is_ok_and(ExitStatus::success);
    assert!(built, "{example} builds");
    profile().join("examples").join(example)
}

/// The folder that the test was built in.
fn profile() -> PathBuf {
    // <target>/<profile>/deps/<this test>
    let test = env::current_exe().expect("the test's own path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("it is in a target directory");
    profile.to_owned()
}

/// A cargo command with the features and folders of the test's own build, so that it reuses that build.
pub fn cargo(command: &str) -> Command {
    let profile = profile();
    let target = profile.parent().map(Path::to_owned);
    let target = target.expect("a profile's folder is in a target directory");
    let name = profile.file_name().and_then(|name| name.to_str());
    let name = name.expect("a profile's name").replace("debug", "dev");
    // Approximately.
    let features: &[_] = match cfg!(feature = "tls") {
        true => &["--all-features"],
        false => &["--features", "test-util"],
    };
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .arg(command)
        .args(features)
        .args(["--manifest-path", manifest, "--profile", &name])
        .arg("--target-dir")
        .arg(target);
    // `cargo test` sets variables about this package for its programs. ring's build script depends on the same
    // variables: if they differ from the last time, ring and everything that depends on it is rebuilt, now and at the
    // next build.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    cargo
}
