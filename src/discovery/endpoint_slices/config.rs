//! The way to the API server: where it is, and by what right it is asked.

use kube::{
    Client, Config, Error,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
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
        Access::Inferred => inferred().await?,
        Access::Kubeconfig(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| configuration(&error))?;
            let config = of_file(file).await;
            config.map_err(|error| configuration(&error))?
        }
    };
    // What fails is tried again at the pace of the watch, which tells why. kube's own retries would take that time in silence.
    config.default_retry = false;
    if !has_own_proxy {
        let environment = |name: &str| std::env::var(name).ok();
        proxy::take_environments(&mut config, &environment)?;
    }
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

/// What kube finds by itself, and whether it names a proxy of its own: the kubeconfig, or else the cluster that this runs in.
async fn inferred() -> Result<(Config, bool), Reason> {
    if let Ok(file) = Kubeconfig::read()
        && let Ok((mut config, has_own_proxy)) = of_file(file).await
    {
        config.apply_debug_overrides();
        return Ok((config, has_own_proxy));
    }
    let config = Config::infer().await;
    let config = config.map_err(|error| configuration(&error))?;
    Ok((config, false))
}

/// What a kubeconfig says, and whether it names a proxy of its own. kube would take the environment's where it names none, and
/// fail if that can't be read, whatever `NO_PROXY` says: so it always finds one.
async fn of_file(mut file: Kubeconfig) -> Result<(Config, bool), KubeconfigError> {
    const NONE: &str = "http://none.invalid";
    let clusters = file.clusters.iter_mut();
    for cluster in clusters.filter_map(|named| named.cluster.as_mut()) {
        let named = cluster.proxy_url.take().filter(|proxy| !proxy.is_empty());
        cluster.proxy_url = named.or_else(|| Some(NONE.to_owned()));
    }
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options).await?;
    let has_own_proxy = config
        .proxy_url
        .as_ref()
        .is_some_and(|proxy| *proxy != NONE);
    Ok((config, has_own_proxy))
}

fn configuration(error: &(dyn std::error::Error + 'static)) -> Reason {
    Reason::Configuration(chain(error))
}
