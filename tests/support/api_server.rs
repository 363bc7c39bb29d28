//! A Kubernetes API server that knows only EndpointSlices, over real sockets. It answers `list` and `watch` like the
//! real one, and can have faults.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{StreamExt, stream::unfold};
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{lock, tls::Identity, within};

/// What the server does instead of answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error with the real server's text.
    Status(u16),
    /// It accepts the request, and never answers.
    Hang,
}

/// What a request asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    List,
    /// A watch from this version.
    Watch(u64),
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub asked: Asked,
    pub path: String,
    pub query: String,
    pub authorization: Option<String>,
}

/// The server. Dropping it ends it.
pub struct ApiServer {
    address: SocketAddr,
    state: Arc<State>,
    running: Mutex<Option<AbortHandle>>,
    identity: Option<Identity>,
}

#[derive(Default)]
struct State {
    store: Mutex<Store>,
    received: watch::Sender<Vec<Received>>,
}

type Line = Result<Bytes, io::Error>;
type Body = BoxBody<Bytes, io::Error>;

#[derive(Default)]
struct Store {
    version: u64,
    slices: BTreeMap<String, Value>,
    /// The changes so far, each with its resulting version.
    history: Vec<(u64, Value)>,
    /// The history up to this version has been forgotten.
    forgotten: u64,
    /// Whether a version that is too old is refused by a status, not by an event.
    refuse_at_once: bool,
    watchers: Vec<mpsc::UnboundedSender<Line>>,
    list_fault: Option<Fault>,
    watch_fault: Option<Fault>,
    token: Option<String>,
    /// How many slices a list has at most; the rest come with further lists.
    page: Option<usize>,
}

impl ApiServer {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts a server that speaks TLS.
    pub async fn start_tls(identity: Identity) -> Self {
        Self::start_with(Some(identity)).await
    }

