//! Discovery and pods that follow a test's script. They have no sockets, so time may be paused.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tower_headless::{Balance, BalanceBuilder, BoxError, Discovery, Endpoint, Unsent};

use super::lock;

/// The endpoint of pod number `host`.
pub fn endpoint(host: u8) -> Endpoint {
    Endpoint::new(([10, 0, 0, host], 80).into())
}

/// Scripted pods and discovery, with a balancer.
pub struct World {
    pub script: Script,
    pub pods: Pods,
    pub balance: Balance<PodService>,
}

impl World {
    /// Makes a world with this set, and with a balancer that `change` has configured.
    pub async fn of(
        set: Vec<Endpoint>,
        change: impl FnOnce(BalanceBuilder<Scripted>) -> BalanceBuilder<Scripted>,
    ) -> Self {
        let (script, source) = discovery();
        let pods = Pods::default();
        let balance = change(Balance::builder(source)).build(pods.make());
        script.endpoints(set);
        settle().await;
        Self {
            script,
            pods,
            balance,
        }
    }

    /// Changes the set, and waits until the balancer has it.
    pub async fn set(&self, set: Vec<Endpoint>) {
        self.script.endpoints(set);
        settle().await;
    }
}

/// Lets all other tasks run until they wait.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

type Answer = Result<Vec<Endpoint>, BoxError>;

/// A discovery that yields what its [`Script`] sends.
pub struct Scripted {
    answers: mpsc::UnboundedReceiver<Answer>,
    hints: Arc<Mutex<Hints>>,
}

/// The calls that the balancer has made to its discovery.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    pub refreshes: usize,
    pub refused: Vec<Endpoint>,
    pub wanted: Vec<String>,
}

/// The other end of a [`Scripted`].
pub struct Script {
    answers: mpsc::UnboundedSender<Answer>,
    hints: Arc<Mutex<Hints>>,
}

pub fn discovery() -> (Script, Scripted) {
    let (sender, answers) = mpsc::unbounded_channel();
    let hints = Arc::<Mutex<Hints>>::default();
    let script = Script {
        answers: sender,
        hints: hints.clone(),
    };
    (script, Scripted { answers, hints })
}

impl Script {
    /// Sends a set of the pods `hosts`.
    pub fn answer(&self, hosts: impl IntoIterator<Item = u8>) {
        self.endpoints(hosts.into_iter().map(endpoint).collect());
    }

    /// Sends a set of these endpoints.
    pub fn endpoints(&self, set: Vec<Endpoint>) {
        // Fails if the balancer is gone, which a test may not care about.
        let _ = self.answers.send(Ok(set));
    }

    pub fn fail(&self, error: &str) {
        let _ = self.answers.send(Err(error.into()));
    }

    pub fn hints(&self) -> Hints {
        lock(&self.hints).clone()
    }

    /// Waits until the balancer has dropped its discovery.
    pub async fn closed(&self) {
        self.answers.closed().await;
    }
}

impl Discovery for Scripted {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.answers.poll_recv(cx) {
            Poll::Ready(Some(answer)) => Poll::Ready(answer),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn refresh(&mut self) {
        lock(&self.hints).refreshes += 1;
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        lock(&self.hints).refused.push(endpoint.clone());
    }

    fn wanted(&mut self, pod: &str) -> bool {
        lock(&self.hints).wanted.push(pod.to_owned());
        true
    }
}

/// A request. It is not `Clone`, because the balancer must not need that.
#[derive(Debug, PartialEq, Eq)]
pub struct Request(pub u32);

/// How a pod behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    #[default]
    Answer,
    /// Becomes ready and takes requests, but answers only once its behaviour changes.
    Hold,
    /// Fails to become ready.
    NotReady,
    /// Becomes ready only once its behaviour changes.
    Pending,
    /// Takes requests and hands them back unsent.
    HandBack,
    /// Takes requests and answers with an error.
    Fail,
    /// Answers after this time.
    After(Duration),
    /// Answers with an error after this time.
    FailAfter(Duration),
    PanicInReady,
    PanicInCall,
    PanicInFuture,
}

/// All pods of a test, by number.
#[derive(Clone, Default)]
pub struct Pods {
    pods: Arc<Mutex<HashMap<SocketAddr, Arc<State>>>>,
}

