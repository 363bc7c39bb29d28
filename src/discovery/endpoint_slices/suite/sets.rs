//! The API server works.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_first_set_is_the_list_and_the_watch_goes_on_from_there() {
    let script = Script::default();
    script.slice("web-a", [1, 2]);
    script.slice("web-b", [3]);
    let mut discovery = discovery(&script);
    assert_eq!(set(&mut discovery).await, hosts([1, 2, 3]));
    run(&mut discovery, SECOND / 10).await;
    assert_eq!(script.asked(), [Asked::List, Asked::Watch(2)]);
    script.slice("web-b", [3, 4]);
    assert_eq!(set(&mut discovery).await, hosts([1, 2, 3, 4]));
    script.delete("web-a");
    assert_eq!(set(&mut discovery).await, hosts([3, 4]));
    script.delete("web-b");
    assert_eq!(set(&mut discovery).await, hosts([]));
    assert_eq!(script.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn a_missing_service_is_an_empty_set_at_once() {
    let script = Script::default();
    let mut discovery = discovery(&script);
    let began = Instant::now();
    assert_eq!(set(&mut discovery).await, hosts([]));
    assert!(began.elapsed() < SECOND / 10);
}

#[tokio::test(start_paused = true)]
async fn there_is_no_set_before_the_list() {
    let script = Script::default();
    script.slice("web-a", [1]);
    script.silent(true);
    let mut discovery = discovery(&script);
    assert_eq!(run(&mut discovery, 9 * SECOND).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_moves_between_slices_is_never_missing() {
    let script = Script::default();
    script.slice("web-a", [1, 2]);
    script.slice("web-b", [3]);
    let mut discovery = discovery(&script);
    run(&mut discovery, 2 * SECOND).await;
    script.slice("web-a", [1]);
    script.slice("web-b", [2, 3]);
    assert_eq!(set(&mut discovery).await, hosts([1, 2, 3]));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_from_the_last_version_or_bookmark() {
    let script = Script::default();
    script.slice("web-a", [1]);
    let mut discovery = discovery(&script);
    run(&mut discovery, 2 * SECOND).await;
    script.bookmark();
    assert_eq!(set(&mut discovery).await, hosts([1]));
    script.asked();
    script.end();
    let answers = run(&mut discovery, 2 * SECOND).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(script.asked(), [Asked::Watch(11)]);
}

#[tokio::test(start_paused = true)]
async fn the_set_is_yielded_again_when_a_watch_has_settled_and_at_bookmarks() {
    let script = Script::default();
    script.slice("web-a", [1]);
    let mut discovery = discovery(&script);
    let began = Instant::now();
    set(&mut discovery).await;
    assert_eq!(set(&mut discovery).await, hosts([1]), "settled");
    assert!((SECOND..SECOND * 2).contains(&began.elapsed()));
    for _ in 0..10 {
        assert_eq!(run(&mut discovery, MINUTE).await.len(), 0);
        script.bookmark();
        assert_eq!(set(&mut discovery).await, hosts([1]));
    }
    assert_eq!(script.asked().len(), 2, "one list, one watch");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_port_is_an_error_until_the_slices_change() {
    let script = Script::default();
    script.slice("web-a", [1]);
    let mut discovery = follow("web.default:grpc", &script);
    let error = error(&mut discovery).await;
    assert!(error.is_unknown_port());
    assert!(error.to_string().contains("web.default:grpc"), "{error}");
    assert!(error.to_string().contains("http = 80/TCP"), "{error}");
    run(&mut discovery, 2 * SECOND).await;
    script.delete("web-a");
    assert_eq!(set(&mut discovery).await, hosts([]));
}
