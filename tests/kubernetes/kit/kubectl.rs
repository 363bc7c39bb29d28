//! kubectl, as people use it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::tool;

/// The multi-call binary; its first argument is `kubectl`.
pub(crate) const PROGRAM: &str = "kubernetes-1.37.2/kubernetes";

/// Longer than a rollout of a few pods takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// kubectl with an administrator's rights, in one Kubernetes namespace.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    kubeconfig: PathBuf,
    namespace: String,
}

impl Kubectl {
    pub(super) fn new(kubeconfig: &Path, namespace: &str) -> Self {
        Self {
            kubeconfig: kubeconfig.to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    /// Runs it with these arguments, separated by spaces, and returns its output. Panics if it fails.
    pub(crate) async fn run(&self, arguments: &str) -> String {
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        self.try_run(&arguments, "").await.unwrap_or_else(|error| {
            panic!("kubectl {}: {error}", arguments.join(" "));
        })
    }

    /// Applies manifests.
    pub(crate) async fn apply(&self, manifests: &str) {
        let applied = self.try_run(&["apply", "-f", "-"], manifests).await;
        applied.unwrap_or_else(|error| panic!("kubectl apply: {error}\n{manifests}"));
    }

    /// Runs it, and returns its output, or its stderr if it fails.
    pub(crate) async fn try_run(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(tool(PROGRAM))
            .args(["kubectl", "--kubeconfig"])
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.namespace, "--cache-dir"])
            .arg(self.kubeconfig.with_file_name("kubectl-cache"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl is there");
        let mut stdin = child.stdin.take().expect("it is piped");
        let written = async move { stdin.write_all(input.as_bytes()).await };
        let ended = async { tokio::join!(written, child.wait_with_output()) };
        let ended = timeout(PATIENCE, ended).await;
        let (written, output) = ended.map_err(|_| format!("no end after {PATIENCE:?}"))?;
        let output = output.expect("kubectl ran");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        written.expect("kubectl reads what it is given");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