    async fn start_with(identity: Option<Identity>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            state: Arc::default(),
            running: Mutex::default(),
            identity,
        };
        server.serve(listener);
        server
    }

    fn serve(&self, listener: TcpListener) {
        let acceptor = self.identity.as_ref().map(Identity::acceptor);
        let acceptor = acceptor.transpose().expect("a certificate that fits");
        let state = self.state.clone();
        let task = tokio::spawn(async move {
            // The connections end with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, acceptor) = (state.clone(), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => connection::<TcpStream>(stream, state).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                connection(stream, state).await;
                            }
                        }
                    }
                });
            }
        });
        *lock(&self.running) = Some(task.abort_handle());
    }

    /// Stops the server and closes every connection. Its data stay.
    pub fn stop(&self) {
        if let Some(task) = lock(&self.running).take() {
            task.abort();
        }
        lock(&self.state.store).watchers.clear();
    }

    /// Starts it again, at the same port.
    pub async fn restart(&self) {
        let listener = TcpListener::bind(self.address).await.expect("its own port");
        self.serve(listener);
    }

    /// Starts it again, at the same port, with another certificate.
    pub async fn restart_as(&mut self, identity: Identity) {
        self.identity = Some(identity);
        self.restart().await;
    }

    pub fn url(&self) -> String {
        let scheme = if self.identity.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// Adds or changes a slice with this name, of this Service.
    pub fn slice(&self, service: &str, name: &str, mut slice: Value) {
        let mut store = lock(&self.state.store);
        store.version += 1;
        slice["apiVersion"] = json!("discovery.k8s.io/v1");
        slice["kind"] = json!("EndpointSlice");
        slice["metadata"] = json!({
            "name": name,
            "namespace": "default",
            "resourceVersion": store.version.to_string(),
            "labels": {"kubernetes.io/service-name": service},
        });
        let old = store.slices.insert(name.to_owned(), slice.clone());
        store.tell(if old.is_some() { "MODIFIED" } else { "ADDED" }, slice);
    }

    pub fn delete(&self, name: &str) {
        let mut store = lock(&self.state.store);
        store.version += 1;
        let mut slice = store.slices.remove(name).expect("such a slice");
        slice["metadata"]["resourceVersion"] = json!(store.version.to_string());
        store.tell("DELETED", slice);
    }

    /// Makes a change elsewhere, and sends watches a bookmark. Returns the new version.
    pub fn bookmark(&self) -> u64 {
        let mut store = lock(&self.state.store);
        store.version += 10;
        let version = store.version;
        let object = json!({
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"resourceVersion": version.to_string()},
        });
        store.send(&event("BOOKMARK", object));
        version
    }

    /// Sends watches a bookmark that lacks its version.
    pub fn bookmark_without_version(&self) {
        let object = json!({
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"resourceVersion": ""},
        });
        lock(&self.state.store).send(&event("BOOKMARK", object));
    }

    /// Lists at most this many slices at a time, though no limit is asked for.
    pub fn list_by(&self, page: usize) {
        lock(&self.state.store).page = Some(page);
    }

    /// Forgets the history: watches from earlier versions are refused, by a status at once or by an event.
    pub fn forget(&self, refuse_at_once: bool) {
        let mut store = lock(&self.state.store);
        store.forgotten = store.version;
        store.version += 1;
        store.history.clear();
        store.refuse_at_once = refuse_at_once;
    }

    /// Tells the running watches that their version is too old.
    pub fn expire(&self) {
        let mut store = lock(&self.state.store);
        store.send(&event("ERROR", status(410)));
        store.watchers.clear();
    }

    /// Ends the running watches, as the real server does when their time is over.
    pub fn end(&self) {
        lock(&self.state.store).watchers.clear();
    }

    /// Breaks the running watches' connections in the middle of a line.
    pub fn cut(&self) {
        let mut store = lock(&self.state.store);
        for watcher in store.watchers.drain(..) {
            let _ = watcher.send(Ok(Bytes::from_static(b"{\"type\":\"MODIFIED\",\"obj")));
            let _ = watcher.send(Err(io::ErrorKind::ConnectionAborted.into()));
        }
    }

    pub fn fault_lists(&self, fault: Option<Fault>) {
        lock(&self.state.store).list_fault = fault;
    }

    pub fn fault_watches(&self, fault: Option<Fault>) {
        lock(&self.state.store).watch_fault = fault;
    }

    /// Requires this token of all requests.
    pub fn require_token(&self, token: &str) {
        lock(&self.state.store).token = Some(token.to_owned());
    }

    /// How many watches are running.
    pub fn watches(&self) -> usize {
        let mut store = lock(&self.state.store);
        store.watchers.retain(|watcher| !watcher.is_closed());
        store.watchers.len()
    }

    pub fn received(&self) -> Vec<Received> {
        self.state.received.borrow().clone()
    }

    pub fn asked(&self) -> Vec<Asked> {
        let received = self.received().into_iter();
        received.map(|received| received.asked).collect()
    }

    /// Waits until `n` requests have come in all.
    pub async fn wait_for_requests(&self, n: usize) {
        let mut received = self.state.received.subscribe();
        let enough = received.wait_for(|received| received.len() >= n);
        let _ = within("a request", enough).await.expect("the server lives");
    }

    /// Waits until a watch is running.
    pub async fn wait_for_watch(&self) {
        let mut received = self.state.received.subscribe();
        within("a watch", async {
            while self.watches() == 0 {
                received.changed().await.expect("the server lives");
            }
        })
        .await;
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn log(&self, received: Received) {
        self.received.send_modify(|all| all.push(received));
    }
}

impl Store {
    fn tell(&mut self, kind: &str, slice: Value) {
        let event = event(kind, slice);
        self.send(&event);
        self.history.push((self.version, event));
    }

    fn send(&mut self, event: &Value) {
        let line = line(event);
        // Watches whose connections have gone don't count.
        self.watchers
            .retain(|watcher| watcher.send(Ok(line.clone())).is_ok());
    }

    fn list(&self, selector: &str, rest: &str) -> Value {
        let is_selected = |slice: &&Value| {
            let service = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str();
            service
                .is_some_and(|service| selector == format!("kubernetes.io/service-name={service}"))
        };
        let begin = rest.parse().unwrap_or(0);
        let items = self.slices.values().filter(is_selected).skip(begin);
        let mut items: Vec<_> = items.collect();
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if let Some(page) = self.page.filter(|page| *page < items.len()) {
            items.truncate(page);
            metadata["continue"] = json!((begin + page).to_string());
        }
        json!({
            "kind": "EndpointSliceList",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": metadata,
            "items": items,
        })
    }

