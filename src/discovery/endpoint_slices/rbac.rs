//! What to do where the API server says that the client may not.

use std::fmt;

/// A refusal, and the way out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forbidden {
    namespace: String,
    subject: Subject,
    message: String,
}

/// Whom the API server takes the client for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    ServiceAccount { namespace: String, name: String },
    User(String),
}

impl Forbidden {
    /// `message` is the API server's: `… is forbidden: User "system:serviceaccount:apps:client" cannot list resource …`.
    pub(super) fn new(namespace: &str, message: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            subject: Subject::of(message, namespace),
            message: message.to_owned(),
        }
    }
}

impl Subject {
    fn of(message: &str, namespace: &str) -> Self {
        let rest = message.split_once("User \"").map(|(_, rest)| rest);
        let user = rest.and_then(|rest| rest.split_once('"'));
        let Some((user, _)) = user else {
            // A pod's, unless it names another.
            return Self::ServiceAccount {
                namespace: namespace.to_owned(),
                name: "default".to_owned(),
            };
        };
        let account = user.strip_prefix("system:serviceaccount:");
        match account.and_then(|account| account.split_once(':')) {
            Some((namespace, name)) => Self::ServiceAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            None => Self::User(user.to_owned()),
        }
    }
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = &self.namespace;
        write!(
            f,
            r#"the client may not (403): {}
It may once this is applied (kubectl apply -f -):

apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: watch-endpointslices
  namespace: {namespace}
rules:
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: watch-endpointslices
  namespace: {namespace}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: watch-endpointslices
subjects:
{}
"#,
            self.message, self.subject
        )
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceAccount { namespace, name } => write!(
                f,
                "- kind: ServiceAccount\n  name: {name}\n  namespace: {namespace}"
            ),
            Self::User(name) => write!(
                f,
                "- apiGroup: rbac.authorization.k8s.io\n  kind: User\n  name: {name:?}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(user: &str) -> String {
        let message = format!(
            "endpointslices.discovery.k8s.io is forbidden: User {user:?} cannot list resource \"endpointslices\" in API \
             group \"discovery.k8s.io\" in the namespace \"web\""
        );
        Forbidden::new("web", &message).to_string()
    }

    #[test]
    fn the_role_is_for_whom_the_api_server_takes_the_client() {
        let account = text("system:serviceaccount:apps:client");
        assert!(account.contains("- kind: ServiceAccount\n  name: client\n  namespace: apps"));
        assert!(account.contains("verbs: [list, watch]"));
        assert_eq!(account.matches("  namespace: web\n").count(), 2);
        assert!(text("jane").contains("  kind: User\n  name: \"jane\""));
    }

    #[test]
    fn the_role_is_that_of_the_deployment() {
        let deployed = include_str!("../../../deploy/rbac.yaml");
        let rules = |text: &str| {
            let (_, rest) = text.split_once("rules:\n").expect("rules");
            let (rules, _) = rest.split_once("---").expect("a binding");
            rules.to_owned()
        };
        assert_eq!(rules(&text("jane")), rules(deployed));
    }

    #[test]
    fn who_it_is_may_be_missing() {
        let text = Forbidden::new("web", "no").to_string();
        assert!(text.contains("- kind: ServiceAccount\n  name: default\n  namespace: web"));
    }
}
