//! The pods of a simulation, and the services by which a balancer reaches them.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::channel::oneshot;
use tower::Service;
use tower_headless::{BoxError, Endpoint};

use crate::{
    event::Event,
    pod::{Answer, Condition, Job, Pod, Request},
    queue::Queue,
};

const NETWORK: u32 = u32::from_be_bytes([10, 244, 0, 0]);

/// All pods of the simulation, and their coming events. Clones share them.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Mutex<State>>);

pub(crate) struct State {
    pub(crate) queue: Queue<Event>,
    pub(crate) calls: Vec<Call>,
    pods: Vec<Pod>,
    workers: usize,
}

/// A request that a pod got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) at: Duration,
    pub(crate) pod: usize,
}

impl Cluster {
    pub(crate) fn new(workers: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            queue: Queue::new(),
            calls: Vec::new(),
            pods: Vec::new(),
            workers,
        })))
    }

    /// The simulation has one thread; the lock is only there because `Send` requires it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service of an endpoint, for a balancer.
    pub(crate) fn service(&self, endpoint: &Endpoint) -> PodService {
        PodService {
            cluster: self.clone(),
            pod: number(endpoint),
        }
    }
}

impl State {
    fn pod(&mut self, number: usize) -> (&mut Pod, &mut Queue<Event>) {
        while self.pods.len() <= number {
            self.pods.push(Pod::new(self.pods.len(), self.workers));
        }
        (&mut self.pods[number], &mut self.queue)
    }

    pub(crate) fn finish(&mut self, pod: usize, job: u64) {
        let (pod, queue) = self.pod(pod);
        pod.finish(job, queue);
    }

    pub(crate) fn change(&mut self, pod: usize, condition: Condition) {
        let (pod, queue) = self.pod(pod);
        pod.change(condition, queue);
    }

    /// How many requests each pod has.
    pub(crate) fn in_flight(&self) -> Vec<usize> {
        self.pods.iter().map(Pod::in_flight).collect()
    }
}

/// The endpoint of a pod.
pub(crate) fn endpoint(pod: usize) -> Endpoint {
    let pod = u32::try_from(pod).expect("fewer pods than addresses");
    let address = Ipv4Addr::from_bits(NETWORK + 1 + pod);
    Endpoint::new((address, 80).into())
}

fn number(endpoint: &Endpoint) -> usize {
    match endpoint.address() {
        SocketAddr::V4(address) => (address.ip().to_bits() - NETWORK - 1) as usize,
        SocketAddr::V6(_) => unreachable!("the pods have IPv4 addresses"),
    }
}

#[derive(Clone)]
pub(crate) struct PodService {
    cluster: Cluster,
    pod: usize,
}

impl Service<Request> for PodService {
    type Response = ();
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut state = self.cluster.lock();
        Poll::Ready(match state.pod(self.pod).0.accepts() {
            true => Ok(()),
            false => Err("connection refused".into()),
        })
    }

    fn call(&mut self, request: Request) -> Answering {
        let (answer, answered) = oneshot::channel();
        let mut state = self.cluster.lock();
        let (at, pod) = (state.queue.now(), self.pod);
        state.calls.push(Call { at, pod });
        let (pod, queue) = state.pod(pod);
        pod.take(Job { request, answer }, queue);
        Answering(answered)
    }
}

/// The response of a pod.
pub(crate) struct Answering(oneshot::Receiver<Answer>);

impl Future for Answering {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err("connection reset".into()),
        })
    }
}
