//! What the stories apply.

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

/// nginx in a Deployment or a StatefulSet, with the label `app: NAME`. A pod that is deleted serves for two more seconds.
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
              seconds: 2
---"
    )
}
