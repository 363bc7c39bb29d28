//! CoreDNS, which rereads the zone's file when the serial has changed.

use std::{
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use futures::future::BoxFuture;

use super::{Backend, ZONE, Zone, find_program};

/// The environment variable with its path.
const GIVEN: &str = "TOWER_HEADLESS_COREDNS";

/// The path where `.ci/servers` puts it.
const CACHED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/tools/coredns-1.15.0/coredns"
);

pub(super) struct CoreDns {
    program: PathBuf,
}

impl CoreDns {
    /// Finds it. The error says what is missing.
    pub(super) fn find() -> Result<Self, String> {
        let cached = PathBuf::from(CACHED);
        let program = match env::var_os(GIVEN).map(PathBuf::from) {
            Some(given) if given.is_file() => given,
            Some(given) => return Err(format!("{GIVEN}={} is no file", given.display())),
            None if cached.is_file() => cached,
            None => find_program("coredns")?,
        };
        Ok(Self { program })
    }
}

impl Backend for CoreDns {
    fn configure(&self, dir: &Path, addr: SocketAddr, zone: &Zone) -> io::Result<Command> {
        let corefile_path = dir.join("Corefile");
        write_zone(dir, zone)?;
        fs::write(&corefile_path, corefile(addr, &zone_file(dir)))?;
        let mut command = Command::new(&self.program);
        command.arg("-conf").arg(corefile_path);
        Ok(command)
    }

    fn publish<'a>(
        &'a self,
        dir: &'a Path,
        _: SocketAddr,
        _: &'a Zone,
        new: &'a Zone,
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { write_zone(dir, new) })
    }
}

/// kubeadm's Corefile of Kubernetes 1.34, without the parts that a lone process can't have: upstream servers, and ports
/// for health and metrics. `records` is the plugin that has the records; in a cluster it is `kubernetes`.
fn corefile(addr: SocketAddr, records: &str) -> String {
    let (ip, port) = (addr.ip(), addr.port());
    format!(
        ".:{port} {{
    bind {ip}
    errors
    {records}
    cache 30 {{
        disable success {ZONE}
        disable denial {ZONE}
    }}
    loadbalance
}}
"
    )
}

/// The plugin that serves a zone's file. It checks only the file's SOA, so an interval of 20 ms costs nothing.
fn zone_file(dir: &Path) -> String {
    let file = dir.join("zone");
    format!(
        "file {} {ZONE} {{\n        reload 20ms\n    }}",
        file.display()
    )
}

/// Replaces the file atomically, because CoreDNS may read it at any moment.
fn write_zone(dir: &Path, zone: &Zone) -> io::Result<()> {
    let written = dir.join("zone.new");
    fs::write(&written, zone.master_file())?;
    fs::rename(written, dir.join("zone"))
}
