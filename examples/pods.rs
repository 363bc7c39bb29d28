//! `nslookup` done right: the pods behind a headless Service's name, as the balancer finds them.
//!
//! ```text
//! cargo run --features test-util --example pods                                       # starts its own DNS server
//! cargo run --features test-util --example pods -- nginx-headless.default:80
//! cargo run --features test-util --example pods -- _http._tcp.nginx-headless.default  # a port by its name, pods' hostnames
//! cargo run --features test-util --example pods -- nginx-headless:80 --watch          # goes on, and prints what changes
//! cargo run --features test-util,kube-latest --example pods -- nginx-headless:80 --watch-api   # asks the API server
//! ```
//!
//! To learn how the crate is used, read [`look`], [`watch`] and [`slices`].

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use futures::StreamExt;
use tokio::time::{Instant, sleep};
use tower_headless::{
    BoxError, Discovery, Dns, Endpoint, LookupError, MembershipStream, Target,
    test_util::{DnsServer, Srv},
};
use tracing_subscriber::EnvFilter;

const ABOUT: &str = "\
Shows the pods behind a headless Service's name, or without one those of a DNS
server in this process, which --watch scales. Exits with 1 without an answer.";

#[derive(Debug, Parser)]
#[command(
    name = "pods",
    about = ABOUT,
    // clap's own template, without headlines.
    help_template = "{about}\n\n{usage-heading} {usage}\n\n{positionals}\n\n{options}",
    override_usage = "cargo run --features test-util --example pods -- [OPTIONS] [NAME]"
)]
struct Args {
    /// web.default:80, or _http._tcp.web.default, a port's name
    name: Option<Target>,

    /// Go on, and print what changes
    #[arg(long)]
    watch: bool,

    /// Watch by the API server instead (feature kube)
    #[arg(long, requires = "name", conflicts_with_all = ["watch", "nameserver"])]
    watch_api: bool,

    /// Name server, IP:port; many [default: the system's]
    #[arg(long, value_name = "A", requires = "name")]
    nameserver: Vec<SocketAddr>,

    /// Has the search list
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,

    /// Show IPv6 addresses where there are both
    #[arg(long)]
    prefer_ipv6: bool,

    /// Mark the pods that are hinted for this zone
    #[arg(
        long,
        value_name = "Z",
        requires = "watch_api",
        default_value_t,
        hide_default_value = true
    )]
    zone: String,

    /// Take loopback addresses for pods, too
    #[arg(long)]
    allow_loopback: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    // RUST_LOG=tower_headless=debug shows what discovery does; without it, only what is wrong.
    let warnings = "tower_headless=warn".parse().expect("a directive");
    let filter = EnvFilter::builder().with_default_directive(warnings);
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let result = match &args.name {
        Some(target) if args.watch_api => watch_api(&args, target).await,
        Some(target) => {
            let dns = Dns::new(target.clone())
                .name_servers(args.nameserver.iter().copied())
                .resolv_conf(&args.resolv_conf);
            show(&args, target, dns).await.map_err(BoxError::from)
        }
        None => story(&args).await.map_err(BoxError::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn show(args: &Args, target: &Target, dns: Dns) -> Result<(), LookupError> {
    let dns = dns
        .prefer_ipv6(args.prefer_ipv6)
        .allow_loopback(args.allow_loopback);
    if args.watch {
        watch(dns, "").await;
        return Ok(());
    }
    look(target, &dns).await
}

/// Looks once, and prints everything about the answer.
async fn look(target: &Target, dns: &Dns) -> Result<(), LookupError> {
    let started = Instant::now();
    let found = dns.resolve().await?;
    let took = started.elapsed();
    table(found.endpoints());
    println!("{} behind {target}", count(found.endpoints().len()));
    if let Some(name) = found.name() {
        println!("name          {name}.");
    }
    if let Some(ttl) = found.ttl() {
        println!("TTL           {} s", ttl.as_secs());
    }
    if let (Some(server), Some(transport)) = (found.name_server(), found.transport()) {
        println!("answered by   {server} over {transport}");
    }
    println!("took          {:.1} ms", took.as_secs_f64() * 1000.0);
    Ok(())
}

/// Prints every change of the set, as a balancer would see it, until interrupted.
async fn watch(discovery: impl Discovery, zone: &str) {
    let started = Instant::now();
    let mut changes = MembershipStream::new(discovery);
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return,
            Some(change) = changes.next() => {
                let at = started.elapsed().as_secs_f64();
                println!("{at:8.3} s  {}", count(change.endpoints.len()));
                for pod in &change.joined {
                    println!("            + {pod}{}", mark(pod, zone));
                }
                for pod in &change.left {
                    println!("            - {pod}");
                }
            }
        }
    }
}

