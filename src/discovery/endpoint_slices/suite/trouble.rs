//! The API server is away, refuses, or has lost its history.

use super::*;
use crate::discovery::endpoint_slices::rbac::Forbidden;

fn server_error() -> Reason {
    Reason::Status {
        code: 500,
        message: "etcd is away".to_owned(),
    }
}

/// Discovery with an open watch that has settled.
async fn watching(script: &Script) -> Shared<Watcher<Script>> {
    script.slice("web-a", [1, 2]);
    let mut discovery = discovery(script);
    run(&mut discovery, 5 * SECOND).await;
    script.asked();
    discovery
}

#[tokio::test(start_paused = true)]
async fn errors_back_off_to_30_seconds_and_keep_the_set() {
    let script = Script::default();
    let mut discovery = watching(&script).await;
    script.refuse_lists(Some(server_error()));
    script.fail(server_error());
    let answers = run(&mut discovery, PATIENCE / 2).await;
    assert!(answers.iter().all(Result::is_err));
    let times: Vec<_> = script.asked_at().into_iter().map(|(_, at)| at).collect();
    let mut expected = 1.6_f64;
    for pair in times.windows(2) {
        let pause = (pair[1] - pair[0]).as_secs_f64();
        assert!(
            (expected * 0.79..=expected * 1.21).contains(&pause),
            "{pause} for {expected}"
        );
        expected = (expected * 1.6).min(30.0);
    }
    assert!(times.len() > 40, "it goes on: {}", times.len());
    script.slice_unheard("web-a", [2, 3]);
    script.refuse_lists(None);
    loop {
        if let Ok(set) = answer(&mut discovery).await {
            assert_eq!(set, hosts([2, 3]));
            break;
        }
    }
}

