//! etcd, the API server, the controller manager and CoreDNS, as released.

mod component;
mod files;
pub(crate) mod processor;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{sync::OnceCell, time::sleep};

use crate::support::{
    PATIENCE, lock,
    servers::{Process, TempDir},
};
pub(crate) use component::Component;
use files::Files;

use super::kubectl::Kubectl;

/// The first address of the Services' range, as usual.
pub(crate) const API_SERVER: &str = "10.96.0.1";
/// Where kubeadm puts the cluster's name server.
pub(crate) const NAME_SERVER: &str = "10.96.0.10";

/// How often readiness is checked.
const POLL: Duration = Duration::from_millis(10);

/// A user of the API server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum User {
    /// May do everything.
    Admin,
    /// May do nothing until a role says otherwise.
    Watcher,
}

/// A control plane. Its processes are killed when it is dropped, or when the namespace that they run in ends.
pub(crate) struct ControlPlane {
    running: Mutex<BTreeMap<Component, Process>>,
    files: Files,
    // Dropped after the processes, which use it.
    _folder: TempDir,
}

impl ControlPlane {
    /// The control plane that all tests of this process share, started by the first.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        // A build with all features has two providers, and kube needs a default. Fails only if there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = TempDir::new().expect("a folder of its own");
        let plane = Self {
            running: Mutex::default(),
            files: Files::write(folder.path()).expect("the files of a control plane"),
            _folder: folder,
        };
        plane.start_component(Component::Etcd).await;
        plane.start_component(Component::ApiServer).await;
        plane.start_component(Component::ControllerManager).await;
        let kubectl = plane.kubectl("kube-system");
        kubectl.apply(files::COREDNS_ROLE).await;
        plane.start_component(Component::CoreDns).await;
        plane
    }

    /// Starts a component. Returns once it is ready.
    pub(crate) async fn start_component(&self, component: Component) {
        let command = component.command(&self.files);
        let log = super::log_file(&format!("{}.log", component.name()));
        let process = Process::spawn(command, &log);
        let process = process.unwrap_or_else(|error| panic!("{component:?}: {error}"));
        lock(&self.running).insert(component, process);
        let ready = async {
            while !component.is_ready(self).await {
                self.assert_runs(component);
                sleep(POLL).await;
            }
        };
        if tokio::time::timeout(PATIENCE, ready).await.is_err() {
            let log = log.display();
            panic!("{component:?} isn't ready after {PATIENCE:?}: see {log}");
        }
    }

    /// Kills a component.
    pub(crate) fn stop_component(&self, component: Component) {
        let process = lock(&self.running).remove(&component);
        drop(process.expect("a component that runs"));
    }

    /// A component's process ID, to measure its processor time.
    pub(crate) fn process_id(&self, component: Component) -> Option<u32> {
        lock(&self.running).get(&component).map(Process::id)
    }

    /// A kubeconfig with the token in a file, for the API server or a relay at `server`.
    pub(crate) fn kubeconfig_of_token(&self, token: &Path, server: SocketAddr) -> PathBuf {
        self.files.kubeconfig_of_token(token, server)
    }

    /// A user's kubeconfig, for kubectl and any other client.
    pub(crate) fn kubeconfig(&self, user: User) -> &Path {
        match user {
            User::Admin => &self.files.admin,
            User::Watcher => &self.files.watcher,
        }
    }

    /// The API server's CA certificate.
    pub(crate) fn authority(&self) -> &Path {
        &self.files.authority
    }

    /// A client of the API server, for this runtime.
    pub(crate) async fn client(&self, user: User) -> Client {
        let config = self.config(user).await.expect("a kubeconfig");
        Client::try_from(config).expect("a client")
    }

    pub(crate) fn kubectl(&self, namespace: &str) -> Kubectl {
        Kubectl::new(&self.files.admin, namespace)
    }

    async fn config(&self, user: User) -> Result<Config, kube::config::KubeconfigError> {
        let file = Kubeconfig::read_from(self.kubeconfig(user))?;
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await
    }

    fn assert_runs(&self, component: Component) {
        let mut running = lock(&self.running);
        let process = running.get_mut(&component).expect("it was started");
        assert!(!process.has_exited(), "{component:?}:\n{}", process.log());
    }
}

/// Whether the API server says that it is ready.
async fn api_server_is_ready(plane: &ControlPlane) -> bool {
    // The API server writes its certificate when it starts for the first time.
    if !fs::exists(plane.authority()).unwrap_or(false) {
        return false;
    }
    let Ok(config) = plane.config(User::Admin).await else {
        return false;
    };
    let client = Client::try_from(config).expect("a client");
    let request = http::Request::get("/readyz").body(Vec::new());
    let answer = client.request_text(request.expect("a request")).await;
    answer.is_ok_and(|answer| answer == "ok")
}
