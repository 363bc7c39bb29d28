//! The pods: ten listeners in their own process, so that their computing time isn't counted as the client's.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    thread,
};

use tokio::{net::TcpListener, runtime::Builder};

use super::pod;

pub(crate) const PODS: u8 = 10;

/// The argument that makes this program the pods.
const SERVE: &str = "--serve-pods";

/// The argument, of this program and of the pods, by which these never sleep.
const SPIN: &str = "--spin";

/// The client's handle of the pods' process.
pub(crate) struct Server {
    child: Child,
    pub(crate) pods: Vec<SocketAddr>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let this = env::current_exe().expect("the path of this program");
        let spin = env::args().find(|argument| argument == SPIN);
        let mut child = Command::new(this)
            .arg(SERVE)
            .args(spin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped above");
        let read = BufReader::new(stdout).read_line(&mut line);
        read.expect("the addresses of the pods");
        let pods = line.split_whitespace().map(|pod| pod.parse());
        let pods: Result<Vec<_>, _> = pods.collect();
        let pods = pods.expect("addresses");
        assert_eq!(pods.len(), usize::from(PODS), "the pods listen");
        Self { child, pods }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process ends when its input does.
        self.child.stdin = None;
        let _ = self.child.wait();
    }
}

/// Runs the pods, to the end of the process, if it was started for that.
pub(crate) fn serve_if_told() {
    if !env::args().any(|argument| argument == SERVE) {
        return;
    }
    thread::spawn(|| {
        // Ends with the parent, however that ends, because the system closes its pipes.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    if env::args().any(|argument| argument == SPIN) {
        runtime.spawn(spin());
    }
    runtime.block_on(serve());
}

/// Always has something to do, so that the runtime polls its sockets and never sleeps.
async fn spin() {
    loop {
        tokio::task::yield_now().await;
    }
}

async fn serve() {
    let mut addresses = Vec::new();
    for host in 1..=PODS {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), 0)).await;
        let listener = listener.expect("an address of the loopback network");
        addresses.push(listener.local_addr().expect("bound").to_string());
        tokio::spawn(pod::serve(listener));
    }
    println!("{}", addresses.join(" "));
    io::stdout().flush().expect("the parent listens");
    std::future::pending().await
}
