//! The readiness probe.

use std::{net::SocketAddr, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, Probe as Specification},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, Interval, interval_at, timeout},
};

/// kubelet's readiness probe of one container, with kubelet's defaults.
pub(super) struct Probe {
    address: SocketAddr,
    /// The path of the HTTP request; without one, connecting is enough.
    path: Option<String>,
    patience: Duration,
    beat: Interval,
    /// How many equal results in a row change the readiness.
    successes_needed: i32,
    failures_needed: i32,
    in_a_row: i32,
    last: bool,
    ready: bool,
}

impl Probe {
    /// `None` if the container has no probe: then it is ready as soon as it runs.
    pub(super) fn new(container: &Container, ip: std::net::IpAddr) -> Option<Self> {
        let probe = container.readiness_probe.as_ref()?;
        let (port, path) = action(probe);
        let seconds = |seconds: Option<i32>, default| {
            Duration::from_secs(u64::try_from(seconds.unwrap_or(default)).unwrap_or(0))
        };
        let begin = Instant::now() + seconds(probe.initial_delay_seconds, 0);
        Some(Self {
            address: SocketAddr::new(ip, port_number(container, port)),
            path,
            patience: seconds(probe.timeout_seconds, 1),
            beat: interval_at(begin, seconds(probe.period_seconds, 10)),
            successes_needed: probe.success_threshold.unwrap_or(1),
            failures_needed: probe.failure_threshold.unwrap_or(3),
            in_a_row: 0,
            last: false,
            ready: false,
        })
    }

    /// Waits for the next beat, probes, and returns whether the container is ready.
    pub(super) async fn next(&mut self) -> bool {
        self.beat.tick().await;
        let looked = timeout(self.patience, look(self.address, self.path.as_deref())).await;
        let passed = looked.is_ok_and(|answer| answer.unwrap_or(false));
        self.in_a_row = if passed == self.last {
            self.in_a_row + 1
        } else {
            1
        };
        self.last = passed;
        let needed = if passed {
            self.successes_needed
        } else {
            self.failures_needed
        };
        if self.in_a_row >= needed {
            self.ready = passed;
        }
        self.ready
    }
}

fn action(probe: &Specification) -> (&IntOrString, Option<String>) {
    if let Some(get) = &probe.http_get {
        let path = get.path.clone().unwrap_or_else(|| "/".to_owned());
        return (&get.port, Some(path));
    }
    let connect = probe.tcp_socket.as_ref();
    let connect =
        connect.expect("a readiness probe by httpGet or tcpSocket: the node knows no other");
    (&connect.port, None)
}

/// A container's port, by number or by name.
pub(super) fn port_number(container: &Container, port: &IntOrString) -> u16 {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|it| it.name.as_ref() == Some(name));
            named.map(|it| it.container_port)
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok());
    number.unwrap_or_else(|| panic!("container {} has no port {port:?}", container.name))
}

/// Whether the container answers as it should: any status from 200 to 399.
async fn look(address: SocketAddr, path: Option<&str>) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let Some(path) = path else {
        return Ok(true);
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: kube-probe\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    // "HTTP/1.1 200"
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(matches!(status[9], b'2' | b'3'))
}
