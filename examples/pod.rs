//! An HTTP pod as a process of its own, for trying a client against: HTTP/1.1 and HTTP/2 on one port.
//!
//! ```text
//! cargo run --example pod --features http -- 127.0.0.1:8080
//! cargo run --example pod --features http -- 127.0.0.1:8443 --tls cert.pem key.pem
//! ```
//!
//! SIGTERM stops it as a good pod stops: it accepts no more, tells its connections so, and finishes the requests it has.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{fs, io, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use support::{pod::Pod, tls::Identity};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Answers every request with 200 and the address it listens on (x-pod).
///
/// /wait/MS is answered MS milliseconds later; /stream/N/MS in N chunks, MS milliseconds apart.
#[derive(Debug, Parser)]
#[command(name = "pod")]
struct Args {
    /// IP:port to listen on; port 0 takes a free one
    address: SocketAddr,

    /// Speak TLS, with this certificate chain and this key (PEM)
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

async fn run(args: &Args) -> io::Result<()> {
    // Before the pod says that it is there: who has read that may send it.
    let mut terminate = signal(SignalKind::terminate())?;
    let identity = args.tls.as_deref().map(identity).transpose()?;
    let pod = Pod::start_with(args.address, identity.as_ref()).await?;
    println!("listening on {}", pod.addr());
    stopped(&mut terminate).await;
    pod.stop_gracefully().await;
    Ok(())
}

fn identity(files: &[PathBuf]) -> io::Result<Identity> {
    let [certificate, key] = files else {
        unreachable!("clap takes two files or none");
    };
    let certificate = fs::read_to_string(certificate)?;
    Ok(Identity::from_pem(certificate, fs::read_to_string(key)?))
}

/// Returns on SIGTERM, which is kubelet's way, and on ^C.
async fn stopped(terminate: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