/// A list would add to the load that the server complains about.
#[tokio::test(start_paused = true)]
async fn a_throttled_watch_goes_on_from_its_last_version_after_the_servers_pause() {
    for (says, seconds) in [(20, 20..22), (3600, 30..32)] {
        let script = Script::default();
        let mut discovery = watching(&script).await;
        let pause = Some(says * SECOND);
        let message = "too many requests".to_owned();
        script.refuse_watches(Some(Reason::Throttled { message, pause }));
        script.end();
        let text = error(&mut discovery).await.to_string();
        assert!(text.contains("429"), "{text}");
        let failed = Instant::now();
        script.refuse_watches(None);
        script.asked();
        while script.asked().is_empty() {
            discovery.refused(&hosts([1])[0]);
            discovery.refresh();
            run(&mut discovery, SECOND / 10).await;
        }
        let waited = failed.elapsed().as_secs();
        assert!(seconds.contains(&waited), "{waited}");
        let answers = run(&mut discovery, 2 * SECOND).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        script.slice("web-a", [2]);
        assert_eq!(set(&mut discovery).await, hosts([2]));
        assert_eq!(script.asked(), [], "no list");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_after_an_error_replaces_the_set_without_a_gap() {
    let script = Script::default();
    let mut discovery = watching(&script).await;
    script.slice_unheard("web-b", [3]);
    script.fail(server_error());
    error(&mut discovery).await;
    assert_eq!(set(&mut discovery).await, hosts([1, 2, 3]));
    assert_eq!(script.asked()[0], Asked::List);
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_is_followed_by_a_list_at_once() {
    let script = Script::default();
    let mut discovery = watching(&script).await;
    let began = Instant::now();
    script.slice_unheard("web-a", [2, 3]);
    script.fail(Reason::Expired);
    assert_eq!(
        set(&mut discovery).await,
        hosts([2, 3]),
        "no error, and nothing empty"
    );
    assert!(began.elapsed() < SECOND / 10);
    run(&mut discovery, SECOND / 10).await;
    assert_eq!(script.asked(), [Asked::List, Asked::Watch(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_whose_version_has_expired_is_followed_by_a_list() {
    let script = Script::default();
    let mut discovery = watching(&script).await;
    script.refuse_watches(Some(Reason::Expired));
    script.end();
    assert_eq!(set(&mut discovery).await, hosts([1, 2]));
    let again = [Asked::Watch(1), Asked::List, Asked::Watch(1)];
    assert_eq!(script.asked(), again);
    // If every watch is refused, lists are paced.
    let sets = run(&mut discovery, 10 * MINUTE).await.len();
    assert!((15..60).contains(&sets), "{sets}");
    script.refuse_watches(None);
}

#[tokio::test(start_paused = true)]
async fn watches_that_end_at_once_are_a_paced_error() {
    let script = Script::default();
    let mut discovery = watching(&script).await;
    script.end();
    for _ in 0..5 {
        // Ends the next watch before it has settled.
        run(&mut discovery, SECOND / 100).await;
        script.end();
        let error = error(&mut discovery).await;
        assert!(error.to_string().contains("ends every watch"), "{error}");
        set(&mut discovery).await;
    }
    assert_eq!(script.asked().len(), 1 + 2 * 5);
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_reopened_from_its_last_version() {
    let script = Script::default();
    let mut discovery = watching(&script).await;
    let answers = run(&mut discovery, 90 * SECOND).await;
    assert!(answers.is_empty() && script.asked().is_empty());
    let answers = run(&mut discovery, 20 * SECOND).await;
    assert_eq!(script.asked(), [Asked::Watch(1)]);
    assert_eq!(answers.len(), 1, "the new one has settled");
    assert!(answers[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_an_error_after_110_seconds() {
    let script = Script::default();
    let mut discovery = watching(&script).await;
    let began = Instant::now();
    script.silent(true);
    let error = error(&mut discovery).await;
    assert!(error.is_timeout(), "{error}");
    assert!((100 * SECOND..115 * SECOND).contains(&(began.elapsed() + 5 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_cuts_the_pause_short_but_not_below_a_second() {
    let script = Script::default();
    let mut discovery = watching(&script).await;
    script.refuse_lists(Some(server_error()));
    script.fail(server_error());
    run(&mut discovery, 10 * MINUTE).await;
    script.asked();
    for _ in 0..10 {
        error(&mut discovery).await;
        let failed = Instant::now();
        for _ in 0..100 {
            discovery.refused(&hosts([1])[0]);
            discovery.refresh();
        }
        assert!(poll_immediate(answer(&mut discovery)).await.is_none());
        script.asked();
        run(&mut discovery, SECOND / 2).await;
        assert_eq!(script.asked(), []);
        discovery.refused(&hosts([1])[0]);
        while script.asked().is_empty() {
            run(&mut discovery, SECOND / 100).await;
        }
        assert!((SECOND..SECOND + SECOND / 10).contains(&failed.elapsed()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_reopened_only_if_all_pods_refuse() {
    let script = Script::default();
    let mut discovery = watching(&script).await;
    discovery.refresh();
    run(&mut discovery, SECOND).await;
    assert_eq!(script.asked(), [], "it was heard from lately");
    run(&mut discovery, 10 * SECOND).await;
    discovery.refused(&hosts([1])[0]);
    run(&mut discovery, SECOND).await;
    assert_eq!(script.asked(), [], "one pod");
    for _ in 0..30 {
        discovery.refresh();
        run(&mut discovery, SECOND).await;
    }
    let opened = script.asked().len();
    assert!((2..=4).contains(&opened), "{opened}, each 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_missing_role_is_an_error_that_ends_when_it_is_applied() {
    let script = Script::default();
    script.slice("web-a", [1]);
    let message = "forbidden: User \"system:serviceaccount:apps:client\" cannot list";
    let forbidden = Reason::Forbidden(Forbidden::new("default", message));
    script.refuse_lists(Some(forbidden));
    let mut discovery = discovery(&script);
    for _ in 0..10 {
        let error = error(&mut discovery).await;
        assert!(error.is_forbidden());
        assert!(
            error.to_string().contains("verbs: [list, watch]"),
            "{error}"
        );
    }
    script.refuse_lists(None);
    let granted = Instant::now();
    assert_eq!(set(&mut discovery).await, hosts([1]));
    assert!(granted.elapsed() <= 37 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_may_list_but_not_watch_gets_sets_and_the_error() {
    let script = Script::default();
    script.slice("web-a", [1]);
    script.refuse_watches(Some(Reason::Forbidden(Forbidden::new("default", "watch"))));
    let mut discovery = discovery(&script);
    for _ in 0..5 {
        assert_eq!(set(&mut discovery).await, hosts([1]));
        assert!(error(&mut discovery).await.is_forbidden());
    }
}
