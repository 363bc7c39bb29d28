//! A steady load, and the outcomes of its requests.

use std::{future::IntoFuture, net::SocketAddr, time::Duration};

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tower_headless::http::Client;

/// Requests a second.
pub(crate) const RATE: u32 = 2_000;

/// How long a caller waits before it cancels its request.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub(crate) struct Request {
    /// Since the beginning of the load.
    sent: Duration,
    took: Duration,
    /// `None` if it was cancelled, or failed without a pod.
    pod: Option<SocketAddr>,
    ok: bool,
}

#[derive(Default)]
pub(crate) struct Report(Vec<Request>);

/// Sends requests at even intervals for this time; none waits for another one.
pub(crate) async fn load(client: &Client, length: Duration) -> Report {
    let begun = Instant::now();
    let mut beat = interval(Duration::from_secs(1) / RATE);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    let mut requests = Vec::new();
    while begun.elapsed() < length {
        tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => requests.push(ended.expect("no panic")),
            _ = beat.tick() => {
                tasks.spawn(request(client.clone(), begun));
            }
        }
    }
    requests.extend(tasks.join_all().await);
    Report(requests)
}

async fn request(client: Client, begun: Instant) -> Request {
    let sent = begun.elapsed();
    let answer = async {
        match client.get("/").into_future().await {
            Ok(response) => {
                let pod = response.endpoint().map(|pod| pod.address());
                let status = response.status();
                let whole = response.into_body().collect().await.is_ok();
                (pod, whole && status == StatusCode::OK)
            }
            Err(error) => (error.endpoint().map(|pod| pod.address()), false),
        }
    };
    let (pod, ok) = timeout(PATIENCE, answer).await.unwrap_or_default();
    Request {
        sent,
        took: begun.elapsed() - sent,
        pod,
        ok,
    }
}

impl Report {
    /// Adds the requests of another load.
    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn failed(&self) -> usize {
        self.0.iter().filter(|request| !request.ok).count()
    }

    /// The milliseconds within which this part of the requests ended.
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let mut took: Vec<_> = self.0.iter().map(|request| request.took).collect();
        took.sort_unstable();
        let at = (took.len() as f64 * part) as usize;
        took[at.min(took.len() - 1)].as_secs_f64() * 1e3
    }

    /// The part of the requests that `pod` answered, of those sent in a span of time.
    pub(crate) fn share(&self, pod: SocketAddr, from: Duration, to: Duration) -> f64 {
        let all = self.0.iter().filter(|it| (from..to).contains(&it.sent));
        let (mut count, mut of_pod) = (0_u32, 0_u32);
        for request in all {
            count += 1;
            of_pod += u32::from(request.pod == Some(pod));
        }
        f64::from(of_pod) / f64::from(count.max(1))
    }

    /// The largest share of `pod` in 100 ms before `end`.
    pub(crate) fn largest_share(&self, pod: SocketAddr, end: Duration) -> f64 {
        const WINDOW: Duration = Duration::from_millis(100);
        let windows = (end.as_secs_f64() / WINDOW.as_secs_f64()).ceil() as u32;
        let share = |window| self.share(pod, WINDOW * window, WINDOW * (window + 1));
        (0..windows).map(share).fold(0.0, f64::max)
    }

    /// When `pod` got its last request before none for a second.
    pub(crate) fn left(&self, pod: SocketAddr) -> Duration {
        let mut sent: Vec<_> = self.0.iter().filter(|it| it.pod == Some(pod)).collect();
        sent.sort_unstable_by_key(|request| request.sent);
        let gap = sent
            .windows(2)
            .find(|pair| pair[1].sent - pair[0].sent > PATIENCE);
        let last = gap.map(|pair| pair[0]).or(sent.last().copied());
        last.map_or(Duration::ZERO, |request| request.sent)
    }
}
