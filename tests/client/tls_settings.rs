//! Configurations and resolvers of an application's own; names that become known late; checks.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    ClientConfig, SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use tokio::sync::mpsc;
use tower_headless::{
    BoxError, Discovery, Endpoint, HealthCheck,
    http::{Protocol, Tls},
};

use crate::{
    kit::{get, unresolved},
    tls_kit::{Authority, H1, H2, NAME, Rotating, builder, secure},
};

fn config(authority: &Authority, protocols: &[&[u8]]) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(authority.roots());
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
    config
}

fn own(authority: &Authority, protocols: &[&[u8]]) -> Tls {
    Tls::new().config(Arc::new(config(authority, protocols)))
}

#[tokio::test]
async fn a_custom_configuration_offers_the_client_s_protocols() {
    let authority = Authority::new();
    let (pod, _) = secure(authority.server(&[NAME], &[H2, H1], false)).await;
    for (named, protocol, spoken) in [
        (&[][..], Protocol::Negotiated, "HTTP/2.0"),
        (&[], Protocol::Http1, "HTTP/1.1"),
        (&[], Protocol::Http2, "HTTP/2.0"),
        (&[H1], Protocol::Negotiated, "HTTP/1.1"),
        (&[H1, H2], Protocol::Http1, "HTTP/1.1"),
        (&[H1, H2], Protocol::Http2, "HTTP/2.0"),
        (&[b"acme-tls/1", H2], Protocol::Negotiated, "HTTP/2.0"),
    ] {
        let client = builder([pod], own(&authority, named)).protocol(protocol);
        let client = client.build().expect("a client");
        let answer = get(&client, "/").await.expect("a response");
        assert_eq!(answer, format!("{NAME} 0 {spoken}"), "{named:?}");
    }
}

