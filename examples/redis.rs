//! Replicas of redis: reads to any, writes to the primary by name, over the `redis` crate. `-h` says what it shows.
//!
//! It is redis rather than memcached because redis' pods have the same data. Memcached's pods divide the keys: see
//! `ConsistentHash` and `examples/cache.rs`.
use std::{collections::BTreeMap, io, net, process, sync::Arc, task, time::Duration};

use futures::{FutureExt, StreamExt, TryFutureExt, future::BoxFuture, stream};
use redis::{Cmd, RedisError, Value, aio::MultiplexedConnection, cmd};
use tokio::{net::TcpStream, process::Child, process::Command, task::JoinSet, time::sleep};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};
use tower_headless::{Balance, BoxError, Connections, Endpoint, Error, RetryFailed, RetryLayer};
use tower_headless::{StaticEndpoints, Unsent};

/// A pod's connection, which all requests share, with the task that drives it.
#[derive(Clone)]
struct Connection {
    pod: Endpoint,
    redis: MultiplexedConnection,
    driver: tokio::task::AbortHandle,
    _ends_with_the_last_clone: Arc<JoinSet<()>>,
}

async fn connect(pod: Endpoint) -> Result<Connection, BoxError> {
    let stream = TcpStream::connect(pod.address()).await?;
    stream.set_nodelay(true)?;
    let (login, config) = Default::default();
    let redis = MultiplexedConnection::new_with_config(&login, stream, config);
    let (redis, driver) = redis.await?;
    let mut tasks = JoinSet::new();
    let driver = tasks.spawn(driver);
    Ok(Connection {
        pod,
        redis,
        driver,
        _ends_with_the_last_clone: Arc::new(tasks),
    })
}

/// Its errors are broken connections. Everything that redis answers is a response, including errors such as
/// `WRONGTYPE`.
impl Service<Cmd> for Connection {
    type Response = (Endpoint, Value);
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), BoxError>> {
        let is_open = !self.driver.is_finished();
        task::Poll::Ready(is_open.then_some(()).ok_or("it is closed".into()))
    }

    fn call(&mut self, command: Cmd) -> Self::Future {
        let mut this = self.clone();
        let answer = async move {
            match this.redis.send_packed_command(&command).await? {
                // A replica without data has executed nothing, so any command may go elsewhere.
                Value::ServerError(it) if ["LOADING", "MASTERDOWN"].contains(&it.code()) => {
                    Err(Unsent::new(command, RedisError::from(it)).into())
                }
                answer => Ok((this.pod, answer)),
            }
        };
        answer.boxed()
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    clap::Command::new("redis")
        .about("3 pods of redis, read from all, written by name; one dies, and comes back.")
        .override_usage("cargo run --example redis")
        .get_matches();
    let pods = pods()?;
    // In a cluster, use `Dns::srv("_redis._tcp.redis.default".parse()?)`, which has the pods' names.
    let balance = Balance::builder(StaticEndpoints::from_iter(pods.clone()))
        .build_connected(Connections::multiplexed(service_fn(connect)));
    let primary = balance.pod("redis-0");
    let ask = |it: &Cmd| primary.clone().oneshot(it.clone()).map_ok(|it| it.1);
    let greet = |value| ask(&Cmd::set("greeting", value));
    // A command whose connection breaks may have been executed: reads are sent again, writes aren't.
    let reads = RetryLayer::new(RetryFailed).layer(balance).boxed_clone();

    let _redis_0 = start(&pods[0], None)?;
    greet("hello").await?.extract_error()?;
    let connection = ask(cmd("CLIENT").arg("ID")).await?;
    let answer = ask(&Cmd::llen("greeting")).await?;
    println!("An error of redis's: {answer:?}");
    assert_eq!(ask(cmd("CLIENT").arg("ID")).await?, connection); // it is kept

    let _redis_1 = start(&pods[1], Some(&pods[0]))?;
    let mut redis_2 = start(&pods[2], Some(&pods[0]))?;
    let all = read(&reads, |_, it| Ok(it.len() == 3));
    println!("Reads, until each has the data: {:#?}", all.await?);
    let others = read(&reads, |i, _| match i {
        500 => redis_2.start_kill().map(|()| false),
        _ => Ok(i == 1000),
    });
    println!("redis-2 is killed meanwhile: {:#?}", others.await?);
    redis_2.wait().await?;
    greet("welcome").await?.extract_error()?;
    let _redis_2 = start(&pods[2], Some(&pods[0]))?;
    let back = read(&reads, |_, it| Ok(it.contains_key("redis-2: welcome")));
    println!("It is back, and up to date: {:#?}", back.await?);
    Ok(())
}

type Answers = BTreeMap<String, u32>;

/// Reads, eight at a time, until `enough` says so. Returns how often each pod gave each answer.
async fn read(
    reads: &BoxCloneService<Cmd, (Endpoint, Value), Error>,
    mut is_enough: impl FnMut(u32, &Answers) -> io::Result<bool>,
) -> Result<Answers, BoxError> {
    let one = || reads.clone().oneshot(Cmd::get("greeting"));
    let answers = stream::repeat_with(one).buffer_unordered(8);
    let mut answers = answers.take_until(sleep(Duration::from_secs(30)).boxed());
    let mut counts = Answers::new();
    while !is_enough(counts.values().sum(), &counts)? {
        let (pod, value) = answers.next().await.ok_or("not within 30 s")??;
        let value: String = redis::from_redis_value(value.extract_error()?)?;
        let answer = format!("{}: {value}", pod.stable_name());
        *counts.entry(answer).or_default() += 1;
    }
    Ok(counts)
}

/// Three pods like a StatefulSet's: names, addresses that only this process uses, and one port.
fn pods() -> io::Result<Vec<Endpoint>> {
    let [.., a, b] = process::id().to_be_bytes();
    let ip = |i: u8| net::Ipv4Addr::new(127, a, b, i + 1);
    let port = net::TcpListener::bind((ip(0), 0))?.local_addr()?.port();
    let pod = |i| Endpoint::new((ip(i), port).into()).with_hostname(format!("redis-{i}"));
    Ok((0..3).map(pod).collect())
}

/// Runs a pod until the result is dropped: the primary, or a replica, which serves nothing before it has its data.
fn start(pod: &Endpoint, primary: Option<&Endpoint>) -> Result<Child, BoxError> {
    let at = pod.address();
    let mut args = format!(
        "--bind {} --port {} --appendonly no --replica-serve-stale-data no \
         --repl-diskless-load swapdb --repl-diskless-sync-delay 1",
        at.ip(),
        at.port()
    );
    if let Some(at) = primary.map(Endpoint::address) {
        args += &format!(" --replicaof {} {}", at.ip(), at.port());
    }
    let mut server = Command::new("redis-server");
    server.args(args.split(' ')).args(["--save", ""]);
    server.stdout(process::Stdio::null()).kill_on_drop(true);
    let server = server.spawn();
    server.map_err(|error| format!("redis-server: {error}; apt-get install redis-server").into())
}
