//! The life of one pod.

use std::{
    fs, net::IpAddr, ops::ControlFlow, path::PathBuf, process::ExitStatus, sync::Arc,
    time::Duration,
};

use futures::future::OptionFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep, sleep_until},
};

use crate::support::lock;

use super::{
    End, Notice, Order, State,
    agent::uid,
    container::Container,
    hook,
    image::{self, Program},
    persistence::PAUSE,
    probe::Probe,
    status::Reporter,
};

/// How long a container waits for its next start, from its second end on. (It is kubelet's first pause; kubelet doubles
/// it each time.)
const BACK_OFF: Duration = Duration::from_secs(10);

/// Runs a pod from its start to the end of its object.
pub(super) async fn run(
    state: Arc<State>,
    pod: Pod,
    addresses: Vec<IpAddr>,
    notices: UnboundedReceiver<Notice>,
) {
    let uid = uid(&pod);
    let api = Api::namespaced(state.client.clone(), &state.namespace);
    let container = image::container(&pod);
    let mut kubelet = Kubelet {
        probe: Probe::new(container, addresses[0]),
        reporter: Reporter::new(api, pod.clone(), addresses.clone()),
        forced: None,
        probed: false,
        restarts: 0,
        folder: state.folder.path().join(&uid),
        state,
        pod,
        addresses,
        notices,
    };
    kubelet.live().await;
    lock(&kubelet.state.shared).pods.remove(&uid);
}

struct Kubelet {
    state: Arc<State>,
    pod: Pod,
    addresses: Vec<IpAddr>,
    folder: PathBuf,
    notices: UnboundedReceiver<Notice>,
    reporter: Reporter,
    probe: Option<Probe>,
    /// The probe's last result.
    probed: bool,
    /// What a test wants the probe to have said.
    forced: Option<bool>,
    restarts: u32,
}

/// Why a container's supervision ended.
enum Over {
    Deleted {
        grace: Duration,
    },
    Forgotten,
    NodeLost,
    /// The container has ended by itself.
    Ended(ExitStatus),
}

impl Kubelet {
    async fn live(&mut self) {
        if self.pod.metadata.deletion_timestamp.is_some() {
            // It was deleted before it started, or has ended already and this is a late event.
            return self.reporter.delete().await;
        }
        loop {
            let Some((mut container, stop_signal)) = self.start().await else {
                return;
            };
            self.report().await;
            match self.look_after(&mut container).await {
                Over::Deleted { grace } => {
                    return self.terminate(container, stop_signal, grace).await;
                }
                Over::Forgotten => return,
                // The container may still run there, unreachable.
                Over::NodeLost => return self.until_forgotten().await,
                Over::Ended(status) if self.starts_again(status) => {
                    if self.pause().await.is_break() {
                        return;
                    }
                }
                Over::Ended(status) => return self.rest(status).await,
            }
        }
    }

    /// Starts the container; `None` if it must not start any more.
    async fn start(&mut self) -> Option<(Container, &'static str)> {
        let program = self.program().await?;
        let log = self.state.log_file(&self.pod.name_any());
        let log_begins = fs::metadata(&log).map_or(0, |file| file.len());
        self.state
            .update(&uid(&self.pod), |running| running.log_begins = log_begins);
        let container = Container::start(program.command, &log).expect("a program that starts");
        // A container without a probe is ready as soon as it runs.
        self.probed = self.probe.is_none();
        Some((container, program.stop_signal))
    }

    /// Waits for the pod's service account, whose token the program needs.
    async fn program(&mut self) -> Option<Program> {
        loop {
            let program = image::program(&self.state, &self.pod, &self.addresses, &self.folder);
            let program = program.await.expect("a container's files can be written");
            if program.is_some() {
                return program;
            }
            if self.wait(PAUSE).await.is_break() {
                return None;
            }
        }
    }

    /// Supervises the container until something must be done about it.
    async fn look_after(&mut self, container: &mut Container) -> Over {
        loop {
            let probe = OptionFuture::from(self.probe.as_mut().map(Probe::next));
            tokio::select! {
                Some(ready) = probe => self.has_probed(ready).await,
                status = container.ended() => return Over::Ended(status),
                notice = self.notices.recv() => match notice {
                    Some(Notice::Order(order)) => self.obey(order, container).await,
                    Some(Notice::Deleted { grace }) => return Over::Deleted { grace },
                    Some(Notice::NodeLost) => return Over::NodeLost,
                    Some(Notice::Forgotten) | None => return Over::Forgotten,
                },
            }
        }
    }

