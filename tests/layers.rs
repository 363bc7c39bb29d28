//! The architecture that `lib.rs` draws, held against the code: who may import whom, and who may name which dependency.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Each room, and the rooms that its code may name. A room is a file and the folder of the same name.
const LAYERS: &[(&str, &[&str])] = &[
    ("endpoint", &[]),
    ("route", &["endpoint"]),
    ("backoff", &[]),
    ("error", &["endpoint"]),
    ("latency", &[]),
    ("signals", &["latency"]),
    ("load", &["endpoint", "latency", "signals"]),
    ("outcome", &["error"]),
    ("outlier", &["backoff", "load"]),
    ("check", &["backoff", "endpoint", "error", "load"]),
    ("in_flight", &["endpoint", "error", "load", "outcome"]),
    ("near", &["endpoint"]),
    ("policy", &["load", "near"]),
    (
        "snapshot",
        &["endpoint", "in_flight", "load", "near", "policy", "signals"],
    ),
    ("discovery", &["backoff", "discovery", "endpoint", "error"]),
    ("membership", &["discovery", "endpoint"]),
    (
        "balance",
        &[
            "backoff",
            "check",
            "discovery",
            "endpoint",
            "error",
            "outlier",
            "in_flight",
            "load",
            "membership",
            "near",
            "policy",
            "route",
            "signals",
            "snapshot",
        ],
    ),
    (
        "retry",
        &["balance", "error", "in_flight", "policy", "route"],
    ),
    (
        "http",
        &[
            "balance",
            "check",
            "discovery",
            "endpoint",
            "error",
            "outlier",
            "http",
            "in_flight",
            "membership",
            "near",
            "outcome",
            "policy",
            "route",
            "retry",
        ],
    ),
];

/// Dependencies, and who alone may name them: files, and folders by their beginning.
const GUARDED: &[(&str, &[&str])] = &[
    ("hickory", &["discovery/dns/client.rs"]),
    ("resolv_conf", &["discovery/dns/system_conf.rs"]),
    ("kube", &["discovery/endpoint_slices"]),
    ("k8s_openapi", &["discovery/endpoint_slices"]),
    ("arc_swap", &["snapshot.rs"]),
    ("backon", &["backoff.rs"]),
    ("socket2", &["http/connect.rs"]),
    ("prost", &["http/check/grpc.rs"]),
    (
        "rustls",
        &["http/tls.rs", "discovery/endpoint_slices/cryptography.rs"],
    ),
    ("tokio_rustls", &["http/tls.rs"]),
];

/// The code of every file under `src`, without comments and unit tests.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut sources) = (vec![root.clone()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path: PathBuf = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).expect("below src");
            let text = fs::read_to_string(&path).expect("a readable file");
            let code = text
                .split("#[cfg(test)]\nmod tests")
                .next()
                .unwrap_or_default();
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let name = name.to_string_lossy().into_owned();
            sources.insert(name, lines.collect::<Vec<_>>().join("\n"));
        }
    }
    // Suites are unit tests, which may look at everything.
    sources.retain(|name, _| !name.contains("/suite") && !name.ends_with("/tests.rs"));
    sources
}

fn room(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.trim_end_matches(".rs")
}

/// The rooms that `code` names: in `crate::room::…`, and in `use crate::{room::…, …}` over several lines.
fn named_rooms(code: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            named.extend(
                rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next(),
            );
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' | ',' if depth == 0 => {
                    let item = group[start..at].trim();
                    named.extend(item.split("::").next().filter(|item| !item.is_empty()));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    named
}

#[test]
fn imports_go_downwards_only() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    for (file, code) in sources().iter().filter(|(file, _)| *file != "lib.rs") {
        let allowed = layers.get(room(file));
        let allowed = allowed.unwrap_or_else(|| panic!("{file} has no place in the picture"));
        for named in named_rooms(code) {
            assert!(allowed.contains(&named), "{file} names crate::{named}");
        }
    }
}

#[test]
fn a_dependency_is_named_where_it_belongs() {
    for (file, code) in sources() {
        for (dependency, homes) in GUARDED {
            let at_home = homes.iter().any(|home| file.starts_with(home));
            let named = code.contains(&format!("{dependency}::"))
                || code.contains(&format!("use {dependency}"));
            assert!(!named || at_home, "{file} names {dependency}");
        }
    }
}

#[test]
fn the_root_has_docs_and_names_only() {
    let code = sources().remove("lib.rs").expect("lib.rs");
    let mut items = code
        .lines()
        .filter(|line| !line.starts_with([' ', '}', '#']) && !line.is_empty());
    let names = ["mod ", "pub mod ", "pub use "];
    let stray = items.find(|line| !names.iter().any(|name| line.starts_with(name)));
    assert_eq!(stray, None);
}

#[test]
fn the_parser_sees_what_it_should() {
    let code = "use crate::{\n    load::{A, B},\n    policy,\n};\nfn f(x: crate::error::Error) {}\nuse crate::endpoint::Endpoint;";
    assert_eq!(named_rooms(code), ["load", "policy", "error", "endpoint"]);
}
