//! The guide: the pages of `docs/`. As part of the documentation, their links are checked and their examples compiled.
//!
#![doc = include_str!("guide/links.md")]
#![doc = include_str!("../docs/README.md")]

// So that pages can name the crate's items as lib.rs does.
#[allow(unused_imports)]
use super::*;

/// The link definitions of links.md come first, because the first definition of a label counts. A page's own
/// definitions, which link files, only serve readers of the files. Line numbers of failed examples include the lines of
/// links.md.
macro_rules! pages {
    ($($name:ident: $file:literal)*) => {$(
        #[doc = include_str!("guide/links.md")]
        // Each of these features is needed by some example.
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
