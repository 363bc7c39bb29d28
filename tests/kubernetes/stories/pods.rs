//! Pods that fail in their own ways.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::time::{Instant, sleep};

use super::{MOMENT, Use, WEB, gets, settles, until, web};
use crate::{
    kit::node::Order,
    source::{Source, uri},
    support::load::Report,
};

pub(crate) async fn unready_and_ready_again(source: Source) {
    let (namespace, client) = web(source, "unready", Use::Shared, "StatefulSet", 3).await;
    let load = gets(&client, 100);
    let address = namespace.nodes.addresses_of("web-1")[0];
    namespace.nodes.order("web-1", Order::Ready(Some(false)));
    settles(&client, &namespace, WEB, 2).await;
    let settled = Instant::now();
    sleep(MOMENT).await;
    let ordered = Instant::now();
    namespace.nodes.order("web-1", Order::Ready(None));
    settles(&client, &namespace, WEB, 3).await;
    let returned = Instant::now();
    sleep(MOMENT).await;
    let report = load.stop().await;
    report.assert_none_failed();
    let unready = pods_used(&report, |sent| settled < sent && sent < ordered);
    assert!(!unready.contains(&address), "it was unready");
    let ready = pods_used(&report, |sent| sent > returned);
    assert!(ready.contains(&address), "it is ready again");
}

/// The crashed pod's clients lose their connections, and it is back before the control plane reports the crash.
pub(crate) async fn a_container_crashes(source: Source) {
    let (namespace, client) = web(source, "crash", Use::Shared, "StatefulSet", 3).await;
    let load = gets(&client, 100);
    namespace.nodes.order("web-1", Order::Crash);
    let status = "get pod web-1 -o jsonpath={.status.containerStatuses[0].restartCount}\
        :{.status.containerStatuses[0].ready}";
    until("a restart", async || {
        namespace.kubectl.run(status).await == "1:true"
    })
    .await;
    settles(&client, &namespace, WEB, 3).await;
    load.stop().await.assert_none_failed();
}

/// Packets to the node's pods vanish at once, and the control plane notices only later.
pub(crate) async fn a_node_is_lost(source: Source) {
    let (namespace, client) = web(source, "node-lost", Use::Shared, "Deployment", 6).await;
    let load = gets(&client, 200);
    // By then all pods have connections.
    sleep(Duration::from_secs(1)).await;
    let node = namespace.nodes.all()[0].name.clone();
    let lost = namespace.nodes.on(&node);
    assert_eq!(lost.len(), 2, "six pods on three nodes");
    namespace.nodes.lose(&node).await;
    let since = Instant::now();
    // Longer than TCP_USER_TIMEOUT, by which the last dead connection is noticed.
    sleep(Duration::from_secs(15)).await;
    assert_eq!(
        namespace.ready(WEB).await.len(),
        6,
        "the control plane hasn't noticed"
    );
    namespace.nodes.report_lost(&node).await;
    settles(&client, &namespace, WEB, 4).await;
    let report = load.stop().await;
    println!("a node lost: {report}");
    report.assert_none_failed();
    assert_few_wait(&report, since + Duration::from_secs(5));
}

/// The hanging pod's kernel goes on accepting connections, and nobody answers.
pub(crate) async fn a_pod_hangs(source: Source) {
    const FIRST_BYTE: Duration = Duration::from_millis(500);
    let (namespace, _) = web(source, "hang", Use::Shared, "StatefulSet", 3).await;
    let uri = uri(&namespace, WEB, 80);
    let client = source.client_with(&namespace, &uri, |it| it.first_byte_timeout(FIRST_BYTE));
    settles(&client, &namespace, WEB, 3).await;
    let load = gets(&client, 100);
    sleep(MOMENT).await;
    namespace.nodes.order("web-1", Order::Hang);
    // Its readiness probe fails three times, a second apart.
    settles(&client, &namespace, WEB, 2).await;
    namespace.nodes.order("web-1", Order::GoOn);
    settles(&client, &namespace, WEB, 3).await;
    load.stop().await.assert_none_failed();
}

/// Asserts that hardly any request waits once pods are known to be dead: only a trial now and then, for as long as
/// connecting takes to time out.
fn assert_few_wait(report: &Report, since: Instant) {
    let later = report.requests.iter().filter(|it| it.sent > since);
    let later: Vec<_> = later.collect();
    let waited = later
        .iter()
        .filter(|it| it.took() >= Duration::from_millis(900));
    let (waited, later) = (waited.count(), later.len());
    assert!(waited * 50 < later, "{waited} of {later} have waited");
}

/// The pods that answered requests sent at such a time.
fn pods_used(report: &Report, then: impl Fn(Instant) -> bool) -> BTreeSet<IpAddr> {
    let requests = report.requests.iter().filter(|it| then(it.sent));
    requests
        .filter_map(|it| it.pod())
        .map(|pod| pod.ip())
        .collect()
}
