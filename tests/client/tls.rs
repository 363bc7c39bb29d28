//! HTTPS: the client dials the pod, but verifies the service.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tower_headless::{
    Endpoint, EndpointState,
    http::{Client, Protocol, Tls},
};

use crate::{
    kit::{self, get, pod, unresolved},
    support::within,
    tls_kit::{Authority, H1, H2, NAME, Set, builder, client, secure},
};

#[tokio::test]
async fn the_certificate_must_name_the_service_which_is_also_the_sni() {
    let authority = Authority::new();
    let (pod, _) = secure(authority.server(&[NAME], &[H2, H1], false)).await;
    let answer = get(&client([pod], authority.tls()), "/").await;
    assert_eq!(answer.expect("a response"), format!("{NAME} 0 HTTP/2.0"));
}

#[tokio::test]
async fn the_pod_chooses_the_protocol() {
    let authority = Authority::new();
    for (offered, spoken) in [
        (&[H1][..], "HTTP/1.1"),
        (&[H2], "HTTP/2.0"),
        (&[], "HTTP/1.1"),
        (&[H2, H1], "HTTP/2.0"),
    ] {
        let (pod, _) = secure(authority.server(&[NAME], offered, false)).await;
        let answer = get(&client([pod], authority.tls()), "/").await;
        assert_eq!(answer.expect("a response"), format!("{NAME} 0 {spoken}"));
    }
}

#[tokio::test]
async fn a_protocol_can_be_set() {
    let authority = Authority::new();
    for (protocol, spoken) in [(Protocol::Http1, "HTTP/1.1"), (Protocol::Http2, "HTTP/2.0")] {
        let (pod, _) = secure(authority.server(&[NAME], &[H2, H1], false)).await;
        let client = builder([pod], authority.tls()).protocol(protocol);
        let answer = get(&client.build().expect("a client"), "/").await;
        assert_eq!(answer.expect("a response"), format!("{NAME} 0 {spoken}"));
    }
}

#[tokio::test]
async fn a_pod_without_http2_is_passed_over_if_http2_is_required() {
    let authority = Authority::new();
    for offered in [&[H1][..], &[]] {
        let (old, seen) = secure(authority.server(&[NAME], offered, false)).await;
        let (new, _) = secure(authority.server(&[NAME], &[H2], false)).await;
        let client = builder([old, new], authority.tls()).protocol(Protocol::Http2);
        let client = client.build().expect("a client");
        for _ in 0..3 {
            get(&client, "/").await.expect("a response");
        }
        assert_eq!(seen.requests.get(), 0);
    }
}

/// A pod's address has gone to another service's pod.
#[tokio::test]
async fn a_pod_of_another_service_is_passed_over_and_gets_no_request() {
    let authority = Authority::new();
    let other = ["db.default.svc.cluster.local"];
    let (stranger, seen) = secure(authority.server(&other, &[H2, H1], false)).await;
    let (ours, _) = secure(authority.server(&[NAME], &[H2, H1], false)).await;
    let client = client([stranger, ours], authority.tls());
    for _ in 0..6 {
        get(&client, "/").await.expect("a response");
    }
    assert!(seen.connections.get() >= 1, "it was tried");
    assert_eq!(seen.requests.get(), 0);
    let states = client.endpoints().into_iter();
    let refused = states.filter(|pod| pod.state == EndpointState::Unreachable);
    let refused: Vec<_> = refused.map(|pod| pod.endpoint.address()).collect();
    assert_eq!(refused, [stranger]);
}

#[tokio::test]
async fn a_pod_that_is_not_trusted_gets_no_request() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (pod, seen) = secure(theirs.server(&[NAME], &[H2], false)).await;
    let client = builder([pod], ours.tls()).fail_fast().build();
    let client = client.expect("a client");
    kit::know(&client).await;
    let error = get(&client, "/").await;
    let error = error.expect_err("a stranger");
    assert!(error.is_unreachable() && error.is_unexecuted(), "{error:?}");
    assert!(
        format!("{error:?}").contains("InvalidCertificate"),
        "{error:?}"
    );
    assert_eq!(seen.requests.get(), 0);
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign(&["client.default.svc.cluster.local"]);
    let (pod, _) = secure(authority.server(&[NAME], &[H2], true)).await;
    let (chain, key) = (certificate.pem(), key.serialize_pem());
    let tls = authority
        .tls()
        .identity_pem(chain.as_bytes(), key.as_bytes());
    let answer = get(&client([pod], tls.expect("an identity")), "/").await;
    assert_eq!(answer.expect("a response"), format!("{NAME} 1 HTTP/2.0"));
}

