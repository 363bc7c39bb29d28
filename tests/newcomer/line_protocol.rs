//! A client of a cache that speaks lines over TCP, one exchange at a time on each connection: it sends `GET tea`, and
//! gets `3`.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::Mutex,
};
use tower::{Service, service_fn};
use tower_headless::{
    Balance, BoxError, Connected, Connections, Discovery, Endpoint, Error, Route, Unsent,
};

/// A connection has one exchange at a time, so nobody waits for the lock.
struct Connection(Arc<Mutex<BufReader<TcpStream>>>);

impl Service<String> for Connection {
    type Response = String;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<String, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, line: String) -> Self::Future {
        let stream = self.0.clone();
        Box::pin(async move {
            let mut stream = stream.lock().await;
            let asked = stream.write_all(format!("{line}\n").as_bytes()).await;
            let mut answer = String::new();
            let read = match asked {
                Ok(()) => stream.read_line(&mut answer).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(_) if answer.ends_with('\n') => Ok(answer.trim_end().to_owned()),
                // This protocol only reads, so another pod may be asked.
                Ok(_) => Err(Unsent::new(line, "the pod has closed the connection").into()),
                Err(error) => Err(Unsent::new(line, error).into()),
            }
        })
    }
}

#[derive(Clone)]
struct Cache {
    pods: Balance<Connected<Connection>>,
}

impl Cache {
    fn new(pods: impl Discovery) -> Self {
        let connect = service_fn(async |pod: Endpoint| {
            let stream = TcpStream::connect(pod.address()).await?;
            let stream = Mutex::new(BufReader::new(stream));
            Ok::<_, std::io::Error>(Connection(Arc::new(stream)))
        });
        let pods = Balance::builder(pods)
            .ready_timeout(Duration::from_secs(1))
            .build_connected(Connections::pooled(4, connect));
        Self { pods }
    }

    async fn get(&self, key: &str) -> Result<String, Error> {
        self.pods
            .call_with(format!("GET {key}"), Route::new())
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        io,
        net::SocketAddr,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::{net::TcpListener, task::JoinSet};
    use tower_headless::StaticEndpoints;

    use super::*;

    /// A pod, which runs until its tasks are dropped. It answers with its port.
    struct Pod {
        address: SocketAddr,
        accepted: Arc<AtomicUsize>,
        tasks: JoinSet<io::Result<()>>,
    }

    impl Pod {
        async fn start() -> io::Result<Self> {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            let accepted = Arc::new(AtomicUsize::new(0));
            let count = accepted.clone();
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                let mut connections = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await?;
                    count.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(answer(BufReader::new(stream), address.port()));
                }
            });
            Ok(Self {
                address,
                accepted,
                tasks,
            })
        }
    }

    async fn answer(mut stream: BufReader<TcpStream>, port: u16) -> io::Result<()> {
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            assert_eq!(std::mem::take(&mut line), "GET tea\n");
            stream.write_all(format!("{port}\n").as_bytes()).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn connections_are_kept_and_a_pod_that_dies_costs_no_request() -> Result<(), BoxError> {
        let mut pods = vec![Pod::start().await?, Pod::start().await?];
        let cache = Cache::new(StaticEndpoints::new(pods.iter().map(|pod| pod.address)));
        let mut answers = BTreeMap::<String, u32>::new();
        for _ in 0..20 {
            *answers.entry(cache.get("tea").await?).or_default() += 1;
        }
        assert_eq!(answers.into_values().collect::<Vec<_>>(), [10, 10]);
        for pod in &pods {
            assert_eq!(
                pod.accepted.load(Ordering::Relaxed),
                1,
                "one after the other"
            );
        }

        let mut dead = pods.pop().expect("two");
        dead.tasks.shutdown().await;
        let left = pods[0].address.port().to_string();
        for _ in 0..20 {
            assert_eq!(cache.get("tea").await?, left);
        }
        pods[0].tasks.shutdown().await;
        let error = cache.get("tea").await.expect_err("none is left");
        assert!(error.is_unreachable() && error.is_unsent(), "{error}");
        Ok(())
    }
}
