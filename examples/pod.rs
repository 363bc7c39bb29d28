//! An HTTP pod as a process of its own, to try a client against: HTTP/1.1 and HTTP/2 on one port.
//!
//! ```text
//! cargo run --example pod --features test-util -- 127.0.0.1:8080
//! cargo run --example pod --features test-util,tls-ring -- 127.0.0.1:8443 --tls cert.pem key.pem
//! ```
//!
//! SIGTERM stops it gracefully: it accepts no more connections, tells its clients so, and finishes the requests it has.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tower_headless::{
    BoxError,
    test_util::{Pod, PodBuilder},
};

const ABOUT: &str = "\
A pod for trying a client against, over HTTP/1.1 and HTTP/2: answers 200 and, as
x-pod, its address; /wait/MS after MS milliseconds, /stream/N/MS in N chunks, MS
milliseconds apart. SIGTERM and ^C let it finish the requests that it has.";

#[derive(Debug, Parser)]
#[command(
    name = "pod",
    about = ABOUT,
    override_usage = "cargo run --features test-util --example pod -- [OPTIONS] <ADDRESS>"
)]
struct Args {
    /// IP:port to listen on; port 0 takes a free one
    address: SocketAddr,

    /// Speak TLS with these, in PEM (feature tls-ring)
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"])]
    tls: Option<Vec<PathBuf>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), BoxError> {
    // Installed before the pod says that it listens, because SIGTERM may come right after that.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut builder = Pod::builder().address(args.address);
    if let Some(files) = &args.tls {
        builder = secure(builder, files)?;
    }
    let pod = builder.start().await?;
    println!("listening on {}", pod.addr());
    stopped(&mut terminate).await;
    pod.stop_gracefully().await;
    Ok(())
}

#[cfg(feature = "tls")]
fn secure(pod: PodBuilder, files: &[PathBuf]) -> Result<PodBuilder, BoxError> {
    let [certificate, key] = files else {
        unreachable!("clap takes two files or none");
    };
    pod.tls(&std::fs::read(certificate)?, &std::fs::read(key)?)
}

#[cfg(not(feature = "tls"))]
fn secure(_: PodBuilder, _: &[PathBuf]) -> Result<PodBuilder, BoxError> {
    Err("--tls needs the feature tls-ring or tls-aws-lc".into())
}

/// Returns on SIGTERM, which kubelet sends, and on ^C.
async fn stopped(terminate: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
