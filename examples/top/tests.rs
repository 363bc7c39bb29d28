//! Tests of the screen's exact contents.

use std::{collections::BTreeMap, time::Duration};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_headless::{EndpointCounts, Explanation};

use crate::{
    app::{App, STUCK_FROM, STUCK_TIMES},
    reader::{Reading, json_of},
    view::draw_at,
};

const URL: &str = "http://127.0.0.1:9090/debug/tower-headless";

/// 2026-01-01.
const AT: u64 = 1_767_225_600_000;

fn pod(number: u64, requests: u64) -> Value {
    json!({
        "name": format!("web-{number}"), "address": format!("10.244.1.{number}:80"), "zone": "a", "node": null,
        "weight": 1, "is_terminating": false, "is_in_subset": true, "is_near": null, "verdict": "picked", "reason": null,
        "why": "", "since_unix_ms": AT - 60_000, "joined_unix_ms": AT - 60_000, "next_trial_seconds": null,
        "in_flight": 1, "waiting": 1, "load": 1, "share": 0.5, "slow_start": 1.0, "average_latency_seconds": null,
        "p50_seconds": 0.002, "p95_seconds": 0.004, "p99_seconds": 0.0082, "counts": counts(requests), "last_error": null,
    })
}

fn counts(requests: u64) -> Value {
    // All other counts are zero.
    let mut counts = json!(EndpointCounts::default());
    counts["requests"] = requests.into();
    counts["successes"] = (requests - 2).into();
    counts["failures"]["answered"] = 1.into();
    counts
}

fn hung(mut pod: Value) -> Value {
    pod["verdict"] = "ejected".into();
    pod["reason"] = "unresponsive".into();
    pod["why"] =
        "9 requests wait, and none is answered, while the others answer; tried again in 4.8 s"
            .into();
    pod["waiting"] = 9.into();
    pod["in_flight"] = 9.into();
    pod["share"] = 0.into();
    pod["next_trial_seconds"] = 4.8.into();
    pod["since_unix_ms"] = (AT - 1_500).into();
    pod
}

fn balancer(at: u64, trouble: &[&str], pods: Vec<Value>) -> Value {
    let event = json!({
        "at_unix_ms": AT - 1_500, "kind": "ejected", "endpoint": "web-2 (10.244.1.2:80)", "detail": "unresponsive",
    });
    json!({
        "service": "web.default", "at_unix_ms": at, "trouble": trouble, "size": pods.len(), "available": 2,
        "discovery": {
            "kind": "dns", "is_fallback": false, "name": "web.default.svc.cluster.local", "server": "10.96.0.10:53",
            "ttl_seconds": 5.0, "staleness_seconds": 1.25, "last_answer_unix_ms": AT, "last_change_unix_ms": AT, "next_refresh_unix_ms": AT,
            "is_failing": false, "last_error": null,
        },
        "policy": {"name": "round-robin", "is_load_aware": false, "is_near_first": false},
        "is_panic": false, "outage_seconds": null, "totals": null, "endpoints": pods, "events": [event],
    })
}

fn reading(all: Value) -> Reading {
    let what: BTreeMap<String, Explanation> = serde_json::from_value(all).expect("the page's JSON");
    Reading {
        at: Instant::now(),
        what: Ok(what),
    }
}

/// The app after two readings a second apart, the second one with a hung pod.
fn app() -> App {
    let mut app = App::new(URL.to_owned());
    let first = balancer(AT - 1_000, &[], (0..3).map(|it| pod(it, 100)).collect());
    app.read(reading(json!({"web.default": first})));
    let wrong = ["web-2 (10.244.1.2:80) ejected: 9 requests wait, and none is answered"];
    let second = balancer(
        AT,
        &wrong,
        vec![pod(0, 140), pod(1, 142), hung(pod(2, 109))],
    );
    let other = balancer(AT, &[], vec![pod(7, 1_000)]);
    app.read(reading(json!({"cache": other, "web.default": second})));
    app
}

