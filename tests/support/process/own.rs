//! Our own pod: the example of that name.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use super::{Identity, Speech};

/// The example, built. `cargo test` has done that, but `cargo test --test rolling` has not.
static EXAMPLE: LazyLock<PathBuf> = LazyLock::new(|| {
    // <target>/<profile>/deps/<this test>
    let test = std::env::current_exe().expect("the test's own path");
    let [_, _, profile, target, ..] = *test.ancestors().collect::<Vec<_>>() else {
        panic!("{} is not in a target directory", test.display());
    };
    let name = profile.file_name().and_then(|name| name.to_str());
    let name = name.expect("a profile's name").replace("debug", "dev");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--all-features", "--example", "pod"])
        .args(["--manifest-path", manifest, "--profile", &name])
        .arg("--target-dir")
        .arg(target)
        .status();
    assert!(status.expect("cargo runs").success(), "the example builds");
    profile.join("examples/pod")
});

pub(super) fn configure(
    dir: &Path,
    speech: Speech,
    address: SocketAddr,
    identity: &Identity,
) -> io::Result<Command> {
    let mut command = Command::new(&*EXAMPLE);
    command.arg(address.to_string());
    if speech == Speech::Tls {
        let files = [dir.join("cert.pem"), dir.join("key.pem")];
        fs::write(&files[0], identity.certificate_pem())?;
        fs::write(&files[1], identity.key_pem())?;
        command.arg("--tls").args(files);
    }
    Ok(command)
}

pub(super) fn is_ready(log: &str) -> bool {
    log.starts_with("listening on ")
}
