//! Makes kube's client: where the API server is, and with which credentials.

use std::{env, io::ErrorKind, path::PathBuf, sync::Arc};

use kube::{
    Client, Config, Error,
    config::{ExecAuthCluster, Kubeconfig, KubeconfigError},
};
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    cryptography::{self, authorities},
    error::Reason,
    exec, proxy,
    settings::Access,
};
use crate::error::chain;

/// A client, with what is known about its server and its credentials.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) client: Client,
    /// The API server's address; none for a client that the user has passed in.
    pub(super) server: Option<Arc<str>>,
    pub(super) good_until: Option<Instant>,
}

/// Makes a client as `access` says.
pub(super) async fn client(access: &Access) -> Result<Made, Reason> {
    cryptography::provide()?;
    let (mut config, own_proxy) = match access {
        Access::Client(client) => {
            return Ok(Made {
                client: client.clone(),
                server: None,
                good_until: None,
            });
        }
        Access::Inferred => inferred()?,
        Access::Kubeconfig(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| configuration(&error))?;
            of_file(file)?
        }
    };
    // The watch itself retries and reports each failure. kube's own retries would hide them meanwhile.
    config.default_retry = false;
    let environment = |name: &str| env::var(name).ok();
    match &own_proxy {
        Some(proxy) => proxy::take_own(&mut config, proxy)?,
        None => proxy::take_environments(&mut config, &environment)?,
    }
    let unsupported = proxy::unsupported(&config, own_proxy.is_some());
    let server = server(&config);
    let good_until = exec::authenticate(&mut config.auth_info).await?;
    // `try_from` reads files, so it mustn't block the runtime.
    let client = spawn_blocking(|| Client::try_from(config)).await;
    let client = client.map_err(|error| configuration(&error))?;
    let client = client.map_err(|error| match (error, unsupported) {
        (Error::ProxyProtocolDisabled { .. }, Some(why)) => why,
        (error, _) => configuration(&error),
    })?;
    Ok(Made {
        client,
        server,
        good_until,
    })
}

/// The API server's address, without the rest of the URL, which may be secret.
fn server(config: &Config) -> Option<Arc<str>> {
    let url = &config.cluster_url;
    let host = url.host()?;
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    let scheme = url.scheme_str().unwrap_or("https");
    Some(format!("{scheme}://{host}{port}").into())
}

/// The configuration found in the environment, as kube does it: the kubeconfig, or else the pod's service account.
fn inferred() -> Result<(Config, Option<String>), Reason> {
    let paths = env::var_os("KUBECONFIG").unwrap_or_default();
    let paths = env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty());
    let file = kubeconfig(paths).map_err(|error| configuration(&error));
    let (mut config, own_proxy) = match file.and_then(of_file) {
        Ok(found) => found,
        Err(no_file) => match Config::incluster() {
            Ok(config) => (config, None),
            Err(error) => return Err(Reason::Nowhere(no_file.to_string(), chain(&error))),
        },
    };
    config.apply_debug_overrides();
    Ok((config, own_proxy))
}

/// Merges these kubeconfig files, of which some may be missing, as kubectl does. Without any, reads the user's own.
fn kubeconfig(paths: impl Iterator<Item = PathBuf>) -> Result<Kubeconfig, KubeconfigError> {
    let (mut all, mut missing) = (None::<Kubeconfig>, None);
    for path in paths {
        match Kubeconfig::read_from(path) {
            Ok(mut file) => {
                // Otherwise an empty context would hide the next file's.
                file.current_context.take_if(|name| name.is_empty());
                all = Some(all.unwrap_or_default().merge(file)?);
            }
            Err(KubeconfigError::ReadConfig(error, path))
                if error.kind() == ErrorKind::NotFound =>
            {
                missing.get_or_insert(KubeconfigError::ReadConfig(error, path));
            }
            Err(error) => return Err(error),
        }
    }
    match (all, missing) {
        (Some(all), _) => Ok(all),
        (None, Some(missing)) => Err(missing),
        (None, None) => Kubeconfig::read(),
    }
}

