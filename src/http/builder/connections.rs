//! Settings of the connections to each pod.

use std::time::Duration;

use super::{
    ClientBuilder,
    limits::{HOURS, MILLISECOND, MOST_PINGS, SECOND, SHORTEST, bounded},
};
use crate::http::protocol::Protocol;
#[cfg(feature = "tls")]
use crate::http::tls::Tls;

impl<D> ClientBuilder<D> {
    /// Which protocol the client speaks to pods.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.connector.protocol = protocol;
        self
    }

    /// TLS settings for `https`: which authorities to trust, and which identity to show.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long connecting to a pod may take, including TLS. After that the request goes to another pod.
    ///
    /// 10 ms at least, because less would make every pod unreachable; a day at most.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connector.connect_timeout = bounded(timeout, SHORTEST);
        self
    }

    /// How long a pod may take from the request to the head of its response.
    ///
    /// A pod that exceeds it gets one trial request at a time until it answers again. Its request is sent to another
    /// pod if that is safe. Don't set it if answers may take any time, as with long polls. 1 ms at least, a day at
    /// most.
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.limits.first_byte = Some(bounded(timeout, MILLISECOND));
        self
    }

    /// How many idle HTTP/1.1 connections are kept for each pod.
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.limits.max_idle = connections;
        self
    }

    /// How long idle connections are kept; 10 ms at least, a day at most. To keep no HTTP/1.1 connection, set
    /// [`max_idle`](Self::max_idle) to 0.
    ///
    /// A pod may answer an upload early, and leave the rest unread. Over HTTP/1.1 its connection counts as idle from
    /// the end of the response, so this also bounds how long the upload may go on.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = bounded(timeout, SHORTEST);
        self
    }

    /// How many connections there may be to each pod, at least one. Further requests wait for one.
    ///
    /// HTTP/2 connections that only finish their requests after a GOAWAY don't count.
    ///
    /// A connection belongs to the runtime that made it, and a current-thread runtime can't use another one's. If there
    /// is no room, a request of another runtime takes the place of a connection that nobody uses: an idle one, one that
    /// is being made for nobody, or one whose response has been read or dropped. The replaced connection no longer
    /// counts. It closes when its own runtime runs again and the rest of an upload has ended. The request waits for
    /// connections in use.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = connections.max(1);
        self
    }

    /// How old a connection to a pod may grow before another one replaces it; no limit by default (`None`).
    ///
    /// Use it to drain the pods behind a proxy, or of a node, gradually, and to have renewed certificates shown. ± 10
    /// %, drawn for each connection. 10 ms at least, a day at most.
    ///
    /// A connection that is too old takes no new request. Its requests in flight end as usual, however long that takes,
    /// and then it closes. No request fails because of it. An HTTP/2 connection keeps taking requests until its
    /// successor is connected or has failed to connect, for up to the [`connect_timeout`](Self::connect_timeout); so no
    /// request waits for a handshake. From then on it doesn't count for [`max_connections`](Self::max_connections). An
    /// HTTP/1.1 connection counts until its response has ended.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.limits.age.age = Some(bounded(age, SHORTEST));
        self
    }

    /// How many requests a connection may carry before another one replaces it; one at least. No limit by default.
    ///
    /// Up to 10 % fewer, drawn for each connection, and never more. Then the connection ends like one that is [too
    /// old](Self::max_connection_age).
    pub fn max_connection_requests(mut self, requests: usize) -> Self {
        self.limits.age.requests = Some(requests.max(1));
        self
    }

    /// Whether the client connects to each pod before its first request, and stays connected; no by default.
    ///
    /// A pod that joins others gets no request until it has a connection, including handshakes. Until then it is
    /// [unreachable](crate::EndpointState::Unreachable), so no request waits for a connection. The pods of the first
    /// set get requests at once, possibly before they are connected. A pod that refuses is tried again like any other
    /// unreachable pod.
    ///
    /// One connection to each pod stays open, whatever the [`idle_timeout`](Self::idle_timeout). If it is lost, because
    /// the pod closes it or it grows too old, another one replaces it: at once, or, if the pod closes them, after 0.2 s
    /// to 5 s.
    ///
    /// It costs clients × pods connections: a hundred clients of a hundred pods have ten thousand, and each pod has a
    /// hundred, used or not. With a policy that picks few of many pods, most are never used.
    pub fn connect_ahead(mut self, connect_ahead: bool) -> Self {
        self.limits.ahead = connect_ahead;
        self
    }

    /// How long a connection may be silent before TCP keep-alive probes it; three probes, at a third of this.
    ///
    /// The system counts in seconds: 1 s at least, 32,000 s at most.
    pub fn tcp_keepalive(mut self, idle: Option<Duration>) -> Self {
        self.connector.keepalive = idle.map(|idle| idle.clamp(SECOND, HOURS));
        self
    }

    /// How long sent data may stay unacknowledged before the connection is closed (Linux).
    ///
    /// 1 s at least, so that a packet may be lost and sent again; 32,000 s at most.
    pub fn tcp_user_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.connector.user_timeout = timeout.map(|timeout| timeout.clamp(SECOND, HOURS));
        self
    }

    /// How often an HTTP/2 connection is pinged. If the pod doesn't answer within 5 s, the connection is closed.
    ///
    /// 100 ms at least, a day at most. Servers may close connections that are pinged too often; gRPC's servers allow
    /// one ping in 5 minutes by default.
    pub fn http2_ping(mut self, interval: Option<Duration>) -> Self {
        self.connector.ping = interval.map(|interval| bounded(interval, MOST_PINGS));
        self
    }

    /// Whether requests may name another service in their URI, by its authority or its scheme; off by default.
    ///
    /// Every request goes to the pods of this client's service, whatever it names. So `https://other.example/` would
    /// reach them unencrypted, with `Host: other.example`. It is an error instead
    /// ([`Error::is_foreign`](crate::http::Error::is_foreign)). Turn this on for pods that serve many names, such as
    /// proxies. Then the URI's authority is passed on to them, even if the request has another `Host`, and the client's
    /// [default headers](Self::default_headers) are left out.
    ///
    /// The service's own name may be in any case, with a trailing dot, and with or without the default port. A `Host`
    /// header of a request for the service is always passed on, and so is the target of CONNECT: neither says where the
    /// request should go.
    pub fn allow_foreign_authority(mut self, allow: bool) -> Self {
        self.allow_foreign = allow;
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
            .max_connection_age(time)
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
                builder.limits.age.age,
                connector.keepalive,
                connector.user_timeout,
                connector.ping,
            ]
            .map(|time| time.expect("it was set").as_millis())
        };
        assert_eq!(seen(Duration::ZERO), [10, 1, 10, 10, 1_000, 1_000, 100]);
        let (day, hours) = (86_400_000, 32_000_000);
        assert_eq!(seen(Duration::MAX), [day, day, day, day, hours, hours, day]);
        assert_eq!(seen(Duration::from_secs(7)), [7_000; 7]);
    }
}
