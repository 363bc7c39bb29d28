//! Our own pod: the example of that name.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use super::{super::example, Identity, Speech};

static EXAMPLE: LazyLock<PathBuf> = LazyLock::new(|| example::built("pod"));

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
