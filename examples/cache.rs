//! A fleet of caches: each request goes to the pod that has its key. While the fleet grows, shrinks and is restarted,
//! few keys move.
//!
//! ```text
//! cargo run --features http --example cache    # starts its own pods; needs nothing but loopback
//! ```
//!
//! To learn how the crate is used, read [`Fleet::client`] and [`Fleet::read_all`]. The rest are the pods. It fails if more keys
//! move than [`ConsistentHash`] promises.

use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use clap::Command;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tower_headless::{
    BoxError, ConsistentHash, Endpoint, StreamDiscovery,
    http::{Client, KeyFrom},
};

const KEYS: usize = 500;
const PODS: usize = 5;

/// The largest number of keys of a pod, relative to the mean, with this many pods and keys.
const LARGEST: f64 = 1.25;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    Command::new("cache")
        .about(
            "500 keys over five caches, by consistent hashing. The fleet grows, shrinks, is\n\
             restarted pod by pod: how many keys move. Fails if more do than promised.",
        )
        .override_usage("cargo run --features http --example cache")
        .get_matches();
    let mut fleet = Fleet::new()?;
    for number in 0..PODS {
        fleet.start(number).await?;
    }
    fleet.publish().await?;
    println!("{PODS} pods, and {KEYS} keys that none of them has");
    let homes = fleet.read_all().await?.homes;
    let again = fleet.read_all().await?;
    ensure(again.misses == 0, "each key is where it was")?;
    println!("  read again, all are found");

    println!("\none pod more: a part of the keys moves there, and no other key moves");
    fleet.start(PODS).await?;
    fleet.publish().await?;
    let grown = fleet.read_all().await?;
    let moved = moved(&homes, &grown.homes);
    report(&moved, &grown);
    let new = pod(PODS);
    ensure(
        moved.iter().all(|(_, to)| **to == new),
        "all to the new one",
    )?;
    let share = KEYS as f64 / (PODS + 1) as f64;
    ensure(!moved.is_empty(), "the new one has keys")?;
    ensure(
        moved.len() as f64 <= LARGEST * share,
        "no more than its share",
    )?;

    println!("\nit goes again: its keys are where they were, and still there");
    fleet.stop(PODS);
    fleet.publish().await?;
    let shrunk = fleet.read_all().await?;
    report(&self::moved(&grown.homes, &shrunk.homes), &shrunk);
    ensure(shrunk.homes == homes, "as before")?;
    ensure(shrunk.misses == 0, "nothing is fetched again")?;

    println!(
        "\nall are restarted, one after another, at other addresses and with nothing in them:"
    );
    for number in (0..PODS).rev() {
        let name = pod(number);
        fleet.stop(number);
        fleet.publish().await?;
        let without = fleet.read_all().await?;
        let moved = self::moved(&homes, &without.homes);
        println!("  while {name} is away, {} keys are elsewhere", moved.len());
        ensure(moved.iter().all(|(from, _)| **from == name), "only its own")?;
        let had = homes.values().filter(|home| **home == name).count();
        ensure(moved.len() == had, "and all of them")?;
        fleet.start(number).await?;
        fleet.publish().await?;
        let back = fleet.read_all().await?;
        ensure(back.homes == homes, "it has its keys again")?;
        ensure(back.misses == had, "and only they are fetched again")?;
    }
    println!("  then each key is at the pod of the same name as before: 0 of {KEYS} have moved");
    Ok(())
}

fn report(moved: &[(&String, &String)], read: &Read) {
    let (moved, misses) = (moved.len(), read.misses);
    println!("  {moved} of {KEYS} keys have moved, {misses} had to be fetched");
}

/// The keys that have moved: their old and their new pods.
fn moved<'a>(before: &'a Homes, now: &'a Homes) -> Vec<(&'a String, &'a String)> {
    let pairs = before.values().zip(now.values());
    pairs.filter(|(from, to)| from != to).collect()
}

