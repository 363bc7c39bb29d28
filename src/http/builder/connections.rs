//! Settings of the connections to each pod.

use std::time::Duration;

use tokio::sync::Semaphore;

use super::{
    ClientBuilder,
    limits::{HOURS, MILLISECOND, MOST_PINGS, SECOND, SHORTEST, bounded},
};
use crate::http::protocol::Protocol;
#[cfg(feature = "tls")]
use crate::http::tls::Tls;

impl<D> ClientBuilder<D> {
    /// Which protocol is spoken.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.connector.protocol = protocol;
        self
    }

    /// Whom to trust, for `https`.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long it may take to connect to a pod, TLS included. Then the request goes to another one.
    ///
    /// 10 ms at least, for less would make every pod unreachable; a day at most.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connector.connect_timeout = bounded(timeout, SHORTEST);
        self
    }

    /// How long a pod may take from the request to the head of its response.
    ///
    /// A pod that lets it pass gets one request at a time, to see, until it answers again. The request that it had is sent
    /// to another one if that is safe. Leave it out where answers may take any time, as with long polls. 1 ms at least, a day
    /// at most.
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.limits.first_byte = Some(bounded(timeout, MILLISECOND));
        self
    }

    /// How many HTTP/1.1 connections without a request are kept for each pod.
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.limits.max_idle = connections;
        self
    }

    /// How long connections without a request are kept; 10 ms at least, a day at most. To keep no HTTP/1.1 connection, set
    /// [`max_idle`](Self::max_idle) to 0.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = bounded(timeout, SHORTEST);
        self
    }

    /// How many connections there may be to each pod. Requests beyond wait for one; one at least.
    ///
    /// An HTTP/2 connection that takes no more requests (GOAWAY) and only ends those that it has does not count.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = connections.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// After how long a silence the system asks whether the pod is still there; three times, at a third of this.
    ///
    /// The system counts in seconds: 1 s at least, 32,000 s at most.
    pub fn tcp_keepalive(mut self, idle: Option<Duration>) -> Self {
        self.connector.keepalive = idle.map(|idle| idle.clamp(SECOND, HOURS));
        self
    }

    /// How long what was sent may go without acknowledgement before the connection is given up (Linux).
    ///
    /// 1 s at least, so that a packet may be lost and sent again; 32,000 s at most.
    pub fn tcp_user_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.connector.user_timeout = timeout.map(|timeout| timeout.clamp(SECOND, HOURS));
        self
    }

    /// How often an HTTP/2 connection is pinged. One without an answer within 5 s is closed.
    ///
    /// 100 ms at least, a day at most. Servers may close connections that are pinged too often: gRPC's by default those with
    /// more than one ping in 5 minutes.
    pub fn http2_ping(mut self, interval: Option<Duration>) -> Self {
        self.connector.ping = interval.map(|interval| bounded(interval, MOST_PINGS));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_all(time: Duration) -> ClientBuilder {
        let uri = "http://web:80".parse().expect("a URI");
        ClientBuilder::new(uri)
            .connect_timeout(time)
            .first_byte_timeout(time)
            .idle_timeout(time)
            .tcp_keepalive(Some(time))
            .tcp_user_timeout(Some(time))
            .http2_ping(Some(time))
    }

    #[test]
    fn absurd_times_are_bounded() {
        let seen = |time| {
            let builder = with_all(time);
            let connector = &builder.connector;
            [
                Some(connector.connect_timeout),
                builder.limits.first_byte,
                Some(builder.limits.idle_timeout),
                connector.keepalive,
                connector.user_timeout,
                connector.ping,
            ]
            .map(|time| time.expect("it was set").as_millis())
        };
        assert_eq!(seen(Duration::ZERO), [10, 1, 10, 1_000, 1_000, 100]);
        let (day, hours) = (86_400_000, 32_000_000);
        assert_eq!(seen(Duration::MAX), [day, day, day, hours, hours, day]);
        assert_eq!(seen(Duration::from_secs(7)), [7_000; 6]);
    }
}
