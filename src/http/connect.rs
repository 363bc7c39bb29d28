//! Connects to a pod's address, and speaks HTTP there.

#[cfg(feature = "tls")]
use std::sync::atomic::Ordering::Relaxed;
use std::{
    error::Error,
    io::{self, Read},
    mem::MaybeUninit,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

#[cfg(feature = "tls")]
use super::tls::Handshake;
use super::{
    body::RequestBody,
    cut_off::until_end,
    h2_task::{Http2State, Http2Task, Spawned},
    h2_wire::Wire,
    heads::LargeHeads,
    protocol::Protocol,
    reclaim::{Claim, Lent, drive},
    renewal::{Renewals, Vintage},
    socket::{Socket, SocketHints},
    upload::Upload,
    wire_limits::WireLimits,
};
use crate::{
    counters::{Closed, ConnectionTally, NotConnected},
    endpoint::Endpoint,
    error::{BoxError, timed_out},
};

/// How connections are made.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) protocol: Protocol,
    pub(super) connect_timeout: Duration,
    /// This and the next are from 1 to 32,000 seconds: not every system takes more or less.
    pub(super) keepalive: Option<Duration>,
    pub(super) user_timeout: Option<Duration>,
    pub(super) ping: Option<Duration>,
    /// Present if the connections' settings may change.
    pub(super) renewals: Option<Arc<Renewals>>,
    pub(super) limits: WireLimits,
    pub(super) large_heads: LargeHeads,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Handshake>,
}

impl Default for Connector {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            connect_timeout: SECOND,
            keepalive: Some(10 * SECOND),
            user_timeout: Some(10 * SECOND),
            ping: None,
            renewals: None,
            limits: WireLimits::default(),
            large_heads: LargeHeads::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// A new connection.
pub(super) enum Connection {
    /// With handles to its socket and its stream.
    Http1(http1::SendRequest<RequestBody>, SocketHints, Claim),
    Http2(http2::SendRequest<Upload>, Arc<Http2State>),
}

impl Connection {
    /// Notes that its pod left while it was being made.
    pub(super) fn leaves(self) {
        let ending = match &self {
            Self::Http1(_, hints, _) => hints.ending(),
            Self::Http2(_, http2) => http2.ending(),
        };
        ending.because(Closed::Left);
    }
}

/// Systems count in seconds.
const SECOND: Duration = Duration::from_secs(1);

/// How long a pod may take to answer a ping.
const PONG: Duration = Duration::from_secs(5);

impl Connector {
    /// Whether HTTP/2 is possible.
    pub(super) fn may_speak_http2(&self) -> bool {
        match self.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Negotiated => self.is_negotiated(),
        }
    }

    /// Whether the pod chooses the protocol.
    pub(super) fn is_negotiated(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.protocol == Protocol::Negotiated && self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// For a connection that is being made now; none if its settings can't change.
    pub(super) fn vintage(&self) -> Option<Vintage> {
        self.renewals.as_ref().map(Renewals::vintage)
    }

    /// Connects within the connect timeout, all handshakes included. The socket holds `room` for as long as the
    /// connection is open. `counted` counts the outcome, if connections are counted.
    pub(super) async fn connect(
        &self,
        pod: &Endpoint,
        counted: Option<Arc<ConnectionTally>>,
        room: impl Send + Unpin + 'static,
    ) -> Result<Connection, BoxError> {
        let in_tls = AtomicBool::new(false);
        let hints = SocketHints::counted(counted.clone());
        let connecting = self.connect_unbounded(pod, (hints.clone(), room), &in_tls);
        let made = timeout(self.connect_timeout, connecting).await;
        let made = made.unwrap_or_else(|_late| {
            let after = self.connect_timeout;
            let after = format!("no connection within {after:?} (`connect_timeout`)");
            Err(timed_out(after))
        });
        match (&made, counted) {
            (Ok(_), _) => hints.ending().open(),
            (Err(error), Some(counted)) => counted.failed(why(&**error, in_tls.into_inner())),
            (Err(_), None) => {}
        }
        made
    }

    async fn connect_unbounded(
        &self,
        pod: &Endpoint,
        (hints, room): (SocketHints, impl Send + Unpin + 'static),
        #[cfg_attr(not(feature = "tls"), expect(unused_variables))] in_tls: &AtomicBool,
    ) -> Result<Connection, BoxError> {
        let stream = Socket::new(self.tcp(pod).await?, read_now, hints.clone(), room);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            in_tls.store(true, Relaxed);
            let (stream, negotiated_http2) = tls.handshake(pod, self.protocol, stream).await?;
            in_tls.store(false, Relaxed);
            return self.http(stream, hints, negotiated_http2).await;
        }
        self.http(stream, hints, false).await
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
            // Three probes, so that a lost peer is noticed within twice the time.
            let probes = TcpKeepalive::new().with_time(idle);
            let probes = probes.with_interval((idle / 3).max(SECOND));
            options.set_tcp_keepalive(&probes.with_retries(3))?;
        }
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
        options.set_tcp_user_timeout(self.user_timeout)?;
        socket.connect(address).await
    }

