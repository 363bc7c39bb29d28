//! Checks the architecture of `ARCHITECTURE.md`: which rooms may import which, and which code may name which
//! dependency.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Each room, from the bottom up, with the rooms that its code may name. A room is a file and the folder of the same
/// name.
const LAYERS: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("stable_hash", &[]),
    ("times", &[]),
    ("endpoint", &[]),
    ("backoff", &[]),
    ("home", &[]),
    ("error", &["endpoint", "sync"]),
    ("logs", &["error", "logs", "sync"]),
    ("comparison", &["endpoint"]),
    ("latency", &[]),
    ("counters", &["sync"]),
    ("signals", &["counters", "latency", "logs", "sync"]),
    (
        "member",
        &["counters", "endpoint", "latency", "signals", "sync"],
    ),
    (
        "attempts",
        &["counters", "endpoint", "error", "sync", "times"],
    ),
    ("route", &["attempts", "endpoint", "member", "stable_hash"]),
    ("outcome", &["error"]),
    (
        "in_flight",
        &["counters", "endpoint", "error", "member", "outcome"],
    ),
    ("outlier", &["backoff", "endpoint", "member", "times"]),
    (
        "check",
        &["backoff", "endpoint", "error", "member", "sync", "times"],
    ),
    (
        "policy",
        &["endpoint", "member", "route", "stable_hash", "times"],
    ),
    ("locality", &["endpoint", "member", "policy", "route"]),
    (
        "snapshot",
        &[
            "attempts",
            "comparison",
            "counters",
            "endpoint",
            "in_flight",
            "locality",
            "logs",
            "member",
            "policy",
            "route",
            "signals",
        ],
    ),
    (
        "discovery",
        &[
            "backoff",
            "discovery",
            "endpoint",
            "error",
            "home",
            "logs",
            "sync",
            "times",
        ],
    ),
    ("subset", &["discovery", "endpoint", "stable_hash", "sync"]),
    (
        "membership",
        &["comparison", "discovery", "endpoint", "logs"],
    ),
    ("explain", &["counters", "endpoint", "member", "times"]),
    (
        "balance",
        &[
            "attempts",
            "backoff",
            "check",
            "comparison",
            "counters",
            "discovery",
            "endpoint",
            "error",
            "explain",
            "home",
            "in_flight",
            "locality",
            "logs",
            "member",
            "membership",
            "outlier",
            "policy",
            "route",
            "signals",
            "snapshot",
            "subset",
            "sync",
        ],
    ),
    ("hedge", &["balance", "error", "home", "in_flight", "route"]),
    (
        "pinned",
        &["balance", "endpoint", "error", "in_flight", "route"],
    ),
    (
        "broadcast",
        &[
            "balance",
            "endpoint",
            "error",
            "home",
            "in_flight",
            "member",
            "route",
        ],
    ),
    (
        "retry",
        &[
            "attempts",
            "balance",
            "counters",
            "endpoint",
            "error",
            "hedge",
            "in_flight",
            "logs",
            "outcome",
            "pinned",
            "route",
            "sync",
        ],
    ),
    (
        "http",
        &[
            "attempts",
            "backoff",
            "balance",
            "broadcast",
            "check",
            "counters",
            "discovery",
            "endpoint",
            "error",
            "explain",
            "hedge",
            "home",
            "http",
            "in_flight",
            "logs",
            "membership",
            "outcome",
            "outlier",
            "policy",
            "retry",
            "route",
            "subset",
            "sync",
            "times",
        ],
    ),
    ("metrics", &["counters", "explain", "sync"]),
    ("inspect", &["explain", "sync"]),
    // Pages of the documentation.
    ("guide", &[]),
    // Its DNS server answers `discovery`, and a cluster builds an `http` client.
    (
        "test_util",
        &["discovery", "error", "http", "sync", "test_util"],
    ),
];

/// Pairs of files of a room that may name each other, and why.
const PAIRS: &[(&str, &str)] = &[
    // A trait whose method returns a type that implements it, like iterator adapters.
    ("discovery.rs", "discovery/fallback.rs"),
];

/// Dependencies, and the only files (or folders, by prefix) that may name them.
const GUARDED: &[(&str, &[&str])] = &[
    (
        "hickory",
        &["discovery/dns/client.rs", "test_util/dns/wire.rs"],
    ),
    ("resolv_conf", &["discovery/dns/system_conf.rs"]),
    ("kube", &["discovery/endpoint_slices"]),
    ("k8s_openapi", &["discovery/endpoint_slices"]),
    ("arc_swap", &["snapshot.rs"]),
    ("xxhash_rust", &["stable_hash.rs"]),
    ("backon", &["backoff.rs"]),
    (
        "socket2",
        &["http/connect.rs", "test_util/dns/lease.rs", "test_util/pod"],
    ),
    ("cookie", &["http/session"]),
    ("percent_encoding", &["http/grpc.rs", "http/key_from.rs"]),
    ("serde_html_form", &["http/request/content.rs"]),
    ("data_encoding", &["http/request/content.rs"]),
    ("prost", &[]),
    // Events are written by the macros of `logs.rs`, which name the service.
    ("tracing", &["logs.rs", "http/span.rs"]),
    (
        "rustls",
        &[
            "http/tls",
            "discovery/endpoint_slices/cryptography.rs",
            "test_util/pod/tls.rs",
        ],
    ),
    ("tokio_rustls", &["http/tls", "test_util/pod/tls.rs"]),
];

