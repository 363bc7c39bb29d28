//! The peers that the crate's own benchmarks don't have.

use std::{collections::HashSet, hint, net::SocketAddr};

use async_trait::async_trait;
use ginepro::{LoadBalancedChannel, LookupService, ServiceDefinition};
use http_body_util::BodyExt;
use reqwest::Url;
use reqwest_lb::{LoadBalancer, LoadBalancerMiddleware, LoadBalancerPolicy, LoadBalancerRegistry};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tokio::time::Duration;
use tonic_health_013::pb::{HealthCheckRequest, health_client::HealthClient};
use volo::{discovery::StaticDiscover, loadbalance::random::WeightedRandomBalance};
use volo_http::client::{Client as VoloClient, loadbalance::LbConfig};

use crate::{load::Caller, pick::Fixed};

/// reqwest with a middleware that writes the next pod into the URL.
#[derive(Clone)]
pub(crate) struct ReqwestLb(pub(crate) ClientWithMiddleware);

impl ReqwestLb {
    pub(crate) fn new(pods: &[SocketAddr]) -> Self {
        let url = |pod| Url::parse(&format!("http://{pod}/")).expect("a URL");
        let pods = Fixed(pods.iter().map(url).collect());
        let mut registry = LoadBalancerRegistry::default();
        registry.add(
            "web",
            LoadBalancer::new(pods, LoadBalancerPolicy::RoundRobin),
        );
        let client = reqwest::Client::builder().no_proxy().build();
        let client = ClientBuilder::new(client.expect("a client"));
        Self(client.with(LoadBalancerMiddleware::new(registry)).build())
    }
}

impl Caller for ReqwestLb {
    async fn request(&mut self) {
        let response = self.0.get("lb://web/").send().await.expect("a response");
        hint::black_box(response.bytes().await.expect("a body"));
    }
}

#[derive(Clone)]
pub(crate) struct Volo(VoloClient);

impl Volo {
    pub(crate) fn new(pods: &[SocketAddr]) -> Self {
        let discover = StaticDiscover::from(pods.to_vec());
        let balance = WeightedRandomBalance::with_discover(&discover);
        let client = VoloClient::builder()
            .mk_load_balance(LbConfig::new(balance, discover))
            .build();
        Self(client.expect("a client"))
    }
}

impl Caller for Volo {
    async fn request(&mut self) {
        let request = self.0.get("http://web/");
        let response = request.send().await.expect("a response");
        hint::black_box(response.into_body().collect().await.expect("a body"));
    }
}

/// A list in place of DNS.
struct List(HashSet<SocketAddr>);

#[async_trait]
impl LookupService for List {
    async fn resolve_service_endpoints(
        &self,
        _: &ServiceDefinition,
    ) -> Result<HashSet<SocketAddr>, anyhow::Error> {
        Ok(self.0.clone())
    }
}

#[derive(Clone)]
pub(crate) struct Ginepro(HealthClient<LoadBalancedChannel>);

impl Ginepro {
    pub(crate) async fn new(pods: &[SocketAddr]) -> Self {
        let channel = LoadBalancedChannel::builder(("web", 80))
            .lookup_service(List(pods.iter().copied().collect()))
            .dns_probe_interval(Duration::from_secs(3600))
            .channel();
        Self(HealthClient::new(channel.await.expect("a channel")))
    }
}

impl Caller for Ginepro {
    async fn request(&mut self) {
        let service = String::new();
        let checked = self.0.check(HealthCheckRequest { service }).await;
        hint::black_box(checked.expect("an answer"));
    }
}