    async fn http<T>(
        &self,
        stream: T,
        hints: SocketHints,
        negotiated_http2: bool,
    ) -> Result<Connection, BoxError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if negotiated_http2 || self.protocol == Protocol::Http2 {
            return self.http2(stream, hints).await;
        }
        let (stream, claim) = Lent::new(stream);
        let builder = self.limits.http1(self.large_heads.are_expected());
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        let told = hints.clone();
        let running = drive(connection, hints.clone());
        tokio::spawn(until_end(running, move || told.cut_off()));
        sender.ready().await?;
        Ok(Connection::Http1(sender, hints, claim))
    }

    async fn http2<T>(&self, stream: T, hints: SocketHints) -> Result<Connection, BoxError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = Arc::new(Http2State::of(hints));
        let (spawner, spawned) = Spawned::new(state.clone());
        let io = TokioIo::new(Wire::new(stream, &self.limits, state.seen.clone()));
        let mut builder = http2::Builder::new(spawner);
        builder.timer(TokioTimer::new());
        self.limits.set(&mut builder);
        if let Some(interval) = self.ping {
            builder.keep_alive_interval(interval);
            builder.keep_alive_timeout(PONG).keep_alive_while_idle(true);
        }
        // No stream until the pod's SETTINGS say how many: a server that never sends any doesn't speak HTTP/2.
        builder.initial_max_send_streams(0);
        let (sender, connection) = builder.handshake(io).await?;
        let mut task = Http2Task::new(connection, spawned, state.clone());
        task.ready().await?;
        let told = state.clone();
        tokio::spawn(until_end(task, move || told.cut_off()));
        Ok(Connection::Http2(sender, state))
    }
}

/// The reason for a failed connect, for the counters.
fn why(error: &(dyn Error + 'static), in_tls: bool) -> NotConnected {
    let error = error.downcast_ref::<io::Error>();
    let why = error.map_or(NotConnected::Other, |error| NotConnected::by(error.kind()));
    match why {
        NotConnected::Timeout => why,
        _ if in_tls => NotConnected::Tls,
        _ => why,
    }
}

/// Reads what has arrived, or the stream's end.
fn read_now(stream: &TcpStream, buffer: &mut ReadBuf<'_>) -> bool {
    let socket = SockRef::from(stream);
    // Cheaper than clearing the buffer, because there is rarely anything.
    if socket.peek(&mut [MaybeUninit::uninit()]).is_err() {
        return false;
    }
    // tokio should see the error itself.
    match (&*socket).read(buffer.initialize_unfilled()) {
        Ok(bytes) => {
            buffer.advance(bytes);
            true
        }
        Err(_) => false,
    }
}

impl WireLimits {
    fn set<E: Clone>(&self, builder: &mut http2::Builder<E>) {
        builder
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_frame_size(self.frame_size)
            .max_header_list_size(self.h2_header_size())
            .max_concurrent_reset_streams(self.reset_streams)
            .reset_stream_duration(REMEMBERED)
            // Late answers to cancelled requests are no reason to close the connection, however many there are.
            .max_local_error_reset_streams(None);
    }
}

/// How long a cancelled stream is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);
