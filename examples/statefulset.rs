//! A key-value store of three pods, `kv-0` to `kv-2`. Its clients write to one pod by name, and read from any pod, or
//! from most pods if the value must not be stale. Meanwhile `kv-1` is rescheduled: it goes, and comes back at another
//! address.
//!
//! ```text
//! cargo run --features test-util --example statefulset    # starts its own pods and DNS; needs nothing but loopback
//! ```
//!
//! To learn how the crate is used, read [`write`], [`read`] and [`read_newest`], and [`Node::copy`] for a pod that
//! talks to its peers. The rest is the pods.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::Command;
use futures::future::select_ok;
use http::{Method, Request, Response, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::sleep;
use tower_headless::{
    BoxError,
    http::{Client, Response as PodResponse},
    test_util::Cluster,
};

const SERVICE: &str = "kv.default.svc.cluster.local";
const PODS: [&str; 3] = ["kv-0", "kv-1", "kv-2"];
const PRIMARY: &str = "kv-0";

/// Any two sets of this many pods have a pod in common. So a client that asks this many meets one that has the last
/// write.
const MOST: usize = PODS.len() / 2 + 1;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    Command::new("statefulset")
        .about(
            "A key-value store of three pods: writes to one by its name, reads from any pod,\n\
             and quorum reads, while one pod is rescheduled to another address.",
        )
        .override_usage("cargo run --features test-util --example statefulset")
        .get_matches();
    let (cluster, client) = start().await?;
    let done = Arc::new(AtomicBool::new(false));
    let user = tokio::spawn(write_and_read(client.clone(), done.clone()));
    let follower = tokio::spawn(read_of("kv-1", client.clone(), done.clone()));

    sleep(Duration::from_secs(1)).await;
    let address = || client.endpoint("kv-1").map(|pod| pod.address());
    let old = address().ok_or("kv-1 is there")?;
    println!("kv-1 is at {old}, and goes");
    cluster.remove_pod(1).await;
    sleep(Duration::from_secs(1)).await;
    cluster.add_pod().await;
    sleep(Duration::from_secs(1)).await;
    let new = address().ok_or("kv-1 is back")?;
    println!("kv-1 is at {new}, with its volume");
    assert_ne!(old, new);

    done.store(true, Ordering::Relaxed);
    let (writes, stale) = user.await??;
    let reads = follower.await??;
    println!("{writes} writes to {PRIMARY}, each read from most pods: none stale");
    println!("{writes} reads from any pod: {stale} stale");
    println!("{reads} reads from kv-1, wherever it was: none failed");
    Ok(())
}

// ---------------------------------------------------------------- the client

/// Writes to the primary and to no other pod. If it is away, the request waits. With `own_host` the pod can check that
/// the request is meant for it.
async fn write(client: &Client, key: &str, value: u64) -> Result<(), BoxError> {
    let primary = client.pod(PRIMARY).own_host();
    let request = primary.put(key).body(value.to_string());
    answer(request.await?).await?;
    Ok(())
}

/// Reads from any pod. This is the fastest way, but the answer may be older than the last write.
async fn read(client: &Client, key: &str) -> Result<u64, BoxError> {
    let value = answer(client.get(key).await?).await?;
    Ok(value.parse()?)
}

/// Reads from most of all pods. One of them has the last write, so the result isn't older.
async fn read_newest(client: &Client, key: &str) -> Result<u64, BoxError> {
    // A fixed quorum, not `majority`: a majority of the pods that are known just now may be too few.
    let answers = client.get(key).broadcast().quorum(MOST).await?;
    let mut newest = 0;
    for (_, response) in answers {
        newest = newest.max(answer(response).await?.parse()?);
    }
    Ok(newest)
}

async fn answer(response: impl Into<PodResponse>) -> Result<String, BoxError> {
    let response = response.into();
    let status = response.status();
    let text = response.text().await?;
    match status.is_success() {
        true => Ok(text),
        false => Err(format!("{status}: {text}").into()),
    }
}

/// Writes, and reads back. Returns how many times, and how many reads from any pod were stale.
async fn write_and_read(client: Client, done: Arc<AtomicBool>) -> Result<(u64, u64), BoxError> {
    let (mut written, mut stale) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        written += 1;
        write(&client, "/counter", written).await?;
        assert_eq!(read_newest(&client, "/counter").await?, written);
        stale += u64::from(read(&client, "/counter").await? < written);
    }
    Ok((written, stale))
}

