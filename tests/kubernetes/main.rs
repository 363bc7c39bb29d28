//! The crate in real Kubernetes: released etcd, API server, controllers and CoreDNS, Debian's nginx as pods, and
//! kubectl to change things. Only the nodes are our own code.
//!
//! `tests/kubernetes/run` runs it; a plain `cargo test` skips each test. Every story runs once for each source of
//! endpoints.

mod kit;
mod source;
mod stories;
#[path = "../support/mod.rs"]
mod support;

/// Makes a module of tests from stories, each called with these arguments.
macro_rules! tests {
    (mod $name:ident $arguments:tt $($room:ident::$story:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    if crate::kit::is_here(concat!(module_path!(), "::", stringify!($story))) {
                        crate::stories::$room::$story $arguments.await;
                    }
                }
            )*
        }
    };
}

/// Stories that run once for each source of endpoints.
macro_rules! stories {
    ($($story:tt)*) => {
        tests!(mod dns (crate::source::Source::Dns) $($story)*);
        tests!(mod watch (crate::source::Source::Watch) $($story)*);
    };
}

stories! {
    scale::scale_3_10_1_0_3
    scale::terminating_pods_are_the_last_resort
    scale::a_thousand_endpoints
    pods::unready_and_ready_again
    pods::a_container_crashes
    pods::a_pod_hangs
    pods::a_node_is_lost
    addresses::a_name_returns_at_another_address
    addresses::an_address_passes_to_another_service
    addresses::dual_stack
    names::one_pod_is_followed
    names::keys_stay_over_a_rolling_restart
    services::a_service_is_deleted_and_made_again
    services::a_cluster_ip_is_asked_for_as_headless
    services::a_client_in_a_pod
    services::publish_not_ready_addresses
    services::a_named_port
}

// Stories for the watch only.
tests! { mod watch_only ()
    rights::rights_are_refused_then_granted
    rights::dns_serves_while_rights_are_refused
    rights::a_token_expires
    near::near_pods_come_first
    near::surplus_of_near_pods_spills_over
}

/// Stories that must run alone. Their names sort first, so that they needn't wait for others to end.
mod alone {
    stories! {
        rollout::rollout_restart_of_a_deployment
        rollout::rollout_restart_of_a_deployment_killed
        rollout::rollout_restart_of_a_statefulset
        rollout::rollout_restart_of_a_statefulset_killed
        control_plane::coredns_is_restarted
    }

    // These take long, so they run once, with a client for each source.
    tests! { mod all (crate::source::Source::ALL)
        freshness::freshness
        control_plane::the_api_server_is_away
    }

    /// Not a test but a measurement, which takes minutes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "a measurement: tests/kubernetes/run watchers --ignored --nocapture"]
    async fn what_watchers_cost() {
        if crate::kit::is_here("what_watchers_cost") {
            crate::stories::watchers::what_watchers_cost().await;
        }
    }
}

mod deploy {
    use super::{kit, stories};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_readme_works_as_written() {
        if kit::is_here("deploy::the_readme_works_as_written") {
            stories::deploy::the_readme_works_as_written().await;
        }
    }
}
