//! A policy of your own, over three pods: canaries get a twentieth of the requests, and the others share the rest by
//! least load.
//!
//! ```sh
//! cargo run --example policy
//! cargo run --example policy -- least-connections
//! ```
//!
//! The policy is the 40 lines between the two rules. Everything else (pods that refuse, are ejected or new, near pods
//! first) works as with the crate's own policies.

use std::collections::BTreeMap;

use clap::{Arg, Command};
use rand::{Rng, RngExt};
use tower::{Service, ServiceExt, service_fn};
use tower_headless::{
    Balance, BoxError, BuiltInPolicy, Endpoint, Members, Picker, Policy, PowerOfTwo, Previous,
    Route, StaticEndpoints,
};

// -----------------------------------------------------------------------------------------------------------------------------
/// Gives pods whose names begin with "canary" a fixed share of the requests. The others get the rest, under another
/// policy.
struct Canaries<P> {
    share: f64,
    rest: P,
}

struct CanaryPicker {
    share: f64,
    canaries: Vec<usize>,
    rest: Box<dyn Picker>,
}

impl<P: Policy> Policy for Canaries<P> {
    fn prepare(
        &self,
        members: &Members,
        _: Option<Previous<'_>>,
        rng: &mut dyn Rng,
    ) -> Box<dyn Picker> {
        let is_canary = |&index: &usize| {
            let name = members.endpoint(index).pod_name();
            name.is_some_and(|name| name.starts_with("canary"))
        };
        Box::new(CanaryPicker {
            share: self.share,
            canaries: (0..members.len()).filter(is_canary).collect(),
            rest: self.rest.prepare(members, None, rng),
        })
    }
}

impl Picker for CanaryPicker {
    fn pick(&self, members: &Members, route: &Route, rng: &mut dyn Rng) -> Option<usize> {
        if !self.canaries.is_empty() && rng.random_bool(self.share) {
            return Some(self.canaries[rng.random_range(0..self.canaries.len())]);
        }
        let picks = (0..8).filter_map(|_| self.rest.pick(members, route, rng));
        picks
            .into_iter()
            .find(|index| !self.canaries.contains(index))
    }
}
// -----------------------------------------------------------------------------------------------------------------------------

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let policy = Arg::new("POLICY").value_parser(str::parse::<BuiltInPolicy>);
    let args = Command::new("policy")
        .about(
            "A policy of your own over three pods: canaries get a twentieth of 10,000\n\
             requests, and a built-in policy picks the pods for the others.",
        )
        .override_usage("cargo run --example policy -- [POLICY]")
        .arg(policy.help("That of the others, such as random [default: power-of-two]"))
        .get_matches();
    let pod =
        |host: u8, name: &str| Endpoint::new(([10, 244, 0, host], 80).into()).with_pod_name(name);
    let pods = [pod(1, "web-1"), pod(2, "web-2"), pod(3, "canary-1")];
    // Parsed as from a configuration.
    let rest = args.get_one("POLICY").cloned();
    let rest = rest.unwrap_or_else(|| BuiltInPolicy::from(PowerOfTwo::new()));
    let mut balance = Balance::builder(StaticEndpoints::from_iter(pods))
        .policy(Canaries { share: 0.05, rest })
        .build(|endpoint: &Endpoint| {
            let name = endpoint.to_string();
            service_fn(move |()| std::future::ready(Ok::<_, BoxError>(name.clone())))
        });
    let mut shares = BTreeMap::new();
    for _ in 0..10_000 {
        *shares
            .entry(balance.ready().await?.call(()).await?)
            .or_insert(0) += 1;
    }
    for (pod, requests) in &shares {
        println!("{pod}: {requests} of 10,000 requests");
    }
    let canary = shares["canary-1 (10.244.0.3:80)"];
    assert!((350..650).contains(&canary), "about a twentieth: {canary}");
    Ok(())
}
