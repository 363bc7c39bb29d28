//! What a container sees of its own in `/etc` and `/var/run`: a mount namespace.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Run by `sh` in a mount namespace of its own. It becomes the program, whose process ID we know from the start.
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

/// Who the container is to the API server.
pub(crate) struct ServiceAccount<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) token: &'a str,
    pub(crate) authority: &'a Path,
}

impl Sandbox {
    /// Writes the files into a folder that is there.
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

    /// The program, to be run inside. Its environment says where the API server is.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ENTER, "sh"]);
        command.arg(&self.folder).arg(program);
        command.env("KUBERNETES_SERVICE_HOST", super::control_plane::API_SERVER);
        command.env("KUBERNETES_SERVICE_PORT", "443");
        command
    }
}
