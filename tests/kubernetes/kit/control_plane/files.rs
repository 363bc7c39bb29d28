//! The files that the programs read.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rcgen::KeyPair;

use super::{API_SERVER, NAME_SERVER};
use crate::kit::sandbox::{Sandbox, ServiceAccount};

/// CoreDNS's token: from the tokens file, because a service account's would expire.
const COREDNS_TOKEN: &str = "coredns";

/// The tokens file: token, user, user ID, groups.
const TOKENS: &str = r#"admin,admin,1,"system:masters"
watcher,watcher,2,
coredns,system:serviceaccount:kube-system:coredns,3,"system:serviceaccounts,system:authenticated"
"#;

/// CoreDNS's role and binding, as kubeadm makes them.
pub(super) const COREDNS_ROLE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: system:coredns
rules:
- apiGroups: [""]
  resources: [endpoints, services, pods, namespaces]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: system:coredns
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: system:coredns
subjects:
- kind: ServiceAccount
  name: coredns
  namespace: kube-system
"#;

/// The files of a control plane, in one folder.
pub(super) struct Files {
    pub(super) folder: PathBuf,
    pub(super) tokens: PathBuf,
    pub(super) private_key: PathBuf,
    pub(super) public_key: PathBuf,
    /// The API server's certificate, which it makes itself.
    pub(super) authority: PathBuf,
    pub(super) admin: PathBuf,
    pub(super) watcher: PathBuf,
    pub(super) corefile: PathBuf,
}

impl Files {
    pub(super) fn write(folder: &Path) -> io::Result<Self> {
        let files = Self {
            folder: folder.to_owned(),
            tokens: folder.join("tokens.csv"),
            private_key: folder.join("service-account.key"),
            public_key: folder.join("service-account.pub"),
            authority: folder.join("apiserver.crt"),
            admin: folder.join("admin.kubeconfig"),
            watcher: folder.join("watcher.kubeconfig"),
            corefile: folder.join("Corefile"),
        };
        let key = KeyPair::generate().map_err(io::Error::other)?;
        fs::write(&files.private_key, key.serialize_pem())?;
        fs::write(&files.public_key, key.public_key_pem())?;
        fs::write(&files.tokens, TOKENS)?;
        fs::write(&files.admin, kubeconfig(&files.authority, "admin"))?;
        fs::write(&files.watcher, kubeconfig(&files.authority, "watcher"))?;
        fs::write(&files.corefile, corefile())?;
        Ok(files)
    }

    /// Writes a kubeconfig next to the token's file.
    pub(super) fn kubeconfig_of_token(&self, token: &Path, server: SocketAddr) -> PathBuf {
        let credentials = format!("tokenFile: {}", token.display());
        let text = kubeconfig_with(&self.authority, &server.to_string(), &credentials);
        let file = token.with_extension("kubeconfig");
        fs::write(&file, text).expect("the folder can be written to");
        file
    }

    /// CoreDNS's sandbox: to CoreDNS it looks like a pod. The name server that it would forward to doesn't exist.
    pub(super) fn coredns_sandbox(&self) -> io::Result<Sandbox> {
        let account = ServiceAccount {
            namespace: "kube-system",
            token: COREDNS_TOKEN,
            authority: &self.authority,
        };
        let folder = self.folder.join("coredns");
        Sandbox::new(&folder, "nameserver 10.244.255.1\n", &account)
    }
}

/// A kubeconfig for a user of the tokens file.
fn kubeconfig(authority: &Path, user: &str) -> String {
    kubeconfig_with(
        authority,
        &format!("{API_SERVER}:443"),
        &format!("token: {user}"),
    )
}

fn kubeconfig_with(authority: &Path, server: &str, credentials: &str) -> String {
    let authority = authority.display();
    format!(
        "apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster:
    server: https://{server}
    tls-server-name: {API_SERVER}
    certificate-authority: {authority}
users:
- name: test
  user: {{ {credentials} }}
contexts:
- name: test
  context: {{ cluster: test, user: test }}
"
    )
}

/// kubeadm's Corefile, except for the address to listen on, because in a real cluster its pod has its own network.
fn corefile() -> String {
    format!(
        ".:53 {{
    bind {NAME_SERVER}
    errors
    health {NAME_SERVER}:8080 {{
       lameduck 5s
    }}
    ready {NAME_SERVER}:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus {NAME_SERVER}:9153
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success cluster.local
       disable denial cluster.local
    }}
    loop
    reload
    loadbalance
}}
"
    )
}
