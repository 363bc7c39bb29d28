//! The crate in real Kubernetes: etcd, API server, controllers and CoreDNS as they are released, Debian's nginx for pods,
//! kubectl to change things. Only the nodes are ours.
//!
//! `tests/kubernetes/run` runs it; in a plain `cargo test` each test is skipped. Every story is told for every source of
//! endpoints.

mod kit;
mod source;
mod stories;
#[path = "../support/mod.rs"]
mod support;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kit::{
    control_plane::User,
    namespace::{Namespace, Use},
};
use kube::{Api, api::ListParams};
use source::Source;

/// The stories, once for each source of endpoints.
macro_rules! stories {
    ($($room:ident::$story:ident)*) => {
        stories!(dns = Source::Dns; $($room::$story)*);
    };
    ($name:ident = $source:expr; $($room:ident::$story:ident)*) => {
        mod $name {
            use super::{Source, kit, stories};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    let test = concat!(stringify!($name), "::", stringify!($story));
                    if kit::is_here(test) {
                        stories::$room::$story($source).await;
                    }
                }
            )*
        }
    };
}

stories! {
    scale::scale_3_10_1_0_3
    scale::a_thousand_endpoints
    rollout::rollout_restart_of_a_deployment
    rollout::rollout_restart_of_a_deployment_killed
    rollout::rollout_restart_of_a_statefulset
    rollout::rollout_restart_of_a_statefulset_killed
    pods::unready_and_ready_again
    pods::a_container_crashes
    pods::a_pod_hangs
    pods::a_node_is_lost
    addresses::a_name_returns_at_another_address
    addresses::an_address_passes_to_another_service
    addresses::dual_stack
    services::a_service_is_deleted_and_made_again
    services::a_cluster_ip_is_asked_for_as_headless
    services::a_client_in_a_pod
    services::publish_not_ready_addresses
    services::a_named_port
    control_plane::coredns_is_restarted
}

/// Stories that take long, each told once, with a client for each source.
macro_rules! long_stories {
    ($($room:ident::$story:ident)*) => {
        mod all {
            use super::{Source, kit, stories};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    if kit::is_here(concat!("all::", stringify!($story))) {
                        stories::$room::$story(Source::ALL).await;
                    }
                }
            )*
        }
    };
}

long_stories! {
    freshness::freshness
    control_plane::the_api_server_is_away
}

mod deploy {
    use super::{kit, stories};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_readme_is_followed_word_by_word() {
        if kit::is_here("deploy::the_readme_is_followed_word_by_word") {
            stories::deploy::the_readme_is_followed_word_by_word().await;
        }
    }
}

/// The API server refuses who has no role, and hears of one at once: what the stories of the watch stand on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_refused_then_granted() {
    if !kit::is_here("rights_are_refused_then_granted") {
        return;
    }
    let namespace = Namespace::create("rights", Use::Shared).await;
    let client = namespace.plane.client(User::Watcher).await;
    let slices: Api<EndpointSlice> = Api::namespaced(client, &namespace.name);
    let refused = slices.list(&ListParams::default()).await;
    let refused = refused.expect_err("it has no role");
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 403),
        "{refused}"
    );
    let role = "create role reader --verb=list,watch --resource=endpointslices.discovery.k8s.io";
    namespace.kubectl.run(role).await;
    let binding = "create rolebinding reader --role=reader --user=watcher";
    namespace.kubectl.run(binding).await;
    stories::until("the role's effect", async || {
        slices.list(&ListParams::default()).await.is_ok()
    })
    .await;
}