fn screen(app: &App, width: u16, height: u16, age: Duration) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let now = app.read_at.map_or_else(Instant::now, |at| at + age);
    terminal
        .draw(|frame| draw_at(frame, app, now))
        .expect("drawn");
    let buffer = terminal.backend().buffer();
    let cells: Vec<_> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    let lines = cells.chunks(width.into());
    lines
        .map(|line| line.concat().trim_end().to_owned() + "\n")
        .collect()
}

fn press(app: &mut App, code: KeyCode) {
    app.press(KeyEvent::new(code, KeyModifiers::NONE));
}

#[test]
fn the_worst_pod_is_the_first_of_80_columns() {
    let text = screen(&app(), 80, 24, Duration::from_millis(300));
    let lines: Vec<_> = text.lines().collect();
    let expected = [
        "web.default  2 of 3 pods get requests, 91/s, round-robin  (2 of 2)",
        "http://127.0.0.1:9090/debug/tower-headless, read 0 s ago",
        "! web-2 (10.244.1.2:80) ejected: 9 requests wait, and none is answered",
        "dns web.default.svc.cluster.local, answered 1.2 s ago, TTL 5.0 s",
        "POD                       STATE          FLIGHT  WAIT  REQ/S  FAIL     P99 SHARE",
        "web-2 (10.244.1.2:80)     ejected             9     9      9     1    8 ms    0%",
        "web-0 (10.244.1.0:80)     picked              1     1     40     1    8 ms   50%",
        "web-1 (10.244.1.1:80)     picked              1     1     42     1    8 ms   50%",
    ];
    assert_eq!(lines[..expected.len()], expected, "{text}");
    let end = [
        "web-2 (10.244.1.2:80): 9 requests wait, and none is answered, while the others",
        "answer; tried again in 4.8 s",
        "↑ ↓ pod   Enter all of it   Tab balancer   q quit",
    ];
    assert_eq!(lines[21..], end, "{text}");
    assert_eq!(lines.len(), 24);
}

#[test]
fn wider_terminals_show_more_columns() {
    let text = screen(&app(), 145, 24, Duration::ZERO);
    for title in ["ZONE", "SUCCESS", "P50", "P95", "TRIAL", "99.0%", "4.8 s"] {
        assert!(text.contains(title), "{title}:\n{text}");
    }
    assert!(!text.contains("WHY"));
    let text = screen(&app(), 110, 24, Duration::ZERO);
    assert!(text.contains("TRIAL") && !text.contains("ZONE"), "{text}");
    assert!(screen(&app(), 180, 24, Duration::ZERO).contains("WHY"));
    // A terminal that is too small shows what fits.
    screen(&app(), 20, 5, Duration::ZERO);
    screen(&app(), 1, 1, Duration::ZERO);
}

#[test]
fn enter_shows_all_of_the_selected_pod() {
    let mut app = app();
    press(&mut app, KeyCode::Enter);
    let text = screen(&app, 80, 24, Duration::ZERO);
    for words in [
        "web-2",
        "ejected: 9 requests wait",
        "since        1.5 s ago",
        "109: 107 successes, 1 failures",
        "event        ejected: unresponsive",
    ] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    press(&mut app, KeyCode::Esc);
    assert!(!app.is_over && screen(&app, 80, 24, Duration::ZERO).contains("web-0"));
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Enter);
    assert!(screen(&app, 80, 24, Duration::ZERO).contains("picked"));
    assert_eq!(app.pod.as_deref(), Some("web-0 (10.244.1.0:80)"));
}

#[test]
fn tab_shows_the_next_balancer_and_q_ends() {
    let mut app = app();
    assert_eq!(app.balancer, "web.default");
    for balancer in ["cache", "web.default", "cache"] {
        press(&mut app, KeyCode::Tab);
        assert_eq!(app.balancer, balancer);
    }
    assert!(screen(&app, 80, 24, Duration::ZERO).contains("web-7"));
    press(&mut app, KeyCode::BackTab);
    assert_eq!(app.balancer, "web.default");
    press(&mut app, KeyCode::End);
    assert_eq!(app.pod.as_deref(), Some("web-1 (10.244.1.1:80)"));
    let mut control = app;
    control.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(control.is_over);
}

