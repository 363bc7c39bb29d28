//! Pods that refuse the client's certificate. In TLS 1.3 they do so after the client's handshake has ended, when its
//! request may already be on its way.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    crypto::cipher::{OutboundChunks, OutboundPlainMessage},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::ServiceExt;
use tower_headless::{
    EndpointState,
    http::{Client, Error, Protocol},
};

use crate::{
    kit::{self, Count, OK, stream_of},
    support::within,
    tls_kit::{Authority, H1, NAME, Seen, builder, secure},
};

/// Four pods, the first `strict` of which require a client certificate.
async fn pods(authority: &Authority, strict: usize) -> Vec<(SocketAddr, Seen)> {
    let mut pods = Vec::new();
    for number in 0..4 {
        let config = authority.server(&[NAME], &[H1], number < strict);
        pods.push(secure(config).await);
    }
    pods
}

fn http1(authority: &Authority, pods: impl IntoIterator<Item = SocketAddr>) -> Client {
    let builder = builder(pods, authority.tls()).protocol(Protocol::Http1);
    let builder = builder.ready_timeout(Duration::from_millis(200));
    builder.build().expect("a client")
}

async fn post(client: &Client, body: &'static str) -> Result<String, Error> {
    let mut request = Request::new(stream_of(&[body]));
    *request.method_mut() = Method::POST;
    let response = within("a response", client.clone().oneshot(request)).await?;
    Ok(kit::text(response).await)
}

#[tokio::test]
async fn posts_go_elsewhere_when_a_pod_refuses_the_client_after_the_handshake() {
    let authority = Authority::new();
    let pods = pods(&authority, 1).await;
    let client = http1(&authority, pods.iter().map(|(address, _)| *address));
    for number in 0..60 {
        let answer = post(&client, "order").await;
        assert!(answer.is_ok(), "POST {number}: {answer:?}");
    }
    let (strict, seen) = &pods[0];
    assert!(seen.connections.get() >= 1, "it was tried");
    assert_eq!(seen.requests.get(), 0);
    let mut states = client.endpoints().into_iter();
    let strict = states.find(|pod| pod.endpoint.address() == *strict);
    assert_eq!(strict.expect("a pod").state, EndpointState::Unreachable);
}

#[tokio::test]
async fn where_all_pods_refuse_the_client_every_post_is_known_to_be_unexecuted() {
    let authority = Authority::new();
    let pods = pods(&authority, 4).await;
    let client = http1(&authority, pods.iter().map(|(address, _)| *address));
    for number in 0..20 {
        let error = post(&client, "order").await.expect_err("all refuse");
        assert!(error.is_unexecuted(), "POST {number}: {error:?}");
        let text = format!("{error:?}");
        assert!(
            text.contains("CertificateRequired"),
            "POST {number}: {text}"
        );
    }
}

/// What a pod does after it has accepted the connection and read a request.
#[derive(Clone, Copy)]
enum End {
    /// Sends this alert, after this many answers.
    Alert(AlertDescription, usize),
    /// Sends this alert, right after the beginning of an answer.
    Amid(AlertDescription),
    Reset,
}

async fn ending(authority: &Authority, end: End) -> (SocketAddr, Count) {
    let mut config = authority.server(&[NAME], &[H1], false);
    config.enable_secret_extraction = true;
    let config = Arc::new(config);
    let requests = Count::default();
    let seen = requests.clone();
    let serve = move |peer: kit::Peer<TcpStream>| {
        let (acceptor, seen) = (TlsAcceptor::from(config.clone()), seen.clone());
        async move {
            let accepted = acceptor.accept(peer.into_inner()).await;
            let mut peer = kit::Peer::new(accepted.expect("a client"));
            let answers = if let End::Alert(_, answers) = end {
                answers
            } else {
                0
            };
            for _ in 0..answers {
                peer.until("order\r\n0\r\n\r\n").await;
                seen.add();
                peer.write(OK).await;
            }
            peer.until("order\r\n0\r\n\r\n").await;
            seen.add();
            match end {
                End::Alert(alert, _) => send(peer.into_inner(), b"", alert).await,
                End::Amid(alert) => send(peer.into_inner(), b"HTTP/1.1 2", alert).await,
                End::Reset => {
                    let (tcp, _) = peer.into_inner().into_inner();
                    tcp.set_zero_linger().expect("an option");
                }
            }
        }
    };
    (kit::pod(serve).await, requests)
}

