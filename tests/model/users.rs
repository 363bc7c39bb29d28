//! Users: they send requests, and record what happens to each.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
};

use futures::{FutureExt, future::BoxFuture};
use http_body_util::BodyExt;
use tokio::{task::AbortHandle, time::Instant};
use tower_headless::{Endpoint, Error, PodId, Route};

use crate::{
    cluster::{Wanted, address, name},
    lock::lock,
    plan::{By, Hosts, Take},
    pod::{Request, Sent, ServedBy},
    subject::{PodResponse, Subject},
};

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Readying,
    Calling,
    Reading,
    Ended,
}

/// How a request ended.
pub(crate) enum Answer {
    Head { host: Option<u8> },
    Error(Error),
    Panic,
}

/// What a user has seen.
pub(crate) struct Record {
    pub(crate) stage: Stage,
    pub(crate) answer: Option<(Instant, Answer)>,
    kept: Option<PodResponse>,
}

/// One request, and the user that waits for it.
pub(crate) struct User {
    pub(crate) number: u32,
    pub(crate) begun: Instant,
    pub(crate) avoids: Hosts,
    pub(crate) wants: Wanted,
    pub(crate) key: Option<u8>,
    /// The set that the balancer knew when the request began.
    pub(crate) known: u32,
    pub(crate) sent: Arc<Mutex<Sent>>,
    pub(crate) record: Arc<Mutex<Record>>,
    task: Option<AbortHandle>,
    pub(crate) is_seen: bool,
    /// Whether it existed at the last check.
    pub(crate) is_old: bool,
}

/// The request that a user will send.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) number: u32,
    pub(crate) avoid: Hosts,
    pub(crate) wants: Wanted,
    pub(crate) key: Option<u8>,
    /// Whether it waits for readiness first.
    pub(crate) readies: bool,
    pub(crate) take: Take,
}

impl Wish {
    /// To any pod.
    pub(crate) fn any(take: Take) -> Self {
        Self {
            number: 0,
            avoid: Hosts::default(),
            wants: None,
            key: None,
            readies: true,
            take,
        }
    }

    fn route(&self) -> Route {
        let avoid = self.avoid.iter().map(|host| address(host).into());
        let mut route = avoid.fold(Route::new(), |route, pod: Endpoint| route.avoid(&pod));
        if let Some(key) = self.key {
            route = route.key(key);
        }
        match self.wants {
            Some((pin, pod)) if pin.is_others() => route.leave_out(id(pin, pod)),
            Some((pin, pod)) => route.pod(id(pin, pod)),
            None => route,
        }
    }
}

/// The id that a pod is asked for by, or left out by.
fn id(by: By, pod: u8) -> PodId {
    match by {
        By::Name | By::OthersByName => name(pod).into(),
        By::Number => PodId::ordinal(pod.into()),
        By::Address | By::OthersByAddress => address(pod).ip().into(),
    }
}

impl User {
    /// Begins a request, and polls it `looks` times before other tasks get a turn. Then it runs if it `stays`;
    /// otherwise it is dropped.
    pub(crate) fn start(
        subject: &dyn Subject,
        wish: Wish,
        known: u32,
        looks: u8,
        stays: bool,
    ) -> Self {
        let record = Arc::new(Mutex::new(Record {
            stage: Stage::Readying,
            answer: None,
            kept: None,
        }));
        let mut user = Self {
            number: wish.number,
            begun: Instant::now(),
            avoids: wish.avoid,
            wants: wish.wants,
            key: wish.key,
            known,
            sent: Arc::default(),
            record: record.clone(),
            task: None,
            is_seen: false,
            is_old: false,
        };
        let request = Request {
            number: wish.number,
            sent: user.sent.clone(),
        };
        let mut request = run(subject, wish, request, record.clone());
        let mut is_done = false;
        for _ in 0..looks {
            let cx = &mut Context::from_waker(Waker::noop());
            is_done = is_done || Pin::new(&mut request).poll(cx).is_ready();
        }
        if !is_done && stays {
            user.task = Some(tokio::spawn(request).abort_handle());
        } else {
            drop(request);
            lock(&record).stage = Stage::Ended;
        }
        user
    }

    pub(crate) fn stage(&self) -> Stage {
        lock(&self.record).stage
    }

    pub(crate) fn is_running(&self) -> bool {
        self.stage() != Stage::Ended
    }

    /// Whether no pod has its request yet.
    pub(crate) fn waits(&self) -> bool {
        self.stage() == Stage::Calling && self.times_sent() == 0
    }

    /// Whether its response is held.
    pub(crate) fn keeps(&self) -> bool {
        lock(&self.record).kept.is_some()
    }

    pub(crate) fn release(&self) {
        let kept = lock(&self.record).kept.take();
        drop(kept);
    }

    pub(crate) fn give_up(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        lock(&self.record).stage = Stage::Ended;
    }

    /// How many times its request was sent, and not handed back.
    pub(crate) fn times_sent(&self) -> u32 {
        lock(&self.sent).times
    }
}

fn call(
    subject: &dyn Subject,
    request: Request,
    route: Route,
) -> BoxFuture<'static, Result<PodResponse, Error>> {
    if route.is_empty() {
        return subject.call(request);
    }
    subject.call_with(request, route)
}

fn run(
    subject: &dyn Subject,
    wish: Wish,
    request: Request,
    record: Arc<Mutex<Record>>,
) -> BoxFuture<'static, ()> {
    let (route, take) = (wish.route(), wish.take);
    let future: BoxFuture<'static, _> = if wish.readies {
        let (ready, record) = (subject.ready(), record.clone());
        Box::pin(async move {
            let subject = ready.await;
            lock(&record).stage = Stage::Calling;
            let response = call(&*subject, request, route);
            // The request itself holds no handle.
            drop(subject);
            response.await
        })
    } else {
        lock(&record).stage = Stage::Calling;
        let called = catch_unwind(AssertUnwindSafe(|| call(subject, request, route)));
        called.unwrap_or_else(|panic| Box::pin(async { resume_unwind(panic) }))
    };
    Box::pin(async move {
        let result = AssertUnwindSafe(future).catch_unwind().await;
        let (answer, response) = match result {
            Ok(Ok(response)) => (served(&response), Some(response)),
            Ok(Err(error)) => (Answer::Error(error), None),
            Err(_) => (Answer::Panic, None),
        };
        {
            let mut record = lock(&record);
            record.answer = Some((Instant::now(), answer));
            record.stage = Stage::Reading;
        }
        match (take, response) {
            (Take::Read, Some(response)) => drop(response.into_body().collect().await),
            (Take::Keep, Some(response)) => lock(&record).kept = Some(response),
            (_, response) => drop(response),
        }
        lock(&record).stage = Stage::Ended;
    })
}

fn served(response: &PodResponse) -> Answer {
    let host = response.extensions().get().map(|&ServedBy(host)| host);
    Answer::Head { host }
}
