//! Which proxy to use for the API server, if any.
//!
//! kube uses `HTTPS_PROXY` for any API server. It reads `NO_PROXY` only with its proxy features, and then compares it
//! with the proxy's own host. Here the rules are client-go's (those of Go's `httpproxy`): a kubeconfig's `proxy-url` is
//! always used. `HTTPS_PROXY` applies to `https` only, and neither to this machine nor to hosts in `NO_PROXY`. In
//! addition, it doesn't apply to the API server's in-cluster addresses, which no proxy outside of the cluster can
//! reach.

use std::net::IpAddr;

use kube::Config;

use super::error::Reason;

/// Reads an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The proxy schemes that client-go and kube know. The last two are the same to Go and kube: the proxy resolves the API
/// server's name.
const SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

/// Makes `config` use the kubeconfig's proxy. It must have a scheme, as for kubectl.
pub(super) fn take_own(config: &mut Config, proxy: &str) -> Result<(), Reason> {
    take(config, proxy, true)
}

/// Makes `config` use the environment's proxy, if there is one and it applies to this API server. Only then is it
/// parsed. Without a scheme it means `http`.
pub(super) fn take_environments(
    config: &mut Config,
    environment: Environment<'_>,
) -> Result<(), Reason> {
    config.proxy_url = None;
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let Some(proxy) = set("HTTPS_PROXY").or_else(|| set("https_proxy")) else {
        return Ok(());
    };
    let is_tls = config.cluster_url.scheme_str() == Some("https");
    let host = Host::new(config.cluster_url.host().unwrap_or_default());
    let port = config.cluster_url.port_u16().unwrap_or(443);
    if !is_tls || is_direct(&host, port, environment) {
        return Ok(());
    }
    let has_scheme = proxy.contains("://");
    let scheme = if has_scheme { "" } else { "http://" };
    take(config, &format!("{scheme}{proxy}"), false)
}

fn take(config: &mut Config, proxy: &str, is_own: bool) -> Result<(), Reason> {
    let host = config.cluster_url.host().unwrap_or_default().to_owned();
    let unreadable = |error: String| Reason::ProxyUrl {
        from: from(is_own),
        error,
        host,
        is_own,
    };
    let parts = proxy.split_once("://");
    let scheme = parts.map(|(scheme, _)| scheme.to_ascii_lowercase());
    let scheme = scheme.filter(|scheme| SCHEMES.contains(&&**scheme));
    let (Some(scheme), Some((_, rest))) = (scheme, parts) else {
        let error = "its scheme must be http, https or socks5".to_owned();
        return Err(unreadable(error));
    };
    // kube only knows the scheme `socks5`.
    let scheme = scheme.trim_end_matches('h');
    let rest = match scheme {
        "socks5" => with_port(rest, 1080),
        _ => rest.to_owned(),
    };
    let proxy = format!("{scheme}://{rest}");
    let proxy = proxy.parse();
    config.proxy_url = Some(proxy.map_err(|error| unreadable(format!("{error}")))?);
    Ok(())
}

/// Adds this port to the part of a URL after its scheme, if it has none. kube would use HTTP's port for any scheme.
fn with_port(rest: &str, port: u16) -> String {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    let last = host.rsplit_once(':').map_or("", |(_, last)| last);
    // The colons of an IPv6 address don't begin a port: it ends with a bracket.
    let has_port = !last.is_empty() && !last.ends_with(']');
    if has_port || host.is_empty() {
        return rest.to_owned();
    }
    format!("{}:{port}{path}", authority.trim_end_matches(':'))
}

fn from(is_own: bool) -> &'static str {
    if is_own {
        "the kubeconfig's proxy-url"
    } else {
        "HTTPS_PROXY"
    }
}

/// The error for the case that kube's client can't use the proxy.
pub(super) fn unsupported(config: &Config, is_own: bool) -> Option<Reason> {
    let proxy = config.proxy_url.as_ref()?;
    // Without the user and the password.
    let proxy = format!(
        "{}://{}",
        proxy.scheme_str().unwrap_or_default(),
        proxy.host().unwrap_or_default()
    );
    let host = config.cluster_url.host().unwrap_or_default().to_owned();
    Some(Reason::Proxy {
        from: from(is_own),
        proxy,
        host,
        is_own,
    })
}

