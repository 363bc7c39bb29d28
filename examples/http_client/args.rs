//! The command line's arguments.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clap::{
    CommandFactory, Parser,
    builder::{PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use http::{Uri, uri::PathAndQuery};
use tower_headless::{BuiltInPolicy, ParsePolicyError};

const ABOUT: &str = "\
Sends requests to a Service or a cluster of its own; exits with 1 if one failed.";

/// clap's own template, without the headline of the options, so that it fits a screen of 80 x 24.
const HELP: &str = "{about}\n\n{usage-heading} {usage}\n\n{options}";

const POLICIES: [&str; 6] = [
    "round-robin",
    "random",
    "least-connections",
    "power-of-two",
    "peak-ewma",
    "consistent-hash",
];

// These comments become the help. Longer ones would make it wider than 80 columns.
#[derive(Debug, Parser)]
#[command(
    name = "http_client",
    about = ABOUT,
    help_template = HELP,
    override_usage = "cargo run --features test-util --example http_client -- [OPTIONS]"
)]
pub(crate) struct Args {
    /// A service of yours: http://web.default:80/path
    #[arg(long, group = "target", value_name = "URL", value_parser = parse_url)]
    url: Option<Uri>,

    /// Or its name: web.default, or _http._tcp.web.default
    #[arg(long, group = "target", value_name = "NAME")]
    service: Option<String>,

    /// Port of its pods, if its name doesn't tell it
    #[arg(long, value_name = "N", requires = "service", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// What to GET [default: /]
    #[arg(long, conflicts_with = "url", value_parser = parse_path)]
    path: Option<PathAndQuery>,

    /// Name server, IP or IP:port [default: the system's]
    #[arg(long, value_name = "A", requires = "target", value_parser = parse_name_server)]
    pub(crate) nameserver: Option<SocketAddr>,

    /// Ask the API server, or else DNS (feature kube)
    #[arg(long, requires = "target")]
    pub(crate) watch: bool,

    #[arg(
        long,
        default_value = POLICIES[0],
        hide_default_value = true,
        hide_possible_values = true,
        value_name = "P",
        help = "round-robin (default), random, least-connections,\n\
                power-of-two, peak-ewma, consistent-hash (1000 keys)",
        value_parser = PossibleValuesParser::new(POLICIES).try_map(parse_policy)
    )]
    pub(crate) policy: BuiltInPolicy,

    /// Send all to this pod, by its name or its address
    #[arg(long, value_name = "POD", requires = "target", conflicts_with_all = ["key", "all", "policy"])]
    pub(crate) pod: Option<String>,

    /// Send all to the pod of this key (consistent hashing)
    #[arg(long, value_name = "KEY", conflicts_with_all = ["all", "policy"])]
    pub(crate) key: Option<String>,

    /// Send each to all pods; each one's answer counts
    #[arg(long, conflicts_with = "policy")]
    pub(crate) all: bool,

    /// Zone of this client: its pods first [default: none]
    #[arg(long, value_name = "Z", default_value_t, hide_default_value = true)]
    pub(crate) zone: String,

    /// Node of this client: its pods first [default: none]
    #[arg(long, value_name = "N", default_value_t, hide_default_value = true)]
    pub(crate) node: String,

    /// Seconds to wait for a pod that accepts
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_seconds)]
    pub(crate) ready_timeout: Duration,

    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,

    /// Seconds to send requests for
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    pub(crate) duration: Duration,

    /// Serve a page and /metrics at this IP:port
    #[arg(long, value_name = "A")]
    pub(crate) observe: Option<SocketAddr>,

    /// Take loopback addresses for pods, too
    #[arg(long)]
    pub(crate) allow_loopback: bool,
}

impl Args {
    /// Whether the user has named a service.
    pub(crate) fn has_service(&self) -> bool {
        self.url.is_some() || self.service.is_some()
    }

    /// The URI that `--url`, or `--service` and `--port`, give. If they give none, it ends the process with a message.
    pub(crate) fn uri(&self) -> Uri {
        if let Some(url) = &self.url {
            return url.clone();
        }
        let service = self.service.as_deref().unwrap_or_default();
        let uri = match self.port {
            Some(port) => format!("http://{service}:{port}"),
            None if service.starts_with('_') => format!("http://{service}"),
            // The client would take HTTP's default, 80, but most pods listen elsewhere.
            None => self.reject(format_args!("{service:?} needs a --port")),
        };
        uri.parse().unwrap_or_else(|error| self.reject(error))
    }

    /// The path to GET.
    pub(crate) fn path(&self) -> &str {
        let of_url = self.url.as_ref().and_then(Uri::path_and_query);
        self.path.as_ref().or(of_url).map_or("/", |it| it.as_str())
    }

    /// Says in a few words where the requests go.
    pub(crate) fn route(&self) -> String {
        match (&self.pod, &self.key) {
            (Some(pod), _) => format!("pod {pod}"),
            (None, Some(key)) => format!("key {key}"),
            (None, None) if self.all => "all pods".to_owned(),
            (None, None) => self.policy.to_string(),
        }
    }

    /// Ends the process with a message that says why these arguments aren't valid.
    pub(crate) fn reject(&self, why: impl fmt::Display) -> ! {
        let mut command = Self::command();
        command.error(ErrorKind::ValueValidation, why).exit()
    }
}

fn parse_policy(name: String) -> Result<BuiltInPolicy, ParsePolicyError> {
    name.parse()
}

fn parse_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text
        .parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())?;
    match url.scheme_str() {
        Some("http" | "https") => Ok(url),
        _ => Err("a URL begins with http:// or https://".to_owned()),
    }
}

/// Parses an address; port 53 unless it has another.
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
