//! Clones of one source.

use super::*;

#[tokio::test(start_paused = true)]
async fn eight_readers_cost_one_watch() {
    let script = Script::default();
    script.slice("web-a", [1]);
    let shared = discovery(&script);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let mut reader = shared.clone();
            tokio::spawn(async move { set(&mut reader).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), hosts([1]));
    }
    let mut last = shared;
    run(&mut last, 10 * SECOND).await;
    assert_eq!(script.asked(), [Asked::List, Asked::Watch(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_late_reader_gets_the_set_of_a_quiet_watch_at_once() {
    let script = Script::default();
    script.slice("web-a", [1]);
    let mut first = discovery(&script);
    run(&mut first, 50 * SECOND).await;
    script.asked();
    let mut late = first.clone();
    let answer = poll_immediate(answer(&mut late)).await.expect("at once");
    assert_eq!(answer.expect("a set"), hosts([1]));
    // Its age counts from when the watch settled.
    assert!((48 * SECOND..50 * SECOND).contains(&late.age()));
    assert_eq!(script.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn readers_that_follow_each_other_closely_share_a_watch_and_a_later_one_begins_another() {
    let script = Script::default();
    script.slice("web-a", [1]);
    let kept = discovery(&script);
    for _ in 0..8 {
        let mut reader = kept.clone();
        run(&mut reader, SECOND).await;
        drop(reader);
        tokio::time::sleep(SECOND / 2).await;
    }
    assert_eq!(script.asked(), [Asked::List, Asked::Watch(1)]);
    tokio::time::sleep(SECOND).await;
    let mut late = kept.clone();
    let answer = poll_immediate(answer(&mut late)).await.expect("at once");
    assert_eq!(answer.expect("a set"), hosts([1]));
    run(&mut late, SECOND).await;
    assert_eq!(script.asked(), [Asked::List, Asked::Watch(1)]);
}

/// A source that wasn't polled for an hour. Of the changes since, the watch has only some.
async fn old(script: &Script) -> Shared<Watcher<Script>> {
    script.slice("web-a", [1]);
    let mut first = discovery(script);
    run(&mut first, 2 * SECOND).await;
    script.slice("web-a", [2]);
    tokio::time::sleep(3600 * SECOND).await;
    script.slice_unheard("web-a", [3]);
    script.refuse_watches(Some(Reason::Expired));
    first
}

#[tokio::test(start_paused = true)]
async fn a_late_reader_gets_neither_an_old_set_nor_an_old_watchs_events() {
    let script = Script::default();
    let first = old(&script).await;
    let mut late = first.clone();
    assert_eq!(set(&mut late).await, hosts([3]));
    assert_eq!(late.age(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_silent_a_late_reader_gets_the_old_set() {
    let script = Script::default();
    let first = old(&script).await;
    script.silent(true);
    let (asked, mut late) = (Instant::now(), first.clone());
    assert_eq!(set(&mut late).await, hosts([1]));
    assert_eq!(asked.elapsed(), 3 * SECOND);
    assert!(late.age() >= 3600 * SECOND);
    assert!(error(&mut late).await.is_timeout());
}