fn is_direct(host: &Host, port: u16, environment: Environment<'_>) -> bool {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let is_inside =
        set("KUBERNETES_SERVICE_HOST").is_some_and(|inside| Host::new(&inside) == *host);
    let excepted = || set("NO_PROXY").or_else(|| set("no_proxy"));
    is_inside
        || host.is_here_or_inside()
        || excepted().is_some_and(|list| {
            let mut entries = list.split(',').map(str::trim);
            entries.any(|entry| is_excepted(entry, host, port))
        })
}

/// A host, normalised for comparison.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    /// IPv4-mapped IPv6 addresses are stored as IPv4.
    Address(IpAddr),
    /// In lower case, without the trailing dot.
    Name(String),
}

impl Host {
    /// Parses a host. An IPv6 address may be in brackets. Its zone is dropped, because it only names an interface, even
    /// if it looks like the end of a domain name.
    fn new(text: &str) -> Self {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        let address = text.split_once('%').map_or(text, |(address, _)| address);
        match address.parse::<IpAddr>() {
            Ok(address) => Self::Address(address.to_canonical()),
            Err(_) => Self::Name(text.trim_end_matches('.').to_ascii_lowercase()),
        }
    }

    /// Whether this is this machine, or one of the API server's in-cluster names.
    fn is_here_or_inside(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => {
                matches!(
                    &**name,
                    "localhost" | "kubernetes.default" | "kubernetes.default.svc"
                ) || name.starts_with("kubernetes.default.svc.")
            }
        }
    }
}

/// Whether an entry of `NO_PROXY` matches this host. It may be `*`, an address, a network, or a domain including its
/// subdomains; all but networks may have a port. A malformed entry matches nothing.
fn is_excepted(entry: &str, host: &Host, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some(network) = network(entry) {
        return matches!(host, Host::Address(address) if contains(network, *address));
    }
    let (excepted, wanted) = match entry.rsplit_once(':') {
        // The colons of an IPv6 address don't begin a port, unless it is in brackets.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port),
        _ => (entry, ""),
    };
    let is_port = wanted.is_empty() || wanted == port.to_string();
    is_port
        && match (Host::new(excepted), host) {
            (Host::Address(excepted), Host::Address(address)) => excepted == *address,
            (Host::Name(domain), Host::Name(host)) => is_in(host, &domain),
            _ => false,
        }
}

