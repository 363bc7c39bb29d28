//! What the command line says.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
use http::{Uri, uri::PathAndQuery};

/// Sends requests at a steady rate to the pods of a headless Service, and shows what becomes of them.
///
/// Without --service it starts a small cluster inside this process, scales it, and kills one of its pods.
#[derive(Debug, Parser)]
#[command(name = "http_client")]
pub(crate) struct Args {
    /// Name of the Service: nginx-headless.default with a --port, _http._tcp.nginx-headless.default without
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,

    /// Port of its pods
    #[arg(long, value_name = "N", requires = "service", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Name server to ask, IP or IP:port [default: those of the system]
    #[arg(long, value_name = "A", requires = "service", value_parser = parse_name_server)]
    pub(crate) nameserver: Option<SocketAddr>,

    /// Let the API server tell the pods, and DNS only where it can't (needs the feature kube)
    #[arg(long, requires = "service")]
    pub(crate) watch: bool,

    /// Which pod gets the next request
    #[arg(long, value_enum, default_value_t = PolicyName::RoundRobin)]
    pub(crate) policy: PolicyName,

    /// Send all of them to this pod: by its name, or its address
    #[arg(long, value_name = "POD", requires = "service", conflicts_with_all = ["key", "all", "policy"])]
    pub(crate) pod: Option<String>,

    /// Send all of them to the pod of this key, whatever pods come and go (by consistent hashing)
    #[arg(long, value_name = "KEY", conflicts_with_all = ["all", "policy"])]
    pub(crate) key: Option<String>,

    /// Send each of them to all pods, and count each pod's answer
    #[arg(long, conflicts_with = "policy")]
    pub(crate) all: bool,

    /// Zone of this client: pods that are meant for it come first
    #[arg(long, value_name = "Z", default_value_t)]
    pub(crate) zone: String,

    /// Node of this client: pods that are meant for it come first
    #[arg(long, value_name = "N", default_value_t)]
    pub(crate) node: String,

    /// Seconds that a request waits while no pod accepts it, or the one it is for is away
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_seconds)]
    pub(crate) ready_timeout: Duration,

    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,

    /// Seconds to send requests for
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    pub(crate) duration: Duration,

    /// What to GET
    #[arg(long, default_value = "/", value_parser = parse_path)]
    pub(crate) path: PathAndQuery,

    /// Take loopback addresses for pods too
    #[arg(long)]
    pub(crate) allow_loopback: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PolicyName {
    #[value(alias = "rr")]
    RoundRobin,
    Random,
    #[value(alias = "lc")]
    LeastConnections,
}

impl Args {
    /// What `--service` and `--port` name. Ends the process, with a message, if they name nothing.
    pub(crate) fn uri(&self) -> Uri {
        let service = self.service.as_deref().unwrap_or_default();
        let uri = match self.port {
            Some(port) => format!("http://{service}:{port}"),
            None if service.starts_with('_') => format!("http://{service}"),
            // The client would take 80, as HTTP does. Pods listen elsewhere more often than not.
            None => self.reject(format_args!("{service:?} needs a --port")),
        };
        uri.parse().unwrap_or_else(|error| self.reject(error))
    }

    /// Ends the process, saying why these arguments are no good.
    pub(crate) fn reject(&self, why: impl fmt::Display) -> ! {
        let mut command = Self::command();
        command.error(ErrorKind::ValueValidation, why).exit()
    }
}

/// An address, at DNS's own port unless it has another.
fn parse_name_server(text: &str) -> Result<SocketAddr, String> {
    let port_53 = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
    let address = port_53.or_else(|_| text.parse());
    address.map_err(|_| "not an IP address, with or without a port".to_owned())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        return Err("no time at all".to_owned());
    }
    Ok(duration)
}

fn parse_path(text: &str) -> Result<PathAndQuery, String> {
    if !text.starts_with('/') {
        return Err("a path begins with '/'".to_owned());
    }
    text.parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())
}
