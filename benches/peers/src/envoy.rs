//! Envoy as a local proxy, if `PEERS_ENVOY` names its program.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
};

/// What is spoken on both sides of the proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A proxy, until it is dropped.
pub struct Envoy {
    child: Child,
    pub address: SocketAddr,
}

/// Where the proxy has its pods from.
enum Cluster<'a> {
    Fixed(&'a [SocketAddr]),
    /// A name's A records, asked for anew when the TTL is over.
    Dns {
        server: SocketAddr,
        name: &'a str,
        port: u16,
    },
}

impl Envoy {
    /// In front of these pods.
    pub fn fixed(pods: &[SocketAddr], protocol: Protocol) -> Result<Self, String> {
        Self::start(&Cluster::Fixed(pods), protocol, false)
    }

    /// In front of the pods that DNS tells of, with its own retries and outlier detection or without.
    pub fn dns(server: SocketAddr, name: &str, port: u16, careful: bool) -> Result<Self, String> {
        let name = name.trim_end_matches('.');
        Self::start(
            &Cluster::Dns { server, name, port },
            Protocol::Http1,
            careful,
        )
    }

    fn start(cluster: &Cluster<'_>, protocol: Protocol, careful: bool) -> Result<Self, String> {
        let program = env::var_os("PEERS_ENVOY").ok_or("Envoy is not installed")?;
        let address = free_address();
        let child = Command::new(program)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level"])
            .args(["off", "--config-yaml"])
            .arg(config(address, cluster, protocol, careful))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("Envoy does not start: {error}"))?;
        let envoy = Self { child, address };
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return Ok(envoy);
            }
            #[allow(clippy::disallowed_methods, reason = "no runtime is blocked")]
            thread::sleep(std::time::Duration::from_millis(50));
        }
        Err("Envoy does not listen".to_owned())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 2, 1), 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.expect("an address of the loopback network")
}

/// JSON is YAML.
fn config(address: SocketAddr, cluster: &Cluster<'_>, protocol: Protocol, careful: bool) -> String {
    let listen = socket_address(address);
    let retries = match careful {
        true => r#", "retry_policy": {"retry_on": "5xx,reset,connect-failure", "num_retries": 3}"#,
        false => "",
    };
    let detection = if careful {
        r#", "outlier_detection": {}"#
    } else {
        ""
    };
    let http2 = match protocol {
        Protocol::Http1 => "",
        Protocol::Http2 => concat!(
            r#", "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": "#,
            r#"{"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "#,
            r#""explicit_http_config": {"http2_protocol_options": {}}}}"#,
        ),
    };
    let (kind, pods) = match cluster {
        Cluster::Fixed(pods) => ("STATIC", pods.iter().copied().map(socket_address).collect()),
        Cluster::Dns { name, port, .. } => ("STRICT_DNS", vec![named_address(name, *port)]),
    };
    let pods: Vec<_> = pods
        .iter()
        .map(|pod| format!(r#"{{"endpoint": {{"address": {pod}}}}}"#))
        .collect();
    let pods = pods.join(", ");
    let dns = match cluster {
        Cluster::Fixed(_) => String::new(),
        Cluster::Dns { server, .. } => resolver(*server),
    };
    format!(
        r#"{{"static_resources": {{
"listeners": [{{"address": {listen}, "filter_chains": [{{"filters": [{{
  "name": "envoy.filters.network.http_connection_manager", "typed_config": {{
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "codec_type": "AUTO", "stat_prefix": "web",
    "http_filters": [{{"name": "envoy.filters.http.router", "typed_config": {{
      "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}],
    "route_config": {{"virtual_hosts": [{{"name": "web", "domains": ["*"],
      "routes": [{{"match": {{"prefix": "/"}}, "route": {{"cluster": "web"{retries}}}}}]}}]}}
  }}}}]}}]}}],
"clusters": [{{"name": "web", "type": "{kind}", "connect_timeout": "1s"{dns}{http2}{detection},
  "load_assignment": {{"cluster_name": "web", "endpoints": [{{"lb_endpoints": [{pods}]}}]}}}}]
}}}}"#
    )
}

fn resolver(server: SocketAddr) -> String {
    let server = socket_address(server);
    format!(
        r#", "respect_dns_ttl": true, "dns_lookup_family": "V4_ONLY", "typed_dns_resolver_config": {{
"name": "envoy.network.dns_resolver.cares", "typed_config": {{
"@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
"resolvers": [{server}]}}}}"#
    )
}

fn socket_address(address: SocketAddr) -> String {
    named_address(&address.ip().to_string(), address.port())
}

fn named_address(name: &str, port: u16) -> String {
    format!(r#"{{"socket_address": {{"address": "{name}", "port_value": {port}}}}}"#)
}
