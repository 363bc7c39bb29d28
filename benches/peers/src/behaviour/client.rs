//! The clients, each as its own documentation has it.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use ginepro::LoadBalancedChannel;
use hickory_resolver_025::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver_025::proto::xfer::Protocol as HickoryProtocol;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::Duration;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{
    BoxError, Service, ServiceExt,
    balance::p2c,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
    service_fn,
    util::BoxCloneSyncService,
};
use tower_headless::{PeakEwma, http::Protocol, test_util::Cluster};
use volo::loadbalance::random::WeightedRandomBalance;
use volo_http::client::{Client as VoloClient, dns::DnsResolver, loadbalance::LbConfig};

use super::dns::Hickory;
use crate::{envoy::Envoy, http::others::ReqwestLb};

/// All clients, and what their rows are called.
pub(super) const PEERS: [(&str, Kind); 12] = [
    ("ours", Kind::Ours),
    ("ours: `PeakEwma`", Kind::OursPeakEwma),
    ("hyper-util's client", Kind::Legacy),
    ("reqwest", Kind::Reqwest),
    ("reqwest-lb", Kind::ReqwestLb),
    ("tower p2c + `Buffer`", Kind::P2c),
    ("volo-http", Kind::Volo),
    ("Envoy (as it comes)", Kind::Envoy { careful: false }),
    ("Envoy (retries, ejections)", Kind::Envoy { careful: true }),
    ("ours: gRPC", Kind::OursGrpc),
    ("tonic `balance_list`", Kind::Tonic),
    ("ginepro", Kind::Ginepro),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    OursPeakEwma,
    Legacy,
    Reqwest,
    ReqwestLb,
    P2c,
    Volo,
    Envoy { careful: bool },
    OursGrpc,
    Tonic,
    Ginepro,
}

type Answer = BoxFuture<'static, Result<(), BoxError>>;
type Sender = Box<dyn Fn() -> Answer + Send + Sync>;

/// Sends requests; an answer that is no success is a failure.
pub(super) struct Client {
    send: Sender,
    /// Whether it knows its pods by DNS, or by a list.
    pub(super) has_dns: bool,
    pub(super) is_grpc: bool,
    /// The proxy behind it.
    _envoy: Option<Envoy>,
}

impl Client {
    pub(super) fn send(&self) -> Answer {
        (self.send)()
    }

    pub(super) async fn new(kind: Kind, cluster: &Cluster) -> Result<Self, String> {
        let addresses: Vec<_> = cluster.pods().iter().map(|pod| pod.addr()).collect();
        let uri = cluster.uri();
        let mut envoy = None;
        let send: Sender = match kind {
            Kind::Ours => {
                let client = cluster.client().protocol(Protocol::Http1).build();
                http(client.expect("a client"), Uri::from_static("/"))
            }
            Kind::OursPeakEwma => {
                let client = cluster.client().protocol(Protocol::Http1);
                let client = client.policy(PeakEwma::new()).build();
                http(client.expect("a client"), Uri::from_static("/"))
            }
            Kind::Legacy => http(legacy(Some(Hickory::new(cluster))), uri),
            Kind::Reqwest => reqwest(cluster, uri),
            Kind::ReqwestLb => reqwest_lb(&addresses),
            Kind::P2c => p2c(&addresses),
            Kind::Volo => volo(cluster, uri),
            Kind::Envoy { careful } => {
                let name = cluster.service();
                let dns = cluster.dns().addr();
                let proxy = envoy.insert(Envoy::dns(dns, name, cluster.port(), careful)?);
                let uri = format!("http://{}/", proxy.address).parse();
                http(legacy(None), uri.expect("a URI"))
            }
            Kind::OursGrpc => {
                let client = cluster.client().protocol(Protocol::Http2).build();
                grpc(HealthClient::new(client.expect("a client")))
            }
            Kind::Tonic => {
                let endpoint = |pod| Channel::from_shared(format!("http://{pod}")).expect("a URI");
                let channel = Channel::balance_list(addresses.iter().map(endpoint));
                grpc(HealthClient::new(channel))
            }
            Kind::Ginepro => ginepro(cluster).await,
        };
        let has_dns = !matches!(kind, Kind::ReqwestLb | Kind::P2c | Kind::Tonic);
        let is_grpc = matches!(kind, Kind::OursGrpc | Kind::Tonic | Kind::Ginepro);
        Ok(Self {
            send,
            has_dns,
            is_grpc,
            _envoy: envoy,
        })
    }
}

