//! Where packets vanish: see `tests/kubernetes/inside`, which has made the hole.

use std::net::IpAddr;

use tokio::process::Command;

/// Packets to this address vanish, and so do those from it. Nobody is told, and open connections are as dead as new ones.
pub(super) async fn swallow(address: IpAddr) {
    let address = address.to_string();
    ip(&address, &["pref", "10", "to", &address, "lookup", "66"]).await;
    ip(&address, &["pref", "11", "from", &address, "blackhole"]).await;
}

async fn ip(address: &str, rule: &[&str]) {
    let family = if address.contains(':') { "-6" } else { "-4" };
    let mut command = Command::new("ip");
    command.args([family, "rule", "add"]).args(rule);
    let status = command.status().await.expect("ip runs");
    assert!(status.success(), "ip rule add {rule:?}: {status}");
}
