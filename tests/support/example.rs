//! This crate's examples, as programs.

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitStatus},
};

/// The path of this example, built. `cargo test` has done that, but `cargo test --test …` has not.
pub fn built(example: &str) -> PathBuf {
    // <target>/<profile>/deps/<this test>
    let test = env::current_exe().expect("the test's own path");
    let [_, _, profile, target, ..] = *test.ancestors().collect::<Vec<_>>() else {
        panic!("{} is not in a target directory", test.display());
    };
    let name = profile.file_name().and_then(|name| name.to_str());
    let name = name.expect("a profile's name").replace("debug", "dev");
    // Those that this test was built with, more or less: what is built already is not built over again.
    let features: &[_] = match cfg!(feature = "tls") {
        true => &["--all-features"],
        false => &["--features", "test-util"],
    };
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--example", example])
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
    let built = cargo.status().as_ref().is_ok_and(ExitStatus::success);
    assert!(built, "{example} builds");
    profile.join("examples").join(example)
}
