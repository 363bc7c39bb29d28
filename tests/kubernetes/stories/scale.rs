//! A Deployment that grows and shrinks.

use std::future::IntoFuture;

use super::{manifests, settles};
use crate::{kit::namespace::Namespace, source::Source, support::load::Load};

const RATE: u32 = 100;

pub(crate) async fn scale_3_10_1_0_3(source: Source) {
    let namespace = Namespace::create(&source.namespace("scale")).await;
    let manifests = [
        manifests::headless("web"),
        manifests::nginx("Deployment", "web", 3),
    ];
    namespace.kubectl.apply(&manifests.concat()).await;
    let client = source.client(&namespace, "web", 80);
    settles(&client, &namespace, "web", 3).await;
    let clone = client.clone();
    let load = Load::start(RATE, move || clone.get("/").into_future());
    for count in [10, 1] {
        scale(&namespace, count).await;
        settles(&client, &namespace, "web", count).await;
    }
    load.stop().await.assert_none_failed();
    scale(&namespace, 0).await;
    settles(&client, &namespace, "web", 0).await;
    let refused = client.get("/").await.expect_err("no pod is left");
    assert!(refused.to_string().contains("no endpoints"), "{refused}");
    scale(&namespace, 3).await;
    settles(&client, &namespace, "web", 3).await;
    client.get("/").await.expect("three pods");
}

async fn scale(namespace: &Namespace, replicas: usize) {
    let arguments = format!("scale deployment/web --replicas={replicas}");
    namespace.kubectl.run(&arguments).await;
}