/// Watches by the API server. Failures are logged; if a right is missing, with the Role that grants it.
async fn watch_api(args: &Args, target: &Target) -> Result<(), BoxError> {
    watch(slices(args, target)?, &args.zone).await;
    Ok(())
}

#[cfg(feature = "kube")]
fn slices(args: &Args, target: &Target) -> Result<impl Discovery + use<>, BoxError> {
    let slices = tower_headless::EndpointSlices::new(target.to_string().parse()?);
    let slices = slices.prefer_ipv6(args.prefer_ipv6);
    Ok(slices.allow_loopback(args.allow_loopback))
}

#[cfg(not(feature = "kube"))]
fn slices(_: &Args, _: &Target) -> Result<impl Discovery + use<>, BoxError> {
    let error = "--watch-api needs the feature kube: cargo run --features test-util,kube-latest …";
    Err::<tower_headless::StaticEndpoints, _>(error.into())
}

/// The mark of pods that are meant for clients in `zone`.
fn mark(pod: &Endpoint, zone: &str) -> &'static str {
    if pod.zone_hints().any(|hint| hint == zone) {
        "  near"
    } else {
        ""
    }
}

fn table(endpoints: &[Endpoint]) {
    let address = |endpoint: &Endpoint| endpoint.address().ip().to_string();
    let widest = endpoints.iter().map(|endpoint| address(endpoint).len());
    let width = widest.max().unwrap_or_default().max("address".len());
    println!("{:width$}  {:5}  hostname", "address", "port");
    for endpoint in endpoints {
        let (port, hostname) = (endpoint.address().port(), endpoint.hostname());
        println!(
            "{:width$}  {port:<5}  {}",
            address(endpoint),
            hostname.unwrap_or("-")
        );
    }
}

fn count(pods: usize) -> String {
    match pods {
        1 => "1 pod".to_owned(),
        pods => format!("{pods} pods"),
    }
}

// ---------------------------------------------------------------- a service of its own

const SERVICE: &str = "nginx-headless.default.svc.cluster.local.";

/// Shows a StatefulSet of three pods, as seen from a pod of its namespace. With `--watch` it is scaled 3 → 5 → 2.
async fn story(args: &Args) -> Result<(), LookupError> {
    let server = DnsServer::start().await;
    publish(&server, 3);
    let conf = std::env::temp_dir().join(format!("tower-headless-pods-{}", std::process::id()));
    let text =
        "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
    std::fs::write(&conf, text).expect("a writable folder for temporary files");
    let mut result = Ok(());
    for name in ["nginx-headless:80", "_http._tcp.nginx-headless.default"] {
        let target: Target = name.parse().expect("a target");
        let dns = Dns::new(target.clone())
            .name_servers([server.addr()])
            .resolv_conf(&conf);
        println!("$ pods {name}{}", if args.watch { " --watch" } else { "" });
        tokio::select! {
            shown = show(args, &target, dns) => result = result.and(shown),
            () = scale(&server), if args.watch => {}
        }
        println!();
    }
    // If this fails, the system cleans up.
    let _ = std::fs::remove_file(&conf);
    result
}

async fn scale(server: &DnsServer) {
    const PAUSE: Duration = Duration::from_secs(2);
    for pods in [5, 2, 3] {
        sleep(PAUSE).await;
        publish(server, pods);
    }
    sleep(PAUSE).await;
}

fn publish(server: &DnsServer, pods: u8) {
    let name = |pod| format!("web-{pod}.{SERVICE}");
    let address = |pod| Ipv4Addr::new(10, 244, 1, 10 + pod);
    let port = format!("_http._tcp.{SERVICE}");
    server.set_srv(&port, 1, (0..pods).map(|pod| Srv::new(80, name(pod))));
    for pod in 0..pods {
        server.set_a(&name(pod), 1, [address(pod)]);
    }
    server.set_a(SERVICE, 1, (0..pods).map(address));
}
