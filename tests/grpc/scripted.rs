//! Pods that fail calls in one way each, on the level of HTTP/2.

use std::{
    future::{Future, poll_fn},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::support::tls::Identity;

/// `SERVING`, in its frame.
const MESSAGE: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// What a pod does with a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    /// Listens no more.
    Refuse,
    /// Closes the connection.
    Die,
    Hang,
    Reset(h2::Reason),
    /// Closes the connection after a GOAWAY.
    GoAway(h2::Reason),
    /// Answers with a head alone.
    Status(StatusCode, &'static str),
    /// Answers with one message, and the status `OK`.
    Answer,
    /// Answers with a head and a message. Once its caller has these, it does `Then`, or cuts a message short and dies.
    Begin(Then),
    /// Speaks HTTP/1.1.
    Http1,
    /// Speaks TLS.
    Tls,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Die,
    DieInMessage,
    Hang,
    Reset(h2::Reason),
    GoAway(h2::Reason),
}

pub(crate) struct ScriptedPod {
    pub(crate) address: SocketAddr,
    /// Notified when the caller has the message.
    pub(crate) told: Arc<Notify>,
    pub(crate) seen: Arc<Seen>,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    /// The heads of calls.
    pub(crate) heads: Mutex<Vec<HeaderMap>>,
    /// The resets that callers sent.
    pub(crate) resets: Mutex<Vec<h2::Reason>>,
    /// Notified when either of these changes.
    news: Notify,
}

impl Seen {
    pub(crate) async fn until(&self, is_there: impl Fn(&Self) -> bool) {
        while !is_there(self) {
            self.news.notified().await;
        }
    }

    /// The `grpc-timeout` of each call.
    pub(crate) fn timeouts(&self) -> Vec<String> {
        let heads = self.heads.lock().expect("nobody panics");
        let timeout = |head: &HeaderMap| Some(head.get("grpc-timeout")?.to_str().ok()?.to_owned());
        heads.iter().filter_map(timeout).collect()
    }
}

impl ScriptedPod {
    pub(crate) async fn start(does: Does) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let pod = Self {
            address: listener.local_addr().expect("a bound socket"),
            told: Arc::default(),
            seen: Arc::default(),
        };
        if let Does::Refuse = does {
            return pod;
        }
        let (told, seen) = (pod.told.clone(), pod.seen.clone());
        tokio::spawn(async move {
            let tls = Identity::new("health").acceptor().expect("a certificate");
            while let Ok((stream, _)) = listener.accept().await {
                seen.connections.fetch_add(1, Relaxed);
                let (told, seen, tls) = (told.clone(), seen.clone(), tls.clone());
                tokio::spawn(async move {
                    match does {
                        Does::Http1 => speak_http1(stream).await,
                        Does::Tls => drop(tls.accept(stream).await),
                        // However it ends, the caller notices.
                        does => drop(serve(stream, does, told, seen).await),
                    }
                });
            }
        });
        pod
    }
}

async fn speak_http1(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 1024]).await;
    let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let _ = stream.write_all(answer).await;
}

async fn serve(
    stream: TcpStream,
    does: Does,
    told: Arc<Notify>,
    seen: Arc<Seen>,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    // Keeps streams open.
    let mut begun = Vec::new();
    loop {
        let call = tokio::select! {
            call = connection.accept() => call,
            () = told.notified() => match does {
                Does::Begin(Then::Reset(reason)) => {
                    for mut body in begun.drain(..) {
                        h2::SendStream::send_reset(&mut body, reason);
                    }
                    continue;
                }
                Does::Begin(Then::GoAway(reason)) => return end(connection, reason).await,
                Does::Begin(Then::Die | Then::DieInMessage) => return Ok(()),
                _ => continue,
            },
        };
        let Some(call) = call else { return Ok(()) };
        let (request, mut respond) = call?;
        let heads = || seen.heads.lock().expect("nobody panics");
        heads().push(request.headers().clone());
        seen.news.notify_one();
        let head = || Response::builder().header("content-type", "application/grpc");
        match does {
            Does::Die => return Ok(()),
            Does::Reset(reason) => respond.send_reset(reason),
            Does::GoAway(reason) => return end(connection, reason).await,
            Does::Status(status, grpc) => {
                let head = head().status(status);
                let head = match grpc {
                    "" => head,
                    grpc => head.header("grpc-status", grpc),
                };
                respond.send_response(head.body(()).expect("a head"), true)?;
            }
            Does::Answer => {
                let mut body = respond.send_response(head().body(()).expect("a head"), false)?;
                body.send_data(Bytes::from_static(MESSAGE), false)?;
                let status = [("grpc-status", "0")].map(|(name, value)| {
                    let (name, value) = (name.parse(), value.parse());
                    (name.expect("a name"), value.expect("a value"))
                });
                body.send_trailers(HeaderMap::from_iter(status))?;
            }
            Does::Begin(then) => {
                let mut body = respond.send_response(head().body(()).expect("a head"), false)?;
                body.send_data(Bytes::from_static(MESSAGE), false)?;
                if let Then::DieInMessage = then {
                    body.send_data(Bytes::from_static(&MESSAGE[..6]), false)?;
                }
                begun.push(body);
            }
            Does::Hang => {
                let seen = seen.clone();
                tokio::spawn(async move {
                    if let Ok(reason) = poll_fn(|cx| respond.poll_reset(cx)).await {
                        seen.resets.lock().expect("nobody panics").push(reason);
                        seen.news.notify_one();
                    }
                });
            }
            Does::Refuse | Does::Http1 | Does::Tls => unreachable!("it doesn't get here"),
        }
    }
}

fn end(
    mut connection: h2::server::Connection<TcpStream, Bytes>,
    reason: h2::Reason,
) -> impl Future<Output = Result<(), h2::Error>> {
    connection.abrupt_shutdown(reason);
    async move { poll_fn(|cx| connection.poll_closed(cx)).await }
}
