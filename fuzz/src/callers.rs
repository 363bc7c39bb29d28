//! Several callers' requests, and whose bytes their responses may contain.
//!
//! A request's path is its number, in binary: `/000101`. Its body is [`BODY`] times its [`mark`].

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::ext::ReasonPhrase;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinHandle,
};
use tower::ServiceExt;
use tower_headless::http::{Client, Error, Idempotent, ResponseBody, upgrade};

use crate::runtime::{in_time, settle};

/// How many requests an input may have.
pub const MOST: u8 = 20;

/// The length of a request's body, if it has one.
pub const BODY: usize = 16;

/// The byte that identifies a request in its own body. No text contains it.
pub fn mark(number: u8) -> u8 {
    0x80 + number
}

/// What a request is, and what its caller does with the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Get,
    /// The body is dropped after its first frame.
    GetDropped,
    /// The body isn't read until [`Callers::go_on`].
    GetHeld,
    Head,
    Post,
    /// The body has no known length.
    PostStream,
    /// The body's second half comes only at [`Callers::go_on`].
    PostStalled,
    Idempotent,
    Expect,
    Upgrade,
    Connect,
}

impl Kind {
    pub fn of(byte: u8) -> Self {
        const ALL: [Kind; 11] = [
            Kind::Get,
            Kind::GetDropped,
            Kind::GetHeld,
            Kind::Head,
            Kind::Post,
            Kind::PostStream,
            Kind::PostStalled,
            Kind::Idempotent,
            Kind::Expect,
            Kind::Upgrade,
            Kind::Connect,
        ];
        ALL[usize::from(byte) % ALL.len()]
    }

    /// Whether it may be sent more than once.
    pub fn is_repeatable(self) -> bool {
        use Kind::*;
        matches!(
            self,
            Get | GetDropped | GetHeld | Head | Idempotent | Upgrade
        )
    }

    pub fn has_body(self) -> bool {
        use Kind::*;
        matches!(self, Post | PostStream | PostStalled | Idempotent | Expect)
    }
}

/// Panics if a caller must not have seen these bytes: a header's value, or all of the body so far.
pub type Check = Arc<dyn Fn(u8, &[u8]) + Send + Sync>;

/// The callers of one input.
pub struct Callers {
    client: Client,
    check: Check,
    tasks: Vec<JoinHandle<()>>,
    kinds: Vec<Kind>,
    /// Requests that no pod has executed, according to the client.
    unexecuted: Arc<Mutex<Vec<u8>>>,
    go: watch::Sender<()>,
}

impl Callers {
    pub fn new(client: Client, check: Check) -> Self {
        Self {
            client,
            check,
            tasks: Vec::new(),
            kinds: Vec::new(),
            unexecuted: Arc::default(),
            go: watch::Sender::new(()),
        }
    }

    /// Starts one more request.
    pub fn start(&mut self, kind: Kind) {
        let number = u8::try_from(self.tasks.len()).expect("not so many");
        if number == MOST {
            return;
        }
        let caller = Caller {
            number,
            kind,
            check: self.check.clone(),
            go: self.go.subscribe(),
        };
        let (client, unexecuted) = (self.client.clone(), self.unexecuted.clone());
        self.kinds.push(kind);
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = caller.call(client).await {
                let _ = (error.to_string(), format!("{error:?}"));
                if error.is_unexecuted() {
                    unexecuted.lock().expect("no panic").push(number);
                }
            }
        }));
    }

    /// Lets waiting callers go on.
    pub fn go_on(&self) {
        self.go.send_replace(());
    }

    /// Makes a caller give up.
    pub fn give_up(&self, number: u8) {
        if let Some(task) = self.tasks.get(usize::from(number)) {
            task.abort();
        }
    }

    /// Whether all requests have ended.
    pub fn have_ended(&self) -> bool {
        self.tasks.iter().all(JoinHandle::is_finished)
    }

    /// A request's kind; none if there is no such request.
    pub fn kind(&self, number: u8) -> Option<Kind> {
        self.kinds.get(usize::from(number)).copied()
    }

    /// Waits for the end of all requests, which must come now that there are no pods.
    ///
    /// Returns those that no pod has executed, according to the client.
    pub async fn end(self) -> Vec<u8> {
        drop((self.go, self.client));
        for (number, task) in self.tasks.into_iter().enumerate() {
            // The task may have been aborted. It can't have panicked: that would have ended the process.
            let _ = in_time(&format!("request {number}"), task).await;
        }
        settle().await;
        std::mem::take(&mut self.unexecuted.lock().expect("no panic"))
    }
}

