//! Each pod has a cache, and an entry must be dropped from all of them: one broadcast, and what to do about pods that
//! don't answer.
//!
//! ```text
//! cargo run --features http --example invalidate    # starts its own pods; needs nothing but loopback
//! ```
//!
//! To learn how the crate is used, read [`invalidate`] and [`read`]. The rest are the pods.

use std::{
    collections::HashMap,
    future::pending,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::Command;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower_headless::{BoxError, Endpoint, StaticEndpoints, http::Client};

const PODS: usize = 5;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    Command::new("invalidate")
        .about(
            "A broadcast drops an entry from the caches of five pods, of which one hangs:\n\
             which pods are stale after it, and after a second broadcast; and a majority.",
        )
        .override_usage("cargo run --features http --example invalidate")
        .get_matches();
    let origin = Arc::new(AtomicU32::new(1));
    let (mut caches, mut endpoints) = (Vec::new(), Vec::new());
    for number in 0..PODS {
        let cache = Arc::new(Cache::of(&origin));
        endpoints.push(
            start(cache.clone())
                .await?
                .with_hostname(format!("cache-{number}")),
        );
        caches.push(cache);
    }
    let client = Client::builder("http://cache.default".parse()?)
        .discovery(StaticEndpoints::from_iter(endpoints))
        .build()?;

    println!("user 42 is in version 1, and in every cache");
    assert_eq!(read(&client).await?, [1; PODS]);

    origin.store(2, Ordering::Relaxed);
    println!("\nthe origin has version 2; every pod is told, though cache-3 hangs");
    caches[3].hangs.store(true, Ordering::Relaxed);
    let stale = invalidate(&client).await?;
    assert_eq!(stale, ["cache-3"]);
    caches[3].hangs.store(false, Ordering::Relaxed);
    assert_eq!(read(&client).await?, [2, 2, 2, 1, 2]);

    println!("\nit hangs no more; every pod is told again, for that harms none");
    let stale = invalidate(&client).await?;
    assert!(stale.is_empty());
    assert_eq!(read(&client).await?, [2; PODS]);

    println!("\nand where most of the pods are enough:");
    caches[1].hangs.store(true, Ordering::Relaxed);
    let majority = client.get("/users/42").broadcast().majority().await?;
    let pods: Vec<_> = majority.iter().map(|(pod, _)| name(pod)).collect();
    println!(
        "  {} of {PODS} have answered, and cache-1 was not waited for",
        pods.len()
    );
    assert!(!pods.contains(&"cache-1".to_owned()));
    Ok(())
}

/// Drops an entry from every cache, and returns the pods that may still have it.
async fn invalidate(client: &Client) -> Result<Vec<String>, BoxError> {
    let purge = client.post("/purge").body("/users/42").broadcast();
    let mut answers = purge.endpoint_timeout(Duration::from_secs(1)).await?;
    let mut stale = Vec::new();
    while let Some((pod, answer)) = answers.next().await {
        match answer {
            Ok(response) if response.status().is_success() => {
                println!("  {}: purged", name(&pod));
                continue;
            }
            Ok(response) => println!("  {}: {}", name(&pod), response.status()),
            Err(error) => println!("  {}: {error}", name(&pod)),
        }
        stale.push(name(&pod));
    }
    Ok(stale)
}

/// Reads the entry from every pod, in the order of their names.
async fn read(client: &Client) -> Result<Vec<u32>, BoxError> {
    let read = client.get("/users/42").broadcast().all().await?;
    let mut versions = Vec::new();
    for (pod, response) in read.answered {
        let text = response.into_body().collect().await?.to_bytes();
        versions.push((name(&pod), std::str::from_utf8(&text)?.parse()?));
    }
    versions.sort_unstable();
    for (pod, version) in &versions {
        println!("  {pod}: version {version}");
    }
    Ok(versions.into_iter().map(|(_, version)| version).collect())
}

fn name(pod: &Endpoint) -> String {
    pod.hostname().unwrap_or_default().to_owned()
}

/// A pod that remembers the origin's value.
struct Cache {
    origin: Arc<AtomicU32>,
    entries: Mutex<HashMap<String, u32>>,
    hangs: AtomicBool,
}

impl Cache {
    fn of(origin: &Arc<AtomicU32>) -> Self {
        Self {
            origin: origin.clone(),
            entries: Mutex::default(),
            hangs: AtomicBool::new(false),
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        if self.hangs.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, text) = match (head.method, head.uri.path()) {
            (Method::POST, "/purge") => {
                entries.remove(&*String::from_utf8_lossy(&body));
                (StatusCode::OK, String::new())
            }
            (Method::GET, path) => {
                let ask = || self.origin.load(Ordering::Relaxed);
                let version = entries.entry(path.to_owned()).or_insert_with(ask);
                (StatusCode::OK, version.to_string())
            }
            _ => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        Ok(response)
    }
}

async fn start(cache: Arc<Cache>) -> Result<Endpoint, BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let cache = cache.clone();
            let answer = service_fn(move |request| {
                let cache = cache.clone();
                async move { cache.answer(request).await }
            });
            tokio::spawn(async move {
                // An error of a connection is its client's to report.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    });
    Ok(address.into())
}