struct State {
    behaviour: watch::Sender<Behaviour>,
    counts: Mutex<Counts>,
    /// Each service of a pod has a clone, so that services can be counted.
    alive: Arc<()>,
}

/// What has happened to a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services made by the balancer's closure.
    pub made: usize,
    /// How often a service's `poll_ready` failed.
    pub refusals: usize,
    /// Requests taken.
    pub calls: usize,
}

impl Pods {
    fn state(&self, endpoint: &Endpoint) -> Arc<State> {
        let state = || State {
            behaviour: watch::Sender::default(),
            counts: Mutex::default(),
            alive: Arc::default(),
        };
        let mut pods = lock(&self.pods);
        let pod = pods.entry(endpoint.address());
        pod.or_insert_with(|| Arc::new(state())).clone()
    }

    /// The closure to build a balancer with.
    pub fn make(&self) -> impl FnMut(&Endpoint) -> PodService + Clone + Send + 'static {
        let pods = self.clone();
        move |endpoint| {
            let state = pods.state(endpoint);
            lock(&state.counts).made += 1;
            PodService {
                address: endpoint.address(),
                _alive: state.alive.clone(),
                behaviour: state.behaviour.subscribe(),
                change: None,
                state,
            }
        }
    }

    pub fn set(&self, hosts: impl IntoIterator<Item = u8>, behaviour: Behaviour) {
        for host in hosts {
            let state = self.state(&endpoint(host));
            state.behaviour.send_replace(behaviour);
        }
    }

    pub fn counts(&self, host: u8) -> Counts {
        *lock(&self.state(&endpoint(host)).counts)
    }

    /// How many services of the pod there are.
    pub fn alive(&self, host: u8) -> usize {
        Arc::strong_count(&self.state(&endpoint(host)).alive) - 1
    }
}

type Change = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A pod's service.
pub struct PodService {
    address: SocketAddr,
    state: Arc<State>,
    _alive: Arc<()>,
    behaviour: watch::Receiver<Behaviour>,
    change: Option<Change>,
}

impl Clone for PodService {
    fn clone(&self) -> Self {
        Self {
            address: self.address,
            state: self.state.clone(),
            _alive: self._alive.clone(),
            behaviour: self.behaviour.clone(),
            change: None,
        }
    }
}

fn change(mut behaviour: watch::Receiver<Behaviour>, from: Behaviour) -> Change {
    Box::pin(async move {
        // Fails if the pods are gone: then nothing changes any more.
        let _ = behaviour.wait_for(|&now| now != from).await;
    })
}

impl tower::Service<Request> for PodService {
    type Response = (Endpoint, u32);
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            let behaviour = *self.behaviour.borrow();
            match behaviour {
                Behaviour::NotReady => {
                    lock(&self.state.counts).refusals += 1;
                    return Poll::Ready(Err("connection refused".into()));
                }
                Behaviour::Pending => {
                    let receiver = self.behaviour.clone();
                    let pending = || change(receiver, Behaviour::Pending);
                    let change = self.change.get_or_insert_with(pending);
                    std::task::ready!(change.as_mut().poll(cx));
                    self.change = None;
                }
                Behaviour::PanicInReady => panic!("a bug in poll_ready"),
                _ => return Poll::Ready(Ok(())),
            }
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        lock(&self.state.counts).calls += 1;
        let behaviour = *self.behaviour.borrow();
        let hold = change(self.behaviour.clone(), Behaviour::Hold);
        let answer = (Endpoint::new(self.address), request.0);
        assert_ne!(behaviour, Behaviour::PanicInCall, "a bug in call");
        Box::pin(async move {
            match behaviour {
                Behaviour::HandBack => Err(Unsent::new(request, "connection closed").into()),
                Behaviour::Fail => Err("internal error".into()),
                Behaviour::After(delay) => {
                    sleep(delay).await;
                    Ok(answer)
                }
                Behaviour::FailAfter(delay) => {
                    sleep(delay).await;
                    Err("internal error".into())
                }
                Behaviour::PanicInFuture => panic!("a bug in a future"),
                Behaviour::Hold => {
                    hold.await;
                    Ok(answer)
                }
                _ => Ok(answer),
            }
        })
    }
}

/// A budget for retries that allows none.
pub struct Spent;

impl tower::retry::budget::Budget for Spent {
    fn deposit(&self) {}

    fn withdraw(&self) -> bool {
        false
    }
}
