//! Requests at a steady rate, each in a task of its own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};
use tower_headless::{
    BoxError, Endpoint,
    http::{Client, RequestBuilder},
};

use crate::report::Report;

/// Beyond so many at a time, requests are sent late: the memory of a client is bounded, that of a bad day isn't.
const MAX_AT_A_TIME: usize = 10_000;

/// GETs `path` `rate` times a second into `requests`, whether answers come or not.
pub(crate) async fn send(
    client: &Client,
    path: &str,
    rate: u32,
    requests: &mut JoinSet<()>,
    report: &Arc<Report>,
) -> Infallible {
    let mut beats = interval(Duration::from_secs(1) / rate);
    loop {
        beats.tick().await;
        while requests.try_join_next().is_some() {}
        if requests.len() >= MAX_AT_A_TIME {
            requests.join_next().await;
        }
        let request = client.get(path);
        let report = Arc::clone(report);
        requests.spawn(async move {
            let began = Instant::now();
            match get(request).await {
                Ok(pod) => report.answered(pod, began.elapsed()),
                Err(error) => report.failed(&*error),
            }
        });
    }
}

/// One request, its answer read to the end: the pod that gave it.
async fn get(request: RequestBuilder) -> Result<Endpoint, BoxError> {
    let response = request.await?;
    let pod = response.body().pod().clone();
    let status = response.status();
    response.into_body().collect().await?;
    // An answer is an answer, whatever it says: what to make of a 503 is the caller's affair.
    if !status.is_success() {
        return Err(format!("{pod} answered {status}").into());
    }
    Ok(pod)
}
