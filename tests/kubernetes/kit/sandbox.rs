//! A mount namespace with a container's own files in `/etc` and `/var/run`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Run by `sh` in its own mount namespace. It becomes the program by `exec`, so the process ID is known from the start.
const ENTER: &str = r#"
set -e
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount -t tmpfs tmpfs /var/run
mkdir -p /var/run/secrets/kubernetes.io
ln -s "$1/serviceaccount" /var/run/secrets/kubernetes.io/serviceaccount
shift
exec "$@"
"#;

/// A container's files that come from the cluster.
pub(crate) struct Sandbox {
    folder: PathBuf,
}

/// The container's identity for the API server.
pub(crate) struct ServiceAccount<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) token: &'a str,
    pub(crate) authority: &'a Path,
}

impl Sandbox {
    /// Writes the files into an existing folder.
    pub(crate) fn new(
        folder: &Path,
        resolv_conf: &str,
        account: &ServiceAccount<'_>,
    ) -> io::Result<Self> {
        let secrets = folder.join("serviceaccount");
        fs::create_dir_all(&secrets)?;
        fs::write(folder.join("resolv.conf"), resolv_conf)?;
        fs::write(secrets.join("token"), account.token)?;
        fs::write(secrets.join("namespace"), account.namespace)?;
        fs::copy(account.authority, secrets.join("ca.crt"))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The command that runs a program inside. Its environment names the API server.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ENTER, "sh"]);
        command.arg(&self.folder).arg(program);
        command.env("KUBERNETES_SERVICE_HOST", super::control_plane::API_SERVER);
        command.env("KUBERNETES_SERVICE_PORT", "443");
        command
    }
}