    /// Streams the changes since this version, and then all further ones.
    fn watch(&mut self, since: u64) -> Result<mpsc::UnboundedReceiver<Line>, StatusCode> {
        let (sender, lines) = mpsc::unbounded_channel();
        if since < self.forgotten {
            if self.refuse_at_once {
                return Err(StatusCode::GONE);
            }
            let _ = sender.send(Ok(line(&event("ERROR", status(410)))));
            return Ok(lines);
        }
        for (_, event) in self.history.iter().filter(|(version, _)| *version > since) {
            let _ = sender.send(Ok(line(event)));
        }
        self.watchers.push(sender);
        Ok(lines)
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    state: Arc<State>,
) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&state, request).await) }
    });
    // Fails if the client goes away, which is fine.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(state: &State, request: Request<Incoming>) -> Response<Body> {
    let received = received(&request);
    let is_list = received.asked == Asked::List;
    let parameter = |name| parameter(&received.query, name).unwrap_or_default();
    let (token, fault) = {
        let store = lock(&state.store);
        let fault = if is_list {
            &store.list_fault
        } else {
            &store.watch_fault
        };
        (store.token.clone(), fault.clone())
    };
    let known = token.is_none_or(|token| received.authorization == Some(format!("Bearer {token}")));
    let response = match fault {
        _ if !known => refusal(401),
        Some(Fault::Status(code)) => refusal(code),
        Some(Fault::Hang) => {
            state.log(received);
            return std::future::pending().await;
        }
        None if is_list => whole(
            StatusCode::OK,
            &lock(&state.store).list(&parameter("labelSelector"), &parameter("continue")),
        ),
        None => {
            let since = parameter("resourceVersion").parse().unwrap_or_default();
            match lock(&state.store).watch(since) {
                Ok(lines) => stream(lines),
                Err(code) => refusal(code.as_u16()),
            }
        }
    };
    // Logged only once the watch is running, because tests wait for the log.
    state.log(received);
    response
}

fn received(request: &Request<Incoming>) -> Received {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let since = parameter(&query, "resourceVersion").and_then(|version| version.parse().ok());
    let is_watch = parameter(&query, "watch").is_some_and(|watch| watch == "true");
    let authorization = request.headers().get(AUTHORIZATION);
    Received {
        asked: match is_watch {
            true => Asked::Watch(since.unwrap_or_default()),
            false => Asked::List,
        },
        path: request.uri().path().to_owned(),
        authorization: authorization
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned),
        query,
    }
}

/// A parameter of the query, with the two characters that clients escape here decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(value.replace("%2F", "/").replace("%3D", "="))
}

fn refusal(code: u16) -> Response<Body> {
    let code_of = StatusCode::from_u16(code).expect("a status code");
    whole(code_of, &status(code))
}

/// The real server's answer with this code.
fn status(code: u16) -> Value {
    let (reason, message) = match code {
        401 => ("Unauthorized", "Unauthorized"),
        403 => (
            "Forbidden",
            "endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:apps:client\" cannot list resource \
             \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"default\"",
        ),
        410 => ("Expired", "too old resource version: 1 (2)"),
        _ => ("InternalError", "etcdserver: request timed out"),
    };
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    })
}

fn whole(code: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    response(code, body.boxed())
}

fn stream(lines: mpsc::UnboundedReceiver<Line>) -> Response<Body> {
    let lines = unfold(lines, |mut lines| async {
        lines.recv().await.map(|line| (line, lines))
    });
    let body = StreamBody::new(lines.map(|line| line.map(Frame::data)));
    response(StatusCode::OK, BodyExt::boxed(body))
}

fn response(code: StatusCode, body: Body) -> Response<Body> {
    let response = Response::builder().status(code);
    let response = response.header("content-type", "application/json");
    response.body(body).expect("a whole response")
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn line(event: &Value) -> Bytes {
    Bytes::from(format!("{event}\n"))
}