#[tokio::test]
async fn a_configuration_that_offers_another_protocol_is_an_error() {
    let authority = Authority::new();
    for (named, protocol, told) in [
        (
            H1,
            Protocol::Http2,
            "offers http/1.1 (ALPN), and the client's protocol asks for h2",
        ),
        (
            H2,
            Protocol::Http1,
            "offers h2 (ALPN), and the client's protocol asks for http/1.1",
        ),
        (
            b"spdy/3",
            Protocol::Negotiated,
            "offers spdy/3 (ALPN), and the client's protocol asks for h2, http/1.1",
        ),
    ] {
        let client = builder([], own(&authority, &[named])).protocol(protocol);
        let error = client.build().expect_err("another protocol").to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_configuration_beside_other_settings_of_trust_or_identity_is_an_error() {
    let authority = Authority::new();
    let (chain, key, _) = authority.client();
    let identity = Tls::new().identity_pem(chain.as_bytes(), key.as_bytes());
    for tls in [authority.tls(), identity.expect("an identity")] {
        let tls = tls.config(Arc::new(config(&authority, &[])));
        let error = builder([], tls).build().expect_err("both").to_string();
        assert!(
            error.contains("leave out the other settings of both"),
            "{error}"
        );
    }
}

/// Identities from an API.
#[derive(Debug)]
struct Agent(Mutex<Arc<CertifiedKey>>);

impl Agent {
    fn set(&self, chain: &str, key: &str) {
        *self.0.lock().expect("no panic") = certified(chain, key);
    }

    /// Both ways to give it to a client.
    fn tls(self: &Arc<Self>, authority: &Authority) -> [Tls; 2] {
        let mut behind = config(authority, &[]);
        behind.client_auth_cert_resolver = self.clone();
        [
            authority.tls().client_cert_resolver(self.clone()),
            Tls::new().config(Arc::new(behind)),
        ]
    }
}

fn certified(chain: &str, key: &str) -> Arc<CertifiedKey> {
    let chain = CertificateDer::from_pem_slice(chain.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let identity = CertifiedKey::from_der(vec![chain], key, &default_provider());
    Arc::new(identity.expect("a pair"))
}

impl ResolvesClientCert for Agent {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.lock().expect("no panic").clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_resolver_s_new_identity_is_used_next_and_no_session_is_resumed() {
    let authority = Authority::new();
    let (chain, key, first) = authority.client();
    let agent = Arc::new(Agent(Mutex::new(certified(&chain, &key))));
    for tls in agent.tls(&authority) {
        agent.set(&chain, &key);
        let pod = Rotating::start(authority.server(&[NAME], &[H1], true)).await;
        // No idle connections, so each request makes its own.
        let client = builder([pod.address], tls).max_idle(0);
        let client = client.protocol(Protocol::Http1).build();
        let client = client.expect("a client");
        for _ in 0..2 {
            assert_eq!(get(&client, "/").await.expect("a response"), first);
        }
        let (chain, key, second) = authority.client();
        agent.set(&chain, &key);
        assert_eq!(get(&client, "/").await.expect("a response"), second);
        assert_eq!((pod.handshakes(), pod.resumed()), (3, 0));
    }
}

#[tokio::test]
async fn reload_retires_connections_of_resolvers_and_custom_configurations() {
    let authority = Authority::new();
    let (chain, key, first) = authority.client();
    let agent = Arc::new(Agent(Mutex::new(certified(&chain, &key))));
    for tls in agent.tls(&authority) {
        agent.set(&chain, &key);
        let pod = Rotating::start(authority.server(&[NAME], &[H2], true)).await;
        let client = builder([pod.address], tls.retire_within(Duration::ZERO));
        let client = client.build().expect("a client");
        assert_eq!(get(&client, "/").await.expect("a response"), first);
        let (chain, key, second) = authority.client();
        agent.set(&chain, &key);
        assert_eq!(get(&client, "/").await.expect("a response"), first);
        let handle = client.tls_handle().expect("TLS");
        handle.reload().expect("nothing to read");
        assert_eq!(get(&client, "/").await.expect("a response"), second);
        assert_eq!(pod.handshakes(), 2);
    }
}

#[tokio::test]
async fn a_grpc_check_goes_over_http2_whatever_the_client_speaks() {
    let authority = Authority::new();
    let (pod, _) = secure(authority.server(&[NAME], &[H2, H1], false)).await;
    for tls in [authority.tls(), own(&authority, &[H1])] {
        let check = HealthCheck::grpc("").require_initial_pass(true);
        let client = builder([pod], tls).protocol(Protocol::Http1);
        let client = client.health_check(check).build().expect("a client");
        let answer = get(&client, "/").await.expect("the check passes");
        assert_eq!(answer, format!("{NAME} 0 HTTP/1.1"));
    }
}

/// Discovery with sets of endpoints that a test sends.
struct Answers(mpsc::UnboundedReceiver<Vec<Endpoint>>);

impl Discovery for Answers {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        match self.0.poll_recv(cx) {
            Poll::Ready(Some(set)) => Poll::Ready(Ok(set)),
            _ => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn a_pod_s_name_learnt_later_is_used_in_the_next_handshake() {
    let authority = Authority::new();
    let web_0 = format!("web-0.{NAME}");
    let names = [NAME, &web_0];
    let (pod, _) = secure(authority.server(&names, &[H1], false)).await;
    let (sets, answers) = mpsc::unbounded_channel();
    let client = unresolved("https").discovery(Answers(answers)).max_idle(0);
    let client = client.tls(authority.tls().pod_names(true)).build();
    let client = client.expect("a client");
    sets.send(vec![Endpoint::new(pod)]).expect("a reader");
    let answer = get(&client, "/").await.expect("a response");
    assert_eq!(answer, format!("{NAME} 0 HTTP/1.1"));
    sets.send(vec![Endpoint::new(pod).with_hostname("web-0")])
        .expect("a reader");
    let named = || client.endpoints()[0].endpoint.hostname().is_some();
    crate::kit::wait_until("the name", named).await;
    let answer = get(&client, "/").await.expect("a response");
    assert_eq!(answer, format!("{web_0} 0 HTTP/1.1"));
    // DNS may forget the name again, but the client doesn't.
    sets.send(vec![
        Endpoint::new(pod),
        Endpoint::new(([127, 0, 0, 9], 9).into()),
    ])
    .expect("a reader");
    crate::kit::wait_until("the set", || client.endpoints().len() == 2).await;
    let answer = get(&client, "/").await.expect("a response");
    assert_eq!(answer, format!("{web_0} 0 HTTP/1.1"));
}

/// A pod whose certificate names the pod and not the service: it is accepted as soon as its name is known.
#[tokio::test]
async fn a_pod_refused_without_its_name_is_accepted_once_the_name_is_known() {
    let authority = Authority::new();
    let web_0 = format!("web-0.{NAME}");
    let (pod, _) = secure(authority.server(&[&web_0], &[H1], false)).await;
    let (sets, answers) = mpsc::unbounded_channel();
    let client = unresolved("https").discovery(Answers(answers));
    let client = client.tls(authority.tls().pod_names(true)).build();
    let client = client.expect("a client");
    sets.send(vec![Endpoint::new(pod)]).expect("a reader");
    let answer = async {
        let unreachable = || {
            let state = client.endpoints().first().map(|it| it.state);
            state == Some(tower_headless::EndpointState::Unreachable)
        };
        crate::kit::wait_until("a refusal", unreachable).await;
        let named = Endpoint::new(pod).with_hostname("web-0");
        sets.send(vec![named]).expect("a reader");
    };
    let (answer, ()) = tokio::join!(get(&client, "/"), answer);
    assert_eq!(answer.expect("a response"), format!("{web_0} 0 HTTP/1.1"));
}
