//! The way to the API server: where it is, and by what right it is asked.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::task::spawn_blocking;

use super::{cryptography, error::Reason, settings::Access};
use crate::error::chain;

/// A client as `access` says.
pub(super) async fn client(access: &Access) -> Result<Client, Reason> {
    cryptography::provide()?;
    let config = match access {
        Access::Client(client) => return Ok(client.clone()),
        Access::Inferred => Config::infer()
            .await
            .map_err(|error| configuration(&error))?,
        Access::Kubeconfig(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| configuration(&error))?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(file, &options).await;
            config.map_err(|error| configuration(&error))?
        }
    };
    // It may run a program for a token, and waits for it.
    let client = spawn_blocking(|| Client::try_from(config)).await;
    let client = client.map_err(|error| configuration(&error))?;
    client.map_err(|error| configuration(&error))
}

fn configuration(error: &(dyn std::error::Error + 'static)) -> Reason {
    Reason::Configuration(chain(error))
}
