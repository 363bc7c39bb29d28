//! Clients on a developer's machine: `localhost`, at whichever address answers, plain addresses, ports forwarded to
//! pods, and a local DNS server.

use std::collections::BTreeSet;

use futures::future::join;
use tokio::net::TcpListener;
use tower_headless::{StaticEndpoints, http::Client};

use crate::{
    kit::{OK, accept, get, listen},
    support::cluster::Cluster,
};

/// A client of `localhost` without a name server.
fn client(name: &str, port: u16) -> Client {
    let uri = format!("http://{name}:{port}").parse().expect("a URI");
    let builder = Client::builder(uri).dns(|dns| dns.resolv_conf("/nowhere/resolv.conf"));
    builder.build().expect("a client")
}

#[tokio::test]
async fn localhost_and_addresses_of_this_machine_work_without_dns() {
    for (address, name) in [
        ("127.0.0.1:0", "localhost"),
        ("[::1]:0", "localhost"),
        ("127.0.0.1:0", "web.localhost"),
        ("127.0.0.1:0", "127.0.0.1"),
        ("127.0.0.7:0", "127.0.0.7"),
        ("[::1]:0", "[::1]"),
    ] {
        let listener = TcpListener::bind(address).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let client = client(name, port);
        let serve = async {
            let mut peer = accept(&listener).await;
            peer.answer(OK).await
        };
        let (head, response) = join(serve, get(&client, "/")).await;
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&format!("host: {name}:{port}\r\n")), "{head}");
        assert_eq!(response.expect("a response"), "ok");
    }
}

/// `kubectl port-forward` gives each pod a port of this machine. The pods see the Service's name, as in the cluster.
#[tokio::test]
async fn forwarded_ports_work_as_pods() {
    let pods = [listen().await, listen().await];
    let forwarded = pods.each_ref().map(|(_, address)| *address);
    let uri = "http://web.default:80".parse().expect("a URI");
    let client = Client::builder(uri)
        .discovery(StaticEndpoints::new(forwarded))
        .build();
    let client = client.expect("a client");
    let mut served = BTreeSet::new();
    for _ in 0..2 {
        let serve = async {
            tokio::select! {
                mut peer = accept(&pods[0].0) => (0, peer.answer(OK).await),
                mut peer = accept(&pods[1].0) => (1, peer.answer(OK).await),
            }
        };
        let ((pod, head), response) = join(serve, get(&client, "/")).await;
        assert_eq!(response.expect("a response"), "ok");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("host: web.default\r\n"), "{head}");
        served.insert(pod);
    }
    assert_eq!(served.len(), pods.len());
}

#[tokio::test]
async fn a_local_dns_server_may_name_pods_on_this_machine() {
    let cluster = Cluster::start(3).await;
    let uri = format!("http://{}:{}", cluster.service(), cluster.port());
    let server = cluster.dns().addr();
    let client = Client::builder(uri.parse().expect("a URI"))
        .dns(|dns| dns.name_servers([server]).allow_loopback(true))
        .build()
        .expect("a client");
    let mut pods = BTreeSet::new();
    for _ in 0..6 {
        let response = client.get("/").await.expect("a response");
        pods.insert(response.body().endpoint().expect("a pod").address());
    }
    assert_eq!(pods, cluster.pods().iter().map(|pod| pod.addr()).collect());
}
