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
}
