//! This crate's examples, as programs, and cargo as it has built the test.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

/// The path of this example, built. `cargo test` has done that, but `cargo test --test …` has not.
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

/// A command of cargo's, with the features and the folders that the test was built with: what is built already is not built
/// over again.
pub fn cargo(command: &str) -> Command {
    let profile = profile();
    let target = profile.parent().map(Path::to_owned);
    let target = target.expect("a profile's folder is in a target directory");
    let name = profile.file_name().and_then(|name| name.to_str());
    let name = name.expect("a profile's name").replace("debug", "dev");
    // More or less.
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
    // `cargo test` tells its programs of this package. ring's build script asks for the same variables: with others than
    // the last time, ring and all that depends on it are built again, now and by whoever builds next.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    cargo
}
