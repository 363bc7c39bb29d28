//! Requests at a steady rate, each in a task of its own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tower::{Service, ServiceExt};
use tower_headless::{BoxError, Endpoint, Error};

use crate::{report::Report, support::client::NoBody};

/// A request may take this long in all. Longer than the balancer's ready timeout (5 s), so that its errors are seen.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Beyond so many at a time, requests are sent late: the memory of a client is bounded, that of a bad day isn't.
const MAX_AT_A_TIME: usize = 10_000;

/// Sends `request` `rate` times a second into `requests`, whether answers come or not.
pub(crate) async fn send<S, B>(
    client: &S,
    request: &Request<NoBody>,
    rate: u32,
    requests: &mut JoinSet<()>,
    report: &Arc<Report>,
) -> Infallible
where
    S: Service<Request<NoBody>, Response = Response<B>, Error = Error, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut beats = interval(Duration::from_secs(1) / rate);
    loop {
        beats.tick().await;
        while requests.try_join_next().is_some() {}
        if requests.len() >= MAX_AT_A_TIME {
            requests.join_next().await;
        }
        let answer = get(client.clone(), request.clone());
        let report = Arc::clone(report);
        requests.spawn(async move {
            let began = Instant::now();
            match answer.await {
                Ok(pod) => report.answered(pod, began.elapsed()),
                Err(error) => report.failed(&*error),
            }
        });
    }
}

/// One request, its answer read to the end: the pod that gave it.
async fn get<S, B>(client: S, request: Request<NoBody>) -> Result<Endpoint, BoxError>
where
    S: Service<Request<NoBody>, Response = Response<B>, Error = Error>,
    B: Body<Error: Into<BoxError>>,
{
    // Tower's timeout layer would end with the headers.
    timeout(TIMEOUT, async {
        let response = client.oneshot(request).await?;
        let pod = response.extensions().get::<Endpoint>().cloned();
        let pod = pod.ok_or("an answer without its endpoint")?;
        let status = response.status();
        response.into_body().collect().await.map_err(Into::into)?;
        if !status.is_success() {
            return Err(format!("{pod} answered {status}").into());
        }
        Ok(pod)
    })
    .await?
}