/// The text of every file under `src`.
fn texts() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut texts) = (vec![root.clone()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path: PathBuf = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).expect("below src");
            let text = fs::read_to_string(&path).expect("a readable file");
            texts.insert(name.to_string_lossy().into_owned(), text);
        }
    }
    texts
}

/// The line before a file's unit tests.
const TESTS: &str = "#[cfg(test)]\nmod tests";

/// Suites and interleavings are unit tests.
fn is_suite(file: &str) -> bool {
    file.contains("/suite") || file.ends_with("/tests.rs") || file.contains("interleavings")
}

/// The code of every file, without comments and unit tests. Fuzz targets may look at everything.
fn sources() -> BTreeMap<String, String> {
    let mut sources = texts();
    sources.retain(|file, _| !is_suite(file) && !file.ends_with("fuzzing.rs"));
    for text in sources.values_mut() {
        let code = text.split(TESTS).next().unwrap_or_default();
        // An item that only tests use has the attribute on the line before.
        let mut is_for_tests = false;
        let lines = code.lines().filter(|line| {
            let was_for_tests = is_for_tests && line.ends_with(';');
            is_for_tests = line.starts_with("#[cfg(all(test,");
            !was_for_tests && !line.trim_start().starts_with("//")
        });
        *text = lines.collect::<Vec<_>>().join("\n");
    }
    sources
}

/// The unit tests of every file, without comments.
fn unit_tests() -> BTreeMap<String, String> {
    let mut tests = texts();
    tests.retain(|file, text| is_suite(file) || text.contains(TESTS));
    for (file, text) in &mut tests {
        let code = match is_suite(file) {
            true => text.as_str(),
            false => text.split_once(TESTS).unwrap_or_default().1,
        };
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        *text = lines.collect::<Vec<_>>().join("\n");
    }
    tests
}

fn room_of(file: &str) -> &str {
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

/// The paths that `use` imports, one for each name. Re-exports (`pub use`) don't count.
fn imports(code: &str) -> Vec<String> {
    let statements = code.split(';').filter_map(|statement| {
        let start = statement.rfind("\nuse ")?;
        Some(statement[start + "\nuse ".len()..].trim())
    });
    statements.flat_map(|tree| flatten("", tree)).collect()
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn flatten(prefix: &str, tree: &str) -> Vec<String> {
    let Some(open) = tree.find('{') else {
        return vec![format!("{prefix}{}", tree.trim())];
    };
    let prefix = format!("{prefix}{}", tree[..open].trim());
    let group = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let (mut depth, mut start, mut all) = (0, 0, Vec::new());
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = group[start..at].trim();
                start = group.len().min(at + 1);
                if !item.is_empty() {
                    all.extend(flatten(&prefix, item));
                }
            }
            _ => {}
        }
    }
    all
}

/// The file of the same room that `import`, in `file`, comes from. A re-export counts as the re-exporting file's own.
fn imported_file(import: &str, file: &str, room: &BTreeMap<String, String>) -> Option<String> {
    let module: Vec<_> = file.trim_end_matches(".rs").split('/').collect();
    let mut steps = import.split("::").peekable();
    let mut path = match *steps.peek()? {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        child => {
            let child = format!("{}/{child}.rs", module.join("/"));
            return room.contains_key(&child).then_some(child);
        }
    };
    for step in steps {
        match step {
            "crate" | "self" => {}
            "super" => drop(path.pop()),
            name => {
                let deeper = format!("{}.rs", [path.clone(), vec![name]].concat().join("/"));
                if !room.contains_key(&deeper) {
                    break;
                }
                path.push(name);
            }
        }
    }
    let found = format!("{}.rs", path.join("/"));
    (found != file && room.contains_key(&found)).then_some(found)
}

#[test]
fn files_of_a_room_make_no_circles() {
    for (name, _) in LAYERS {
        let room: BTreeMap<_, _> = sources()
            .into_iter()
            .filter(|(file, _)| room_of(file) == *name)
            .collect();
        let mut needs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (file, code) in &room {
            let found = imports(code)
                .into_iter()
                .filter_map(|import| imported_file(&import, file, &room))
                .filter(|needed| !PAIRS.contains(&(file, needed)));
            needs.insert(file.clone(), found.collect());
        }
        // Removes files that need no remaining file. Only circles, and files that need them, remain.
        while let Some(free) = needs
            .iter()
            .find(|(_, needed)| !needed.iter().any(|file| needs.contains_key(file)))
            .map(|(file, _)| file.clone())
        {
            needs.remove(&free);
        }
        assert!(needs.is_empty(), "circles in {name}: {needs:#?}");
    }
}

