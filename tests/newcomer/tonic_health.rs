//! gRPC: a watchdog that asks the pods for their health, with a token in each call.

use std::time::Duration;

use tonic::{Request, Status, service::interceptor::InterceptedService};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tower_headless::http::Client;

#[derive(Clone)]
struct Watchdog {
    health: HealthClient<InterceptedService<Client, Interceptor>>,
    deadline: Duration,
}

type Interceptor = fn(Request<()>) -> Result<Request<()>, Status>;

fn with_token(mut request: Request<()>) -> Result<Request<()>, Status> {
    let token = "Bearer secret".parse().expect("it is ASCII");
    request.metadata_mut().insert("authorization", token);
    Ok(request)
}

impl Watchdog {
    /// `pods` must speak `Protocol::Http2`.
    fn new(pods: Client, deadline: Duration) -> Self {
        let health = HealthClient::with_interceptor(pods, with_token as Interceptor);
        Self { health, deadline }
    }

    async fn is_well(&mut self) -> Result<bool, Status> {
        let mut request = Request::new(HealthCheckRequest::default());
        request.set_timeout(self.deadline);
        let answer = self.health.check(request).await?.into_inner();
        Ok(is_serving(&answer))
    }

    /// Follows one pod until it becomes unhealthy.
    async fn watch(&mut self, mut tell: impl FnMut(bool)) -> Result<(), Status> {
        let states = self.health.watch(HealthCheckRequest::default()).await?;
        let mut states = states.into_inner();
        while let Some(state) = states.message().await? {
            tell(is_serving(&state));
            if !is_serving(&state) {
                break;
            }
        }
        Ok(())
    }
}

fn is_serving(answer: &HealthCheckResponse) -> bool {
    answer.status() == ServingStatus::Serving
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tonic::{Code, service::Routes};
    use tonic_health::{ServingStatus, server::HealthReporter};
    use tower::ServiceExt;
    use tower_headless::{
        BoxError,
        http::Protocol,
        test_util::{Cluster, Mode, within},
    };

    use super::*;

    /// Pods that serve only calls with the token.
    async fn cluster() -> (Cluster, HealthReporter) {
        let (reporter, health) = tonic_health::server::health_reporter();
        let guarded = InterceptedService::new(health, |request: Request<()>| {
            match request.metadata().get("authorization") {
                Some(token) if token == "Bearer secret" => Ok(request),
                _ => Err(Status::unauthenticated("who are you?")),
            }
        });
        let services = Routes::new(guarded);
        let cluster = Cluster::builder()
            .answer(move |_, request| services.clone().oneshot(request))
            .start()
            .await;
        (cluster, reporter)
    }

    fn client(cluster: &Cluster) -> Result<Client, BoxError> {
        Ok(cluster.client().protocol(Protocol::Http2).build()?)
    }

    #[tokio::test]
    async fn the_interceptor_sees_every_call() -> Result<(), BoxError> {
        let (cluster, _) = cluster().await;
        let client = client(&cluster)?;
        assert!(
            Watchdog::new(client.clone(), Duration::from_secs(30))
                .is_well()
                .await?
        );
        let mut stranger = HealthClient::new(client);
        let refused = stranger.check(HealthCheckRequest::default()).await;
        assert_eq!(refused.expect_err("no token").code(), Code::Unauthenticated);
        Ok(())
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline() -> Result<(), BoxError> {
        let (cluster, _) = cluster().await;
        for pod in cluster.pods() {
            pod.set(Mode::Hung);
        }
        let mut watchdog = Watchdog::new(client(&cluster)?, Duration::from_millis(50));
        let late = watchdog.is_well().await.expect_err("all hang");
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
        Ok(())
    }

    #[tokio::test]
    async fn a_stream_reports_changes_as_they_come() -> Result<(), BoxError> {
        let (cluster, reporter) = cluster().await;
        let mut watchdog = Watchdog::new(client(&cluster)?, Duration::from_secs(30));
        let (tell, mut told) = mpsc::unbounded_channel();
        let watch = tokio::spawn(async move { watchdog.watch(|well| _ = tell.send(well)).await });
        assert_eq!(within("the state as it is", told.recv()).await, Some(true));
        reporter
            .set_service_status("", ServingStatus::NotServing)
            .await;
        assert_eq!(within("the change", told.recv()).await, Some(false));
        within("the stream's end", watch).await??;
        Ok(())
    }
}
