//! What to look up: a service's name and port, and whom to ask.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// A service's name and port as text, parsed.
///
/// | form | meaning |
/// | --- | --- |
/// | `nginx-headless.default.svc.cluster.local:80` | the name servers of the system are asked |
/// | `dns:///nginx-headless.default.svc.cluster.local:80` | the same, in gRPC's form |
/// | `dns://10.96.0.10/nginx-headless.default.svc.cluster.local:80` | this name server is asked, at port 53 |
/// | `dns://[fd00::a]:5353/nginx-headless.default.svc.cluster.local:80` | this name server is asked, at port 5353 |
/// | `10.244.1.7:80`, `[fd00::7]:80` | one address; nothing is asked |
///
/// The scheme is that of gRPC's naming document (`grpc/doc/naming.md`), with the port required. A trailing dot is
/// allowed.
///
/// ```
/// use tower_headless::Target;
///
/// let target: Target = "nginx-headless.default.svc.cluster.local:80".parse()?;
/// assert_eq!(target.port(), 80);
///
/// let error = "nginx_headless".parse::<Target>().unwrap_err();
/// assert!(error.to_string().contains("port"));
/// # Ok::<(), tower_headless::ParseTargetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host: Host,
    port: u16,
    name_server: Option<SocketAddr>,
}

/// What stands before the port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// A name, without its trailing dot.
    Name(String),
    /// An address, which needs no lookup.
    Address(IpAddr),
}

impl Target {
    /// The port of the endpoints.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn name_server(&self) -> Option<SocketAddr> {
        self.name_server
    }
}

/// Why a text is no [`Target`]. The message names the part that is wrong.
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
    #[error("the name server {0:?} is no IP address, with or without a port")]
    NameServer(String),
    #[error("no port; write name:port")]
    NoPort,
    #[error("the port {0:?} is not a number from 1 to 65535")]
    Port(String),
    #[error("the address {0:?} is no IPv6 address in brackets")]
    Brackets(String),
    #[error("no name")]
    NoName,
    #[error("the name is {0} bytes long; DNS allows 253")]
    LongName(usize),
    #[error("the label {0:?} of the name is empty or longer than 63 bytes")]
    LabelLength(String),
    #[error("the label {0:?} of the name has a character other than a-z, 0-9, '-' and '_'")]
    LabelCharacter(String),
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| ParseTargetError {
            target: text.to_owned(),
            problem,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = self.name_server {
            write!(f, "dns://{server}/")?;
        }
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
        }
    }
}

fn parse(text: &str) -> Result<Target, Problem> {
    let (name_server, rest) = match text.split_once("://") {
        // `dns:80` is a service of that name.
        None => {
            let opaque = text.strip_prefix("dns:");
            (
                None,
                opaque.filter(|rest| rest.contains(':')).unwrap_or(text),
            )
        }
        Some(("dns", rest)) => {
            let (server, path) = rest.split_once('/').ok_or(Problem::NoPath)?;
            let server = (!server.is_empty()).then(|| parse_name_server(server));
            (server.transpose()?, path)
        }
        Some((scheme, _)) => return Err(Problem::Scheme(scheme.to_owned())),
    };
    let (host, port) = parse_host_and_port(rest)?;
    Ok(Target {
        host,
        port,
        name_server,
    })
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

fn parse_host_and_port(text: &str) -> Result<(Host, u16), Problem> {
    if let Some(rest) = text.strip_prefix('[') {
        let brackets = || Problem::Brackets(text.to_owned());
        let (address, port) = rest.split_once(']').ok_or_else(brackets)?;
        let address = address.parse().map_err(|_| brackets())?;
        let port = port.strip_prefix(':').ok_or(Problem::NoPort)?;
        return Ok((Host::Address(IpAddr::V6(address)), parse_port(port)?));
    }
    let (name, port) = text.rsplit_once(':').ok_or(Problem::NoPort)?;
    if name.contains(':') {
        return Err(Problem::Brackets(text.to_owned()));
    }
    let port = parse_port(port)?;
    let host = match name.parse() {
        Ok(address) => Host::Address(IpAddr::V4(address)),
        Err(_) => Host::Name(parse_name(name)?),
    };
    Ok((host, port))
}

fn parse_port(port: &str) -> Result<u16, Problem> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| port.parse().ok()).flatten();
    number
        .filter(|&number| number != 0)
        .ok_or_else(|| Problem::Port(port.to_owned()))
}

