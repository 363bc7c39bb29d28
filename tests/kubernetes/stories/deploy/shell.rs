//! A shell like a user's: kubectl knows the cluster and the Kubernetes namespace.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::{
    kit::{control_plane::User, kubectl::PROGRAM, namespace::Namespace, tool},
    support::servers::TempDir,
};

/// Longer than all timeouts in one block.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) struct Shell {
    folder: TempDir,
}

impl Shell {
    pub(super) async fn new(namespace: &Namespace) -> Self {
        let folder = TempDir::new().expect("a folder of its own");
        let shell = Self { folder };
        let kubeconfig = namespace.plane.kubeconfig(User::Admin);
        fs::copy(kubeconfig, shell.kubeconfig()).expect("a kubeconfig");
        write_script(
            &shell.folder.path().join("kubectl"),
            &format!("exec '{}' kubectl \"$@\"", tool(PROGRAM).display()),
        );
        let name = &namespace.name;
        let choose = format!("kubectl config set-context --current --namespace={name}");
        shell.run(&choose).await;
        shell
    }

    /// Runs commands and returns their output. Panics if any fails.
    pub(super) async fn run(&self, commands: &str) -> String {
        println!("{commands}");
        let bash = Command::new("bash")
            .args(["-e", "-c", commands])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PATH", self.path())
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.folder.path().join("cache"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let ended = timeout(PATIENCE, bash).await;
        let ended = ended.unwrap_or_else(|_| panic!("no end after {PATIENCE:?}:\n{commands}"));
        let ended = ended.expect("bash is there");
        let output = String::from_utf8_lossy(&ended.stdout).into_owned();
        let errors = String::from_utf8_lossy(&ended.stderr);
        println!("{output}{errors}");
        let status = ended.status;
        assert!(status.success(), "{status}:\n{commands}{output}{errors}");
        output
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Our kubectl first.
    fn path(&self) -> String {
        let path = env::var("PATH").expect("a PATH");
        format!("{}:{path}", self.folder.path().display())
    }
}

fn write_script(file: &Path, command: &str) {
    fs::write(file, format!("#!/bin/sh\n{command}\n")).expect("a folder that can be written to");
    let permissions = fs::Permissions::from_mode(0o755);
    fs::set_permissions(file, permissions).expect("a file of ours");
}
