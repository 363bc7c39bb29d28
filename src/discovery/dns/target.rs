//! What to look up: a service's name and port, and optionally the name server.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::name::{Name, NameError};

/// A service's name and port, parsed from text.
///
/// | form | meaning |
/// | --- | --- |
/// | `nginx-headless.default:80` | the pods of that name, at port 80; the name servers of the system are asked |
/// | `_http._tcp.nginx-headless.default` | the pods of that name, at the service's port `http`, whose number comes from DNS (SRV) |
/// | `dns:///nginx-headless.default:80` | gRPC's form of the first |
/// | `dns://10.96.0.10/nginx-headless.default:80` | the same, from the name server 10.96.0.10, port 53 |
/// | `dns://[fd00::a]:5353/nginx-headless.default:80` | the same, from the name server fd00::a, port 5353 |
/// | `10.244.1.7:80`, `[fd00::7]:80` | one address, without any lookup |
///
/// A name may be as short as the search list of resolv.conf allows: from a pod in the namespace `default`,
/// `nginx-headless`, `nginx-headless.default` and `nginx-headless.default.svc` all work. A name with a trailing dot is
/// looked up as it is.
///
/// The scheme is gRPC's (`grpc/doc/naming.md`), but the port is required. The SRV form is that of RFC 2782 and of the
/// Kubernetes DNS specification (§2.4.1): `_port._protocol.service`.
///
/// ```
/// use tower_headless::Target;
///
/// let target: Target = "nginx-headless.default:80".parse()?;
/// assert_eq!(target.port(), Some(80));
///
/// let error = "nginx-headless".parse::<Target>().unwrap_err();
/// assert!(error.to_string().contains("port"));
/// # Ok::<(), tower_headless::ParseTargetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host: Host,
    name_server: Option<SocketAddr>,
}

/// What to look up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// The addresses of a name, at a port.
    Name(Name, u16),
    /// The SRV records of a name.
    Service(Name),
    /// An address, which needs no lookup.
    Address(SocketAddr),
}

impl Target {
    /// The port of the endpoints; none if it comes from DNS.
    pub fn port(&self) -> Option<u16> {
        match &self.host {
            Host::Name(_, port) => Some(*port),
            Host::Service(_) => None,
            Host::Address(address) => Some(address.port()),
        }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn name_server(&self) -> Option<SocketAddr> {
        self.name_server
    }

    /// Parses a target that must be the name of SRV records.
    pub(crate) fn parse_service(text: &str) -> Result<Self, ParseTargetError> {
        match text.parse::<Self>() {
            Err(error) if error.problem != Problem::NoPort => Err(error),
            Ok(target) if matches!(target.host, Host::Service(_)) => Ok(target),
            _ => Err(Problem::NoService.of(text)),
        }
    }
}

/// Why a text isn't a [`Target`]. The message names the part that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid target {target:?}: {problem}")]
pub struct ParseTargetError {
    target: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("the scheme {0:?} is unknown; write dns:///name:port or name:port")]
    Scheme(String),
    #[error("no name after the name server; write dns://server/name:port")]
    NoPath,
    #[error("the name server {0:?} is not an IP address, with or without a port")]
    NameServer(String),
    #[error("no port; write name:port, or _port._tcp.name for the port that DNS has")]
    NoPort,
    #[error("the port {0:?} is not a number from 1 to 65535")]
    Port(String),
    #[error("the address {0:?} is not an IPv6 address in brackets")]
    Brackets(String),
    #[error("not the name of SRV records; write _port._tcp.name, without a port number")]
    NoService,
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Problem {
    fn of(self, target: &str) -> ParseTargetError {
        ParseTargetError {
            target: target.to_owned(),
            problem: self,
        }
    }
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| problem.of(text))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = self.name_server {
            write!(f, "dns://{server}/")?;
        }
        match &self.host {
            Host::Name(name, port) => write!(f, "{name}:{port}"),
            Host::Service(name) => name.fmt(f),
            Host::Address(address) => address.fmt(f),
        }
    }
}

