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

/// Stories as tests of a module, each called with these arguments.
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

/// Stories that are told once for each source of endpoints.
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

// What only a watch has.
tests! { mod watch_only ()
    rights::rights_are_refused_then_granted
    rights::dns_serves_while_rights_are_refused
    rights::a_token_expires
    near::near_pods_come_first
    near::what_is_too_much_for_near_pods_spills_over
}

/// While one of these is told, no other is. By their names they come first, so that nothing has to come to an end for them.
mod alone {
    stories! {
        rollout::rollout_restart_of_a_deployment
        rollout::rollout_restart_of_a_deployment_killed
        rollout::rollout_restart_of_a_statefulset
        rollout::rollout_restart_of_a_statefulset_killed
        control_plane::coredns_is_restarted
    }

    // They take long: told once, with a client for each source.
    tests! { mod all (crate::source::Source::ALL)
        freshness::freshness
        control_plane::the_api_server_is_away
    }

    /// No test but a measurement, of minutes.
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
    async fn the_readme_is_followed_word_by_word() {
        if kit::is_here("deploy::the_readme_is_followed_word_by_word") {
            stories::deploy::the_readme_is_followed_word_by_word().await;
        }
    }
}
