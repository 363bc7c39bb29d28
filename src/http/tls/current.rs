//! TLS settings, and the configuration made from them.

use std::sync::Arc;

use rustls::ClientConfig;

use super::settings::Tls;
use crate::{error::BoxError, http::protocol::Protocol};

/// The settings of handshakes, until they are replaced.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) settings: Tls,
    negotiated: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Current {
    /// `protocol` is what the client's requests use.
    pub(super) fn new(settings: Tls, protocol: Protocol) -> Result<Self, BoxError> {
        let config = settings.client_config()?;
        if common(&config, protocol).is_empty() {
            let named = texts(&config.alpn_protocols);
            let asked = texts(&names(protocol));
            return Err(format!(
                "`Tls::config` offers {named} (ALPN), and the client's protocol asks for {asked}"
            )
            .into());
        }
        let offering = |protocol| Arc::new(offering(&config, protocol));
        Ok(Self {
            settings,
            negotiated: offering(Protocol::Negotiated),
            http1: offering(Protocol::Http1),
            http2: offering(Protocol::Http2),
        })
    }

    pub(super) fn config(&self, protocol: Protocol) -> Arc<ClientConfig> {
        match protocol {
            Protocol::Negotiated => self.negotiated.clone(),
            Protocol::Http1 => self.http1.clone(),
            Protocol::Http2 => self.http2.clone(),
        }
    }
}

/// The configuration with its ALPN offer for `protocol`. If it offers nothing that `protocol` asks for, the offer is
/// what `protocol` asks for: a gRPC check uses HTTP/2, whatever requests use.
fn offering(config: &ClientConfig, protocol: Protocol) -> ClientConfig {
    let mut config = config.clone();
    let common = common(&config, protocol);
    config.alpn_protocols = match common.is_empty() {
        true => names(protocol),
        false => common,
    };
    config
}

/// The protocols that `protocol` asks for and the configuration allows. An empty list in the configuration allows all.
fn common(config: &ClientConfig, protocol: Protocol) -> Vec<Vec<u8>> {
    let mut names = names(protocol);
    let named = &config.alpn_protocols;
    names.retain(|name| named.is_empty() || named.contains(name));
    names
}

fn names(protocol: Protocol) -> Vec<Vec<u8>> {
    let (http1, http2) = (b"http/1.1".to_vec(), b"h2".to_vec());
    match protocol {
        Protocol::Negotiated => vec![http2, http1],
        Protocol::Http1 => vec![http1],
        Protocol::Http2 => vec![http2],
    }
}

fn texts(names: &[Vec<u8>]) -> String {
    let names = names.iter().map(|name| String::from_utf8_lossy(name));
    names.collect::<Vec<_>>().join(", ")
}
