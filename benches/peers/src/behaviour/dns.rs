//! The hooks of clients that leave DNS to others: all ask the cluster's server by hickory-resolver.

use std::{
    collections::HashSet,
    net::SocketAddr,
    task::{Context, Poll},
    vec,
};

use async_trait::async_trait;
use futures::{FutureExt, future::BoxFuture};
use ginepro::{LookupService, ServiceDefinition};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};
use hyper_util::client::legacy::connect::dns::Name;
use reqwest::dns::{Addrs, Resolve, Resolving};
use tower_headless::test_util::Cluster;

#[derive(Clone)]
pub(super) struct Hickory(TokioResolver);

impl Hickory {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let server = cluster.dns().addr();
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let provider = TokioRuntimeProvider::default();
        let resolver = TokioResolver::builder_with_config(config, provider).build();
        Self(resolver.expect("a resolver"))
    }

    async fn addresses(&self, name: &str) -> Result<Vec<SocketAddr>, NetError> {
        let found = self.0.lookup_ip(name).await?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, 0)).collect())
    }
}

impl tower::Service<Name> for Hickory {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = NetError;
    type Future = BoxFuture<'static, Result<Self::Response, NetError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NetError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let this = self.clone();
        async move { Ok(this.addresses(name.as_str()).await?.into_iter()) }.boxed()
    }
}

impl Resolve for Hickory {
    fn resolve(&self, name: reqwest::dns::Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let found = this.addresses(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[async_trait]
impl LookupService for Hickory {
    async fn resolve_service_endpoints(
        &self,
        service: &ServiceDefinition,
    ) -> Result<HashSet<SocketAddr>, anyhow::Error> {
        let mut found = self.addresses(service.hostname()).await?;
        found
            .iter_mut()
            .for_each(|pod| pod.set_port(service.port()));
        Ok(found.into_iter().collect())
    }
}