/// Sends data and an alert at once. rustls can't send a chosen alert, so the records are made here.
async fn send(stream: TlsStream<TcpStream>, data: &[u8], alert: AlertDescription) {
    let (mut tcp, tls) = stream.into_inner();
    let suite = tls
        .negotiated_cipher_suite()
        .and_then(|suite| suite.tls13());
    let (first, secrets) = tls.dangerous_extract_secrets().expect("secrets").tx;
    let (key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
        _ => unreachable!("no other suite is on offer"),
    };
    let mut encrypter = suite.expect("TLS 1.3").aead_alg.encrypter(key, iv);
    let fatal = [2, alert.into()];
    let mut bytes = Vec::new();
    for (number, (typ, payload)) in [
        (ContentType::ApplicationData, data),
        (ContentType::Alert, &fatal),
    ]
    .into_iter()
    .filter(|(_, payload)| !payload.is_empty())
    .enumerate()
    {
        let plain = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_3,
            payload: OutboundChunks::Single(payload),
        };
        let record = encrypter.encrypt(plain, first + number as u64);
        bytes.extend(record.expect("a record").encode());
    }
    let _ = tcp.write_all(&bytes).await;
    // Waits for the client to close, so that no reset discards anything.
    let _ = tcp.read(&mut [0; 64]).await;
}

/// The result of a POST to such a pod, beside another pod that answers everything.
async fn fate(end: End) -> Result<String, Error> {
    let authority = Authority::new();
    let (bad, had) = ending(&authority, end).await;
    let (good, _) = secure(authority.server(&[NAME], &[H1], false)).await;
    let client = http1(&authority, [bad, good]);
    let wanted = 1 + if let End::Alert(_, answers) = end {
        answers
    } else {
        0
    };
    for _ in 0..10 {
        let answer = post(&client, "order").await;
        if had.get() == wanted {
            return answer;
        }
        answer.expect("an answer");
    }
    panic!("the pod has had {} requests of {wanted}", had.get());
}

fn is_lost(answer: &Result<String, Error>) -> bool {
    answer.as_ref().is_err_and(|error| !error.is_unexecuted())
}

#[tokio::test]
async fn an_alert_of_the_handshake_proves_that_nothing_was_executed() {
    for alert in [
        AlertDescription::CertificateRequired,
        AlertDescription::BadCertificate,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateUnknown,
        AlertDescription::UnknownCA,
        AlertDescription::AccessDenied,
        AlertDescription::DecryptError,
    ] {
        let answer = fate(End::Alert(alert, 0)).await;
        assert!(answer.is_ok(), "{alert:?}: {answer:?}");
    }
}

#[tokio::test]
async fn after_any_other_alert_the_request_may_have_been_executed() {
    for alert in [
        AlertDescription::InternalError,
        AlertDescription::UnexpectedMessage,
        AlertDescription::BadRecordMac,
        AlertDescription::UserCanceled,
    ] {
        let answer = fate(End::Alert(alert, 0)).await;
        assert!(is_lost(&answer), "{alert:?}: {answer:?}");
    }
}

#[tokio::test]
async fn after_a_reset_the_request_may_have_been_executed() {
    let answer = fate(End::Reset).await;
    assert!(is_lost(&answer), "{answer:?}");
}

#[tokio::test]
async fn after_an_answer_and_an_alert_the_request_may_have_been_executed() {
    let answer = fate(End::Alert(AlertDescription::CertificateExpired, 1)).await;
    assert!(is_lost(&answer), "{answer:?}");
    let answer = fate(End::Amid(AlertDescription::CertificateExpired)).await;
    assert!(is_lost(&answer), "{answer:?}");
}
