//! Makes packets vanish, into the hole that `tests/kubernetes/inside` has made.

use std::net::IpAddr;

use tokio::process::Command;

/// Makes packets to and from this address vanish. Nobody is notified, and open connections are as dead as new ones.
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
