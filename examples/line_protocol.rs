//! Balances a protocol of your own over TCP: a line there, a line back. `-h` says what it shows.
use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::{net::TcpListener, net::TcpStream, sync::Mutex, task::JoinSet, time::sleep};
use tower::service_fn;
use tower_headless::{Balance, BoxError, Connections, Endpoint, Route, StaticEndpoints, Unsent};

/// Sends one request over a connection. A connection has one request at a time, so nobody waits for the lock.
async fn ask(stream: Arc<Mutex<BufReader<TcpStream>>>, line: String) -> Result<String, BoxError> {
    let (mut stream, mut answer) = (stream.lock().await, String::new());
    if stream.get_ref().try_read(&mut [0]).is_ok() {
        return Err(Unsent::new(line, "the pod has closed the connection").into()); // elsewhere
    }
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    stream.read_line(&mut answer).await?;
    let is_whole = answer.ends_with('\n');
    is_whole.then_some(answer).ok_or("cut off".into())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    clap::Command::new("line_protocol")
        .about("40 lines to three pods, over a connection each. One pod dies, no line is lost.")
        .override_usage("cargo run --example line_protocol")
        .get_matches();
    let mut pods = vec![pod().await?, pod().await?, pod().await?];
    let connect = service_fn(|pod: Endpoint| async move {
        let stream = TcpStream::connect(pod.address()).await?;
        let stream = Arc::new(Mutex::new(BufReader::new(stream)));
        Ok::<_, BoxError>(service_fn(move |line| ask(stream.clone(), line)))
    });
    let balance = Balance::builder(StaticEndpoints::new(pods.iter().map(|pod| pod.0)))
        .build_connected(Connections::pooled(1, connect));
    let mut answers = BTreeMap::<String, u32>::new();
    for i in 0..40 {
        if i == 20 && pods.pop().is_some() {
            sleep(Duration::from_millis(100)).await; // it closes its connection, and refuses others
        }
        let answer = balance.call_with(format!("line {i}"), Route::new()).await?;
        *answers.entry(answer).or_default() += 1;
    }
    println!("answers over each connection: {answers:#?}");
    Ok(())
}

/// Starts a pod, which runs until the result is dropped. It answers each line with the addresses of its connection.
async fn pod() -> io::Result<(SocketAddr, JoinSet<io::Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serve = async move {
        loop {
            let (stream, client) = listener.accept().await?;
            let (mut stream, name) = (BufReader::new(stream), format!("{client} - {address}\n"));
            while stream.read_line(&mut String::new()).await? > 0 {
                stream.write_all(name.as_bytes()).await?;
            }
        }
    };
    Ok((address, JoinSet::from_iter([serve])))
}
