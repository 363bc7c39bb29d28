//! The manifests that the stories apply.

use crate::source::Source;

/// A headless Service of pods with the label `app: NAME`.
pub(super) fn headless(name: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  clusterIP: None
  selector:
    app: {name}
  ports:
  - name: http
    port: 80
---"
    )
}

/// nginx in a Deployment or a StatefulSet, with the label `app: NAME`. A deleted pod serves for one more second.
pub(super) fn nginx(kind: &str, name: &str, replicas: usize) -> String {
    let service_name = match kind {
        "StatefulSet" => format!("serviceName: {name}"),
        _ => String::new(),
    };
    format!(
        "
apiVersion: apps/v1
kind: {kind}
metadata:
  name: {name}
spec:
  {service_name}
  replicas: {replicas}
  selector:
    matchLabels:
      app: {name}
  template:
    metadata:
      labels:
        app: {name}
    spec:
      containers:
      - name: nginx
        image: nginx
        ports:
        - name: http
          containerPort: 80
        readinessProbe:
          httpGet:
            path: /
            port: http
          periodSeconds: 1
        lifecycle:
          preStop:
            sleep:
              seconds: 1
---"
    )
}

/// A headless Service with more lines in its specification.
fn headless_with(name: &str, more: &str) -> String {
    headless(name).replace("  clusterIP: None\n", &format!("  clusterIP: None\n{more}"))
}

/// A headless Service with IPv4 and IPv6.
pub(super) fn dual_stack(name: &str) -> String {
    headless_with(
        name,
        "  ipFamilyPolicy: RequireDualStack\n  ipFamilies: [IPv4, IPv6]\n",
    )
}

/// A headless Service whose clients should stay in their zones.
pub(super) fn same_zone(name: &str) -> String {
    headless_with(name, "  trafficDistribution: PreferSameZone\n")
}

pub(super) fn published_unready(name: &str) -> String {
    headless_with(name, "  publishNotReadyAddresses: true\n")
}

/// A headless Service whose target port is the pods' port named `http`.
pub(super) fn named_port(name: &str) -> String {
    headless(name).replace("    port: 80\n", "    port: 80\n    targetPort: http\n")
}

/// A Service with a cluster IP.
pub(super) fn cluster_ip(name: &str) -> String {
    headless(name).replace("  clusterIP: None\n", "")
}

/// A headless Service without a selector, whose endpoints the test writes.
pub(super) fn without_selector(name: &str) -> String {
    headless(name).replace(&format!("  selector:\n    app: {name}\n"), "")
}

/// A pod that runs `http_client` once, for this many seconds.
pub(super) fn client(name: &str, service: &str, source: Source, seconds: u32) -> String {
    let arguments = source.arguments();
    format!(
        "
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  restartPolicy: Never
  containers:
  - name: client
    image: tower-headless-client
    args: [--service, {service}, --port, '80', --rate, '100', --duration, '{seconds}'{arguments}]
    env:
    - name: RUST_LOG
      value: warn,tower_headless::discovery=info
---"
    )
}

/// The Role and binding for a service account that watches slices, from `deploy/rbac.yaml`.
pub(super) fn role(account: &str) -> String {
    let rbac = include_str!("../../../deploy/rbac.yaml");
    assert!(rbac.contains("name: client-watch\n"));
    format!("\n{}---", rbac.replace("client-watch", account))
}
