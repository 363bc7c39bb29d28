//! The client's errors as gRPC statuses, and unchanged.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt;
use tower_headless::{
    Endpoint, StaticEndpoints,
    http::{Client, ClientBuilder, Error, Idempotent, Protocol, ResponseBody},
};

use crate::{
    SERVICE, ask, known,
    scripted::{Does, ScriptedPod, Then},
    serving,
    support::{PATIENCE, within},
};

async fn client(pods: &[SocketAddr]) -> Client {
    let client = builder(pods).build().expect("a client");
    known(&client, pods.len()).await;
    client
}

fn builder(pods: &[SocketAddr]) -> ClientBuilder<StaticEndpoints> {
    Client::builder(SERVICE.parse().expect("a URI"))
        .discovery(StaticEndpoints::new(pods.iter().copied()))
        .protocol(Protocol::Http2)
        .connect_timeout(PATIENCE)
        .fail_fast()
}

/// A call by hand, with an empty message.
async fn call(client: &Client, content_type: &str) -> Result<Response<ResponseBody>, Error> {
    let request = Request::post("/grpc.health.v1.Health/Check")
        .header("content-type", content_type)
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .expect("a request");
    within("an end", client.clone().oneshot(request)).await
}

#[tokio::test]
async fn a_call_that_fails_is_answered_with_its_status_and_the_error_beside_it() {
    let pod = ScriptedPod::start(Does::Die).await;
    let client = client(&[pod.address]).await;
    let response = call(&client, "application/grpc+proto").await;
    let response = response.expect("a status");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "14");
    let message = response.headers()["grpc-message"].to_str();
    let message = message.expect("text");
    assert!(message.contains("127.0.0.1"), "{message}");
    let error = response.extensions().get::<Arc<Error>>().cloned();
    let error = error.expect("the error itself");
    assert!(!error.is_unexecuted());
    let endpoint = response.extensions().get::<Endpoint>();
    assert_eq!(endpoint, error.endpoint());
    assert_eq!(
        response.body().endpoint().expect("a pod").address(),
        pod.address
    );
    let body = response.into_body().collect().await.expect("no error");
    assert!(body.trailers().is_none());
    assert!(body.to_bytes().is_empty());
}

#[tokio::test]
async fn a_status_of_a_call_that_reached_no_pod_names_no_pod() {
    let client = client(&[]).await;
    let response = call(&client, "application/grpc").await.expect("a status");
    assert_eq!(response.headers()["grpc-status"], "14");
    assert!(response.extensions().get::<Endpoint>().is_none());
    assert!(response.body().endpoint().is_none());
    let error = response.extensions().get::<Arc<Error>>();
    assert!(error.expect("the error itself").is_no_endpoints());
}

#[tokio::test]
async fn requests_that_are_not_grpc_calls_fail_with_the_error_itself() {
    let client = client(&[]).await;
    for content_type in ["application/json", "application/grpc-web+proto"] {
        let error = call(&client, content_type).await.expect_err("no pod");
        assert!(error.is_no_endpoints());
    }
}

