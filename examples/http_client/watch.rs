//! With `--watch`, finds pods by the API server.

use http::Uri;
use tower_headless::Discovery;

use crate::args::Args;

/// Watches the Service's slices. Falls back to DNS if that isn't allowed, or the API server can't be reached.
#[cfg(feature = "kube")]
pub(crate) fn discovery(args: &Args, service: &Uri) -> impl Discovery {
    use tower_headless::{Dns, EndpointSlices};

    let authority = service.authority().map_or("", |it| it.as_str());
    let name = match service.port() {
        // As in any URL.
        None if !authority.starts_with('_') => format!("{authority}:80"),
        _ => authority.to_owned(),
    };
    let slices = name.parse().map(EndpointSlices::new);
    let dns = name.parse().map(Dns::new);
    let slices = slices.unwrap_or_else(|error| args.reject(error));
    let dns = dns.unwrap_or_else(|error| args.reject(error));
    let dns = dns.name_servers(args.nameserver);
    slices.or(dns.allow_loopback(args.allow_loopback))
}

#[cfg(not(feature = "kube"))]
pub(crate) fn discovery(args: &Args, _: &Uri) -> impl Discovery + use<> {
    if args.watch {
        args.reject("--watch needs the feature kube: cargo run --features test-util,kube-latest …");
    }
    tower_headless::StaticEndpoints::new([])
}
