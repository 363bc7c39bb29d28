//! The client, of its settings.

use std::sync::Arc;

use http::{Uri, uri::Scheme};

use super::{BuildError, ClientBuilder, limits::Limits};
use crate::{
    balance::{Balance, Generator},
    discovery::Discovery,
    endpoint::Endpoint,
    http::{
        address::Service, body::PodRequest, client::Client, connect::Connector, future::Shared,
        pod::PodService, pool::Config, protocol::Protocol, response::OnResponseEnd,
    },
};
#[cfg(feature = "tls")]
use {
    crate::http::tls::{Handshake, Tls},
    http::uri::Authority,
};

impl Client {
    /// Settings of a client of the service that `uri` names: `http://nginx-headless.default:80`, or
    /// `http://_http._tcp.nginx-headless.default` for the port of that name. With neither it is the scheme's port.
    pub fn builder(uri: Uri) -> ClientBuilder {
        ClientBuilder::new(uri)
    }
}

impl<D> ClientBuilder<D> {
    /// Builds the client. Nothing is dialled before a request comes, unless it is told to
    /// [connect ahead](Self::connect_ahead) or to [check](Self::health_check).
    ///
    /// # Errors
    ///
    /// If the URI names no service, or asks for TLS without settings for it.
    pub fn build(self) -> Result<Client, BuildError>
    where
        D: Discovery,
    {
        let (scheme, authority) = self.service?;
        #[cfg(feature = "tls")]
        let connector = secured(self.connector, self.tls, &scheme, &authority)?;
        #[cfg(not(feature = "tls"))]
        let connector = self.connector;
        if scheme == Scheme::HTTPS && !cfg!(feature = "tls") {
            return Err(BuildError::of_service(
                &authority,
                "https needs the feature `tls`",
            ));
        }
        let limits = self.limits;
        let may_refuse = scheme == Scheme::HTTPS || connector.protocol == Protocol::Http2;
        let service = Service::new(scheme, &authority).allow_foreign(self.allow_foreign);
        let check = self
            .check
            .map(|check| check.over(&connector, &service, limits.age));
        let config = Arc::new(config(&limits, connector, service));
        let pods = Balance::builder(self.discovery?)
            .any_policy(self.policy)
            .locality(self.locality)
            .outlier_detection(self.detection)
            .slow_start(self.slow_start)
            .completion(OnResponseEnd {
                classify: self.classify,
            });
        let pods = match check {
            Some(check) => pods.health_check(check),
            None => pods,
        };
        let pods = match limits.ready {
            Some(timeout) => pods.ready_timeout(timeout),
            None => pods.wait_for_ready(),
        };
        let make = {
            let config = config.clone();
            move |endpoint: &Endpoint| PodService::new(endpoint, config.clone())
        };
        let pods = match limits.ahead {
            true => pods.build_ahead::<_, _, PodRequest>(make),
            false => pods.build(make),
        };
        if self.retries.hedges.is_some() {
            pods.begin_hedging();
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &config.connector.tls {
            tls.set_known(pods.known());
        }
        Ok(Client::new(Shared {
            pods,
            config,
            retries: self.retries,
            timeout: limits.whole,
            may_refuse,
        }))
    }
}

fn config(limits: &Limits, connector: Connector, service: Service) -> Config {
    Config {
        connector,
        service,
        max_idle: limits.max_idle,
        idle_timeout: limits.idle_timeout,
        max_connections: limits.max_connections,
        first_byte: limits.first_byte,
        age: limits.age,
        ahead: limits.ahead,
        generator: Generator::new(None),
    }
}

/// The connector over TLS, where the scheme asks for it.
#[cfg(feature = "tls")]
fn secured(
    mut connector: Connector,
    tls: Option<Tls>,
    scheme: &Scheme,
    authority: &Authority,
) -> Result<Connector, BuildError> {
    if *scheme == Scheme::HTTPS {
        let untold = || BuildError::of_service(authority, "give it `tls`: whom to trust");
        let tls = tls.ok_or_else(untold)?;
        let handshake = Handshake::new(tls, authority.host(), connector.protocol);
        let handshake = handshake.map_err(|why| BuildError::of_service(authority, why))?;
        connector.renewals = Some(handshake.renewals());
        connector.tls = Some(handshake);
    }
    Ok(connector)
}