fn parse(text: &str) -> Result<Target, Problem> {
    let (name_server, rest) = match text.split_once("://") {
        // `dns:80` is a service named `dns`.
        None => {
            let opaque = text.strip_prefix("dns:");
            let is_target = |rest: &&str| rest.contains(':') || rest.starts_with('_');
            (None, opaque.filter(is_target).unwrap_or(text))
        }
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("dns") => {
            let (server, path) = rest.split_once('/').ok_or(Problem::NoPath)?;
            let server = (!server.is_empty()).then(|| parse_name_server(server));
            (server.transpose()?, path)
        }
        Some((scheme, _)) => return Err(Problem::Scheme(scheme.to_owned())),
    };
    let host = parse_host(rest)?;
    Ok(Target { host, name_server })
}

const DNS_PORT: u16 = 53;

fn parse_name_server(server: &str) -> Result<SocketAddr, Problem> {
    let bare = server
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(server);
    let address = bare
        .parse()
        .map(|address| SocketAddr::new(address, DNS_PORT));
    address
        .or_else(|_| server.parse())
        .map_err(|_| Problem::NameServer(server.to_owned()))
}

fn parse_host(text: &str) -> Result<Host, Problem> {
    if let Some(rest) = text.strip_prefix('[') {
        let brackets = || Problem::Brackets(text.to_owned());
        let (address, port) = rest.split_once(']').ok_or_else(brackets)?;
        let address = address.parse().map_err(|_| brackets())?;
        let port = parse_port(port.strip_prefix(':').ok_or(Problem::NoPort)?)?;
        return Ok(Host::Address(SocketAddr::new(IpAddr::V6(address), port)));
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return parse_service(text);
    };
    if name.contains(':') {
        return Err(Problem::Brackets(text.to_owned()));
    }
    let port = parse_port(port)?;
    Ok(match name.parse() {
        Ok(address) => Host::Address(SocketAddr::new(IpAddr::V4(address), port)),
        Err(_) => Host::Name(Name::parse(name)?, port),
    })
}

fn parse_service(text: &str) -> Result<Host, Problem> {
    let mut labels = text.split('.');
    let mut underscored = || labels.next().is_some_and(|label| label.starts_with('_'));
    if !(underscored() && underscored()) {
        return Err(Problem::NoPort);
    }
    if labels.next().is_none_or(str::is_empty) {
        return Err(NameError::Empty.into());
    }
    Ok(Host::Service(Name::parse(text)?))
}

