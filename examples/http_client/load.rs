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

/// Beyond so many at a time, requests are sent late: the memory of a client is bounded, that of a bad day isn't.
const MAX_AT_A_TIME: usize = 10_000;

/// Where the policy goes by keys, requests have so many different ones, in turn.
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

/// To any pod, or to one by its name, or by a key.
fn request(client: &Client, args: &Args, number: usize) -> RequestBuilder {
    let path = args.path();
    match (&args.pod, &args.key) {
        // Waited for while it is away, and followed wherever it comes back.
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

/// Each pod's answer counts for itself.
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

/// An answer read to its end: the pod that gave it.
async fn get(response: Result<Response, Error>) -> Result<Endpoint, BoxError> {
    let response = response?;
    let pod = response.endpoint().ok_or("no pod has answered")?.clone();
    let status = response.status();
    response.into_body().collect().await?;
    // An answer is an answer, whatever it says: what to make of a 503 is the caller's affair.
    if !status.is_success() {
        return Err(format!("{pod} answered {status}").into());
    }
    Ok(pod)
}
