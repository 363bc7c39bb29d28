//! The pods of the throughput and memory suites: listeners on loopback addresses, on one thread of their own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

use crate::pod;

/// What the pods' threads are called, so that what they compute is told from what the clients do.
pub const THREAD: &str = "pods";

/// Pods that answer HTTP/1.1, HTTP/2, and gRPC's health checks, until they are dropped.
pub struct Pods {
    pub addresses: Vec<SocketAddr>,
    _stop: oneshot::Sender<()>,
}

impl Pods {
    pub fn start(len: u8) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                tell.send(listen(len).await).expect("the caller waits");
                let _ = stopped.await;
            });
        };
        let named = thread::Builder::new().name(THREAD.to_owned());
        named.spawn(serve).expect("a thread");
        Self {
            addresses: told.recv().expect("pods listen"),
            _stop: stop,
        }
    }
}

async fn listen(len: u8) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for host in 1..=len {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 1, host), 0)).await;
        let listener = listener.expect("an address of the loopback network");
        addresses.push(listener.local_addr().expect("bound"));
        tokio::spawn(pod::serve(listener));
    }
    addresses
}
