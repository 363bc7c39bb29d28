//! Pods as processes, which can be terminated, killed and paused as by kubelet and the kernel.
//!
//! nginx has to be installed, by `.ci/servers`. Without it, tests are skipped like those of `servers.rs`.

pub mod nginx;
mod own;
pub mod service;

use std::{
    io,
    net::SocketAddr,
    process::{Command, ExitStatus},
    time::Duration,
};

use tokio::{net::TcpStream, time::sleep};

use super::{
    servers::{Process, TempDir, skip},
    tls::Identity,
    within,
};

/// How often a process is polled that a test waits for.
const POLL: Duration = Duration::from_millis(2);

/// The program of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// Our own: `examples/pod.rs`.
    OwnPod,
    Nginx,
}

/// The protocol of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Http1,
    /// In clear, with prior knowledge.
    Http2,
    /// TLS, and over it the client's preferred protocol.
    Tls,
}

impl Software {
    /// Whether it is installed. If it isn't, and isn't required, this prints a line on stderr.
    pub fn is_installed(self) -> bool {
        match self {
            Self::OwnPod => true,
            Self::Nginx => match nginx::find() {
                Ok(_) => true,
                Err(missing) => {
                    skip(self, &missing);
                    false
                }
            },
        }
    }

    /// The signal that stops it gracefully.
    fn graceful(self) -> &'static str {
        match self {
            Self::OwnPod => "-TERM",
            Self::Nginx => "-QUIT",
        }
    }
}

/// A pod in a process of its own. Dropping it kills it, waits for its end and removes its files.
pub struct PodProcess {
    software: Software,
    address: SocketAddr,
    /// The child process that does the work, if there is one.
    worker: Option<u32>,
    // Dropped in this order: the process uses the folder.
    process: Process,
    _dir: TempDir,
}

impl PodProcess {
    /// Starts a pod, and returns when it accepts connections. On failure, the error is its log.
    pub async fn start(
        software: Software,
        speech: Speech,
        address: SocketAddr,
        identity: &Identity,
    ) -> io::Result<Self> {
        let dir = TempDir::new()?;
        let command = match software {
            Software::OwnPod => own::configure(dir.path(), speech, address, identity)?,
            Software::Nginx => nginx::configure(dir.path(), speech, address, identity)?,
        };
        let mut process = Process::spawn(command, &dir.path().join("log"))?;
        let worker = within("a pod's start", started(software, &mut process)).await?;
        Ok(Self {
            software,
            address,
            worker,
            process,
            _dir: dir,
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Tells it to finish its requests and end, as kubelet does first. Returns at once.
    pub async fn terminate(&self) {
        let first = [self.process.id()];
        signal(self.software.graceful(), &first).await;
    }

    /// Kills it. Nobody listens on its address when this returns.
    pub async fn kill(&mut self) {
        signal("-KILL", &self.ids()).await;
        self.ended().await;
        let refused = async {
            while TcpStream::connect(self.address).await.is_ok() {
                sleep(POLL).await;
            }
        };
        within("a refusal", refused).await;
    }

    /// Stops it from running, while the kernel goes on accepting connections and bytes for it.
    pub async fn pause(&self) {
        signal("-STOP", &self.ids()).await;
    }

    /// Undoes [`pause`](Self::pause).
    pub async fn resume(&self) {
        signal("-CONT", &self.ids()).await;
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        within("a pod's end", async {
            loop {
                match self.process.status().expect("it is our child") {
                    Some(status) => return status,
                    None => sleep(POLL).await,
                }
            }
        })
        .await
    }

    /// All its processes, the first one first, so that it can't replace a killed worker.
    fn ids(&self) -> Vec<u32> {
        let first = Some(self.process.id());
        first.into_iter().chain(self.worker).collect()
    }
}

impl Drop for PodProcess {
    fn drop(&mut self) {
        // If it has ended, its worker has ended, too.
        if !self.process.has_exited() {
            // Fails only if they have ended meanwhile.
            let _ = kill("-KILL", &self.ids()).status();
        }
    }
}

/// Waits until the pod's log says that it works. Returns the worker's ID, if it has one.
async fn started(software: Software, process: &mut Process) -> io::Result<Option<u32>> {
    loop {
        let exited = process.has_exited();
        let log = process.log();
        let started = match software {
            Software::OwnPod => own::is_ready(&log).then_some(None),
            Software::Nginx => nginx::worker(&log).map(Some),
        };
        match started {
            Some(worker) => return Ok(worker),
            None if exited => return Err(io::Error::other(log)),
            None => sleep(POLL).await,
        }
    }
}

/// Sends a signal. It is fine if a process has ended meanwhile.
async fn signal(signal: &str, ids: &[u32]) {
    let mut command = tokio::process::Command::from(kill(signal, ids));
    within("the end of kill", command.status())
        .await
        .expect("kill runs");
}

/// The program `kill`, because the system call is `unsafe`.
fn kill(signal: &str, ids: &[u32]) -> Command {
    let mut command = Command::new("kill");
    command.arg(signal);
    command.args(ids.iter().map(ToString::to_string));
    command.stderr(std::process::Stdio::null());
    command
}
