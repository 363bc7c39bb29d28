//! Certificate authorities, and pods that speak TLS.

// `pub` marks what other test files use; no other crate can reach it.
#![allow(unreachable_pub)]

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::{Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower_headless::{
    BoxError, Discovery, Endpoint,
    http::{Client, ClientBuilder, Tls},
};

use crate::kit::{self, Count, pod, unresolved};

pub const NAME: &str = "web.default.svc.cluster.local";

pub const H1: &[u8] = b"http/1.1";
pub const H2: &[u8] = b"h2";

/// A certificate authority, like a cluster's.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names, and its key.
    pub fn sign(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate, key)
    }

    /// A client's identity: its certificate and key in PEM, and the mark by which pods identify it.
    pub fn client(&self) -> (String, String, String) {
        let (certificate, key) = self.sign(&["client.default.svc.cluster.local"]);
        let mark = mark(certificate.der());
        (certificate.pem(), key.serialize_pem(), mark)
    }

    pub fn tls(&self) -> Tls {
        let tls = Tls::new().trust_pem(self.pem().as_bytes());
        tls.expect("certificates")
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        roots
    }

    /// A pod's TLS configuration.
    pub fn server(&self, names: &[&str], protocols: &[&[u8]], clients: bool) -> ServerConfig {
        let of: &[&Self] = if clients { &[self] } else { &[] };
        self.server_for(names, protocols, of)
    }

    /// A pod's TLS configuration for clients of these authorities; for any client if there are none.
    pub fn server_for(
        &self,
        names: &[&str],
        protocols: &[&[u8]],
        clients: &[&Self],
    ) -> ServerConfig {
        let (certificate, key) = self.sign(names);
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone());
        let config = config
            .with_safe_default_protocol_versions()
            .expect("versions");
        let config = if let Some(first) = clients.first() {
            let mut roots = first.roots();
            roots.extend(clients.iter().flat_map(|it| it.roots().roots));
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.expect("roots"))
        } else {
            config.with_no_client_auth()
        };
        let mut config = config.with_single_cert(chain, key).expect("a certificate");
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        config
    }
}

/// What a TLS pod has seen.
#[derive(Clone, Default)]
pub struct Seen {
    pub connections: Count,
    pub requests: Count,
}

/// The text about a connection in each response.
pub fn describe(stream: &TlsStream<TcpStream>) -> String {
    let connection = stream.get_ref().1;
    let sni = connection.server_name().unwrap_or("-");
    let clients = connection.peer_certificates().map_or(0, <[_]>::len);
    format!("{sni} {clients}")
}

