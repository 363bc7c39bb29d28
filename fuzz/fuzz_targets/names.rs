//! Names of services, as users write them: targets, Services, URIs, paths, policies.
//!
//! Checked: no panic; what parses prints to a text that parses to the same value.

#![no_main]

use std::{fmt::Debug, str::FromStr};

use libfuzzer_sys::fuzz_target;
use tower_headless::{BuiltInPolicy, Dns, HealthCheck, ServiceTarget, Target, http::Client};
use tower_headless_fuzz::runtime::paused;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(target) = again::<Target>(text) {
        assert_ne!(target.port(), Some(0));
    }
    if let Some(target) = again::<ServiceTarget>(text) {
        for label in [target.service(), target.namespace().unwrap_or("default")] {
            assert!((1..64).contains(&label.len()), "{label:?}");
        }
    }
    if let Ok(policy) = text.parse::<BuiltInPolicy>() {
        let printed = policy.to_string();
        let again: BuiltInPolicy = printed.parse().expect("it was printed");
        assert_eq!(printed, again.to_string());
    }
    let is_service = Dns::srv(text).is_ok();
    assert!(!is_service || text.parse::<Target>().is_ok());
    let _ = HealthCheck::http(text);
    paused(async {
        if let Ok(uri) = text.parse() {
            match Client::builder(uri).build() {
                Ok(client) => drop((format!("{client:?}"), client.get(text))),
                Err(error) => drop((error.to_string(), format!("{error:?}"))),
            }
        }
    });
});

/// Parses a text; if that succeeds, checks that the value prints and parses to the same.
fn again<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: std::error::Error> + ToString + PartialEq + Debug,
{
    let value = match text.parse::<T>() {
        Ok(value) => value,
        Err(error) => {
            let _ = error.to_string();
            return None;
        }
    };
    let printed = value.to_string();
    let again = printed.parse::<T>().expect("it was printed");
    assert_eq!(value, again, "{printed:?}");
    assert_eq!(printed, again.to_string());
    Some(value)
}