fn parse_port(port: &str) -> Result<u16, Problem> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| port.parse().ok()).flatten();
    number
        .filter(|&number| number != 0)
        .ok_or_else(|| Problem::Port(port.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().expect(text)
    }

    fn problem(text: &str) -> Problem {
        text.parse::<Target>().expect_err(text).problem
    }

    fn name(text: &str) -> Name {
        Name::parse(text).expect(text)
    }

    #[test]
    fn names_with_ports_are_parsed() {
        for text in [
            "nginx-headless.default:80",
            "Nginx-Headless.default:80",
            "dns:nginx-headless.default:80",
            "dns:///nginx-headless.default:80",
        ] {
            let target = target(text);
            let host = Host::Name(name("nginx-headless.default"), 80);
            assert_eq!((target.host, target.name_server), (host, None), "{text}");
        }
        let whole = target("nginx-headless.default.:80").host;
        assert_eq!(whole, Host::Name(name("nginx-headless.default."), 80));
    }

    #[test]
    fn srv_names_are_parsed() {
        let service = Host::Service(name("_http._tcp.nginx-headless.default"));
        for text in [
            "_http._tcp.nginx-headless.default",
            "dns:_http._tcp.nginx-headless.default",
            "dns:///_http._tcp.nginx-headless.default",
            "dns://10.96.0.10/_http._tcp.nginx-headless.default",
        ] {
            assert_eq!(target(text).host, service, "{text}");
            assert_eq!(target(text).port(), None);
        }
        // With a port, its addresses are looked up, as for any other name.
        let addresses = target("_http._tcp.web:80").host;
        assert_eq!(addresses, Host::Name(name("_http._tcp.web"), 80));
        for text in ["web:80", "web"] {
            let error = Target::parse_service(text).expect_err("no SRV name");
            assert_eq!(error.problem, Problem::NoService, "{text}");
        }
    }

    #[test]
    fn a_service_may_be_named_dns() {
        assert_eq!(target("dns:80").host, Host::Name(name("dns"), 80));
        assert_eq!(target("dns:dns:80").host, Host::Name(name("dns"), 80));
    }

    #[test]
    fn name_servers_are_parsed() {
        for (text, server) in [
            ("dns://10.96.0.10/a.b:80", "10.96.0.10:53"),
            ("dns://10.96.0.10:5353/a.b:80", "10.96.0.10:5353"),
            ("dns://[fd00::a]/a.b:80", "[fd00::a]:53"),
            ("DNS://10.96.0.10/a.b:80", "10.96.0.10:53"),
            ("dns://[fd00::a]:5353/a.b:80", "[fd00::a]:5353"),
        ] {
            let server = server.parse().expect("an address");
            assert_eq!(target(text).name_server, Some(server), "{text}");
        }
    }

    #[test]
    fn addresses_need_no_lookup() {
        for (text, address) in [
            ("10.244.1.7:80", "10.244.1.7:80"),
            ("[fd00::7]:80", "[fd00::7]:80"),
            ("dns:///[fd00::7]:80", "[fd00::7]:80"),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(target(text).host, Host::Address(address), "{text}");
        }
    }

    #[test]
    fn errors_say_which_part_is_wrong() {
        use NameError::*;
        use Problem::*;
        let owned = str::to_owned;
        for (text, expected) in [
            ("http://a:80", Scheme(owned("http"))),
            ("dns://10.96.0.10", NoPath),
            ("dns://kube-dns/a:80", NameServer(owned("kube-dns"))),
            ("a.b", NoPort),
            ("_http.a.b", NoPort),
            ("[fd00::7]", NoPort),
            ("a:", Port(owned(""))),
            ("a:0", Port(owned("0"))),
            ("a:65536", Port(owned("65536"))),
            ("a:+80", Port(owned("+80"))),
            ("a:http", Port(owned("http"))),
            ("fd00::7:80", Brackets(owned("fd00::7:80"))),
            ("[fd00::g]:80", Brackets(owned("[fd00::g]:80"))),
            ("[10.0.0.1]:80", Brackets(owned("[10.0.0.1]:80"))),
            (":80", Name(Empty)),
            (".:80", Name(Empty)),
            ("_http._tcp", Name(Empty)),
            ("_http._tcp.", Name(Empty)),
            ("a..b:80", Name(LabelLength(owned("")))),
            ("_http._tcp.a..b", Name(LabelLength(owned("")))),
            ("a b:80", Name(LabelCharacter(owned("a b")))),
            ("dns:///a/b:80", Name(LabelCharacter(owned("a/b")))),
        ] {
            assert_eq!(problem(text), expected, "{text}");
        }
        let label = "a".repeat(64);
        assert_eq!(problem(&format!("{label}:80")), Name(LabelLength(label)));
        let long = ["a".repeat(63).as_str(); 4].join(".");
        assert_eq!(problem(&format!("{long}:80")), Name(Long(255)));
    }

    #[test]
    fn a_displayed_target_parses_to_the_same() {
        for text in [
            "nginx-headless.default:80",
            "nginx-headless.default.:80",
            "_http._tcp.nginx-headless.default",
            "dns://10.96.0.10:53/a.b:80",
            "dns://10.96.0.10:53/_http._tcp.a.b.",
            "dns://[fd00::a]:5353/a.b:80",
            "[fd00::7]:80",
        ] {
            assert_eq!(target(text).to_string(), text);
        }
    }
}