#[tokio::test]
async fn with_grpc_status_off_calls_and_streams_fail_with_the_error_itself() {
    let pod = ScriptedPod::start(Does::Begin(Then::Die)).await;
    let none = builder(&[]).grpc_status(false).build().expect("a client");
    let error = call(&none, "application/grpc").await.expect_err("no pod");
    assert!(error.is_no_endpoints());

    let client = builder(&[pod.address]).grpc_status(false);
    let client = client.build().expect("a client");
    known(&client, 1).await;
    let response = call(&client, "application/grpc").await.expect("a head");
    let mut body = response.into_body();
    let first = within("a message", body.frame()).await;
    assert!(first.is_some_and(|frame| frame.is_ok()));
    pod.told.notify_one();
    let end = within("the end", body.frame()).await;
    let error = end.expect("an end").expect_err("it was cut off");
    assert_eq!(error.endpoint().map(Endpoint::address), Some(pod.address));
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_in_a_status() {
    let pod = ScriptedPod::start(Does::Begin(Then::Die)).await;
    let client = client(&[pod.address]).await;
    let response = call(&client, "application/grpc").await.expect("a head");
    let mut body = response.into_body();
    within("a message", body.frame())
        .await
        .expect("a message")
        .expect("no error");
    pod.told.notify_one();
    let end = within("the end", body.frame()).await;
    let trailers = end.expect("an end").expect("no error").into_trailers();
    let trailers = trailers.expect("trailers");
    assert_eq!(trailers["grpc-status"], "14");
    assert!(trailers.contains_key("grpc-message"));
    assert!(body.frame().await.is_none());
}

/// The caller's own library made the error, and knows its status.
#[tokio::test]
async fn a_stream_whose_caller_s_body_fails_ends_in_that_error_itself() {
    let pod = ScriptedPod::start(Does::Begin(Then::Hang)).await;
    let client = client(&[pod.address]).await;
    let (fail, told) = tokio::sync::oneshot::channel::<()>();
    let error = futures::stream::once(async {
        let _ = told.await;
        Err::<http_body::Frame<Bytes>, _>(tower_headless::BoxError::from("the disk is gone"))
    });
    let request = Request::post("/grpc.health.v1.Health/Watch")
        .header("content-type", "application/grpc")
        .body(http_body_util::StreamBody::new(error))
        .expect("a request");
    let response = within("a head", client.clone().oneshot(request)).await;
    let mut body = response.expect("a head").into_body();
    let first = within("a message", body.frame()).await;
    assert!(first.is_some_and(|frame| frame.is_ok()));
    fail.send(()).expect("somebody reads");
    let end = within("the end", body.frame()).await.expect("an end");
    let error = end.expect_err("no status");
    assert!(error.is_request_body() && !error.is_body(), "{error:?}");
}

#[tokio::test]
async fn a_broadcast_has_each_pods_error_itself() {
    let pod = ScriptedPod::start(Does::Die).await;
    let client = client(&[pod.address]).await;
    let request = Request::post("/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .expect("a request");
    let all = within("all ends", client.broadcast(request).all()).await;
    let all = all.expect("an end");
    assert_eq!(all.failed.len(), 1);
}

#[tokio::test]
async fn forgotten_http2_is_an_error_that_says_so_and_nothing_is_sent() {
    let pod = ScriptedPod::start(Does::Answer).await;
    for protocol in [Protocol::default(), Protocol::Http1] {
        let client = builder(&[pod.address]).protocol(protocol);
        let client = client.build().expect("a client");
        let status = HealthClient::new(client.clone()).check(ask("")).await;
        let status = status.expect_err("HTTP/1.1");
        assert_eq!(status.code(), Code::Internal);
        let setting = ".protocol(Protocol::Http2)";
        assert!(status.message().contains(setting), "{status}");

        let own = builder(&[pod.address])
            .protocol(protocol)
            .grpc_status(false);
        let own = own.build().expect("a client");
        let error = call(&own, "application/grpc").await.expect_err("HTTP/1.1");
        assert!(error.is_request() && error.is_unexecuted(), "{error}");
    }
    assert_eq!(pod.seen.connections.load(Relaxed), 0);
}

#[tokio::test]
async fn an_idempotent_call_is_retried_before_its_error_becomes_a_status() {
    let pods = [
        ScriptedPod::start(Does::Die).await,
        ScriptedPod::start(Does::Answer).await,
    ];
    let client = client(&[pods[0].address, pods[1].address]).await;
    let mut health = HealthClient::new(client);
    // One of the two calls goes to the pod that dies first.
    for _ in 0..2 {
        let mut call = tonic::Request::new(ask(""));
        call.extensions_mut().insert(Idempotent::default());
        let answer = within("an answer", health.check(call)).await;
        assert_eq!(answer.expect("the other pod's").into_inner(), serving());
    }
    assert_eq!(pods[0].seen.heads.lock().expect("nobody panics").len(), 1);
}

/// Over TLS the pod chooses the protocol.
#[cfg(feature = "tls-ring")]
#[tokio::test]
async fn a_pod_that_chooses_http1_gets_no_call() {
    use crate::support::tls::Identity;
    use tokio::{io::AsyncReadExt, net::TcpListener};
    use tower_headless::http::Tls;

    let identity = Identity::new("health.default.svc.cluster.local");
    let offered = identity.acceptor().expect("a certificate");
    let mut config = rustls::ServerConfig::clone(offered.config());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let read = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut read = Vec::new();
        let mut stream = acceptor.accept(stream).await?;
        let _ = stream.read_to_end(&mut read).await;
        Ok::<_, std::io::Error>(read)
    });
    let tls = Tls::new().trust_pem(identity.certificate_pem().as_bytes());
    let client = Client::builder(SERVICE.replace("http:", "https:").parse().expect("a URI"))
        .discovery(StaticEndpoints::new([address]))
        .tls(tls.expect("a certificate"))
        .connect_timeout(PATIENCE)
        .build()
        .expect("a client");
    let origin = SERVICE.replace("http:", "https:").parse().expect("a URI");
    let mut health = HealthClient::with_origin(client.clone(), origin);
    let status = within("a status", health.check(ask(""))).await;
    let status = status.expect_err("HTTP/1.1");
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("gRPC needs HTTP/2"), "{status}");
    drop((health, client));
    let read = within("the connection's end", read)
        .await
        .expect("no panic");
    assert!(read.expect("a handshake").is_empty());
}
