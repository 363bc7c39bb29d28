//! resolv.conf, and a name that is looked up with it → name servers and full names.
//!
//! Checked: no panic; there are name servers, at port 53; a valid name has full names, which are valid and distinct and
//! include the name itself.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use tower_headless::{Target, fuzzing::resolv_conf};
use tower_headless_fuzz::input::parts;

fuzz_target!(|data: &[u8]| {
    let parts = parts(data);
    let text = parts[0];
    let name = parts.get(1).and_then(|name| std::str::from_utf8(name).ok());
    let name = name.unwrap_or("web");
    let (servers, names) = resolv_conf(text, name);
    assert!(!servers.is_empty());
    assert!(
        servers.iter().all(|server| server.port() == 53),
        "{servers:?}"
    );
    let target = format!("{name}:80").parse::<Target>();
    if name.contains([':', '/']) || name.parse::<std::net::Ipv4Addr>().is_ok() {
        return;
    }
    assert_eq!(target.is_ok(), !names.is_empty(), "{name:?}: {names:?}");
    if names.is_empty() {
        return;
    }
    for full in &names {
        let whole = format!("{full}.:80");
        let target = whole.parse::<Target>();
        assert_eq!(
            target.map(|target| target.to_string()).ok().as_ref(),
            Some(&whole)
        );
    }
    let distinct: HashSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
    let itself = name.trim_end_matches('.').to_ascii_lowercase();
    assert!(names.contains(&itself), "{names:?}");
});
