//! The pods' services, with scripted behaviour.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use tokio::time::sleep;
use tower::Service;
use tower_headless::{BoxError, Unsent};

use crate::{
    life::{Life, Log},
    lock::lock,
    plan::Mood,
};

/// A request. Not `Clone`, because the balancer must not need that.
pub(crate) struct Request {
    pub(crate) number: u32,
    pub(crate) sent: Arc<Mutex<Sent>>,
}

/// Which pods have got a request.
#[derive(Default)]
pub(crate) struct Sent {
    /// How many pods have got it and not handed it back.
    pub(crate) times: u32,
    /// The last one.
    pub(crate) last: Option<Receiver>,
}

/// The pod that got a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver {
    pub(crate) host: u8,
    /// The first set that this life of it is in.
    pub(crate) born_in: u32,
    /// The set that the balancer knew when it sent it there.
    pub(crate) known: u32,
}

/// The error that a pod's service has failed a request with.
#[derive(Debug)]
pub(crate) struct PodError {
    pub(crate) number: u32,
    pub(crate) host: u8,
}

impl fmt::Display for PodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {} failed request {}", self.host, self.number)
    }
}

impl std::error::Error for PodError {}

/// Which pod has sent a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServedBy(pub(crate) u8);

/// A pod's service.
pub(crate) struct Pod {
    life: Arc<Life>,
    _alive: Arc<()>,
    stalled: Option<Stalled>,
}

impl Pod {
    /// The service of a pod in this life, which is made once.
    pub(crate) fn new(life: &Arc<Life>) -> Self {
        Self {
            life: life.clone(),
            _alive: life.alive(),
            stalled: None,
        }
    }
}

impl Clone for Pod {
    fn clone(&self) -> Self {
        Self {
            life: self.life.clone(),
            _alive: self._alive.clone(),
            stalled: None,
        }
    }
}

struct Stalled(Arc<Life>);

impl Stalled {
    fn new(life: &Arc<Life>) -> Self {
        life.note(|log| (log.stalled, log.waiting) = (log.stalled + 1, log.waiting + 1));
        Self(life.clone())
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0
            .note(|log| (log.stalled, log.waiting) = (log.stalled - 1, log.waiting - 1));
    }
}

impl Service<Request> for Pod {
    type Response = Response<PodBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<PodBody>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.life.poll_other(&[Mood::Stall], cx).is_pending() {
            self.stalled.get_or_insert_with(|| Stalled::new(&self.life));
            return Poll::Pending;
        }
        self.stalled = None;
        match self.life.mood() {
            Mood::Refuse => {
                let refuse = |log: &mut Log| {
                    (log.refusals, log.bad) = (log.refusals + 1, log.bad + 1);
                };
                self.life.note(refuse);
                Poll::Ready(Err("connection refused".into()))
            }
            Mood::PanicInReady => self.life.panic(),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        {
            let mut sent = lock(&request.sent);
            sent.times += 1;
            sent.last = Some(Receiver {
                host: self.life.host,
                born_in: self.life.born_in,
                known: self.life.known(),
            });
        }
        let open = Open::new(&self.life);
        let mood = self.life.mood();
        if mood == Mood::Panic {
            self.life.panic();
        }
        Box::pin(answer(open, mood, request))
    }
}

async fn answer(
    mut open: Open,
    mood: Mood,
    request: Request,
) -> Result<Response<PodBody>, BoxError> {
    let host = open.life.host;
    match mood {
        Mood::Slow(time) => sleep(Duration::from_millis(time.into())).await,
        Mood::Hang => {
            let life = open.life.clone();
            poll_fn(move |cx| life.poll_other(&[Mood::Hang], cx)).await;
        }
        Mood::HandBack => {
            open.answered(|log| (log.handed_back, log.bad) = (log.handed_back + 1, log.bad + 1));
            lock(&request.sent).times -= 1;
            return Err(Unsent::new(request, "connection closed").into());
        }
        Mood::Error => {
            open.answered(|log| log.bad += 1);
            let number = request.number;
            return Err(PodError { number, host }.into());
        }
        _ => {}
    }
    let is_good = !matches!(mood, Mood::Unavailable | Mood::StreamUnavailable);
    open.answered(|log| *if is_good { &mut log.good } else { &mut log.bad } += 1);
    let goes_on = matches!(mood, Mood::Stream | Mood::StreamUnavailable | Mood::Break);
    let mut response = Response::new(PodBody {
        open: goes_on.then_some(open),
        breaks: mood == Mood::Break,
    });
    if !is_good {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response.extensions_mut().insert(ServedBy(host));
    Ok(response)
}

/// A request that the pod has.
struct Open {
    life: Arc<Life>,
    is_answered: bool,
}

impl Open {
    fn new(life: &Arc<Life>) -> Self {
        life.note(|log| {
            log.begun += 1;
            log.open += 1;
            log.waiting += 1;
        });
        Self {
            life: life.clone(),
            is_answered: false,
        }
    }

    fn answered(&mut self, note: impl FnOnce(&mut Log)) {
        self.is_answered = true;
        self.life.note(|log| {
            log.waiting -= 1;
            note(log);
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let is_answered = self.is_answered;
        self.life.note(|log| {
            log.open -= 1;
            if !is_answered {
                log.waiting -= 1;
                log.bad += 1;
            }
        });
    }
}

/// A response's body.
pub(crate) struct PodBody {
    /// Until it ends.
    open: Option<Open>,
    breaks: bool,
}

impl Body for PodBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(open) = &self.open else {
            return Poll::Ready(None);
        };
        if self.breaks {
            open.life.note(|log| log.bad += 1);
            self.open = None;
            return Poll::Ready(Some(Err("connection reset".into())));
        }
        let streams = [Mood::Stream, Mood::StreamUnavailable];
        std::task::ready!(open.life.poll_other(&streams, cx));
        self.open = None;
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none()
    }
}
