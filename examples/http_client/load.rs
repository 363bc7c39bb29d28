//! Requests at a steady rate, each in a task of its own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::StreamExt;
use http_body_util::BodyExt;
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};
use tower_headless::{
    BoxError, BuiltInPolicy, Endpoint,
    http::{Client, Error, RequestBuilder, Response},
};

use crate::{args::Args, report::Report};

/// The largest number of requests at a time. Further ones are sent late, to bound the memory on a bad day.
const MAX_AT_A_TIME: usize = 10_000;

/// How many different keys requests have, in turn, if the policy goes by keys.
const KEYS: usize = 1000;

/// GETs the path `rate` times a second into `requests`, whether answers come or not.
pub(crate) async fn send(
    client: &Client,
    args: &Args,
    requests: &mut JoinSet<()>,
    report: &Arc<Report>,
) -> Infallible {
    let mut beats = interval(Duration::from_secs(1) / args.rate);
    let mut number = 0;
    loop {
        beats.tick().await;
        while requests.try_join_next().is_some() {}
        if requests.len() >= MAX_AT_A_TIME {
            requests.join_next().await;
        }
        let request = request(client, args, number);
        number = (number + 1) % KEYS;
        let report = Arc::clone(report);
        match args.all {
            true => requests.spawn(ask_all(request, report)),
            false => requests.spawn(ask_one(request, report)),
        };
    }
}

/// Makes a request to any pod, to one pod by its name, or to the pod of a key.
fn request(client: &Client, args: &Args, number: usize) -> RequestBuilder {
    let path = args.path();
    match (&args.pod, &args.key) {
        // The request waits while the pod is away, and finds it wherever it comes back.
        (Some(pod), _) => client.pod(&**pod).get(path),
        (None, Some(key)) => client.get(path).key(&**key),
        (None, None) if matches!(args.policy, BuiltInPolicy::ConsistentHash(_)) => {
            client.get(path).key(number.to_string())
        }
        (None, None) => client.get(path),
    }
}

async fn ask_one(request: RequestBuilder, report: Arc<Report>) {
    let began = Instant::now();
    note(get(request.await).await, began, &report);
}

/// Asks all pods, and counts each one's answer.
async fn ask_all(request: RequestBuilder, report: Arc<Report>) {
    let began = Instant::now();
    match request.broadcast().await {
        Ok(mut answers) => {
            while let Some((_, answer)) = answers.next().await {
                note(get(answer).await, began, &report);
            }
        }
        Err(error) => report.failed(&error),
    }
}

fn note(answered: Result<Endpoint, BoxError>, began: Instant, report: &Report) {
    match answered {
        Ok(pod) => report.answered(pod, began.elapsed()),
        Err(error) => report.failed(&*error),
    }
}

/// Reads an answer to its end, and returns its pod.
async fn get(response: Result<Response, Error>) -> Result<Endpoint, BoxError> {
    let response = response?;
    let pod = response.endpoint().ok_or("no pod has answered")?.clone();
    let status = response.status();
    response.into_body().collect().await?;
    // To the client any status is an answer. What to make of a 503 is up to the caller.
    if !status.is_success() {
        return Err(format!("{pod} answered {status}").into());
    }
    Ok(pod)
}
