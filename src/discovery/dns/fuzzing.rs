//! DNS and resolv.conf for the fuzz targets: bytes in, endpoints out. Only builds with `--cfg tower_headless_fuzzing` have it.

use std::{net::SocketAddr, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use super::{
    Dns,
    client::read,
    lookup::{Answer, LookupError, Query, Reason, Resolve, Transport, Via},
    name::Name,
    refresher::Refresher,
    resolution::{self, Resolution},
    system_conf::ResolvConf,
};
use crate::{
    discovery::{Discovery, shared::Shared},
    sync::Mutex,
};

/// Answers a question (a full name, and `A`, `AAAA` or `SRV`) with the bytes of a message, or not at all.
pub type NameServer = Box<dyn FnMut(&str, &str) -> Option<Vec<u8>> + Send>;

/// Discovery with the settings of `dns`, the text of a resolv.conf in place of the file, and `server` in place of the
/// network.
pub fn discovery(dns: Dns, resolv_conf: &[u8], server: NameServer) -> impl Discovery + use<> {
    Shared::new(Refresher::new(dns.settings, Wire::new(resolv_conf, server)))
}

/// One look, with the arguments of [`discovery`].
///
/// # Errors
///
/// Those of [`Dns::resolve`].
pub async fn resolve(
    dns: &Dns,
    resolv_conf: &[u8],
    server: NameServer,
) -> Result<Resolution, LookupError> {
    resolution::resolve(&dns.settings, &Wire::new(resolv_conf, server)).await
}

/// The name servers of a resolv.conf, and the full names that `name` may stand for; no names if `name` is invalid.
pub fn resolv_conf(text: &[u8], name: &str) -> (Vec<SocketAddr>, Vec<String>) {
    let conf = ResolvConf::parse(text);
    let name = Name::parse(name).ok();
    let names = name.map(|name| name.candidates(&conf.search, conf.ndots));
    let names = names.into_iter().flatten();
    let names = names.map(|name| name.text().to_owned()).collect();
    (conf.name_servers, names)
}

/// A resolver whose answers are bytes. Clones share their state.
#[derive(Clone)]
struct Wire {
    conf: Arc<ResolvConf>,
    server: Arc<Mutex<NameServer>>,
}

impl Wire {
    fn new(resolv_conf: &[u8], server: NameServer) -> Self {
        Self {
            conf: Arc::new(ResolvConf::parse(resolv_conf)),
            server: Arc::new(Mutex::new(server)),
        }
    }
}

impl Resolve for Wire {
    fn candidates(&self, name: &Name) -> Result<Vec<Arc<str>>, LookupError> {
        let names = name.candidates(&self.conf.search, self.conf.ndots);
        Ok(names.iter().map(|name| name.text().into()).collect())
    }

    fn ask(&self, query: Query, transport: Transport, _: Instant) -> BoxFuture<'static, Answer> {
        let bytes = self.server.lock()(&query.name, &query.record_type.to_string());
        let via = Via {
            name_server: ([10, 96, 0, 10], 53).into(),
            transport,
        };
        let answer = match bytes {
            Some(bytes) => read(&query, bytes, via),
            None => Err(LookupError::new(&query, Reason::Timeout)),
        };
        std::future::ready(answer).boxed()
    }
}
