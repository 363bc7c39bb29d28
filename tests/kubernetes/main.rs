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

use source::Source;

/// The stories, once for each source of endpoints.
macro_rules! stories {
    ($($room:ident::$story:ident)*) => {
        stories!(dns = Source::Dns; $($room::$story)*);
        stories!(watch = Source::Watch; $($room::$story)*);
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
    scale::terminating_pods_are_the_last_resort
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

/// Stories that only a watch has.
macro_rules! watch_stories {
    ($($room:ident::$story:ident)*) => {
        mod watch_alone {
            use super::{kit, stories};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    if kit::is_here(concat!("watch_alone::", stringify!($story))) {
                        stories::$room::$story().await;
                    }
                }
            )*
        }
    };
}

watch_stories! {
    rights::rights_are_refused_then_granted
    rights::dns_serves_while_rights_are_refused
    rights::a_token_expires
    near::near_pods_come_first
    near::what_is_too_much_for_near_pods_spills_over
}

/// No test but a measurement, of minutes: `tests/kubernetes/run watchers --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: tests/kubernetes/run watchers --ignored --nocapture"]
async fn what_watchers_cost() {
    if kit::is_here("what_watchers_cost") {
        stories::watchers::what_watchers_cost().await;
    }
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
