//! One client of the simulated Service: a balancer like an application's, and the policies to compare.

use std::task::{Context, Poll, ready};

use futures::{FutureExt, StreamExt, channel::mpsc, future::BoxFuture};
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, BoxError, Discovery, Endpoint, Error, LeastConnections, OutlierDetection, PeakEwma,
    Policy, PowerOfTwo, Random, RoundRobin,
};

use crate::{
    cluster::{Cluster, PodService, endpoint},
    pod::Request,
};

/// A policy as the tables name it, and a client of it.
#[derive(Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    connect: fn(Setup) -> Box<dyn Client>,
}

/// All policies that are compared.
pub(crate) const CONTENDERS: &[Contender] = &[
    Contender {
        name: "round robin",
        connect: |setup| setup.connect(RoundRobin::new()),
    },
    Contender {
        name: "random",
        connect: |setup| setup.connect(Random::new()),
    },
    Contender {
        name: "least connections",
        connect: |setup| setup.connect(LeastConnections::new()),
    },
    Contender {
        name: "power of two",
        connect: |setup| setup.connect(PowerOfTwo::new()),
    },
    Contender {
        name: "peak EWMA",
        connect: |setup| setup.connect(PeakEwma::new()),
    },
];

/// The settings of a client, apart from its policy.
pub(crate) struct Setup {
    cluster: Cluster,
    discovery: Told,
    health: OutlierDetection,
    seed: u64,
}

/// A discovery that the scenario feeds.
struct Told(mpsc::UnboundedReceiver<Vec<usize>>);

/// Feeds a client's discovery.
pub(crate) type Teller = mpsc::UnboundedSender<Vec<usize>>;

pub(crate) trait Client {
    /// Waits for the first answer of discovery.
    fn ready(&mut self) -> BoxFuture<'_, ()>;

    fn send(&mut self, request: Request) -> BoxFuture<'static, Result<(), Error>>;
}

impl Contender {
    /// Makes a client, and the sender that feeds its discovery.
    pub(crate) fn client(
        &self,
        cluster: &Cluster,
        health: OutlierDetection,
        seed: u64,
    ) -> (Teller, Box<dyn Client>) {
        let (teller, told) = mpsc::unbounded();
        let client = (self.connect)(Setup {
            cluster: cluster.clone(),
            discovery: Told(told),
            health,
            seed,
        });
        (teller, client)
    }
}

impl Setup {
    fn connect<P: Policy>(self, policy: P) -> Box<dyn Client> {
        let cluster = self.cluster;
        let balance = Balance::builder(self.discovery)
            .policy(policy)
            .outlier_detection(self.health)
            .seed(self.seed)
            .build(move |endpoint: &Endpoint| cluster.service(endpoint));
        Box::new(balance)
    }
}

impl Client for Balance<PodService> {
    fn ready(&mut self) -> BoxFuture<'_, ()> {
        let ready = ServiceExt::ready(self);
        ready
            .map(|ready| assert!(ready.is_ok(), "readiness never fails"))
            .boxed()
    }

    fn send(&mut self, request: Request) -> BoxFuture<'static, Result<(), Error>> {
        self.call(request).boxed()
    }
}

impl Discovery for Told {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        match ready!(self.0.poll_next_unpin(cx)) {
            Some(pods) => Poll::Ready(Ok(pods.into_iter().map(endpoint).collect())),
            None => Poll::Pending,
        }
    }
}