/// A TLS pod that answers with the SNI, the number of the client's certificates and the HTTP version.
pub async fn secure(config: ServerConfig) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let counts = seen.clone();
    let serve = move |peer: kit::Peer<TcpStream>| {
        let (acceptor, seen) = (acceptor.clone(), counts.clone());
        async move {
            seen.connections.add();
            let Ok(stream) = acceptor.accept(peer.into_inner()).await else {
                return;
            };
            let told = describe(&stream);
            let service = service_fn(move |request: Request<Incoming>| {
                seen.requests.add();
                let text = format!("{told} {:?}", request.version());
                let response = match (request.uri().path(), request.version()) {
                    ("/grpc.health.v1.Health/Check", Version::HTTP_2) => serving(),
                    _ => Response::new(Full::from(text)),
                };
                async { Ok::<_, Infallible>(response) }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            // Ends with the connection, whatever the result.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    };
    (pod(serve).await, seen)
}

pub fn builder(pods: impl IntoIterator<Item = SocketAddr>, tls: Tls) -> ClientBuilder<Set> {
    let pods = pods.into_iter().map(Endpoint::new).collect();
    unresolved("https").discovery(Set(Some(pods))).tls(tls)
}

pub fn client(pods: impl IntoIterator<Item = SocketAddr>, tls: Tls) -> Client {
    builder(pods, tls).build().expect("a client")
}

/// A set of endpoints with hostnames.
pub struct Set(pub Option<Vec<Endpoint>>);

impl Discovery for Set {
    fn poll_next(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Vec<Endpoint>, BoxError>> {
        match self.0.take() {
            Some(set) => std::task::Poll::Ready(Ok(set)),
            None => std::task::Poll::Pending,
        }
    }
}

/// The answer `SERVING` of gRPC's health service.
fn serving() -> Response<Full<Bytes>> {
    let message: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
    let response = Response::builder().header("grpc-status", "0");
    response.body(Full::from(message)).expect("a response")
}

/// The mark of a client's certificate, as [`Rotating`] reports it.
pub fn mark(certificate: &[u8]) -> String {
    // Certificates end in their signatures, which all differ.
    let end = &certificate[certificate.len() - 8..];
    end.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A pod whose TLS configuration can be replaced, and which knows which clients' connections are open.
pub struct Rotating {
    pub address: SocketAddr,
    config: watch::Sender<Arc<ServerConfig>>,
    open: Arc<Mutex<HashMap<String, usize>>>,
    resumed: Count,
    handshakes: Arc<Mutex<Vec<String>>>,
}

impl Rotating {
    pub async fn start(config: ServerConfig) -> Self {
        let (sender, configs) = watch::channel(Arc::new(config));
        let open = Arc::new(Mutex::new(HashMap::new()));
        let handshakes = Arc::new(Mutex::new(Vec::new()));
        let resumed = Count::default();
        let counts = (open.clone(), handshakes.clone(), resumed.clone());
        let serve = move |peer: kit::Peer<TcpStream>| {
            let acceptor = TlsAcceptor::from(configs.borrow().clone());
            let (open, handshakes, resumed) = counts.clone();
            async move {
                let Ok(stream) = acceptor.accept(peer.into_inner()).await else {
                    return;
                };
                let tls = stream.get_ref().1;
                if tls.handshake_kind() == Some(HandshakeKind::Resumed) {
                    resumed.add();
                }
                let client = tls.peer_certificates().and_then(<[_]>::first);
                let client = client.map_or("-".to_owned(), |it| mark(it));
                handshakes.lock().expect("no panic").push(client.clone());
                let _open = Open::new(client.clone(), open);
                converse(stream, client).await;
            }
        };
        Self {
            address: pod(serve).await,
            config: sender,
            open,
            resumed,
            handshakes,
        }
    }

    /// Sets the configuration for handshakes from now on.
    pub fn set(&self, config: ServerConfig) {
        self.config.send_replace(Arc::new(config));
    }

    /// How many connections are open whose client has shown this certificate.
    pub fn open(&self, client: &str) -> usize {
        let open = self.open.lock().expect("no panic");
        open.get(client).copied().unwrap_or_default()
    }

    pub fn handshakes(&self) -> usize {
        self.handshakes.lock().expect("no panic").len()
    }

    /// How many handshakes used this client certificate.
    pub fn handshakes_of(&self, client: &str) -> usize {
        let all = self.handshakes.lock().expect("no panic");
        all.iter().filter(|it| *it == client).count()
    }

    /// How many handshakes resumed an earlier session.
    pub fn resumed(&self) -> usize {
        self.resumed.get()
    }
}

/// Answers with the client's mark. The answer to `/slow` ends when the request does.
async fn converse(stream: TlsStream<TcpStream>, client: String) {
    let service = service_fn(move |request: Request<Incoming>| {
        let client = Bytes::from(client.clone());
        async move {
            let body = match request.uri().path() {
                "/slow" => {
                    let after = request.into_body().collect().map(drop);
                    let end = stream::once(after).filter_map(|()| std::future::ready(None));
                    let first = stream::once(async { Ok(Frame::data(client)) });
                    StreamBody::new(first.chain(end)).boxed_unsync()
                }
                _ => {
                    // Otherwise a client that gets its answer early would keep the connection busy.
                    let _ = request.into_body().collect().await;
                    Full::new(client).boxed_unsync()
                }
            };
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    // Ends with the connection, whatever the result.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// Counts a connection as open while it lives.
struct Open(String, Arc<Mutex<HashMap<String, usize>>>);

impl Open {
    fn new(client: String, open: Arc<Mutex<HashMap<String, usize>>>) -> Self {
        *open
            .lock()
            .expect("no panic")
            .entry(client.clone())
            .or_default() += 1;
        Self(client, open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.1.lock().expect("no panic");
        *open.get_mut(&self.0).expect("it was opened") -= 1;
    }
}

/// A folder for a test's files, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tls-{}-{number}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file. This isn't atomic: a reader may see only a part.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