/// Any service of HTTP requests.
fn http<S, B>(service: S, uri: Uri) -> Sender
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>> + Clone,
    S: Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    Box::new(move || {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        let response = service.clone().oneshot(request);
        async move {
            let response = response.await.map_err(Into::into)?;
            let is_well = response.status().is_success();
            response.into_body().collect().await.map_err(Into::into)?;
            is_well.then_some(()).ok_or_else(|| "a status".into())
        }
        .boxed()
    })
}

type Legacy<R> = legacy::Client<HttpConnector<R>, Empty<Bytes>>;

/// hyper-util's client, by names through `resolver`, or by addresses.
fn legacy(
    resolver: Option<Hickory>,
) -> BoxCloneSyncService<Request<Empty<Bytes>>, Response<hyper::body::Incoming>, legacy::Error> {
    let builder = || legacy::Client::builder(TokioExecutor::new());
    match resolver {
        Some(resolver) => {
            let mut connector = HttpConnector::new_with_resolver(resolver);
            connector.set_nodelay(true);
            let client: Legacy<_> = builder().build(connector);
            BoxCloneSyncService::new(client)
        }
        None => {
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            let client: Legacy<_> = builder().build(connector);
            BoxCloneSyncService::new(client)
        }
    }
}

fn reqwest(cluster: &Cluster, uri: Uri) -> Sender {
    let client = reqwest::Client::builder()
        .no_proxy()
        .dns_resolver(Hickory::new(cluster))
        .build()
        .expect("a client");
    let url = uri.to_string();
    Box::new(move || {
        let response = client.get(&url).send();
        async move {
            response.await?.error_for_status()?.bytes().await?;
            Ok(())
        }
        .boxed()
    })
}

fn reqwest_lb(pods: &[SocketAddr]) -> Sender {
    let client = ReqwestLb::new(pods);
    Box::new(move || {
        let client = client.clone();
        async move {
            let response = client.0.get("lb://web/").send().await?;
            response.error_for_status()?.bytes().await?;
            Ok(())
        }
        .boxed()
    })
}

/// tower's balancer over hyper-util's clients, shared in tower's way.
fn p2c(pods: &[SocketAddr]) -> Sender {
    let pod = |pod: &SocketAddr| {
        let uri: Uri = format!("http://{pod}/").parse().expect("a URI");
        let client = legacy(None);
        let send = move |mut request: Request<Empty<Bytes>>| {
            *request.uri_mut() = uri.clone();
            client.clone().oneshot(request)
        };
        let service = BoxCloneSyncService::new(service_fn(send));
        PendingRequests::new(service, CompleteOnResponse::default())
    };
    let services: Vec<_> = pods.iter().map(pod).collect();
    let balance = p2c::Balance::new(ServiceList::new::<Request<Empty<Bytes>>>(services));
    http(Buffer::new(balance, 1024), Uri::from_static("/"))
}

/// With its own DNS.
fn volo(cluster: &Cluster, uri: Uri) -> Sender {
    let server = NameServerConfig::new(cluster.dns().addr(), HickoryProtocol::Udp);
    let mut config = ResolverConfig::new();
    config.add_name_server(server);
    let resolver = DnsResolver::new(config, ResolverOpts::default());
    let client = VoloClient::builder()
        .mk_load_balance(LbConfig::new(WeightedRandomBalance::new(), resolver))
        .build()
        .expect("a client");
    let url = uri.to_string();
    Box::new(move || {
        let request = client.get(&*url);
        async move {
            let response = request.send().await?;
            let is_well = response.status().is_success();
            response.into_body().collect().await?;
            is_well.then_some(()).ok_or_else(|| "a status".into())
        }
        .boxed()
    })
}

fn grpc<T>(client: HealthClient<T>) -> Sender
where
    T: tonic::client::GrpcService<tonic::body::Body> + Clone + Send + Sync + 'static,
    T::Error: Into<BoxError>,
    T::Future: Send,
    T::ResponseBody: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    Box::new(move || {
        let mut client = client.clone();
        async move {
            let service = String::new();
            client.check(HealthCheckRequest { service }).await?;
            Ok(())
        }
        .boxed()
    })
}

async fn ginepro(cluster: &Cluster) -> Sender {
    use tonic_health_013::pb::{HealthCheckRequest, health_client::HealthClient};
    let name = cluster.service().trim_end_matches('.').to_owned();
    let channel = LoadBalancedChannel::builder((name, cluster.port()))
        .lookup_service(Hickory::new(cluster))
        .dns_probe_interval(Duration::from_secs(1))
        .channel();
    let client = HealthClient::new(channel.await.expect("a channel"));
    Box::new(move || {
        let mut client = client.clone();
        async move {
            let service = String::new();
            client.check(HealthCheckRequest { service }).await?;
            Ok(())
        }
        .boxed()
    })
}
