//! A client for work on one's own machine: `localhost`, at whichever address it answers.

use futures::future::join;
use tokio::net::TcpListener;
use tower_headless::http::Client;

use crate::kit::{OK, accept, get};

/// A client of `localhost` that asks nobody: there is no name server.
fn client(name: &str, port: u16) -> Client {
    let uri = format!("http://{name}:{port}").parse().expect("a URI");
    let builder = Client::builder(uri).dns(|dns| dns.resolv_conf("/nowhere/resolv.conf"));
    builder.build().expect("a client")
}

#[tokio::test]
async fn localhost_works_without_dns_at_either_address() {
    for (address, name) in [
        ("127.0.0.1:0", "localhost"),
        ("[::1]:0", "localhost"),
        ("127.0.0.1:0", "web.localhost"),
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
