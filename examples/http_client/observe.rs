//! With `--observe`, serves the client's metrics for Prometheus, and its page.

use tower_headless::http::Client;

use crate::{args::Args, report::Report};

/// Serves `/metrics`, and the page everywhere else, until the runtime ends.
#[cfg(all(feature = "inspect", feature = "metrics"))]
pub(crate) async fn serve(client: &Client, args: &Args, report: &Report) {
    use std::{sync::Arc, time::Duration};

    use axum::{Router, routing::get};
    use metrics_exporter_prometheus::PrometheusBuilder;
    use metrics_util::MetricKindMask;
    use tokio::net::TcpListener;
    use tower_headless::{Balancers, inspect::Page, metrics::Metrics, metrics::Recorder};

    let Some(address) = args.observe else { return };
    let balancers = Balancers::new();
    balancers.add(client);
    // The counters are read each time that Prometheus asks. The idle timeout ends the series of pods that have gone.
    let prometheus = PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::ALL, Some(Duration::from_secs(600)))
        .install_recorder();
    let prometheus = prometheus.unwrap_or_else(|error| args.reject(error));
    let recorder = Arc::new(Recorder::new(Metrics::new(&balancers).per_endpoint(true)));
    let metrics = get(move || async move {
        recorder.record();
        prometheus.render()
    });
    let app = Router::new()
        .route("/metrics", metrics)
        .fallback_service(Page::new(balancers));
    let listener = TcpListener::bind(address).await;
    let listener = listener.unwrap_or_else(|error| args.reject(error));
    let address = listener.local_addr().unwrap_or(address);
    report.note(
        "client",
        &format!("observe http://{address}/ or {address}/metrics"),
    );
    tokio::spawn(async move { axum::serve(listener, app).await });
}

#[cfg(not(all(feature = "inspect", feature = "metrics")))]
pub(crate) async fn serve(_: &Client, args: &Args, _: &Report) {
    if args.observe.is_some() {
        args.reject(
            "--observe needs two more features: cargo run --features test-util,inspect,metrics …",
        );
    }
}