/// Reads from one pod, which may be away for a while. Returns how many times.
async fn read_of(pod: &str, client: Client, done: Arc<AtomicBool>) -> Result<u64, BoxError> {
    let pod = client.pod(pod).own_host();
    let mut reads = 0;
    while !done.load(Ordering::Relaxed) {
        answer(pod.get("/counter").await?).await?;
        reads += 1;
    }
    Ok(reads)
}

// ---------------------------------------------------------------- the pods

struct Node {
    name: &'static str,
    /// Survives a rescheduling. Of two values, the greater is the newer.
    volume: Mutex<HashMap<String, u64>>,
    /// The client for its peers.
    client: Arc<OnceLock<Client>>,
}

impl Node {
    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match self.serve(request).await {
            Ok(answer) => answer,
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<(StatusCode, String), BoxError> {
        let (head, body) = request.into_parts();
        let host = head.headers.get(HOST).ok_or("no Host")?.to_str()?;
        let is_mine = host == format!("{}.{SERVICE}", self.name);
        let key = head.uri.path();
        match head.method {
            Method::GET if is_mine || host == SERVICE => {
                let value = self.entries().get(key).copied().unwrap_or_default();
                Ok((StatusCode::OK, value.to_string()))
            }
            Method::PUT if is_mine => {
                let body = body.collect().await?.to_bytes();
                self.put(key, std::str::from_utf8(&body)?.parse()?).await?;
                Ok((StatusCode::OK, String::new()))
            }
            _ => {
                let wrong = format!("{} {host}{key} at {}", head.method, self.name);
                Ok((StatusCode::MISDIRECTED_REQUEST, wrong))
            }
        }
    }

    /// Stores a value, and returns when most pods have it.
    async fn put(&self, key: &str, value: u64) -> Result<(), BoxError> {
        self.keep(key, value);
        if self.name == PRIMARY {
            // This pod and one of the two others are most of them. The last copy goes on in the background.
            let copies = PODS.into_iter().filter(|pod| *pod != PRIMARY);
            let copies = copies.map(|pod| Box::pin(self.copy(pod, key, value)));
            select_ok(copies).await?;
        }
        Ok(())
    }

    /// Copies a value to a peer. If the peer is away, the write waits for it, and finds it wherever it comes back.
    fn copy(&self, pod: &str, key: &str, value: u64) -> impl Future<Output = Result<(), BoxError>> {
        let pod = self.client.get().map(|it| it.pod(pod).own_host());
        let request = pod.map(|it| it.put(key).body(value.to_string()));
        let copied = tokio::spawn(async move {
            let request = request.ok_or("the pods know no peers yet")?;
            answer(request.idempotent().await?).await
        });
        async move { copied.await?.map(drop) }
    }

    fn keep(&self, key: &str, value: u64) {
        let mut entries = self.entries();
        let kept = entries.entry(key.to_owned()).or_default();
        *kept = value.max(*kept);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.volume.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a StatefulSet with its headless Service, and a client of it.
async fn start() -> Result<(Cluster, Client), BoxError> {
    let client = Arc::new(OnceLock::new());
    let node = |name| Node {
        name,
        volume: Mutex::default(),
        client: client.clone(),
    };
    let nodes: HashMap<_, _> = PODS.map(|name| (name, Arc::new(node(name)))).into();
    let cluster = Cluster::builder()
        .service(SERVICE)
        // With a named port, DNS has the pods' names.
        .port_name("http")
        .stateful_set("kv")
        .answer(move |pod, request| {
            let node = nodes.get(pod.as_str()).cloned();
            async move { Ok::<_, BoxError>(node.ok_or("no such pod")?.respond(request).await) }
        })
        .start()
        .await;
    // In a cluster: `Client::builder("http://_http._tcp.kv.default".parse()?)`.
    let built = cluster
        .client()
        .dns(|dns| dns.refresh_interval(Duration::from_millis(50)))
        .build()?;
    Ok((cluster, client.get_or_init(|| built).clone()))
}