fn ensure(is_so: bool, what: &str) -> Result<(), BoxError> {
    match is_so {
        true => Ok(()),
        false => Err(format!("not as promised: {what}").into()),
    }
}

/// The pod that answered for each key.
type Homes = BTreeMap<usize, String>;

/// The result of reading all keys.
struct Read {
    homes: Homes,
    /// How many keys were not in the cache that was asked.
    misses: usize,
}

/// The pods, and the client that reads from them.
struct Fleet {
    pods: BTreeMap<usize, (Endpoint, JoinHandle<()>)>,
    sets: mpsc::UnboundedSender<Vec<Endpoint>>,
    client: Client,
}

impl Fleet {
    fn new() -> Result<Self, BoxError> {
        let (sets, receiver) = mpsc::unbounded_channel();
        Ok(Self {
            pods: BTreeMap::new(),
            sets,
            client: Self::client(receiver)?,
        })
    }

    /// A client whose requests go by the second part of their path: `/users/42` to the pod of `42`.
    fn client(mut sets: mpsc::UnboundedReceiver<Vec<Endpoint>>) -> Result<Client, BoxError> {
        // In a cluster, use `Dns::srv("_http._tcp.cache.default")`, which has the pods' names.
        let discovery =
            StreamDiscovery::new(futures::stream::poll_fn(move |cx| sets.poll_recv(cx)));
        let client = Client::builder("http://cache.default".parse()?)
            .discovery(discovery)
            .policy(ConsistentHash::new())
            .key_from(KeyFrom::path_segment(1))
            .build()?;
        Ok(client)
    }

    /// Reads every key.
    async fn read_all(&self) -> Result<Read, BoxError> {
        let mut read = Read {
            homes: Homes::new(),
            misses: 0,
        };
        for key in 0..KEYS {
            let response = self.client.get(format!("/users/{key}")).await?;
            let home = response.endpoint().ok_or("no pod has answered")?;
            let home = home.stable_name().into_owned();
            let text = response.into_body().collect().await?.to_bytes();
            read.misses += usize::from(text == "miss");
            read.homes.insert(key, home);
        }
        Ok(read)
    }

    /// Starts a pod with an empty cache at a free port.
    async fn start(&mut self, number: usize) -> Result<(), BoxError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let endpoint = Endpoint::new(listener.local_addr()?).with_hostname(pod(number));
        let task = tokio::spawn(serve(listener));
        self.pods.insert(number, (endpoint, task));
        Ok(())
    }

    fn stop(&mut self, number: usize) {
        if let Some((_, task)) = self.pods.remove(&number) {
            task.abort();
        }
    }

    /// Tells the client which pods there are, and waits until it knows.
    async fn publish(&self) -> Result<(), BoxError> {
        let pods = self.pods.values();
        let set: Vec<_> = pods.map(|(endpoint, _)| endpoint.clone()).collect();
        let addresses =
            |set: &[Endpoint]| -> HashSet<_> { set.iter().map(Endpoint::address).collect() };
        let wanted = addresses(&set);
        let mut changes = self.client.watch();
        self.sets.send(set)?;
        while let Some(change) = changes.next().await {
            if addresses(&change.endpoints) == wanted {
                break;
            }
        }
        Ok(())
    }
}

fn pod(number: usize) -> String {
    format!("cache-{number}")
}

/// A pod. It fetches what it doesn't know from elsewhere, and remembers it.
async fn serve(listener: TcpListener) {
    let cache = Arc::new(Mutex::new(HashSet::new()));
    // The connections end with the pod.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let cache = cache.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = cache.insert(request.uri().path().to_owned());
            let text: &'static [u8] = if is_new { b"miss" } else { b"hit" };
            let response = Response::new(Full::new(Bytes::from_static(text)));
            async move { Ok::<_, hyper::Error>(response) }
        });
        // An error of a connection is its client's to report.
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        connections.spawn(async move { drop(connection.await) });
    }
}