/// Checks a name against RFC 1035 §2.3.4's lengths and the characters of RFC 952, with the underscore that SRV names and
/// many private zones have.
fn parse_name(name: &str) -> Result<String, Problem> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(Problem::NoName);
    }
    if name.len() > 253 {
        return Err(Problem::LongName(name.len()));
    }
    for label in name.split('.') {
        if !(1..=63).contains(&label.len()) {
            return Err(Problem::LabelLength(label.to_owned()));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !label.bytes().all(allowed) {
            return Err(Problem::LabelCharacter(label.to_owned()));
        }
    }
    Ok(name.to_ascii_lowercase())
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

    fn name(name: &str) -> Host {
        Host::Name(name.to_owned())
    }

    #[test]
    fn names_with_ports() {
        for text in [
            "nginx-headless.default:80",
            "nginx-headless.default.:80",
            "Nginx-Headless.default:80",
            "dns:nginx-headless.default:80",
            "dns:///nginx-headless.default:80",
        ] {
            let target = target(text);
            assert_eq!(target.host, name("nginx-headless.default"), "{text}");
            assert_eq!((target.port, target.name_server), (80, None), "{text}");
        }
    }

    #[test]
    fn a_service_may_be_called_dns() {
        assert_eq!(target("dns:80").host, name("dns"));
        assert_eq!(target("dns:dns:80").host, name("dns"));
    }

    #[test]
    fn name_servers() {
        for (text, server) in [
            ("dns://10.96.0.10/a.b:80", "10.96.0.10:53"),
            ("dns://10.96.0.10:5353/a.b:80", "10.96.0.10:5353"),
            ("dns://[fd00::a]/a.b:80", "[fd00::a]:53"),
            ("dns://[fd00::a]:5353/a.b:80", "[fd00::a]:5353"),
        ] {
            let server = server.parse().expect("an address");
            assert_eq!(target(text).name_server, Some(server), "{text}");
        }
    }

    #[test]
    fn addresses_need_no_lookup() {
        for (text, address) in [
            ("10.244.1.7:80", "10.244.1.7"),
            ("[fd00::7]:80", "fd00::7"),
            ("dns:///[fd00::7]:80", "fd00::7"),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(target(text).host, Host::Address(address), "{text}");
        }
    }

    #[test]
    fn errors_say_which_part_is_wrong() {
        use Problem::*;
        let owned = str::to_owned;
        for (text, expected) in [
            ("http://a:80", Scheme(owned("http"))),
            ("dns://10.96.0.10", NoPath),
            ("dns://kube-dns/a:80", NameServer(owned("kube-dns"))),
            ("a.b", NoPort),
            ("[fd00::7]", NoPort),
            ("a:", Port(owned(""))),
            ("a:0", Port(owned("0"))),
            ("a:65536", Port(owned("65536"))),
            ("a:+80", Port(owned("+80"))),
            ("a:http", Port(owned("http"))),
            ("fd00::7:80", Brackets(owned("fd00::7:80"))),
            ("[fd00::g]:80", Brackets(owned("[fd00::g]:80"))),
            ("[10.0.0.1]:80", Brackets(owned("[10.0.0.1]:80"))),
            (":80", NoName),
            (".:80", NoName),
            ("a..b:80", LabelLength(owned(""))),
            ("a b:80", LabelCharacter(owned("a b"))),
            ("dns:///a/b:80", LabelCharacter(owned("a/b"))),
        ] {
            assert_eq!(problem(text), expected, "{text}");
        }
        let label = "a".repeat(64);
        assert_eq!(problem(&format!("{label}:80")), LabelLength(label));
        let long = ["a".repeat(63).as_str(); 4].join(".");
        assert_eq!(problem(&format!("{long}:80")), LongName(255));
    }

    #[test]
    fn what_is_displayed_parses_to_the_same() {
        for text in [
            "nginx-headless.default:80",
            "dns://10.96.0.10:53/a.b:80",
            "dns://[fd00::a]:5353/a.b:80",
            "[fd00::7]:80",
        ] {
            assert_eq!(target(text).to_string(), text);
        }
    }
}
