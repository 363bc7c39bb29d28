//! Sends requests at a steady rate, whatever their results, and reports the results.

use std::{fmt, future::Future, net::SocketAddr, time::Duration};

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};
use tower_headless::http::{Error, Response};

use super::within;

/// The result of one request.
#[derive(Debug)]
pub struct Request {
    pub sent: Instant,
    pub ended: Instant,
    /// Whether a response had begun. From then on, no client can retry it unnoticed.
    pub begun: bool,
    /// The pod whose answer was read to its end.
    pub result: Result<SocketAddr, Error>,
}

impl Request {
    pub fn took(&self) -> Duration {
        self.ended - self.sent
    }

    /// The pod that answered, or that failed.
    pub fn pod(&self) -> Option<SocketAddr> {
        match &self.result {
            Ok(pod) => Some(*pod),
            Err(error) => error.endpoint().map(|pod| pod.address()),
        }
    }
}

/// Requests that go on until they are told to stop.
pub struct Load {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Report>,
}

/// All requests of a load, in the order in which they ended.
#[derive(Debug)]
pub struct Report {
    pub started: Instant,
    pub requests: Vec<Request>,
}

impl Load {
    /// Sends `rate` requests a second, at even times. None waits for another (an open loop), so a client that is held
    /// up gets no time to recover.
    pub fn start<R>(rate: u32, request: impl Fn() -> R + Send + 'static) -> Self
    where
        R: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(send(rate, request, stopped));
        Self { stop, task }
    }

    /// Sends no more, and waits for the answers.
    pub async fn stop(self) -> Report {
        drop(self.stop);
        let report = within("the end of all requests", self.task).await;
        report.expect("no request panics")
    }
}

async fn send<R>(rate: u32, request: impl Fn() -> R, mut stopped: oneshot::Receiver<()>) -> Report
where
    R: Future<Output = Result<Response, Error>> + Send + 'static,
{
    let started = Instant::now();
    let mut beat = interval(Duration::from_secs(1) / rate);
    // Late requests are sent at once, to keep the rate.
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut in_flight = JoinSet::new();
    let mut requests = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            Some(ended) = in_flight.join_next() => requests.push(ended.expect("no request panics")),
            _ = beat.tick() => {
                in_flight.spawn(follow(request()));
            }
        }
    }
    requests.extend(in_flight.join_all().await);
    Report { started, requests }
}

async fn follow<R>(request: R) -> Request
where
    R: Future<Output = Result<Response, Error>>,
{
    let sent = Instant::now();
    let response = request.await;
    let begun = response.is_ok();
    let result = match response {
        Ok(response) => read(response).await,
        Err(error) => Err(error),
    };
    Request {
        sent,
        ended: Instant::now(),
        begun,
        result,
    }
}

/// Reads a response to its end.
async fn read(response: Response) -> Result<SocketAddr, Error> {
    assert_eq!(response.status(), StatusCode::OK);
    let pod = response.body().endpoint().expect("a pod").address();
    let name = response.headers().get("x-pod").map(|name| name.as_bytes());
    assert_eq!(name, Some(pod.ip().to_string().as_bytes()));
    response.into_body().collect().await?;
    Ok(pod)
}

impl Report {
    pub fn failed(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|it| it.result.is_err())
    }

    /// The time within which this share of the requests ended.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut took: Vec<_> = self.requests.iter().map(Request::took).collect();
        took.sort_unstable();
        let index = (took.len() as f64 * share) as usize;
        took.get(index).or(took.last()).copied().unwrap_or_default()
    }

    /// The requests whose response broke off.
    pub fn cut_short(&self) -> impl Iterator<Item = &Request> {
        self.failed().filter(|it| it.begun)
    }

    /// Fails the test if any request has failed.
    #[track_caller]
    pub fn assert_none_failed(&self) {
        self.assert_none(self.failed().collect());
    }

    /// Fails the test if a request has failed before its response began.
    #[track_caller]
    pub fn assert_none_lost(&self) {
        self.assert_none(self.failed().filter(|it| !it.begun).collect());
    }

    /// Panics with the first few failures, and when they happened.
    #[track_caller]
    fn assert_none(&self, failed: Vec<&Request>) {
        const SHOWN: usize = 5;
        let shown: Vec<_> = failed.iter().take(SHOWN).map(|it| self.tell(it)).collect();
        assert!(failed.is_empty(), "{self}\n{}", shown.join("\n"));
    }

    fn tell(&self, request: &Request) -> String {
        let sent = request.sent - self.started;
        format!(
            "sent {sent:?}, took {:?}: {:?}",
            request.took(),
            request.result
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, failed) = (self.requests.len(), self.failed().count());
        let [median, p99, max] = [0.5, 0.99, 1.0].map(|share| self.percentile(share));
        write!(
            f,
            "{sent} sent, {failed} failed; {median:.1?} median, {p99:.1?} p99, {max:.1?} max"
        )
    }
}
