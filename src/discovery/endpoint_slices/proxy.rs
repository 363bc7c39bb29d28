//! Whether the way to the API server leads through a proxy.
//!
//! kube takes `HTTPS_PROXY` for whatever the API server is, and heeds `NO_PROXY` only with its features for proxies. Here
//! the rules are client-go's (those of Go's `httpproxy`): a kubeconfig's own `proxy-url` holds in any case. `HTTPS_PROXY`
//! is for `https`, and neither for this machine nor for what `NO_PROXY` names. Nor is it for the API server's addresses
//! inside the cluster, where clients outside of it don't get by any proxy.

use std::net::IpAddr;

use kube::Config;

use super::error::Reason;

/// Where the environment's variables come from.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Has `config` take the environment's proxy, if there is one and it is for this API server. What it looks like matters only
/// then.
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
    let host = config.cluster_url.host().unwrap_or_default();
    let port = config.cluster_url.port_u16().unwrap_or(443);
    if is_tls && !is_direct(host, port, environment) {
        let proxy = proxy.parse().map_err(|error| unreadable(&error, host))?;
        config.proxy_url = Some(proxy);
    }
    Ok(())
}

fn unreadable(error: &dyn std::fmt::Display, host: &str) -> Reason {
    Reason::ProxyUrl {
        error: error.to_string(),
        host: host.to_owned(),
    }
}

/// What there is to do where kube's client can't use the proxy.
pub(super) fn unsupported(config: &Config, is_own: bool) -> Option<Reason> {
    let proxy = config.proxy_url.as_ref()?;
    let from = if is_own {
        "the kubeconfig's proxy-url"
    } else {
        "HTTPS_PROXY"
    };
    // Not what else there is in it: a user and a password.
    let proxy = format!(
        "{}://{}",
        proxy.scheme_str().unwrap_or_default(),
        proxy.host().unwrap_or_default()
    );
    let host = config.cluster_url.host().unwrap_or_default().to_owned();
    Some(Reason::Proxy {
        from,
        proxy,
        host,
        is_own,
    })
}

fn is_direct(host: &str, port: u16, environment: Environment<'_>) -> bool {
    let host = normal(host);
    let address: Option<IpAddr> = host.parse().ok();
    let is_inside = host == "kubernetes.default"
        || host == "kubernetes.default.svc"
        || host.starts_with("kubernetes.default.svc.")
        || environment("KUBERNETES_SERVICE_HOST").is_some_and(|inside| normal(&inside) == host);
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let excepted = set("NO_PROXY").or_else(|| set("no_proxy"));
    is_inside
        || host == "localhost"
        || address.is_some_and(|address| address.to_canonical().is_loopback())
        || excepted.is_some_and(|list| {
            let mut entries = list.split(',').map(str::trim);
            entries.any(|entry| is_excepted(entry, &host, address, port))
        })
}

/// In lower case, without the brackets of an IPv6 address and without the dot at the end.
fn normal(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether an entry of `NO_PROXY` is about this host: `*`, an address, a network, or a domain with all below it; each but a
/// network with a port, if one is meant.
fn is_excepted(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Some(network), Some(address)) = (network(entry), address) {
        return contains(network, address);
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        // The colons of an IPv6 address are none of a port's, unless it stands in brackets.
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            (name, digits.parse::<u16>().ok())
        }
        _ => (entry, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = normal(name);
    if let Ok(excepted) = name.parse::<IpAddr>() {
        return address == Some(excepted);
    }
    let domain = name.trim_start_matches('*');
    match domain.strip_prefix('.') {
        Some(parent) => !parent.is_empty() && is_below(host, parent),
        None => !domain.is_empty() && (host == domain || is_below(host, domain)),
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    let rest = host.strip_suffix(domain);
    rest.is_some_and(|rest| rest.ends_with('.'))
}

fn network(entry: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = entry.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok()?))
}

fn contains((network, length): (IpAddr, u32), address: IpAddr) -> bool {
    let (network, address, all) = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128_u32),
        _ => return false,
    };
    let differs: u128 = network ^ address;
    length <= all && differs.checked_shr(all - length).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_makes_no_sense_is_an_error_only_where_it_would_be_used() {
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

    fn direct(host: &str, no_proxy: &str) -> bool {
        let environment = |name: &str| match name {
            "NO_PROXY" => Some(no_proxy.to_owned()),
            "KUBERNETES_SERVICE_HOST" => Some("10.96.0.1".to_owned()),
            _ => None,
        };
        is_direct(host, 6443, &environment)
    }

    #[test]
    fn this_machine_and_the_cluster_s_own_address_need_no_exception() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "127.0.0.1",
            "127.8.9.10",
            "[::1]",
            "10.96.0.1",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ] {
            assert!(direct(host, ""), "{host}");
        }
        for host in ["api.example", "10.0.0.1", "kubernetes.default.svcs"] {
            assert!(!direct(host, ""), "{host}");
        }
    }

    #[test]
    fn no_proxy_is_heeded_as_go_does() {
        for (host, list) in [
            ("api.example", "*"),
            ("api.example", "x, api.example"),
            ("API.example", "example"),
            ("api.example", ".example"),
            ("api.example", "*.example"),
            ("api.example", "other:1,api.example:6443"),
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7", "10.0.0.7:6443"),
            ("10.0.0.7", "192.168.0.0/16,10.0.0.0/24"),
            ("10.0.0.7", "0.0.0.0/0"),
            ("[fd00::7]", "fd00::/8"),
            ("[fd00::7]", "[fd00::7]:6443"),
            ("[fd00::7]", "fd00::7"),
        ] {
            assert!(direct(host, list), "{host} {list}");
        }
        for (host, list) in [
            ("api.example", ""),
            ("api.example", ",,"),
            ("api.example", "pi.example"),
            ("api.example", "api.example:443"),
            ("example", ".example"),
            ("10.0.0.7", "10.0.1.0/24"),
            ("10.0.0.7", "10.0.0.0/33,10.0.0.0/x,/8"),
            ("10.0.0.7", "fd00::/0"),
            ("10.0.0.7", "10.0.0.70"),
            ("[fd00::7]", "fd01::/16"),
        ] {
            assert!(!direct(host, list), "{host} {list}");
        }
    }
}