struct Caller {
    number: u8,
    kind: Kind,
    check: Check,
    go: watch::Receiver<()>,
}

impl Caller {
    async fn call(mut self, client: Client) -> Result<(), Error> {
        let mut response = self.send(client).await?;
        for value in response.headers().values() {
            self.check(value.as_bytes());
        }
        if let Some(reason) = response.extensions().get::<ReasonPhrase>() {
            self.check(reason.as_bytes());
        }
        if self.kind == Kind::GetHeld {
            self.wait().await;
        }
        if matches!(self.kind, Kind::Upgrade | Kind::Connect) {
            self.talk(&mut response).await;
        }
        self.read(response.into_body()).await
    }

    fn check(&self, bytes: &[u8]) {
        (self.check)(self.number, bytes);
    }

    async fn wait(&mut self) {
        // An error means that `Callers` is gone: then it goes on at once.
        let _ = self.go.changed().await;
    }

    async fn send(&self, client: Client) -> Result<Response<ResponseBody>, Error> {
        let mut request = Request::new(());
        *request.uri_mut() = format!("/{:06b}", self.number).parse().expect("a path");
        *request.method_mut() = match self.kind {
            Kind::Head => Method::HEAD,
            Kind::Connect => Method::CONNECT,
            kind if kind.has_body() => Method::POST,
            _ => Method::GET,
        };
        let mut header = |name, value: &'static str| {
            let value = http::HeaderValue::from_static(value);
            request.headers_mut().insert(name, value)
        };
        match self.kind {
            Kind::Expect => drop(header("expect", "100-continue")),
            Kind::Upgrade => {
                header("connection", "upgrade");
                header("upgrade", "marks");
            }
            _ => {}
        }
        if self.kind == Kind::Connect {
            let uri = format!("n{:06b}:80", self.number);
            *request.uri_mut() = uri.parse().expect("an authority");
        }
        let chunk = |length| Bytes::from(vec![mark(self.number); length]);
        match self.kind {
            Kind::Post | Kind::Expect => {
                let body = Full::new(chunk(BODY));
                client.oneshot(request.map(|()| body)).await
            }
            Kind::PostStream | Kind::PostStalled | Kind::Idempotent => {
                if self.kind == Kind::Idempotent {
                    request.extensions_mut().insert(Idempotent::default());
                }
                let stalled = self.kind == Kind::PostStalled;
                let halves = [None, stalled.then(|| self.go.clone())];
                let half = chunk(BODY / 2);
                let frames = stream::unfold(halves.into_iter(), move |mut halves| {
                    let half = half.clone();
                    async move {
                        if let Some(mut go) = halves.next()? {
                            let _ = go.changed().await;
                        }
                        Some((Ok::<_, Infallible>(Frame::data(half)), halves))
                    }
                });
                let body = StreamBody::new(frames);
                client.oneshot(request.map(|()| body)).await
            }
            _ => client.oneshot(request.map(|()| Empty::new())).await,
        }
    }

    async fn read(&mut self, mut body: ResponseBody) -> Result<(), Error> {
        let mut seen = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame?;
            if let Some(data) = frame.data_ref() {
                seen.extend(data);
                self.check(&seen);
            }
            for value in frame.trailers_ref().into_iter().flat_map(|it| it.values()) {
                self.check(value.as_bytes());
            }
            if self.kind == Kind::GetDropped {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes and reads over an upgraded connection.
    async fn talk(&self, response: &mut Response<ResponseBody>) {
        let Ok(mut upgraded) = upgrade(response).await else {
            return;
        };
        let _ = upgraded.write_all(&[mark(self.number); 3]).await;
        let _ = upgraded.flush().await;
        let (mut seen, mut buffer) = (Vec::new(), [0; 512]);
        while let Ok(length @ 1..) = upgraded.read(&mut buffer).await {
            seen.extend(&buffer[..length]);
            self.check(&seen);
        }
    }
}