/// Whether a name is in a domain: the domain itself, or a name below it. If the domain begins with `.` or `*.`, only
/// names below it are.
fn is_in(host: &str, domain: &str) -> bool {
    let below = domain.strip_prefix('*').unwrap_or(domain);
    match below.strip_prefix('.') {
        Some(parent) => !parent.is_empty() && is_below(host, parent),
        None => !domain.is_empty() && (host == domain || is_below(host, domain)),
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    let rest = host.strip_suffix(domain);
    rest.is_some_and(|rest| rest.ends_with('.'))
}

/// Parses a network: an address, and the length of its prefix.
fn network(entry: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = entry.split_once('/')?;
    let (address, length): (IpAddr, u32) = (address.parse().ok()?, length.parse().ok()?);
    let all = if address.is_ipv4() { 32 } else { 128 };
    match address.to_canonical() {
        _ if length > all => None,
        // The first 96 bits are the same for all IPv4-mapped addresses.
        IpAddr::V4(mapped) if address.is_ipv6() => {
            length.checked_sub(96).map(|length| (mapped.into(), length))
        }
        _ => Some((address, length)),
    }
}

fn contains((network, length): (IpAddr, u32), address: IpAddr) -> bool {
    let (network, address, all) = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128_u32),
        _ => return false,
    };
    let differs: u128 = network ^ address;
    differs.checked_shr(all - length).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_proxy_is_an_error_only_if_it_would_be_used() {
        let of = |cluster: &str, variables: &[(&str, &str)]| {
            let mut config = Config::new(cluster.parse().expect("a URL"));
            let value = |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            take_environments(&mut config, &value).map(|()| config.proxy_url)
        };
        let (api, nonsense) = ("https://api.example:6443", "http://a proxy:3128");
        for name in ["HTTPS_PROXY", "https_proxy"] {
            let error = of(api, &[(name, nonsense)])
                .expect_err("no URL")
                .to_string();
            assert!(error.contains("HTTPS_PROXY"), "{error}");
            assert!(error.contains("add api.example to NO_PROXY"), "{error}");
            for cluster in ["http://api.example", "https://127.0.0.1:6443"] {
                let direct = of(cluster, &[(name, nonsense)]);
                assert!(matches!(direct, Ok(None)), "{direct:?}");
            }
            let excepted = of(api, &[(name, nonsense), ("NO_PROXY", "x,.example")]);
            assert!(matches!(excepted, Ok(None)), "{excepted:?}");
            let proxied = of(api, &[(name, "http://proxy.example:3128")]);
            assert!(matches!(proxied, Ok(Some(_))), "{proxied:?}");
        }
        let first = of(api, &[("HTTPS_PROXY", ""), ("https_proxy", nonsense)]);
        assert!(first.is_err(), "{first:?}");
        assert!(matches!(of(api, &[]), Ok(None)));
    }

    /// Whether this API server is reached without a proxy.
    fn direct(cluster: &str, no_proxy: &str, service_host: &str) -> bool {
        let mut config = Config::new(cluster.parse().expect("a URL"));
        let environment = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://proxy.example:3128".to_owned()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            "KUBERNETES_SERVICE_HOST" => Some(service_host.to_owned()),
            _ => None,
        };
        take_environments(&mut config, &environment).expect("a URL of a proxy");
        config.proxy_url.is_none()
    }

    #[test]
    fn this_machine_and_in_cluster_addresses_never_use_the_proxy() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "127.0.0.1",
            "127.8.9.10",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "10.96.0.1",
            "[::ffff:10.96.0.1]",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ] {
            let cluster = format!("https://{host}:6443");
            assert!(direct(&cluster, "", "10.96.0.1"), "{host}");
        }
        for host in [
            "api.example",
            "10.0.0.1",
            "kubernetes.default.svcs",
            "[::2]",
        ] {
            let cluster = format!("https://{host}:6443");
            assert!(!direct(&cluster, "", "10.96.0.1"), "{host}");
            assert!(!direct(&cluster, "", ""), "{host}");
        }
    }

    #[test]
    fn an_in_cluster_ipv6_address_is_recognised_in_any_spelling() {
        for inside in [
            "fd00::1",
            "FD00:0:0::1",
            "fd00:0000:0000:0000:0000:0000:0000:0001",
            "[fd00::1]",
        ] {
            for host in ["[fd00::1]", "[FD00::1]", "[fd00:0:0:0:0:0:0:1]"] {
                let cluster = format!("https://{host}:443");
                assert!(direct(&cluster, "", inside), "{host} {inside}");
            }
            assert!(!direct("https://[fd00::2]", "", inside), "{inside}");
        }
    }

    /// Cases from the tests of Go's `httpproxy`, and what people write.
    #[test]
    fn no_proxy_is_read_as_in_go() {
        for (host, list) in [
            ("api.example", "*"),
            ("10.0.0.7", "x, *"),
            ("api.example", "x, api.example"),
            ("API.example", "example"),
            ("api.example", "API.EXAMPLE"),
            ("api.example", ".example"),
            ("api.example", "*.example"),
            ("a.b.example", "*.example:6443"),
            ("api.example", "other:1,api.example:6443"),
            ("api.example", "api.example:"),
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7", "10.0.0.7:6443"),
            ("10.0.0.7", "::ffff:10.0.0.7"),
            ("[::ffff:10.0.0.7]", "10.0.0.7"),
            ("10.0.0.7", "192.168.0.0/16,10.0.0.0/24"),
            ("10.0.0.7", "10.0.0.9/24"),
            ("10.0.0.7", "0.0.0.0/0"),
            ("10.0.0.7", "::ffff:10.0.0.0/104"),
            ("[::ffff:10.0.0.7]", "10.0.0.0/8"),
            ("[fd00::7]", "fd00::/8"),
            ("[2002:db8:a::123]", "2002:db8:a::45/64"),
            ("[fd00::7]", "[fd00::7]:6443"),
            ("[fd00::7]", "[fd00::7]"),
            ("[fd00::7]", "FD00:0::7"),
            // A malformed entry doesn't affect the others.
            (
                "api.example",
                "a b,[::1,,:1,10.0.0.0/33,/8,http://x/,api.example,",
            ),
        ] {
            let cluster = format!("https://{host}:6443");
            assert!(direct(&cluster, list, ""), "{host} {list}");
        }
        for (host, list) in [
            ("api.example", ""),
            ("api.example", ",,"),
            ("api.example", "pi.example"),
            ("api.example", "api.example:443"),
            ("api.example", "api.example:https"),
            ("api.example", "api.example:06443"),
            ("api.example", ":6443"),
            ("api.example", "."),
            ("api.example", "*."),
            ("api.example", "*:6443"),
            ("api.example", "*example"),
            ("api.example", "**.example"),
            ("api.example", "*.api.example"),
            ("api.example", "http://api.example"),
            ("example", ".example"),
            ("example", "*.example"),
            ("10.0.0.7", "10.0.1.0/24"),
            ("10.0.0.7", "10.0.0.0/33,10.0.0.0/x,/8"),
            ("10.0.0.7", "fd00::/0"),
            ("10.0.0.7", "::ffff:10.0.0.0/95"),
            ("10.0.0.7", "10.0.0.70"),
            ("10.0.0.7", "10.0.0.7:443"),
            ("10.0.0.7", "0.0.7,.0.7,7"),
            ("[fd00::7]", "fd01::/16"),
            ("[fd00::7]", "[fd00::7]:443"),
            ("api.example", "10.0.0.0/8,fd00::/8"),
        ] {
            let cluster = format!("https://{host}:6443");
            assert!(!direct(&cluster, list, ""), "{host} {list}");
        }
        let zoned = Host::new("[1000::%25.example.com]");
        assert!(!is_excepted("example.com", &zoned, 443));
        // An API server's URL without a port means HTTPS's port.
        assert!(direct("https://api.example", "api.example:443", ""));
    }

    #[test]
    fn a_proxy_without_a_scheme_is_an_http_proxy() {
        let of = |proxy: &str| {
            let mut config = Config::new("https://api.example".parse().expect("a URL"));
            let value = |name: &str| (name == "HTTPS_PROXY").then(|| proxy.to_owned());
            take_environments(&mut config, &value)
                .map(|()| config.proxy_url.map(|url| url.to_string()))
        };
        for (proxy, expected) in [
            ("cache.corp.example:3128", "http://cache.corp.example:3128/"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("[fd00::1]:3128", "http://[fd00::1]:3128/"),
            ("localhost", "http://localhost/"),
            ("user:pass%40@proxy:3128", "http://user:pass%40@proxy:3128/"),
            ("http://proxy:3128/", "http://proxy:3128/"),
            ("HTTPS://proxy", "https://proxy/"),
            ("socks5://127.0.0.1", "socks5://127.0.0.1:1080/"),
            ("socks5h://me:pass@proxy/", "socks5://me:pass@proxy:1080/"),
            ("socks5://proxy:", "socks5://proxy:1080/"),
            ("socks5://[fd00::1]", "socks5://[fd00::1]:1080/"),
            ("socks5://[fd00::1]:80", "socks5://[fd00::1]:80/"),
            ("socks5h://localhost:1080", "socks5://localhost:1080/"),
        ] {
            let proxy = of(proxy).expect(proxy);
            assert_eq!(proxy.as_deref(), Some(expected));
        }
        for proxy in [
            "foo://host",
            "://host",
            "http://",
            "socks5://",
            "a proxy:3128",
            "socks4://host:1",
        ] {
            let error = of(proxy).expect_err(proxy).to_string();
            assert!(error.contains("HTTPS_PROXY is not a proxy URL"), "{error}");
            assert!(!error.contains("host"), "{error}");
        }
    }

    #[test]
    fn a_kubeconfigs_proxy_url_needs_a_scheme_that_client_go_knows() {
        let of = |proxy: &str| {
            let mut config = Config::new("http://127.0.0.1".parse().expect("a URL"));
            take_own(&mut config, proxy).map(|()| config.proxy_url.map(|url| url.to_string()))
        };
        for proxy in ["socks5://proxy:1080", "socks5://proxy"] {
            let proxy = of(proxy).expect("a URL");
            assert_eq!(proxy.as_deref(), Some("socks5://proxy:1080/"));
        }
        for proxy in ["proxy:3128", "noproxy://", "http://a proxy"] {
            let error = of(proxy).expect_err(proxy).to_string();
            let expected = "the kubeconfig's proxy-url is not a proxy URL";
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("NO_PROXY"), "{error}");
        }
    }
}