#[test]
fn a_process_that_is_gone_leaves_its_last_reading() {
    let mut app = App::new(URL.to_owned());
    let gone = || Reading {
        at: Instant::now(),
        what: Err("Connection refused".into()),
    };
    app.read(gone());
    assert!(
        screen(&app, 80, 24, Duration::ZERO)
            .contains("No answer, trying again: Connection refused")
    );
    app.read(reading(json!({"web": balancer(AT, &[], vec![pod(0, 5)])})));
    app.read(gone());
    let text = screen(&app, 80, 24, Duration::from_secs(7));
    assert!(text.contains("No answer for 7 s"), "{text}");
    assert!(text.contains("web-0"), "{text}");
    app.read(reading(json!({})));
    let text = screen(&app, 80, 24, Duration::ZERO);
    assert!(
        text.contains("No balancer") && !text.contains("web-0"),
        "{text}"
    );
}

#[test]
fn the_json_is_beside_the_page() {
    for page in ["/debug/it", "/debug/it/", "/debug/it/json"] {
        let url = format!("http://127.0.0.1:1{page}").parse().expect("a URL");
        assert_eq!(json_of(url).path(), "/debug/it/json");
    }
    let root = "http://127.0.0.1:1".parse().expect("a URL");
    assert_eq!(json_of(root).path(), "/json");
}

/// The app with pods for which this many requests wait, and about which the balancer reports nothing.
fn waiting(requests: &[u64]) -> App {
    let pods = requests.iter().zip(0..).map(|(waiting, number)| {
        let mut pod = pod(number, 100);
        pod["waiting"] = (*waiting).into();
        pod["in_flight"] = (waiting + 1).into();
        pod
    });
    let mut app = App::new(URL.to_owned());
    app.read(reading(json!({"web": balancer(AT, &[], pods.collect())})));
    app
}

#[test]
fn a_pod_whose_requests_wait_unlike_those_of_others_looks_stuck_before_it_is_ejected() {
    const WHY: &str = "its requests wait, those of other pods don't";
    for (requests, is_stuck) in [
        (&[0, 40][..], true),
        (&[0, 1, 40], true),
        (&[9, 9, 40], true),
        (&[1, 4], false),
        (&[40], false),
        (&[40, 40], false),
        (&[10, 40], false),
        (&[0, 40, 40], false),
    ] {
        let app = waiting(requests);
        let text = screen(&app, 80, 24, Duration::ZERO);
        assert_eq!(text.contains(WHY), is_stuck, "{requests:?}:\n{text}");
        let last = format!("web-{}", requests.len() - 1);
        let is_first = app.pods()[0].name.as_ref() == Some(&last);
        assert_eq!(is_first, is_stuck || requests.len() == 1, "{requests:?}");
    }
}

#[test]
fn the_page_uses_the_same_limits_for_stuck_pods() {
    let page = include_str!("../../src/inspect/row.js");
    for line in [
        format!("const STUCK_FROM = {STUCK_FROM};"),
        format!("const STUCK_TIMES = {STUCK_TIMES};"),
    ] {
        assert!(page.contains(&line), "{line}");
    }
}

#[test]
fn no_rate_is_shown_after_the_clock_was_set_back() {
    let mut app = App::new(URL.to_owned());
    let rates = [
        (AT, 100),
        (AT + 1_000, 140),
        (AT - 60_000, 180),
        (AT - 59_000, 230),
    ]
    .map(|(at, requests)| {
        app.read(reading(
            json!({"web": balancer(at, &[], vec![pod(0, requests)])}),
        ));
        app.per_second(app.pods()[0])
    });
    assert_eq!(rates, [None, Some(40.0), None, Some(50.0)]);
}
