//! The programs of the control plane, and how each is started.

use std::{path::Path, process::Command, time::Duration};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use tokio::{net::TcpStream, time::timeout};
use tower_headless::Dns;

use super::{ControlPlane, NAME_SERVER, User, api_server_is_ready, files::Files};
use crate::kit::tool;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Component {
    Etcd,
    ApiServer,
    ControllerManager,
    CoreDns,
}

const ETCD: &str = "http://127.0.0.1:2379";

/// The controllers that pods, Deployments, StatefulSets and Services need.
const CONTROLLERS: &str = "deployment-controller,endpointslice-controller,garbage-collector-controller,\
    namespace-controller,replicaset-controller,serviceaccount-controller,statefulset-controller";

impl Component {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::CoreDns => "coredns",
        }
    }

    pub(super) fn command(self, files: &Files) -> Command {
        match self {
            Self::Etcd => etcd(&files.folder),
            Self::ApiServer => api_server(files),
            Self::ControllerManager => controller_manager(files),
            Self::CoreDns => coredns(files),
        }
    }

    pub(super) async fn is_ready(self, plane: &ControlPlane) -> bool {
        match self {
            Self::Etcd => TcpStream::connect("127.0.0.1:2379").await.is_ok(),
            Self::ApiServer => api_server_is_ready(plane).await,
            Self::ControllerManager => controllers_work(plane).await,
            Self::CoreDns => coredns_is_ready().await,
        }
    }
}

fn etcd(folder: &Path) -> Command {
    let mut command = Command::new(tool("etcd-3.7.3/etcd"));
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--unsafe-no-fsync", "--log-level=warn"]);
    command.args([
        "--listen-client-urls",
        ETCD,
        "--advertise-client-urls",
        ETCD,
    ]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
    command
}

fn api_server(files: &Files) -> Command {
    let mut command = kubernetes("kube-apiserver");
    let arguments = [
        ("etcd-servers", ETCD),
        ("bind-address", super::API_SERVER),
        ("secure-port", "443"),
        ("advertise-address", "10.244.255.1"),
        ("service-cluster-ip-range", "10.96.0.0/16,fd00:10:96::/112"),
        (
            "service-account-issuer",
            "https://kubernetes.default.svc.cluster.local",
        ),
        ("authorization-mode", "RBAC"),
        // This plugin would add volumes for tokens, which our node provides by itself.
        ("disable-admission-plugins", "ServiceAccount"),
    ];
    for (name, value) in arguments {
        command.arg(format!("--{name}={value}"));
    }
    let paths = [
        ("cert-dir", &files.folder),
        ("token-auth-file", &files.tokens),
        ("service-account-key-file", &files.public_key),
        ("service-account-signing-key-file", &files.private_key),
    ];
    for (name, path) in paths {
        command.arg(format!("--{name}={}", path.display()));
    }
    command
}

fn controller_manager(files: &Files) -> Command {
    let mut command = kubernetes("kube-controller-manager");
    let kubeconfig = files.admin.display();
    command.arg(format!("--kubeconfig={kubeconfig}"));
    command.arg(format!("--controllers={CONTROLLERS}"));
    command.args(["--leader-elect=false", "--secure-port=0"]);
    command
}

fn coredns(files: &Files) -> Command {
    let sandbox = files.coredns_sandbox().expect("CoreDNS's own files");
    let mut command = sandbox.command(&tool("coredns-1.15.0/coredns"));
    command.arg("-conf").arg(&files.corefile);
    command
}

fn kubernetes(program: &str) -> Command {
    let mut command = Command::new(tool("kubernetes-1.37.2/kubernetes"));
    command.arg(program);
    command
}

/// Whether the controllers work: one of them has made a namespace's default service account.
async fn controllers_work(plane: &ControlPlane) -> bool {
    let client = plane.client(User::Admin).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "kube-system");
    accounts.get("default").await.is_ok()
}

/// Whether CoreDNS is in sync with the API server: then it answers for the API server's own Service.
async fn coredns_is_ready() -> bool {
    let name_server = NAME_SERVER.parse().expect("an address");
    let target = "kubernetes.default.svc.cluster.local.:443".parse();
    let dns = Dns::new(target.expect("a target"));
    let dns = dns.name_servers([std::net::SocketAddr::new(name_server, 53)]);
    let answer = timeout(Duration::from_millis(200), dns.resolve()).await;
    answer.is_ok_and(|answer| answer.is_ok())
}
