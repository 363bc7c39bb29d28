//! Knot DNS, which is changed by DNS UPDATE (RFC 2136).

use std::{
    fs,
    io::{self, Error},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use futures::future::BoxFuture;
use tokio::{io::AsyncWriteExt, process};

use super::{Backend, ZONE, Zone, find_program, within};

/// The size of one UPDATE's text. The message has about the same size, and must stay below 64 KiB.
const MESSAGE: usize = 32 * 1024;

pub(super) struct Knot {
    knotd: PathBuf,
    nsupdate: PathBuf,
}

impl Knot {
    /// Finds it. The error says what is missing.
    pub(super) fn find() -> Result<Self, String> {
        Ok(Self {
            knotd: find_program("knotd")?,
            nsupdate: find_program("nsupdate")?,
        })
    }
}

impl Backend for Knot {
    fn configure(&self, dir: &Path, addr: SocketAddr, zone: &Zone) -> io::Result<Command> {
        let file = dir.join("knot.conf");
        fs::create_dir(dir.join("db"))?;
        fs::write(dir.join("zone"), zone.master_file())?;
        fs::write(&file, configuration(dir, addr))?;
        let mut command = Command::new(&self.knotd);
        command.arg("-c").arg(file);
        Ok(command)
    }

    fn publish<'a>(
        &'a self,
        _: &'a Path,
        addr: SocketAddr,
        old: &'a Zone,
        new: &'a Zone,
    ) -> BoxFuture<'a, io::Result<()>> {
        let script = script(addr, &differences(old, new));
        Box::pin(within("nsupdate's end", async move {
            // Over TCP, because such messages are too big for UDP.
            let mut child = process::Command::new(&self.nsupdate)
                .arg("-v")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let mut stdin = child.stdin.take().expect("it is piped");
            stdin.write_all(script.as_bytes()).await?;
            drop(stdin);
            let output = child.wait_with_output().await?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(Error::other(format!("nsupdate: {said}")))
        }))
    }
}

/// Knot's configuration. It keeps changes in memory only: it doesn't write the zone's file, and has no journal.
fn configuration(dir: &Path, addr: SocketAddr) -> String {
    let (dir, ip, port) = (dir.display(), addr.ip(), addr.port());
    format!(
        r#"
server:
    listen: {ip}@{port}
    rundir: "{dir}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{dir}/db"
log:
  - target: stdout
    any: info
acl:
  - id: loopback
    address: 127.0.0.0/8
    action: update
zone:
  - domain: {ZONE}
    storage: "{dir}"
    file: zone
    acl: loopback
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
"#
    )
}

/// The updates from `old` to `new`, in order. The SOA comes last: its serial says that all others have arrived.
fn differences(old: &Zone, new: &Zone) -> Vec<String> {
    let mut updates = Vec::new();
    for (name, record_type) in old.records.keys() {
        let key = (name.clone(), *record_type);
        if !new.records.contains_key(&key) {
            updates.push(format!("update delete {name} {record_type}"));
        }
    }
    for (key @ (name, record_type), set) in &new.records {
        if old.records.get(key) != Some(set) {
            updates.push(format!("update delete {name} {record_type}"));
            updates.extend(Zone::lines(key, set).map(|line| format!("update add {line}")));
        }
    }
    updates.push(format!("update add {}", new.soa()));
    updates
}

/// A script for nsupdate. Each message ends with `send`, and takes effect as a whole.
fn script(addr: SocketAddr, updates: &[String]) -> String {
    let mut script = format!("server {} {}\nzone {ZONE}\n", addr.ip(), addr.port());
    let mut sent = 0;
    for update in updates {
        if script.len() + update.len() - sent > MESSAGE {
            script += "send\n";
            sent = script.len();
        }
        script += update;
        script += "\n";
    }
    script + "send\n"
}
