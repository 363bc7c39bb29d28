//! Measures how late a client is, compared with a bare watcher of the slices.

mod lateness;

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use self::lateness::{Seen, Watched};
use super::{MOMENT, Use, WEB, deploy, gets, settles};
use crate::{
    kit::{
        control_plane::{Component, processor},
        namespace::Namespace,
        stall::Stall,
    },
    source::Source,
    support::load::Report,
};

/// Six pods are restarted at 3 s, scaled to nine at 18 s, and to four at 33 s.
pub(crate) async fn freshness(sources: &[Source]) {
    let namespace = Namespace::create("all-freshness", Use::Alone).await;
    deploy(&namespace, "Deployment", 6).await;
    let watched = Watched::start(&namespace);
    let mut clients = Vec::new();
    for source in sources {
        let client = source.client(&namespace, WEB, 80);
        settles(&client, &namespace, WEB, 6).await;
        let load = gets(&client, 500);
        clients.push((*source, client, load));
    }
    let (stall, costs) = (Stall::start(), Costs::now(&namespace));
    let times = tell(&namespace).await;
    let mut reports = Vec::new();
    for (source, client, load) in clients {
        settles(&client, &namespace, WEB, 4).await;
        sleep(MOMENT).await;
        reports.push((source, load.stop().await));
    }
    costs.print(&namespace, times.began.elapsed());
    println!("The machine stalled for up to {:.2?}", stall.worst());
    let seen = watched.stop();
    for (source, report) in reports {
        assert_is_fresh(source, &report, &seen, &times, stall.worst());
    }
}

/// The processor time used so far.
struct Costs {
    coredns: Duration,
    api_server: Duration,
    clients: Duration,
}

impl Costs {
    fn now(namespace: &Namespace) -> Self {
        let time_of = |component| {
            let process = namespace.plane.process_id(component);
            processor::time_of(process.expect("it runs"))
        };
        Self {
            coredns: time_of(Component::CoreDns),
            api_server: time_of(Component::ApiServer),
            clients: processor::time_of(std::process::id()),
        }
    }

    fn print(&self, namespace: &Namespace, during: Duration) {
        let now = Self::now(namespace);
        println!(
            "Processor time in {during:.0?}: CoreDNS {:.2?}; the API server {:.2?}; the clients, with their loads and the \
             nodes, {:.2?}",
            now.coredns - self.coredns,
            now.api_server - self.api_server,
            now.clients - self.clients,
        );
    }
}

/// When the steps of the story began.
struct Times {
    began: Instant,
    restarted: Instant,
    scaled: Instant,
}

async fn tell(namespace: &Namespace) -> Times {
    let began = Instant::now();
    sleep_until(began + Duration::from_secs(3)).await;
    let restarted = Instant::now();
    namespace
        .kubectl
        .run("rollout restart deployment/web")
        .await;
    sleep_until(began + Duration::from_secs(18)).await;
    let scaled = Instant::now();
    namespace.scale("deployment/web", 9).await;
    sleep_until(began + Duration::from_secs(33)).await;
    namespace.scale("deployment/web", 4).await;
    Times {
        began,
        restarted,
        scaled,
    }
}

/// Asserts that a client wasn't too late, allowing for the machine's stalls.
fn assert_is_fresh(source: Source, report: &Report, seen: &Seen, times: &Times, stall: Duration) {
    println!("{source:?}: {report}");
    report.assert_none_failed();
    let roll = seen.lateness(report, times.restarted..times.scaled);
    let scaling = seen.lateness(report, times.scaled..Instant::now());
    println!("  while rolled: {roll}\n  while scaled: {scaling}");
    assert!(roll.joined.len() >= 6 && scaling.joined.len() >= 3);
    let bounds = source.lateness();
    assert!(roll.worst() <= bounds.rolled + stall, "{roll}");
    assert!(scaling.worst() <= bounds.at_rest + stall, "{scaling}");
}
