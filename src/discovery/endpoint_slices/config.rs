//! The way to the API server: where it is, and by what right it is asked.

use kube::{
    Client, Config, Error,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{task::spawn_blocking, time::Instant};

use super::{cryptography, error::Reason, exec, proxy, settings::Access};
use crate::error::chain;

/// A client, and until when its credentials are good, if that is known.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) client: Client,
    pub(super) good_until: Option<Instant>,
}

/// A client as `access` says.
pub(super) async fn client(access: &Access) -> Result<Made, Reason> {
    cryptography::provide()?;
    let (mut config, has_own_proxy) = match access {
        Access::Client(client) => {
            return Ok(Made {
                client: client.clone(),
                good_until: None,
            });
        }
        Access::Inferred => {
            let config = Config::infer().await;
            let config = config.map_err(|error| configuration(&error))?;
            (
                config,
                Kubeconfig::read().is_ok_and(|file| names_proxy(&file)),
            )
        }
        Access::Kubeconfig(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| configuration(&error))?;
            let has_own_proxy = names_proxy(&file);
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(file, &options).await;
            let config = config.map_err(|error| configuration(&error))?;
            (config, has_own_proxy)
        }
    };
    // What fails is tried again at the pace of the watch, which tells why. kube's own retries would take that time in silence.
    config.default_retry = false;
    proxy::decide(&mut config, has_own_proxy, &|name| std::env::var(name).ok());
    let unsupported = proxy::unsupported(&config, has_own_proxy);
    let good_until = exec::authenticate(&mut config.auth_info).await?;
    // It reads files.
    let client = spawn_blocking(|| Client::try_from(config)).await;
    let client = client.map_err(|error| configuration(&error))?;
    let client = client.map_err(|error| match (error, unsupported) {
        (
            Error::ProxyProtocolDisabled { .. } | Error::ProxyProtocolUnsupported { .. },
            Some(why),
        ) => why,
        (error, _) => configuration(&error),
    })?;
    Ok(Made { client, good_until })
}

/// Whether the cluster of the file's context has a proxy.
fn names_proxy(file: &Kubeconfig) -> bool {
    let named = file
        .contexts
        .iter()
        .find(|context| Some(&context.name) == file.current_context.as_ref());
    let context = named.and_then(|named| named.context.as_ref());
    let cluster = context.and_then(|context| {
        let mut clusters = file.clusters.iter();
        clusters
            .find(|named| named.name == context.cluster)?
            .cluster
            .as_ref()
    });
    let proxy = cluster.and_then(|cluster| cluster.proxy_url.as_deref());
    proxy.is_some_and(|proxy| !proxy.is_empty())
}

fn configuration(error: &(dyn std::error::Error + 'static)) -> Reason {
    Reason::Configuration(chain(error))
}