/// The configuration of a kubeconfig's current context, and the proxy that it names. kube's own function isn't used,
/// because it also looks for a proxy: it fails if the environment's proxy or `NO_PROXY` is malformed, and compares
/// `NO_PROXY` with the proxy, not with the API server.
fn of_file(file: Kubeconfig) -> Result<(Config, Option<String>), Reason> {
    let missing = |error: KubeconfigError| configuration(&error);
    let name = file.current_context.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| missing(KubeconfigError::CurrentContextNotSet))?;
    let mut contexts = file.contexts.into_iter();
    let context = contexts.find(|named| named.name == name);
    let context = context.and_then(|named| named.context);
    let mut context = context.ok_or_else(|| missing(KubeconfigError::LoadContext(name)))?;
    let mut clusters = file.clusters.into_iter();
    let cluster = clusters.find(|named| named.name == context.cluster);
    let mut cluster = cluster.and_then(|named| named.cluster).ok_or_else(|| {
        missing(KubeconfigError::LoadClusterOfContext(
            context.cluster.clone(),
        ))
    })?;
    // A missing user has no credentials, as with client-go.
    let mut users = file.auth_infos.into_iter();
    let user = users.find(|named| context.user.as_ref() == Some(&named.name));
    let mut user = user.and_then(|named| named.auth_info).unwrap_or_default();
    // client-go treats empty values as missing.
    for value in [
        &mut context.namespace,
        &mut cluster.certificate_authority,
        &mut cluster.certificate_authority_data,
        &mut cluster.tls_server_name,
        &mut cluster.proxy_url,
        &mut user.client_certificate,
        &mut user.client_certificate_data,
        &mut user.client_key,
        &mut user.token_file,
    ] {
        value.take_if(|value| value.is_empty());
    }

    let server = cluster.server.as_ref();
    let server = server.ok_or_else(|| missing(KubeconfigError::MissingClusterUrl))?;
    let server = server.parse();
    let server = server.map_err(|error| missing(KubeconfigError::ParseClusterUrl(error)))?;
    let mut config = Config::new(server);
    config.default_namespace = context.namespace.unwrap_or(config.default_namespace);
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or(false);
    config.disable_compression = cluster.disable_compression.unwrap_or(false);
    config.tls_server_name.clone_from(&cluster.tls_server_name);
    config.auth_info = user;
    let known = ExecAuthCluster::try_from(&cluster).map_err(missing)?;
    config.root_cert = known
        .certificate_authority_data
        .as_deref()
        .map(authorities)
        .transpose()?;
    if let Some(exec) = &mut config.auth_info.exec
        && exec.provide_cluster_info
    {
        exec.cluster = Some(known);
    }
    Ok((config, cluster.proxy_url))
}

