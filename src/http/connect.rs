//! From a pod's address to a connection that speaks HTTP.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::body::RequestBody;
#[cfg(feature = "tls")]
use super::tls::Handshake;
use crate::{endpoint::Endpoint, error::BoxError};

/// Which protocol pods are spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// Over TLS, what the pod chooses of the two (ALPN); in clear, HTTP/1.1.
    #[default]
    Negotiated,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; in clear with prior knowledge (RFC 9113 §3.3), as gRPC has it.
    Http2,
}

/// How connections are made.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) protocol: Protocol,
    pub(super) connect_timeout: Duration,
    pub(super) keepalive: Option<Duration>,
    pub(super) user_timeout: Option<Duration>,
    pub(super) ping: Option<Duration>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Handshake>,
}

/// A connection that has just been made.
pub(super) enum Connection {
    Http1(http1::SendRequest<RequestBody>),
    /// With how many requests the pod allows at once.
    Http2(http2::SendRequest<RequestBody>, Arc<AtomicUsize>),
}

/// How long a ping's answer may take.
const PONG: Duration = Duration::from_secs(5);

impl Connector {
    /// Connects within the connect timeout, all handshakes included.
    pub(super) async fn connect(&self, pod: &Endpoint) -> Result<Connection, BoxError> {
        let connecting = self.connect_unbounded(pod);
        let Ok(connection) = timeout(self.connect_timeout, connecting).await else {
            let after = format!("no connection within {:?}", self.connect_timeout);
            return Err(io::Error::new(io::ErrorKind::TimedOut, after).into());
        };
        connection
    }

    async fn connect_unbounded(&self, pod: &Endpoint) -> Result<Connection, BoxError> {
        let stream = self.tcp(pod).await?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let (stream, negotiated_http2) = tls.handshake(pod, self.protocol, stream).await?;
            return self.http(stream, negotiated_http2).await;
        }
        self.http(stream, false).await
    }

    async fn tcp(&self, pod: &Endpoint) -> io::Result<TcpStream> {
        let address = pod.address();
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        let options = SockRef::from(&socket);
        options.set_tcp_nodelay(true)?;
        if let Some(idle) = self.keepalive {
            // Three probes, so that a peer that is gone is known to be within twice the time.
            let probes = TcpKeepalive::new().with_time(idle);
            let probes = probes.with_interval((idle / 3).max(Duration::from_secs(1)));
            options.set_tcp_keepalive(&probes.with_retries(3))?;
        }
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
        options.set_tcp_user_timeout(self.user_timeout)?;
        socket.connect(address).await
    }

    async fn http<T>(&self, stream: T, negotiated_http2: bool) -> Result<Connection, BoxError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        if negotiated_http2 || self.protocol == Protocol::Http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new());
            builder.initial_stream_window_size(STREAM_WINDOW);
            builder.initial_connection_window_size(CONNECTION_WINDOW);
            if let Some(interval) = self.ping {
                builder.keep_alive_interval(interval);
                builder.keep_alive_timeout(PONG).keep_alive_while_idle(true);
            }
            let (mut sender, mut connection) = builder.handshake(io).await?;
            let allowed = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
            let told = allowed.clone();
            // Ends with the connection. Its error reaches the requests in flight.
            tokio::spawn(poll_fn(move |cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                told.store(connection.current_max_send_streams(), Relaxed);
                polled
            }));
            sender.ready().await?;
            return Ok(Connection::Http2(sender, allowed));
        }
        let (mut sender, connection) = http1::Builder::new().handshake(io).await?;
        tokio::spawn(connection.with_upgrades());
        sender.ready().await?;
        Ok(Connection::Http1(sender))
    }
}

/// HTTP/2's own default of 64 KiB holds up large answers on fast networks; tonic and reqwest take these, too.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;