#[tokio::test]
async fn an_invalid_identity_is_an_error() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign(&["client"]);
    let (chain, key) = (certificate.pem(), key.serialize_pem());
    assert!(Tls::new().identity_pem(b"", key.as_bytes()).is_err());
    assert!(Tls::new().identity_pem(chain.as_bytes(), b"").is_err());
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(Tls::new().trust_pem(broken).is_err());
}

#[tokio::test]
async fn with_pod_names_the_certificate_must_name_the_pod() {
    let authority = Authority::new();
    let web_0 = format!("web-0.{NAME}");
    let (first, _) = secure(authority.server(&[&web_0], &[H2], false)).await;
    let (second, seen) = secure(authority.server(&[NAME], &[H2], false)).await;
    let pods = vec![
        Endpoint::new(first).with_hostname("web-0"),
        Endpoint::new(second).with_hostname("web-1"),
    ];
    let client = unresolved("https").discovery(Set(Some(pods)));
    let client = client.tls(authority.tls().pod_names(true)).build();
    let client = client.expect("a client");
    for _ in 0..4 {
        let answer = get(&client, "/").await.expect("a response");
        assert_eq!(answer, format!("{web_0} 0 HTTP/2.0"));
    }
    assert_eq!(seen.requests.get(), 0);
}

#[tokio::test]
async fn with_pod_names_a_pod_without_a_hostname_is_verified_as_the_service() {
    let authority = Authority::new();
    let (pod, _) = secure(authority.server(&[NAME], &[H2], false)).await;
    let answer = get(&client([pod], authority.tls().pod_names(true)), "/").await;
    assert_eq!(answer.expect("a response"), format!("{NAME} 0 HTTP/2.0"));
}

/// A container is restarted in the same pod, with another configuration.
#[tokio::test]
async fn a_pod_may_come_back_with_another_protocol() {
    let authority = Authority::new();
    for protocols in [[H1, H2], [H2, H1]] {
        let configs = protocols.map(|it| Arc::new(authority.server(&[NAME], &[it], false)));
        let (address, current) = switching(configs.clone()).await;
        let client = client([address], authority.tls());
        let spoken = |answer: String| answer.rsplit(' ').next().map(str::to_owned);
        let first = get(&client, "/").await.expect("a response");
        current.send_replace(1);
        let second = within("the other protocol", async {
            loop {
                match get(&client, "/").await {
                    Ok(answer) if spoken(answer.clone()) != spoken(first.clone()) => return answer,
                    // The existing connection has closed, and the request may have been lost with it.
                    _ => tokio::task::yield_now().await,
                }
            }
        });
        second.await;
    }
}

/// A pod that uses the configuration it is told, and closes its connections when that changes.
async fn switching(
    configs: [Arc<ServerConfig>; 2],
) -> (SocketAddr, tokio::sync::watch::Sender<usize>) {
    let (sender, current) = tokio::sync::watch::channel(0);
    let serve = move |peer: kit::Peer<TcpStream>| {
        let mut current = current.clone();
        let config = configs[*current.borrow_and_update()].clone();
        async move {
            let accepted = TlsAcceptor::from(config).accept(peer.into_inner()).await;
            let Ok(stream) = accepted else { return };
            let service = service_fn(|request: Request<Incoming>| async move {
                let text = format!("- {:?}", request.version());
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
            });
            let server = auto::Builder::new(TokioExecutor::new());
            tokio::select! {
                _ = server.serve_connection(TokioIo::new(stream), service) => {}
                _ = current.changed() => {}
            }
        }
    };
    (pod(serve).await, sender)
}

#[tokio::test]
async fn a_service_with_tls_may_be_an_address() {
    for host in ["127.0.0.1", "[::1]"] {
        let uri = format!("https://{host}:8443").parse().expect("a URI");
        let built = Client::builder(uri).discovery(Set(Some(Vec::new())));
        built.tls(Tls::new()).build().expect("a client");
    }
}