fn configuration(error: &(dyn std::error::Error + 'static)) -> Reason {
    Reason::Configuration(chain(error))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use kube::config::KubeConfigOptions;
    use serde_json::{Value, json};

    use super::*;

    const CERTIFICATES: &str = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n\
        -----BEGIN PRIVATE KEY-----\nBAUG\n-----END PRIVATE KEY-----\n\
        -----BEGIN CERTIFICATE-----\nBwgJ\n-----END CERTIFICATE-----\n";

    fn kubeconfig(cluster: &Value, context: &Value) -> Kubeconfig {
        let exec = json!({"command": "plugin", "provideClusterInfo": true});
        let file = json!({
            "current-context": "it",
            "contexts": [{"name": "other"}, {"name": "it", "context": context}],
            "clusters": [{"name": "other"}, {"name": "it", "cluster": cluster}],
            "users": [
                {"name": "other", "user": {"token": "another"}},
                {"name": "it", "user": {"username": "me", "exec": exec}},
            ],
        });
        Kubeconfig::from_yaml(&file.to_string()).expect("a kubeconfig")
    }

    async fn assert_read_as_by_kube(file: Kubeconfig) {
        let ours = of_file(file.clone()).map(|(config, _)| config);
        let kubes = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let kubes = kubes.map_err(|error| configuration(&error));
        let kubes = kubes.map(|mut config| {
            config.proxy_url = None;
            config
        });
        let text = |config: Result<Config, Reason>| match config {
            Ok(config) => format!("{config:?}"),
            Err(reason) => reason.to_string(),
        };
        assert_eq!(text(ours), text(kubes));
    }

    #[tokio::test]
    async fn a_kubeconfig_is_read_as_by_kube() {
        let data = serde_json::to_value(ByteString(CERTIFICATES.into())).expect("base64");
        let all = json!({"cluster": "it", "user": "it", "namespace": "there"});
        for cluster in [
            json!({"server": "https://api.example:6443"}),
            json!({"server": "https://api.example/below", "tls-server-name": "kubernetes"}),
            json!({"server": "https://[fd00::1]", "insecure-skip-tls-verify": true}),
            json!({"server": "https://api.example", "disable-compression": true}),
            json!({"server": "https://api.example", "certificate-authority-data": data}),
            json!({"server": "https://api.example", "certificate-authority-data": "no base64"}),
            json!({"server": "https://api.example", "certificate-authority": "/no/such/file"}),
            json!({"server": "an api server"}),
            json!({}),
        ] {
            assert_read_as_by_kube(kubeconfig(&cluster, &all)).await;
        }
        let cluster = json!({"server": "https://api.example"});
        for context in [
            json!({"cluster": "it"}),
            json!({"cluster": "it", "user": "nobody"}),
            json!({"cluster": "other", "user": "it"}),
            json!({"cluster": "none", "user": "it"}),
        ] {
            assert_read_as_by_kube(kubeconfig(&cluster, &context)).await;
        }
        for context in [None, Some("other"), Some("none")] {
            let mut file = kubeconfig(&cluster, &all);
            file.current_context = context.map(str::to_owned);
            assert_read_as_by_kube(file).await;
        }
        assert_read_as_by_kube(Kubeconfig::default()).await;
    }

    #[test]
    fn empty_values_count_as_missing() {
        let cluster = json!({
            "server": "https://api.example",
            "certificate-authority": "",
            "certificate-authority-data": "",
            "tls-server-name": "",
        });
        let context = json!({"cluster": "it", "user": "it", "namespace": ""});
        let mut file = kubeconfig(&cluster, &context);
        for named in &mut file.auth_infos {
            let user = named.auth_info.as_mut().expect("a user");
            user.token_file = Some(String::new());
            user.client_certificate_data = Some(String::new());
        }
        let (config, _) = of_file(file.clone()).expect("a configuration");
        assert_eq!(config.default_namespace, "default");
        assert!(config.root_cert.is_none());
        assert!(config.tls_server_name.is_none());
        assert!(config.auth_info.token_file.is_none());
        assert!(config.auth_info.client_certificate_data.is_none());
        file.current_context = Some(String::new());
        let error = of_file(file).expect_err("no context").to_string();
        let unset = configuration(&KubeconfigError::CurrentContextNotSet);
        assert_eq!(error, unset.to_string());
    }

    #[test]
    fn several_kubeconfigs_are_merged_and_the_first_context_counts() {
        let folder = env::temp_dir().join(format!("tower-headless-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a writable folder");
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a writable folder");
            path
        };
        let missing = folder.join("missing");
        let empty = file("empty", "current-context: \"\"\n");
        let one = file("one", "current-context: one\n");
        let other = file("other", "current-context: other\n");
        let broken = file("broken", "contexts: no list\n");
        let read = |paths: &[&PathBuf]| super::kubeconfig(paths.iter().copied().cloned());
        for paths in [
            &[&missing, &empty, &one, &other][..],
            &[&one, &missing],
            &[&one, &empty],
        ] {
            let found = read(paths).expect("a kubeconfig");
            assert_eq!(found.current_context.as_deref(), Some("one"), "{paths:?}");
        }
        let error = read(&[&missing]).expect_err("no file").to_string();
        assert!(error.contains("missing"), "{error}");
        assert!(read(&[&one, &broken]).is_err());
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn an_empty_proxy_url_means_no_proxy() {
        let of = |proxy: &str| {
            let cluster = json!({"server": "https://api.example", "proxy-url": proxy});
            let file = kubeconfig(&cluster, &json!({"cluster": "it"}));
            of_file(file).expect("a configuration").1
        };
        assert_eq!(of(""), None);
        assert_eq!(of("http://proxy").as_deref(), Some("http://proxy"));
    }
}
