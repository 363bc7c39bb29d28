//! An API server with a Service, a kubeconfig for it, and bounded waits.

use std::{
    future::poll_fn,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::process::Command;
use tower_headless::{
    BoxError, Discovery, Endpoint, EndpointSlices, EndpointSlicesError, MembershipChange,
    MembershipStream,
};

use crate::{
    WEB,
    support::{
        api_server::{ApiServer, Asked},
        tls::Identity,
        within,
    },
};

/// An API server, and a folder with the kubeconfig for it.
pub(crate) struct Cluster {
    pub(crate) api: ApiServer,
    pub(crate) folder: PathBuf,
}

impl Cluster {
    /// Starts one with a Service `web` in the namespace `default`, of these pods.
    pub(crate) async fn start(hosts: impl IntoIterator<Item = u8>) -> Self {
        let cluster = Self::over(ApiServer::start().await, None);
        cluster.pods("web-a", hosts);
        cluster
    }

    pub(crate) async fn start_tls(identity: Identity) -> Self {
        let authority = identity.certificate_pem().to_owned();
        let cluster = Self::over(ApiServer::start_tls(identity).await, Some(&authority));
        cluster.pods("web-a", [1]);
        cluster
    }

    pub(crate) fn over(api: ApiServer, authority: Option<&str>) -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-headless-slices-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a writable folder for temporary files");
        let cluster = Self { api, folder };
        cluster.write_token("the first");
        cluster.write_kubeconfig(authority);
        cluster
    }

    pub(crate) fn write_kubeconfig(&self, authority: Option<&str>) {
        let mut server = json!({"server": self.api.url()});
        if let Some(authority) = authority {
            let path = self.folder.join("ca.crt");
            std::fs::write(&path, authority).expect("a writable folder");
            server["certificate-authority"] = json!(path);
        }
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "of-the-context"}}],
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "test", "user": {"tokenFile": self.folder.join("token")}}],
        });
        // JSON is YAML.
        std::fs::write(self.kubeconfig(), config.to_string()).expect("a writable folder");
    }

    pub(crate) fn write_token(&self, token: &str) {
        std::fs::write(self.folder.join("token"), token).expect("a writable folder");
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("config")
    }

    pub(crate) fn slices(&self, target: &str) -> EndpointSlices {
        let target = target.parse().expect("a target");
        EndpointSlices::new(target).kubeconfig(self.kubeconfig())
    }

    /// Gives the slice `name` these pods.
    pub(crate) fn pods(&self, name: &str, hosts: impl IntoIterator<Item = u8>) {
        let pods = hosts.into_iter().map(|host| pod(&format!("10.0.0.{host}")));
        self.api.slice("web", name, slice(pods.collect()));
    }

    /// Discovery with an open watch that has settled.
    pub(crate) async fn watching(&self) -> EndpointSlices {
        let mut slices = self.slices(WEB);
        set(&mut slices).await;
        set(&mut slices).await;
        assert_eq!(self.api.watches(), 1);
        slices
    }

    /// Waits until a watch is open, and asserts that `expected` was the last request.
    pub(crate) async fn goes_on(&self, slices: &mut EndpointSlices, expected: Asked) {
        drive_until(slices, || self.api.watches() == 1).await;
        assert_eq!(self.api.asked().pop(), Some(expected));
    }

    /// Runs one of this file's tests in a process of its own, with this cluster's kubeconfig.
    pub(crate) async fn child(&self, test: &str) -> String {
        let mut command = Command::new(std::env::current_exe().expect("this test's file"));
        command.args(["--exact", test, "--ignored", "--nocapture"]);
        command.env("KUBECONFIG", self.kubeconfig());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = within("the end of the process", command.output()).await;
        let output = output.expect("a process");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{said}");
        said
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let folder: &Path = &self.folder;
        // The system cleans up what is left.
        let _ = std::fs::remove_dir_all(folder);
    }
}

pub(crate) fn slice(endpoints: Value) -> Value {
    json!({
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

pub(crate) fn pod(address: &str) -> Value {
    json!({
        "addresses": [address],
        "conditions": {"ready": true, "serving": true, "terminating": false},
    })
}

pub(crate) fn addresses(endpoints: &[Endpoint]) -> Vec<String> {
    let addresses = endpoints
        .iter()
        .map(|endpoint| endpoint.address().to_string());
    addresses.collect()
}

/// The next answer: a set or an error.
pub(crate) async fn answer(discovery: &mut impl Discovery) -> Result<Vec<Endpoint>, BoxError> {
    poll_fn(|cx| discovery.poll_next(cx)).await
}

/// The next answer, which is a set.
pub(crate) async fn set(discovery: &mut impl Discovery) -> Vec<Endpoint> {
    within("a set", answer(discovery)).await.expect("a set")
}

/// The first set for which `is_so` holds; errors and other sets before it are skipped.
pub(crate) async fn last_set(
    discovery: &mut impl Discovery,
    is_so: impl Fn(&[Endpoint]) -> bool,
) -> Vec<Endpoint> {
    within("such a set", async {
        loop {
            match answer(discovery).await {
                Ok(set) if is_so(&set) => return set,
                _ => {}
            }
        }
    })
    .await
}

/// The next answer, which is an error.
pub(crate) async fn error(discovery: &mut impl Discovery) -> EndpointSlicesError {
    let error = within("an error", answer(discovery)).await;
    let error = error.expect_err("an error");
    *error.downcast().expect("an error of this source")
}

/// Lets discovery run until `is_so` holds.
pub(crate) async fn drive_until(discovery: &mut impl Discovery, is_so: impl Fn() -> bool) {
    within("what is waited for", async {
        while !is_so() {
            let _ = tokio::time::timeout(Duration::from_millis(5), answer(discovery)).await;
        }
    })
    .await;
}

pub(crate) async fn change(watch: &mut MembershipStream) -> MembershipChange {
    within("a change", watch.next())
        .await
        .expect("it never ends")
}

pub(crate) async fn joined(watch: &mut MembershipStream) -> Vec<String> {
    addresses(&change(watch).await.joined)
}

pub(crate) async fn left(watch: &mut MembershipStream) -> Vec<String> {
    addresses(&change(watch).await.left)
}
