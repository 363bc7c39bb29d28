//! One name server: how to ask it, and what was learnt from its answers.
//!
//! ```text
//!  UDP with an OPT record ──▶ a whole answer
//!    │ refused, or silence     ▲
//!    ├──▶ UDP without it ──────┤       (remembered for the server: edns.rs)
//!    │ cut, unreadable or too large
//!    └──▶ TCP ─────────────────┤       (remembered for the question)
//!           │ it was TCP's turn first, and it leads to nothing
//!           └──▶ UDP ──────────┘       (forgotten again)
//! ```
//!
//! With resolv.conf's `options use-vc`, only TCP is used.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{Instant, timeout},
};

use super::{
    client::{Message, Response},
    edns::Edns,
    lookup::{Answer, LookupError, Query, Reason, Transport, Via},
    system_conf::Options,
    tcp::Connections,
    udp,
};
use crate::sync::Mutex;

/// How many times a question is sent over UDP within its time, unless resolv.conf says otherwise (`attempts`).
const SENDS: u32 = 4;

/// How many questions are remembered whose answers are too large for a packet. A target has a handful.
const LARGE: usize = 1024;

/// A name server.
pub(super) struct Server {
    address: SocketAddr,
    options: Options,
    edns: Edns,
    connections: Connections,
    /// The server has sent something, whatever it was.
    responds: AtomicBool,
    /// Questions whose answers didn't fit into a packet last time.
    large: Mutex<HashSet<Query>>,
}

/// A server's answer, and evidence for it.
pub(super) struct Heard {
    pub(super) answer: Answer,
    /// The negative answer comes from a zone below the root.
    pub(super) is_denied_below_the_root: bool,
}

