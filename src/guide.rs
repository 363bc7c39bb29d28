//! The guide: `docs/`, so that rustdoc checks its links and compiles its examples.
//!
#![doc = include_str!("guide/links.md")]
#![doc = include_str!("../docs/README.md")]

// Pages name the crate's items as lib.rs does.
#[allow(unused_imports)]
use super::*;

/// Link definitions come first: the first definition of a label counts. So a page's own ones, between files, are for those who
/// read the files. Line numbers of failed examples count the lines of links.md, too.
macro_rules! pages {
    ($($name:ident: $file:literal)*) => {$(
        #[doc = include_str!("guide/links.md")]
        // Some example needs each of these.
        #[cfg_attr(
            any(
                not(doctest),
                all(feature = "json", feature = "kube", feature = "sessions", feature = "test-util", feature = "tls-ring"),
            ),
            doc = include_str!(concat!("../", $file))
        )]
        pub mod $name {}
    )*};
}

pages! {
    first_steps: "docs/first-steps.md"
    running_locally: "docs/running-locally.md"
    testing: "docs/testing.md"
    behaviour: "docs/behaviour.md"
    terms: "docs/terms.md"
    discovery: "docs/discovery.md"
    policies: "docs/policies.md"
    near_pods: "docs/near-pods.md"
    bad_pods: "docs/bad-pods.md"
    retries: "docs/retries.md"
    one_many_all: "docs/one-many-all.md"
    tls: "docs/tls.md"
    grpc: "docs/grpc.md"
    other_protocols: "docs/other-protocols.md"
    naming: "docs/naming.md"
    observability: "docs/observability.md"
    kubernetes: "docs/kubernetes.md"
    tuning: "docs/tuning.md"
    limits: "docs/limits.md"
    troubleshooting: "docs/troubleshooting.md"
    coming_from: "docs/coming-from.md"
    benchmarks: "BENCHMARKS.md"
}

#[cfg(doctest)]
pages! { readme: "README.md" }
