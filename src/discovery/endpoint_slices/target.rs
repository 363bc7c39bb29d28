//! What to watch: a Service's name, its namespace, and one of its ports.

use std::{fmt, str::FromStr};

/// RFC 1035 §2.3.4: the names of Services and namespaces are such labels.
const LONGEST_LABEL: usize = 63;

/// A Service's name, namespace and port, parsed from text.
///
/// | form | meaning |
/// | --- | --- |
/// | `nginx-headless.default:80` | the Service `nginx-headless` in the namespace `default`; its pods' port 80 |
/// | `nginx-headless.default:http` | likewise, with the port that the Service names `http`, whatever its number at each pod |
/// | `_http._tcp.nginx-headless.default` | likewise, in the form of SRV records |
/// | `nginx-headless:80` | the Service of that name in the client's own namespace |
/// | `nginx-headless.default.svc:80`, `nginx-headless.default.svc.cluster.local:80` | as the first; the cluster's domain is ignored |
/// | `dns:///nginx-headless.default:80` | as the first, in gRPC's form |
///
/// Every [`Target`](crate::Target) that names a Service is one of these.
///
/// A number is the port *at the pods*, as with DNS: the Service's `targetPort`. The Service's `port` belongs to its
/// virtual IP, which a headless Service doesn't have, and slices don't contain it.
///
/// ```
/// use tower_headless::ServiceTarget;
///
/// let target: ServiceTarget = "nginx-headless.default:http".parse()?;
/// assert_eq!(target.namespace(), Some("default"));
///
/// let error = "web-0.nginx-headless.default:80".parse::<ServiceTarget>().unwrap_err();
/// assert!(error.to_string().contains("svc"));
/// # Ok::<(), tower_headless::ParseServiceTargetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceTarget {
    service: Box<str>,
    namespace: Option<Box<str>>,
    port: Port,
}

/// One of a Service's ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Port {
    Number(u16),
    Named(Box<str>),
    /// The name and the protocol of an SRV name. The protocol is in capitals, as in the API.
    Srv(Box<str>, Box<str>),
}

impl ServiceTarget {
    /// The name of the Service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The Service's namespace; none if it is the client's own.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    pub(super) fn port(&self) -> &Port {
        &self.port
    }
}

/// Why a text isn't a [`ServiceTarget`]. The message names the part that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid Service {text:?}: {problem}")]
pub struct ParseServiceTargetError {
    text: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("the scheme {0:?} is unknown; write service.namespace:port")]
    Scheme(String),
    #[error("a watch uses no name server; write service.namespace:port")]
    NameServer,
    #[error("no port; write service.namespace:port, with a number or a name")]
    NoPort,
    #[error("the port {0:?} is neither a number from 1 to 65535 nor a port's name")]
    Port(String),
    #[error("an address is not a Service; write service.namespace:port")]
    Address,
    #[error(
        "{0:?} is not a name of a Service or namespace: a-z, 0-9 and '-', {LONGEST_LABEL} characters at most"
    )]
    Label(String),
    #[error("{0:?} is more than service.namespace; only svc and the cluster's domain may follow")]
    Tail(String),
}

impl FromStr for ServiceTarget {
    type Err = ParseServiceTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| ParseServiceTargetError {
            text: text.to_owned(),
            problem,
        })
    }
}

impl fmt::Display for ServiceTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Port::Srv(name, protocol) = &self.port {
            write!(f, "_{name}._{}.", protocol.to_ascii_lowercase())?;
        }
        f.write_str(&self.service)?;
        if let Some(namespace) = &self.namespace {
            write!(f, ".{namespace}")?;
        }
        match &self.port {
            Port::Number(number) => write!(f, ":{number}"),
            Port::Named(name) => write!(f, ":{name}"),
            Port::Srv(..) => Ok(()),
        }
    }
}

fn parse(text: &str) -> Result<ServiceTarget, Problem> {
    let rest = match text.split_once("://") {
        None => text,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("dns") => {
            rest.strip_prefix('/').ok_or(Problem::NameServer)?
        }
        Some((scheme, _)) => return Err(Problem::Scheme(scheme.to_owned())),
    };
    if let Some(name) = rest.strip_prefix('_') {
        return parse_srv(name);
    }
    if rest.starts_with('[') {
        return Err(Problem::Address);
    }
    let (name, port) = rest.rsplit_once(':').ok_or(Problem::NoPort)?;
    parse_name(name, parse_port(port)?)
}

