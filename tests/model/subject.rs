//! The balancer under test, without its type parameters: the one place that names them.

use std::{
    future::{Future, IntoFuture},
    time::Duration,
};

use futures::future::BoxFuture;
use http::Response;
use tower::{Service, ServiceExt};
use tower_headless::{
    Answers, Balance, BoxError, BuiltInPolicy, ConsistentHash, CountedBody, Discovery, Endpoint,
    EndpointStatus, Error, Explanation, HealthCheck, KeyExplanation, OnBodyEnd, OutlierDetection,
    Route, Subset,
};

use crate::{
    plan::{
        BOUND, CHECK_FAILURES, CHECK_INTERVAL, CHECK_TIMEOUT, Checks, Config, Locality, PolicyName,
        Ready,
    },
    pod::{Pod, PodBody, Request},
};

pub(crate) type PodResponse = Response<CountedBody<PodBody>>;

/// A handle of the balancer.
pub(crate) trait Subject {
    fn handle(&self) -> Box<dyn Subject>;
    fn endpoints(&self) -> Vec<EndpointStatus>;
    fn explain(&self) -> Explanation;
    fn explain_key(&self, key: u8) -> Option<KeyExplanation>;
    /// Waits for readiness; the future holds a handle.
    fn ready(&self) -> BoxFuture<'static, Box<dyn Subject + Send>>;
    /// The future holds no handle.
    fn call(&self, request: Request) -> BoxFuture<'static, Result<PodResponse, Error>>;
    fn call_with(
        &self,
        request: Request,
        route: Route,
    ) -> BoxFuture<'static, Result<PodResponse, Error>>;
    /// The future holds a handle, and so do the answers.
    fn broadcast(&self, ask: Ask) -> BoxFuture<'static, Result<Answers<PodResponse>, Error>>;
}

/// A request to all pods.
pub(crate) struct Ask {
    pub(crate) request: Box<dyn FnMut(&Endpoint) -> Request + Send>,
    pub(crate) at_once: usize,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Option<Duration>,
    pub(crate) joins: bool,
}

impl Subject for Balance<Pod, OnBodyEnd> {
    fn handle(&self) -> Box<dyn Subject> {
        Box::new(self.clone())
    }

    fn endpoints(&self) -> Vec<EndpointStatus> {
        Self::endpoints(self)
    }

    fn explain(&self) -> Explanation {
        Self::explain(self)
    }

    fn explain_key(&self, key: u8) -> Option<KeyExplanation> {
        Self::explain_key(self, key)
    }

    fn ready(&self) -> BoxFuture<'static, Box<dyn Subject + Send>> {
        let mut balance = self.clone();
        Box::pin(async move {
            let ready = ServiceExt::<Request>::ready(&mut balance).await;
            ready.expect("readiness never fails");
            Box::new(balance) as _
        })
    }

    fn call(&self, request: Request) -> BoxFuture<'static, Result<PodResponse, Error>> {
        Box::pin(Service::call(&mut self.clone(), request))
    }

    fn call_with(
        &self,
        request: Request,
        route: Route,
    ) -> BoxFuture<'static, Result<PodResponse, Error>> {
        Box::pin(Self::call_with(self, request, route))
    }

    fn broadcast(&self, ask: Ask) -> BoxFuture<'static, Result<Answers<PodResponse>, Error>> {
        let broadcast = self
            .broadcast_with(ask.request)
            .concurrency(ask.at_once)
            .endpoint_timeout(ask.timeout)
            .include_joining(ask.joins);
        match ask.deadline {
            Some(deadline) => broadcast.deadline(deadline).into_future(),
            None => broadcast.into_future(),
        }
    }
}

/// The balancer of `config`, over what `discovery` finds.
pub(crate) fn build<D, M, K, F>(
    config: &Config,
    discovery: D,
    make: M,
    check: K,
) -> Box<dyn Subject>
where
    D: Discovery,
    M: FnMut(&Endpoint) -> Pod + Send + 'static,
    K: Fn(Endpoint) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let builder = Balance::builder(discovery)
        .completion(OnBodyEnd::new())
        .seed(config.seed)
        .counters(true)
        .slow_start(millis(config.slow_start))
        .outlier_detection(detection(config));
    let builder = match config.ready {
        Ready::Timeout(time) => builder.ready_timeout(millis(time)),
        Ready::FailFast => builder.fail_fast(),
        Ready::Wait => builder.wait_for_ready(),
    };
    let builder = match config.locality {
        Locality::Off => builder,
        Locality::Zone => builder.zone("z1"),
        Locality::PreferZone => builder.prefer_zone("z1"),
    };
    let builder = match config.checks {
        Checks::Off => builder,
        checks => builder.health_check(health_check(checks, check)),
    };
    let builder = match config.subset {
        0 => builder,
        size => builder.subset(Subset::of(size.into())),
    };
    Box::new(builder.policy(policy(config.policy)).build(make))
}

/// The policy, by its name as in a configuration, if that says enough.
fn policy(name: PolicyName) -> BuiltInPolicy {
    let name = match name {
        PolicyName::RoundRobin => "round-robin",
        PolicyName::Random => "random",
        PolicyName::LeastConnections => "least-connections",
        PolicyName::PowerOfTwo => "power-of-two",
        PolicyName::PeakEwma => "peak-ewma",
        PolicyName::ConsistentHash => return ConsistentHash::new().load_factor(None).into(),
        PolicyName::BoundedHash => return ConsistentHash::new().load_factor(BOUND).into(),
    };
    name.parse().expect("a policy of the crate")
}

fn detection(config: &Config) -> OutlierDetection {
    if !config.detection {
        return OutlierDetection::off();
    }
    OutlierDetection::new()
        .consecutive_failures(u32::from(config.failures))
        .ejection_time(millis(config.min_ejection), millis(config.max_ejection))
        .max_ejection_ratio(config.max_ejected)
        .panic_threshold(config.panic_threshold)
}

fn health_check<K, F>(checks: Checks, check: K) -> HealthCheck
where
    K: Fn(Endpoint) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    HealthCheck::by(check)
        .interval(Duration::from_millis(CHECK_INTERVAL))
        .timeout(Duration::from_millis(CHECK_TIMEOUT))
        .failures(CHECK_FAILURES)
        .require_initial_pass(checks == Checks::First)
}

fn millis(millis: u16) -> Duration {
    Duration::from_millis(millis.into())
}
