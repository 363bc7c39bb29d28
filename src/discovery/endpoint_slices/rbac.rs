//! What to do if the API server doesn't allow the client to list or watch.

use std::fmt;

/// A refusal by the API server, and the Role that helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forbidden {
    namespace: String,
    subject: Subject,
    message: String,
}

/// The client's identity, as the API server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    ServiceAccount { namespace: String, name: String },
    User(String),
}

impl Forbidden {
    /// Parses the API server's `message`: `… User "system:serviceaccount:apps:client" cannot list resource …`.
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
            // The pod's service account, which is `default` unless the pod names another.
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
            r#"the client is not allowed to (403): {}
To allow it, apply this (kubectl apply -f -):

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
    fn the_role_binding_names_the_client_as_the_api_server_does() {
        let account = text("system:serviceaccount:apps:client");
        assert!(account.contains("- kind: ServiceAccount\n  name: client\n  namespace: apps"));
        assert!(account.contains("verbs: [list, watch]"));
        assert_eq!(account.matches("  namespace: web\n").count(), 2);
        assert!(text("jane").contains("  kind: User\n  name: \"jane\""));
    }

    #[test]
    fn the_role_has_the_rules_of_deploy_rbac_yaml() {
        let deployed = include_str!("../../../deploy/rbac.yaml");
        let rules = |text: &str| {
            let (_, rest) = text.split_once("rules:\n").expect("rules");
            let (rules, _) = rest.split_once("---").expect("a binding");
            rules.to_owned()
        };
        assert_eq!(rules(&text("jane")), rules(deployed));
    }

    #[test]
    fn without_a_user_in_the_message_the_default_service_account_is_named() {
        let text = Forbidden::new("web", "no").to_string();
        assert!(text.contains("- kind: ServiceAccount\n  name: default\n  namespace: web"));
    }
}