    async fn has_probed(&mut self, ready: bool) {
        if std::mem::replace(&mut self.probed, ready) != ready {
            self.report().await;
        }
    }

    async fn obey(&mut self, order: Order, container: &Container) {
        match order {
            Order::Crash => container.kill(),
            Order::Hang => container.hang(),
            Order::GoOn => container.go_on(),
            Order::Ready(forced) => {
                self.forced = forced;
                self.report().await;
            }
        }
    }

    async fn report(&mut self) {
        let ready = self.forced.unwrap_or(self.probed);
        self.reporter.running(ready).await;
    }

    fn starts_again(&self, status: ExitStatus) -> bool {
        let spec = self.pod.spec.as_ref();
        match spec.and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => false,
            Some("OnFailure") => !status.success(),
            _ => true,
        }
    }

    /// Waits before the container starts again. Breaks if it must not start any more.
    async fn pause(&mut self) -> ControlFlow<()> {
        self.probe = Probe::new(image::container(&self.pod), self.addresses[0]);
        self.probed = false;
        self.reporter.restarted().await;
        let pause = if self.restarts == 0 {
            Duration::ZERO
        } else {
            BACK_OFF
        };
        self.restarts += 1;
        self.wait(pause).await
    }

    /// Handles messages while no container runs. Breaks if none must start any more.
    async fn wait(&mut self, pause: Duration) -> ControlFlow<()> {
        let deadline = Instant::now() + pause;
        loop {
            tokio::select! {
                biased;
                notice = self.notices.recv() => match notice {
                    Some(Notice::Order(_)) => {}
                    Some(Notice::Deleted { .. }) => {
                        self.reporter.delete().await;
                        return ControlFlow::Break(());
                    }
                    Some(Notice::Forgotten) | None => return ControlFlow::Break(()),
                    Some(Notice::NodeLost) => {
                        self.until_forgotten().await;
                        return ControlFlow::Break(());
                    }
                },
                () = sleep_until(deadline) => return ControlFlow::Continue(()),
            }
        }
    }

    /// Ends the container of a pod that is deleted.
    async fn terminate(&mut self, mut container: Container, stop_signal: &str, grace: Duration) {
        if lock(&self.state.shared).end == End::Killed {
            container.kill();
        }
        let hook = sleep(hook::pre_stop(&self.pod));
        let ended = async {
            tokio::select! {
                _ = container.ended() => {}
                () = hook => {
                    container.stop(stop_signal);
                    container.ended().await;
                }
            }
        };
        tokio::select! {
            () = ended => {}
            () = sleep(grace) => {}
            node_is_lost = gone(&mut self.notices) => {
                if node_is_lost {
                    self.until_forgotten().await;
                }
                return;
            }
        }
        drop(container);
        self.reporter.delete().await;
    }

    /// Handles a pod whose work is done: its object stays until it is deleted.
    async fn rest(&mut self, status: ExitStatus) {
        self.state
            .update(&uid(&self.pod), |running| running.is_over = true);
        self.reporter.over(status.code().unwrap_or(137)).await;
        loop {
            match self.notices.recv().await {
                Some(Notice::Deleted { .. }) => return self.reporter.delete().await,
                Some(Notice::Forgotten) | None => return,
                Some(Notice::NodeLost) => return self.until_forgotten().await,
                Some(Notice::Order(_)) => {}
            }
        }
    }

    async fn until_forgotten(&mut self) {
        loop {
            if let Some(Notice::Forgotten) | None = self.notices.recv().await {
                return;
            }
        }
    }
}

/// Waits until there is nothing more to report. Returns whether that is because the node is lost.
async fn gone(notices: &mut UnboundedReceiver<Notice>) -> bool {
    loop {
        match notices.recv().await {
            Some(Notice::NodeLost) => return true,
            Some(Notice::Forgotten) | None => return false,
            Some(Notice::Order(_) | Notice::Deleted { .. }) => {}
        }
    }
}
