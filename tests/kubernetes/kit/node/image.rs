//! The program that an image stands for.

use std::{
    env, fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Container, Pod, ServiceAccount as Account},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{Api, api::PostParams};

use super::{State, environment, probe::port_number};
use crate::{
    kit::{
        control_plane::NAME_SERVER,
        sandbox::{Sandbox, ServiceAccount},
    },
    support::process::{Speech, nginx},
};

/// A container's program.
pub(super) struct Program {
    pub(super) command: Command,
    /// The image's STOPSIGNAL.
    pub(super) stop_signal: &'static str,
}

/// The program of a pod's only container; `None` while its service account is missing. `folder` is the container's own.
pub(super) async fn program(
    state: &State,
    pod: &Pod,
    addresses: &[IpAddr],
    folder: &Path,
) -> io::Result<Option<Program>> {
    let container = container(pod);
    fs::create_dir_all(folder)?;
    let image = container.image.as_deref().unwrap_or_default();
    if name(image) == "nginx" {
        return web_server(pod, container, addresses, folder).map(Some);
    }
    let example = example(name(image), container);
    let example = example.unwrap_or_else(|| panic!("the node has no program for image {image:?}"));
    let Some(token) = token(state, pod).await else {
        return Ok(None);
    };
    let account = ServiceAccount {
        namespace: &state.namespace,
        token: &token,
        authority: state.plane.authority(),
    };
    let sandbox = Sandbox::new(folder, &resolv_conf(&state.namespace), &account)?;
    let variables = environment::variables(pod, container, addresses);
    let mut command = sandbox.command(&example);
    command.args(environment::arguments(container, &variables, addresses));
    command.envs(variables);
    Ok(Some(Program {
        command,
        stop_signal: "-TERM",
    }))
}

/// A pod's container. The node only runs pods with one.
pub(super) fn container(pod: &Pod) -> &Container {
    let spec = pod.spec.as_ref().expect("a pod has a spec");
    let [container] = &spec.containers[..] else {
        panic!("the node runs pods of one container only");
    };
    container
}

/// `registry.example/nginx:1.27` → `nginx`
fn name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split([':', '@']).next().unwrap_or(last)
}

/// Debian's nginx, on the container's port, or on 80 as in the image. It refuses requests for another pod of its
/// StatefulSet.
fn web_server(
    pod: &Pod,
    container: &Container,
    addresses: &[IpAddr],
    folder: &Path,
) -> io::Result<Program> {
    let first = container.ports.iter().flatten().next();
    let port = first.map_or(80, |port| {
        port_number(container, &IntOrString::Int(port.container_port))
    });
    let addresses: Vec<_> = addresses
        .iter()
        .map(|ip| SocketAddr::new(*ip, port))
        .collect();
    // In a rootless namespace, root is the only user.
    let configuration = format!(
        "user root;\n{}",
        with_names(
            &nginx::configuration(Speech::Http1, &addresses),
            &addresses,
            pod
        )
    );
    Ok(Program {
        command: nginx::command(folder, &configuration)?,
        stop_signal: "-QUIT",
    })
}

/// Adds a server to the configuration that refuses requests for other pods, such as `web-1.web.default`.
fn with_names(configuration: &str, addresses: &[SocketAddr], pod: &Pod) -> String {
    let Some(hostname) = pod.spec.as_ref().and_then(|spec| spec.hostname.as_ref()) else {
        return configuration.to_owned();
    };
    let listen = addresses.iter().map(|it| format!("listen {it};"));
    let listen = listen.collect::<Vec<_>>().join(" ");
    let http = configuration.trim_end().strip_suffix('}');
    let http = http.expect("it ends with what is for HTTP");
    format!(
        r#"{http}
    server {{
        {listen}
        server_name "~^(?!{hostname}\.)[a-z-]+-[0-9]+\.";
        return 421;
    }}
}}
"#
    )
}

/// The example that an image stands for: `tower-headless-pod`, `tower-headless-client`, or `tower-headless` with a
/// command.
fn example(image: &str, container: &Container) -> Option<PathBuf> {
    let program = match image {
        "tower-headless-pod" => "pod",
        "tower-headless-client" => "http_client",
        "tower-headless" => {
            let command = container.command.as_ref()?.first()?;
            Path::new(command).file_name()?.to_str()?
        }
        _ => return None,
    };
    // <target>/<profile>/deps/<this test>
    let test = env::current_exe().expect("the test's own path");
    let profile = test.ancestors().nth(2).expect("a target directory");
    let example = profile.join("examples").join(program);
    example.is_file().then_some(example)
}

/// The resolv.conf that kubelet writes (`dnsPolicy: ClusterFirst`).
fn resolv_conf(namespace: &str) -> String {
    format!(
        "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n\
         nameserver {NAME_SERVER}\n\
         options ndots:5\n"
    )
}

/// A token of the pod's service account; `None` if there is no such account.
async fn token(state: &State, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref().expect("a pod has a spec");
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    let accounts: Api<Account> = Api::namespaced(state.client.clone(), &state.namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(3_600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let parameters = PostParams::default();
    let answer = accounts
        .create_token_request(account, &parameters, &request)
        .await;
    let answer = match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => return None,
        Err(error) => panic!("service account {account}: {error}"),
        Ok(answer) => answer,
    };
    let token = answer.status.and_then(|status| status.token);
    Some(token.expect("the API server gives one"))
}
