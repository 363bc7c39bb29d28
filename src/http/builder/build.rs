//! Builds the client from its settings.

use std::sync::Arc;

use http::{Uri, uri::Scheme};

use super::{BuildError, ClientBuilder, limits::Limits};
#[cfg(feature = "sessions")]
use crate::http::session::Sessions;
use crate::{
    balance::Generator,
    discovery::Discovery,
    endpoint::Endpoint,
    http::{
        address::Service,
        affinity::Affinity,
        body::PodRequest,
        client::Client,
        connect::Connector,
        future::Shared,
        key_from::{KeyFrom, Keys},
        pod::PodService,
        pool::Config,
        response::OnResponseEnd,
    },
};
#[cfg(feature = "tls")]
use {
    crate::http::tls::{Handshake, Tls},
    http::uri::Authority,
};

impl Client {
    /// Settings of a client for the service that `uri` names: `http://nginx-headless.default:80`, or
    /// `http://_http._tcp.nginx-headless.default` for the port named `http`. Without a port it is the scheme's default.
    /// A path, as in `http://nginx-headless.default/api/v1`, is the [base path](ClientBuilder::base_path).
    ///
    /// # On your own machine
    ///
    /// One variable switches between the cluster and a server on your machine:
    ///
    /// ```
    /// # fn main() -> Result<(), tower_headless::BoxError> {
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # let _entered = runtime.enter();
    /// # use tower_headless::http::Client;
    /// let web = std::env::var("WEB").unwrap_or("http://web-headless.default:80".into());
    /// let client = Client::builder(web.parse()?).build()?; // WEB=http://localhost:8080
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// - **`http://localhost:8080`**, names below `.localhost`, and addresses (`http://127.0.0.1:8080`,
    ///   `http://[::1]:8080`) need no name server and no `allow_loopback`: they mean this machine (RFC 6761 §6.3).
    ///   `localhost` is 127.0.0.1, or ::1 if that refuses.
    /// - **Several servers**, or pods of a cluster, each with its own port, are a `StaticEndpoints`. Forward each pod
    ///   by `kubectl port-forward pod/web-0 8081:80`: forwarding the Service reaches one pod only. The pods see the
    ///   service's name:
    ///   ```
    ///   # fn main() -> Result<(), tower_headless::BoxError> {
    ///   # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    ///   # let _entered = runtime.enter();
    ///   # use tower_headless::{StaticEndpoints, http::Client};
    ///   let pods = StaticEndpoints::new(["127.0.0.1:8081".parse()?, "127.0.0.1:8082".parse()?]);
    ///   let client = Client::builder("http://web-headless.default:80".parse()?).discovery(pods).build()?;
    ///   # Ok(())
    ///   # }
    ///   ```
    /// - **A DNS server of your own**: set it by [`dns`](ClientBuilder::dns), and allow the loopback addresses that it
    ///   answers: `.dns(|dns| dns.name_servers(["127.0.0.1:5353".parse().unwrap()]).allow_loopback(true))`.
    pub fn builder(uri: Uri) -> ClientBuilder {
        ClientBuilder::new(uri)
    }
}

impl<D> ClientBuilder<D> {
    /// Builds the client. It dials nothing before the first request, unless it should [connect
    /// ahead](Self::connect_ahead) or [check health](Self::health_check).
    ///
    /// # Errors
    ///
    /// If the URI names no service, or is `https` without `tls`; if [`key_from`](Self::key_from) is set but the policy
    /// ignores keys; if a header's or cookie's name, a secret, a base path or a user agent is invalid. The text says
    /// which.
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
                &scheme,
                &authority,
                "https needs the feature `tls`",
            ));
        }
        let is_keyed = self.pods.may_be_keyed();
        let affinity = affinity(
            self.keys,
            is_keyed,
            #[cfg(feature = "sessions")]
            self.sessions,
        );
        let affinity = affinity.map_err(|why| BuildError::of_service(&scheme, &authority, why))?;
        let defaults = self.defaults.build();
        let defaults = defaults.map_err(|why| BuildError::of_service(&scheme, &authority, why))?;
        let limits = self.limits;
        // HTTP/2 can refuse by `REFUSED_STREAM` or GOAWAY, TLS by an alert.
        let may_refuse = scheme == Scheme::HTTPS || connector.may_speak_http2();
        let service = Service::new(scheme, &authority).allow_foreign(self.allow_foreign);
        let pods = self.pods;
        let pods = pods.change_check(|check| check.over(&connector, &service, limits.age));
        let config = Arc::new(config(&limits, connector, service));
        let pods = pods
            .over(self.discovery?)
            .name(config.service.name.clone())
            .completion(OnResponseEnd {
                classify: self.classify,
            });
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
        let mut retries = self.retries;
        retries.allowance.tally = pods.tally().cloned();
        Ok(Client::new(Shared {
            pods,
            config,
            retries,
            affinity,
            timeout: limits.whole,
            may_refuse,
            grpc_status: self.grpc_status,
            has_spans: self.has_spans,
            has_attempts: self.has_attempts,
            defaults,
        }))
    }
}

/// What the client looks for in its requests, if anything. Returns what is wrong with the settings if they can't work.
fn affinity(
    keys: Vec<KeyFrom>,
    is_keyed: bool,
    #[cfg(feature = "sessions")] sessions: Option<Sessions>,
) -> Result<Option<Affinity>, String> {
    if !keys.is_empty() && !is_keyed {
        let why = "`key_from` needs a policy that uses keys: set `policy(ConsistentHash::new())`";
        return Err(why.into());
    }
    let is_off = keys.is_empty();
    #[cfg(feature = "sessions")]
    let is_off = is_off && sessions.is_none();
    let affinity = Affinity {
        keys: Keys::new(keys)?,
        #[cfg(feature = "sessions")]
        sessions: match sessions {
            Some(sessions) => Some(Arc::new(sessions.build()?)),
            None => None,
        },
    };
    Ok((!is_off).then_some(affinity))
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

/// Adds TLS to the connector, if the scheme is `https`.
#[cfg(feature = "tls")]
fn secured(
    mut connector: Connector,
    tls: Option<Tls>,
    scheme: &Scheme,
    authority: &Authority,
) -> Result<Connector, BuildError> {
    if *scheme == Scheme::HTTPS {
        let untold = || {
            BuildError::of_service(
                scheme,
                authority,
                "https needs `.tls(Tls::new().trust_pem(…)?)`, which says whom to trust",
            )
        };
        let tls = tls.ok_or_else(untold)?;
        let handshake = Handshake::new(tls, authority.host(), connector.protocol);
        let handshake = handshake.map_err(|why| BuildError::of_service(scheme, authority, why))?;
        connector.renewals = Some(handshake.renewals());
        connector.tls = Some(handshake);
    }
    Ok(connector)
}
