//! The story: a cluster in this process that is scaled, and loses a pod.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use http::Uri;
use tokio::time::{Instant, sleep_until};
use tower_headless::test_util::{Cluster, Mode, Pod};

use crate::report::Report;

/// The records' TTL.
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// How long a pod goes on serving once it has left DNS: its `preStop` hook. It must outlast the last client's refresh,
/// which is the TTL and 10 % of it.
const DRAIN: Duration = Duration::from_millis(2500);

const SCALE_UP: Duration = Duration::from_secs(2);
const KILL: Duration = Duration::from_secs(5);
const SCALE_DOWN: Duration = Duration::from_millis(6500);

/// The pod that is killed: the newest of the first three, so that the scale-down, which removes the newest, removes it
/// too.
const VICTIM: usize = 2;

pub(crate) struct Story {
    cluster: Cluster,
}

impl Story {
    /// Starts three pods.
    pub(crate) async fn begin() -> Self {
        let cluster = Cluster::start(3).await;
        cluster.set_ttl(TTL.as_secs() as u32);
        cluster.set_drain(DRAIN);
        for (i, pod) in cluster.pods().iter().enumerate() {
            warm_up(i, pod);
        }
        Self { cluster }
    }

    pub(crate) fn uri(&self) -> Uri {
        self.cluster.uri()
    }

    /// The name server that knows the Service's name.
    pub(crate) fn name_server(&self) -> SocketAddr {
        self.cluster.dns().addr()
    }

    /// Scales up, kills, scales down. The cluster goes on after that.
    pub(crate) async fn tell(&self, report: &Report) -> Infallible {
        let began = Instant::now();
        let tell = |event: &str| report.note("cluster", event);
        tell("3 pods");

        sleep_until(began + SCALE_UP).await;
        for i in 3..5 {
            warm_up(i, &*self.cluster.start_pod().await);
        }
        report.scaled_up();
        self.cluster.publish();
        tell("scaled to 5");

        sleep_until(began + KILL).await;
        self.cluster.kill(VICTIM).await;
        let victim = self.cluster.pod(VICTIM).ip();
        tell(&format!("killed {victim}; DNS doesn't know"));

        sleep_until(began + SCALE_DOWN).await;
        tell("scaled to 2: the dead and both new pods leave DNS, and drain");
        self.cluster.scale(2).await;
        tell("the drained pods have stopped");
        std::future::pending().await
    }
}

/// Makes pods differ: each takes 10 ms longer for a request than the pod before it, the first one 10 ms.
fn warm_up(i: usize, pod: &Pod) {
    pod.set(Mode::Slow(Duration::from_millis(10 * (i as u64 + 1))));
}