/// Parses `http._tcp.nginx-headless.default`, without its first underscore.
fn parse_srv(text: &str) -> Result<ServiceTarget, Problem> {
    let (port, rest) = text.split_once("._").ok_or(Problem::NoPort)?;
    let (protocol, name) = rest.split_once('.').ok_or(Problem::NoPort)?;
    let port = label(port)?;
    let protocol = label(protocol)?.to_ascii_uppercase();
    parse_name(name, Port::Srv(port, protocol.into()))
}

fn parse_port(text: &str) -> Result<Port, Problem> {
    let wrong = || Problem::Port(text.to_owned());
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().ok().filter(|&number| number != 0);
        return number.map(Port::Number).ok_or_else(wrong);
    }
    label(text).map(Port::Named).map_err(|_| wrong())
}

fn parse_name(text: &str, port: Port) -> Result<ServiceTarget, Problem> {
    if text.contains(':') || text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(Problem::Address);
    }
    let mut labels = text.strip_suffix('.').unwrap_or(text).split('.');
    let service = label(labels.next().unwrap_or_default())?;
    let namespace = labels.next().map(label).transpose()?;
    if labels
        .next()
        .is_some_and(|svc| !svc.eq_ignore_ascii_case("svc"))
    {
        return Err(Problem::Tail(text.to_owned()));
    }
    labels.try_for_each(|domain| label(domain).map(drop))?;
    Ok(ServiceTarget {
        service,
        namespace,
        port,
    })
}

/// Checks a label by RFC 1123 §2.1, because it becomes part of a URL and of a selector. Returns it in lower case.
fn label(text: &str) -> Result<Box<str>, Problem> {
    let wrong = || Problem::Label(text.to_owned());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let whole = !text.is_empty() && text.len() <= LONGEST_LABEL && text.bytes().all(allowed);
    if !whole || text.starts_with('-') || text.ends_with('-') {
        return Err(wrong());
    }
    Ok(text.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> ServiceTarget {
        text.parse().expect(text)
    }

    #[test]
    fn names_with_and_without_a_namespace_are_parsed() {
        for (text, namespace) in [
            ("web:80", None),
            ("Web.Default:80", Some("default")),
            ("web.default.svc:80", Some("default")),
            ("web.default.svc.cluster.local:80", Some("default")),
            ("web.default.svc.cluster.local.:80", Some("default")),
            ("dns:///web.default:80", Some("default")),
            ("Dns:///web.default:80", Some("default")),
        ] {
            let target = target(text);
            assert_eq!(
                (target.service(), target.namespace()),
                ("web", namespace),
                "{text}"
            );
            assert_eq!(*target.port(), Port::Number(80), "{text}");
        }
    }

    #[test]
    fn ports_by_name_are_parsed() {
        assert_eq!(
            *target("web.default:http").port(),
            Port::Named("http".into())
        );
        let srv = target("_http._tcp.web.default");
        assert_eq!(*srv.port(), Port::Srv("http".into(), "TCP".into()));
        assert_eq!((srv.service(), srv.namespace()), ("web", Some("default")));
        assert_eq!(target("_http._tcp.web").namespace(), None);
    }

    #[test]
    fn errors_say_which_part_is_wrong() {
        use Problem::*;
        let owned = str::to_owned;
        for (text, expected) in [
            ("http://web:80", Scheme(owned("http"))),
            ("dns://10.96.0.10/web:80", NameServer),
            ("web.default", NoPort),
            ("_http.web", NoPort),
            ("web:0", Port(owned("0"))),
            ("web:65536", Port(owned("65536"))),
            ("web:", Port(owned(""))),
            ("web:ht tp", Port(owned("ht tp"))),
            ("10.0.0.1:80", Address),
            ("[fd00::1]:80", Address),
            ("fd00::1:80", Address),
            (":80", Label(owned(""))),
            ("we_b.default:80", Label(owned("we_b"))),
            ("web.a/b:80", Label(owned("a/b"))),
            ("-web:80", Label(owned("-web"))),
            (
                "web-0.web.default.svc:80",
                Tail(owned("web-0.web.default.svc")),
            ),
            ("_http._tcp.", Label(owned(""))),
        ] {
            let error = text.parse::<ServiceTarget>().expect_err(text);
            assert_eq!(error.problem, expected, "{text}");
        }
    }

    #[test]
    fn a_displayed_target_parses_to_the_same() {
        for text in ["web:80", "web.default:http", "_http._tcp.web.default"] {
            assert_eq!(target(text).to_string(), text);
        }
    }
}
