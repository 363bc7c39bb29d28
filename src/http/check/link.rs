//! The connection of a pod's checks, kept between them.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    balance::Generator,
    error::BoxError,
    home::Home,
    http::{
        address::Service,
        body::RequestBody,
        connect::Connection,
        pool::{Age, AgeLimits, KeepAlive},
        renewal::Vintage,
        upload::{Fate, Upload},
    },
};

/// How much of an answer is read, so that its connection can be used again: more than any healthy answer has.
const MOST: usize = 16 * 1024;

/// How long to wait for the rest of the previous check's answer: by now it has been read, or it is endless.
const MOMENT: Duration = Duration::from_millis(10);

/// A connection, and the task that reads the rest of its last answer.
pub(super) struct Link {
    connection: Connection,
    age: Age,
    home: Home,
    keep_alive: KeepAlive,
    /// Tells whether the answer could be read to its end. Aborted when dropped.
    reader: JoinSet<bool>,
}

impl Link {
    /// Must be called in the runtime that drives the connection.
    pub(super) fn new(connection: Connection, limits: AgeLimits, vintage: Option<Vintage>) -> Self {
        let age = Age::new(limits, Instant::now(), &mut &Generator::new(None));
        Self {
            connection,
            age: age.of(vintage),
            home: Home::of(&Handle::current()),
            keep_alive: KeepAlive::default(),
            reader: JoinSet::new(),
        }
    }

    /// Whether it can be used again.
    pub(super) async fn is_ready(&mut self) -> bool {
        let is_old = self.age.is_reached() || self.age.is_outdated();
        if !self.home.runs_beside_us() || is_old || self.keep_alive.is_over() {
            return false;
        }
        let ready = async {
            while let Some(is_read) = self.reader.join_next().await {
                if !is_read? {
                    return Err("an answer that never ends".into());
                }
            }
            match &mut self.connection {
                Connection::Http1(sender, ..) => sender.ready().await?,
                Connection::Http2(sender, _) => sender.ready().await?,
            }
            Ok::<_, BoxError>(())
        };
        matches!(timeout(MOMENT, ready).await, Ok(Ok(())))
    }

    pub(super) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
        service: &Service,
    ) -> Result<Response<Incoming>, BoxError> {
        self.age.count();
        let response = match &mut self.connection {
            Connection::Http1(sender, ..) => {
                service.address_http1(&mut request)?;
                let response = sender.send_request(request).await?;
                self.keep_alive.heed(response.headers());
                response
            }
            Connection::Http2(sender, _) => {
                service.address_http2(&mut request)?;
                let request = request.map(|body| Upload::new(body, Arc::<Fate>::default()));
                sender.send_request(request).await?
            }
        };
        Ok(response)
    }

    /// Reads the answer's body, which nobody waits for: the head was enough.
    pub(super) fn read_on(&mut self, body: Incoming) {
        // Only HTTP/1.1: over HTTP/2, dropping the body resets just its stream.
        if matches!(self.connection, Connection::Http1(..)) && !body.is_end_stream() {
            let read = Limited::new(body, MOST).collect();
            self.reader.spawn(async move { read.await.is_ok() });
        }
    }
}
