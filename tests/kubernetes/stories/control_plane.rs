//! The control plane itself fails.

use std::time::Duration;

use tokio::time::sleep;

use super::{Use, WEB, deploy, gets, settles, web};
use crate::{
    kit::{control_plane::Component, namespace::Namespace, node::Order},
    source::Source,
};

/// The Service is scaled while CoreDNS is down.
pub(crate) async fn coredns_is_restarted(source: Source) {
    let (namespace, client) = web(source, "coredns", Use::Alone, "Deployment", 3).await;
    let load = gets(&client, 100);
    namespace.plane.stop_component(Component::CoreDns);
    namespace.scale("deployment/web", 5).await;
    // Long enough for more than one look to fail.
    sleep(Duration::from_secs(7)).await;
    namespace.plane.start_component(Component::CoreDns).await;
    settles(&client, &namespace, WEB, 5).await;
    load.stop().await.assert_none_failed();
}

/// For a minute no source learns anything: the known pods serve, and requests avoid a pod that crashes.
pub(crate) async fn the_api_server_is_away(sources: &[Source]) {
    let namespace = Namespace::create("all-api-server", Use::Alone).await;
    deploy(&namespace, "StatefulSet", 3).await;
    let mut clients = Vec::new();
    for source in sources {
        let client = source.client(&namespace, WEB, 80);
        settles(&client, &namespace, WEB, 3).await;
        let load = gets(&client, 100);
        clients.push((source, client, load));
    }
    // The controllers are restarted too, because they would be slow to notice that it is back.
    for component in [Component::ControllerManager, Component::ApiServer] {
        namespace.plane.stop_component(component);
    }
    sleep(Duration::from_secs(20)).await;
    namespace.nodes.order("web-1", Order::Crash);
    sleep(Duration::from_secs(40)).await;
    // CoreDNS would also be slow to notice, by up to a minute; restarted, it is in sync at once.
    namespace.plane.stop_component(Component::CoreDns);
    for component in [
        Component::ApiServer,
        Component::ControllerManager,
        Component::CoreDns,
    ] {
        namespace.plane.start_component(component).await;
    }
    namespace.scale("statefulset/web", 5).await;
    for (source, client, load) in clients {
        settles(&client, &namespace, WEB, 5).await;
        let report = load.stop().await;
        println!("{source:?}, the API server away: {report}");
        report.assert_none_failed();
    }
}
