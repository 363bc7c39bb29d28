//! Discovery and pods that do what a test tells them: no sockets, so paused time is honest.

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

/// Pods, what discovery says of them, and the balancer between.
pub struct World {
    pub script: Script,
    pub pods: Pods,
    pub balance: Balance<PodService>,
}

impl World {
    /// A balancer that `change` has built, and that has this set.
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

    /// The set is now this one, and the balancer has it.
    pub async fn set(&self, set: Vec<Endpoint>) {
        self.script.endpoints(set);
        settle().await;
    }
}

/// Lets everybody else do what they can do now.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

type Answer = Result<Vec<Endpoint>, BoxError>;

/// Discovery that yields what its [`Script`] says.
pub struct Scripted {
    answers: mpsc::UnboundedReceiver<Answer>,
    hints: Arc<Mutex<Hints>>,
}

/// What the balancer has told its discovery.
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
    /// The set is pods number `hosts`.
    pub fn answer(&self, hosts: impl IntoIterator<Item = u8>) {
        self.endpoints(hosts.into_iter().map(endpoint).collect());
    }

    /// The set is these endpoints.
    pub fn endpoints(&self, set: Vec<Endpoint>) {
        // Nobody listens once the balancer is gone, and a test may not care.
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

/// A request; not `Clone`, as the balancer must not ask for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Request(pub u32);

/// How a pod behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    #[default]
    Answer,
    /// Becomes ready, takes requests, and answers once it behaves otherwise.
    Hold,
    /// Fails to become ready.
    NotReady,
    /// Becomes ready once it behaves otherwise.
    Pending,
    /// Takes requests and hands them back unsent.
    HandBack,
    /// Takes requests and answers with an error.
    Fail,
    /// Answers so much later.
    After(Duration),
    /// Answers so much later, with an error.
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
    /// Its clones are the services.
    alive: Arc<()>,
}

/// What has happened to a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services made by the balancer's closure.
    pub made: usize,
    /// Times that one was asked whether it is ready and said no.
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

    /// What a balancer is built with.
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
        // The sender lives as long as the pods do; without it nothing changes.
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
