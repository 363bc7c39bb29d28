//! A container's environment and arguments, including the downward API.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use kube::ResourceExt;

/// The variables, by name.
pub(super) fn variables(
    pod: &Pod,
    container: &Container,
    addresses: &[IpAddr],
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = value(variable, pod, addresses);
        let value = expand(&value, &variables);
        variables.insert(variable.name.clone(), value);
    }
    variables
}

/// The arguments: those of the command, after the program's name, then the container's. `0.0.0.0` becomes the pod's
/// address, because pods share our network.
pub(super) fn arguments(
    container: &Container,
    variables: &BTreeMap<String, String>,
    addresses: &[IpAddr],
) -> Vec<String> {
    let ip = addresses[0].to_string();
    let command = container.command.iter().flatten().skip(1);
    let arguments = command.chain(container.args.iter().flatten());
    arguments
        .map(|argument| expand(argument, variables).replace("0.0.0.0", &ip))
        .collect()
}

fn value(variable: &EnvVar, pod: &Pod, addresses: &[IpAddr]) -> String {
    let Some(source) = &variable.value_from else {
        return variable.value.clone().unwrap_or_default();
    };
    let field = source.field_ref.as_ref();
    let field = field.unwrap_or_else(|| panic!("{}: only fieldRef is known", variable.name));
    match field.field_path.as_str() {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "spec.nodeName" => {
            let spec = pod.spec.as_ref();
            spec.and_then(|spec| spec.node_name.clone())
                .unwrap_or_default()
        }
        "status.podIP" => addresses[0].to_string(),
        "status.hostIP" => super::status::NODE_ADDRESS.to_owned(),
        label => label_of(pod, label),
    }
}

/// `metadata.labels['name']`
fn label_of(pod: &Pod, path: &str) -> String {
    let name = path.strip_prefix("metadata.labels['");
    let name = name.and_then(|name| name.strip_suffix("']"));
    let name = name.unwrap_or_else(|| panic!("the node knows no field {path}"));
    pod.labels().get(name).cloned().unwrap_or_default()
}

/// `$(NAME)` becomes the variable of that name, if there is one.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (name, value) in variables {
        text = text.replace(&format!("$({name})"), value);
    }
    text
}