#[test]
fn rooms_make_no_circles() {
    for (at, (name, allowed)) in LAYERS.iter().enumerate() {
        let below: Vec<_> = LAYERS[..at].iter().map(|(lower, _)| lower).collect();
        let above = allowed
            .iter()
            .find(|room| *room != name && !below.contains(room));
        assert_eq!(above, None, "{name} may name a room that isn't below it");
    }
}

#[test]
fn imports_go_downwards_only() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    for (file, code) in sources().iter().filter(|(file, _)| *file != "lib.rs") {
        let allowed = layers.get(room_of(file));
        let allowed = allowed.unwrap_or_else(|| panic!("{file} has no place in the picture"));
        for named in named_rooms(code) {
            assert!(allowed.contains(&named), "{file} names crate::{named}");
        }
    }
}

/// A room's tests may use its own room and those below it. From `balance` up, they may also use the crate's public
/// names.
#[test]
fn a_room_is_tested_without_the_rooms_above_it() {
    let height = |room: &str| LAYERS.iter().position(|(name, _)| *name == room);
    let balance = height("balance");
    for (file, code) in unit_tests() {
        let own = height(room_of(&file));
        for named in named_rooms(&code) {
            let is_name = named.starts_with(char::is_uppercase);
            let reaches = if is_name { balance } else { height(named) };
            assert!(
                own.is_none() || reaches <= own,
                "{file} names crate::{named}"
            );
        }
    }
}

/// State belongs to a member, or to an endpoint of a set, never to an address.
#[test]
fn no_room_of_the_core_keeps_anything_by_address() {
    let core = [
        "balance",
        "broadcast",
        "check",
        "in_flight",
        "locality",
        "member",
        "membership",
        "outlier",
        "policy",
        "retry",
        "route",
        "snapshot",
        "subset",
    ];
    for (file, code) in sources()
        .iter()
        .filter(|(file, _)| core.contains(&room_of(file)))
    {
        for address in ["SocketAddr", "IpAddr", ".address()"] {
            // A TCP check connects, and keeps nothing.
            let may_dial = file == "check.rs" && address == ".address()";
            // The client finds itself among its peers by its address, which isn't a pod's.
            let is_own = file == "subset/peers.rs";
            // A request may be for the pod at an address, whichever pod that is.
            let may_ask = file == "route/pod_id.rs";
            assert!(
                may_dial || is_own || may_ask || !code.contains(address),
                "{file} names {address}"
            );
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

/// The ambient service name of events is only for code that doesn't know its balancer. On a request's path there is
/// none.
#[test]
fn only_code_that_the_background_task_polls_uses_the_ambient_service_name() {
    let homes = ["logs.rs", "discovery/", "balance/part.rs"];
    for (file, code) in sources() {
        let at_home = homes.iter().any(|home| file.starts_with(home));
        let is_taken = |(at, _)| {
            let before: &str = &code[..at];
            before.ends_with([' ', '(']) && !before.ends_with("fn ")
        };
        let takes_any = code.match_indices("here()").any(is_taken);
        assert!(at_home || !takes_any, "{file} takes any name");
    }
}

#[test]
fn every_room_is_in_the_table_of_rooms() {
    let picture = include_str!("../ARCHITECTURE.md");
    for (room, _) in LAYERS {
        let row = format!("| `{room}.rs`");
        let beside = format!(", `{room}.rs`");
        let is_there = picture.contains(&row) || picture.contains(&beside);
        assert!(is_there, "ARCHITECTURE.md has no {room}");
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
    let code = "use crate::{\n    member::{A, B},\n    policy,\n};\nfn f(x: crate::error::Error) {}\nuse crate::endpoint::Endpoint;";
    assert_eq!(named_rooms(code), ["member", "policy", "error", "endpoint"]);
    let code = "\npub use a::B;\nuse super::{\n    x::{A, b::C},\n    y,\n};\nuse z::Z;";
    assert_eq!(
        imports(code),
        ["super::x::A", "super::x::b::C", "super::y", "z::Z"]
    );
    let room =
        ["http.rs", "http/pool.rs", "http/pool/lease.rs"].map(|file| (file.into(), "".into()));
    let room = BTreeMap::from(room);
    let from_pool = |import| imported_file(import, "http/pool.rs", &room);
    assert_eq!(
        from_pool("lease::Lease").as_deref(),
        Some("http/pool/lease.rs")
    );
    assert_eq!(from_pool("super::Error").as_deref(), Some("http.rs"));
    assert_eq!(
        from_pool("crate::http::pool::lease::Lease").as_deref(),
        Some("http/pool/lease.rs")
    );
    assert_eq!(from_pool("crate::error::Error"), None);
}
