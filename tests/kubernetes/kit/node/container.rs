//! A container's process, which may have children: all are in one process group.

use std::{
    fs::OpenOptions,
    io,
    path::Path,
    process::{self, ExitStatus, Stdio},
};

use tokio::process::{Child, Command};

/// A running or ended container. It is killed when dropped, including its children.
pub(super) struct Container {
    child: Child,
    group: u32,
}

impl Container {
    /// Starts the command. Its output is appended to the log.
    pub(super) fn start(command: process::Command, log: &Path) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::from(command)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let group = child.id().expect("nobody has waited for it");
        Ok(Self { child, group })
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        let status = self.child.wait().await.expect("it is our child");
        // When a container's first process ends, all others do.
        self.kill();
        status
    }

    /// Tells its first process to stop.
    pub(super) fn stop(&self, signal: &str) {
        kill(signal, &self.group.to_string());
    }

    /// Stops it from doing anything.
    pub(super) fn hang(&self) {
        self.signal("-STOP");
    }

    /// Undoes [`hang`](Self::hang).
    pub(super) fn go_on(&self) {
        self.signal("-CONT");
    }

    /// Kills it at once.
    pub(super) fn kill(&self) {
        self.signal("-KILL");
    }

    fn signal(&self, signal: &str) {
        kill(signal, &format!("-{}", self.group));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs the `kill` program, because the system call is `unsafe`. It is no error if the process has already ended.
fn kill(signal: &str, whom: &str) {
    let mut command = process::Command::new("kill");
    command.args([signal, "--", whom]).stderr(Stdio::null());
    command.status().expect("kill runs");
}