impl Server {
    pub(super) fn new(address: SocketAddr, options: Options) -> Self {
        Self {
            address,
            options,
            edns: Edns::default(),
            connections: Connections::new(address),
            responds: AtomicBool::new(false),
            large: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether anything has ever come from the server.
    pub(super) fn responds(&self) -> bool {
        self.responds.load(Relaxed)
    }

    /// Asks, and gives up after `budget` at the latest.
    pub(super) async fn ask(&self, query: &Query, over: Transport, budget: Duration) -> Heard {
        match self.exchange(query, over, budget).await {
            Ok((response, transport)) => {
                let name_server = self.address;
                let via = Via {
                    name_server,
                    transport,
                };
                Heard {
                    answer: response.answer(query, via),
                    is_denied_below_the_root: response.is_denied_below_the_root(),
                }
            }
            Err(reason) => Heard {
                answer: Err(LookupError::new(query, reason).at(self.address)),
                is_denied_below_the_root: false,
            },
        }
    }

    async fn exchange(
        &self,
        query: &Query,
        over: Transport,
        budget: Duration,
    ) -> Result<(Response, Transport), Reason> {
        if self.options.use_tcp {
            let response = self.exchange_tcp(query, budget / 2).await?;
            Ok((response, Transport::Tcp))
        } else if over == Transport::Tcp || self.large.lock().contains(query) {
            self.tcp_first(query, budget).await
        } else {
            self.udp_first(query, budget).await
        }
    }

    /// Asks over UDP, then over TCP if the answer doesn't fit into a packet.
    async fn udp_first(
        &self,
        query: &Query,
        budget: Duration,
    ) -> Result<(Response, Transport), Reason> {
        let deadline = Instant::now() + budget;
        let packet = self.exchange_udp(query, budget).await?;
        let is_whole = !packet.is_truncated() && !packet.is_unreadable();
        // A packet larger than asked for got through by luck, or isn't what the server sent (RFC 9715 §3).
        if is_whole && !packet.is_oversized() {
            return Ok((packet, Transport::Udp));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match self.exchange_tcp(query, left / 2).await {
            Ok(response) if !response.is_unreadable() => Ok((response, Transport::Tcp)),
            Err(reason) if packet.is_truncated() && !packet.is_useful(query) => Err(reason),
            // TCP failed: the packet is usable after all, or shows best what is wrong.
            _ => Ok((packet, Transport::Udp)),
        }
    }

    /// Asks over TCP, then over UDP if that fails: the answer may have become smaller, and TCP may be blocked.
    async fn tcp_first(
        &self,
        query: &Query,
        budget: Duration,
    ) -> Result<(Response, Transport), Reason> {
        let result = self.exchange_tcp(query, budget / 3).await;
        if let Ok(response) = &result
            && !response.is_unreadable()
        {
            return result.map(|response| (response, Transport::Tcp));
        }
        match self.exchange_udp(query, budget / 3).await {
            Ok(packet) if !packet.is_truncated() && !packet.is_unreadable() => {
                self.large.lock().remove(query);
                Ok((packet, Transport::Udp))
            }
            _ => result.map(|response| (response, Transport::Tcp)),
        }
    }

    /// Asks over TCP, without an OPT record: size doesn't matter there, and the record could be refused.
    async fn exchange_tcp(&self, query: &Query, attempt: Duration) -> Result<Response, Reason> {
        let message = self.message(query, false)?;
        let accept = |bytes: &[u8]| message.response(query, bytes);
        let response = self.connections.ask(&message.bytes, attempt, accept).await;
        let response = response.map_err(|error| self.reason(&error))?;
        self.responds.store(true, Relaxed);
        if !response.is_unreadable() {
            let fits = response.fits_a_packet(self.edns.is_tried(Instant::now()));
            let mut large = self.large.lock();
            if fits {
                large.remove(query);
            } else if large.len() < LARGE {
                large.insert(query.clone());
            }
        }
        Ok(response)
    }

    async fn exchange_udp(&self, query: &Query, budget: Duration) -> Result<Response, Reason> {
        let socket = udp::connect(self.address).await;
        let ask = Ask {
            query,
            socket: &socket.map_err(|error| self.reason(&error))?,
            sends: self.options.attempts.unwrap_or(SENDS),
            budget,
        };
        let bare = self.message(query, false)?;
        let result = if self.edns.is_tried(Instant::now()) {
            let rich = self.message(query, true)?;
            self.ask_both_ways(ask, &rich, &bare).await
        } else {
            ask.ask(&bare, |bytes| bare.response(query, bytes)).await
        };
        let response = result.map_err(|error| self.reason(&error))?;
        self.responds.store(true, Relaxed);
        Ok(response)
    }

    /// Asks with an OPT record for half of the time, then without one, if it was refused or dropped on the way.
    async fn ask_both_ways(
        &self,
        ask: Ask<'_>,
        rich: &Message,
        bare: &Message,
    ) -> io::Result<Response> {
        let (query, half) = (ask.query, ask.half());
        let refusal = match half.ask(rich, |bytes| rich.response(query, bytes)).await {
            Ok(response) if !response.rejects_opt() => {
                self.edns.is_there();
                return Ok(response);
            }
            Ok(refusal) => Some(refusal),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
            Err(error) => return Err(error),
        };
        // A late answer to the first message still counts; another refusal doesn't.
        let late = |bytes: &[u8]| {
            let response = rich.response(query, bytes);
            response.filter(|response| !response.rejects_opt())
        };
        let accept = |bytes: &[u8]| bare.response(query, bytes).or_else(|| late(bytes));
        match (half.ask(bare, accept).await, refusal) {
            (Err(error), Some(refusal)) if error.kind() == io::ErrorKind::TimedOut => Ok(refusal),
            (Ok(response), _) => {
                if response.is_answer_without_opt() {
                    self.edns.is_missing(Instant::now());
                }
                Ok(response)
            }
            (failed, _) => failed,
        }
    }

    fn message(&self, query: &Query, has_opt: bool) -> Result<Message, Reason> {
        Message::new(query, has_opt).map_err(|error| Reason::Other(self.address, error))
    }

    fn reason(&self, error: &io::Error) -> Reason {
        match error.kind() {
            io::ErrorKind::TimedOut => Reason::Timeout,
            // The port is closed, or there is no route, such as to an IPv6 address from a host without IPv6.
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::AddrNotAvailable => Reason::Closed(self.address, error.to_string()),
            _ => Reason::Other(self.address, error.to_string()),
        }
    }
}

/// A question over UDP, and how to send it.
#[derive(Clone, Copy)]
struct Ask<'a> {
    query: &'a Query,
    socket: &'a UdpSocket,
    sends: u32,
    budget: Duration,
}

impl Ask<'_> {
    fn half(self) -> Self {
        Self {
            sends: self.sends.div_ceil(2),
            budget: self.budget / 2,
            ..self
        }
    }

    async fn ask(
        self,
        message: &Message,
        accept: impl FnMut(&[u8]) -> Option<Response>,
    ) -> io::Result<Response> {
        let pause = self.budget / self.sends;
        let ask = udp::ask(self.socket, &message.bytes, self.sends, pause, accept);
        let answered = timeout(self.budget, ask).await;
        answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
        PermissionDenied, TimedOut, UnexpectedEof,
    };

    use super::*;

    #[test]
    fn a_server_with_a_closed_port_or_no_route_counts_as_closed_and_other_errors_do_not() {
        let server = Server::new(([10, 96, 0, 10], 53).into(), Options::default());
        let is_closed = |kind: io::ErrorKind| {
            let reason = server.reason(&kind.into());
            LookupError::new("web.", reason).is_closed()
        };
        let closed = [
            ConnectionRefused,
            NetworkUnreachable,
            HostUnreachable,
            AddrNotAvailable,
        ];
        assert!(closed.into_iter().all(is_closed));
        let not_closed = [TimedOut, ConnectionReset, PermissionDenied, UnexpectedEof];
        assert!(!not_closed.into_iter().any(is_closed));
    }
}
