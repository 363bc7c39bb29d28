//! Clones of one `Dns`.

use super::*;
use crate::discovery::dns::lookup::RecordType;

const NAME: &str = "web.default.svc.cluster.local.:80";
const WEB: &str = "web.default.svc.cluster.local";

/// How many questions several readers cost in the five minutes after the first set.
async fn price(readers: usize) -> usize {
    let script = Script::new();
    script.pods(WEB, [1, 2]);
    let shared = discovery(NAME, &script);
    let tasks: Vec<_> = (0..readers)
        .map(|_| {
            let mut reader = shared.clone();
            tokio::spawn(async move {
                let first = set(&mut reader).await;
                run(&mut reader, 300 * SECOND).await;
                first
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), hosts([1, 2]));
    }
    script.take_asked().len()
}

#[tokio::test(start_paused = true)]
async fn eight_readers_cost_as_much_as_one() {
    let (one, eight) = (price(1).await, price(8).await);
    // Two families, every 5 s ± 10 %.
    assert!((110..=150).contains(&one), "{one}");
    assert!((110..=150).contains(&eight), "{eight}");
}

#[tokio::test(start_paused = true)]
async fn readers_go_on_when_the_one_that_asked_is_gone() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let mut first = discovery(NAME, &script);
    let mut second = Watch::new(first.clone());
    assert_eq!(set(&mut first).await, hosts([1]));
    assert_eq!(change(&mut second).await.joined, hosts([1]));
    assert!(poll_immediate(answer(&mut first)).await.is_none());
    drop(first);
    script.pods(WEB, [1, 2]);
    assert_eq!(change(&mut second).await.joined, hosts([2]));
}

#[tokio::test(start_paused = true)]
async fn a_late_reader_gets_a_fresh_set_at_once() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let mut first = discovery(NAME, &script);
    set(&mut first).await;
    assert_eq!(first.age(), Duration::ZERO);
    tokio::time::sleep(3 * SECOND).await;
    script.take_asked();
    let mut late = first.clone();
    let answer = poll_immediate(answer(&mut late)).await;
    assert_eq!(answer.expect("at once").expect("a set"), hosts([1]));
    assert_eq!(late.age(), 3 * SECOND, "its age is known");
    assert!(script.take_asked().is_empty());
}

/// A source that wasn't polled for an hour.
async fn old(script: &Script) -> Shared<Refresher<Script>> {
    script.pods(WEB, [1]);
    let mut first = discovery(NAME, script);
    set(&mut first).await;
    tokio::time::sleep(3600 * SECOND).await;
    first
}

#[tokio::test(start_paused = true)]
async fn a_late_reader_gets_the_next_set_instead_of_an_old_one() {
    let script = Script::new();
    let first = old(&script).await;
    script.pods(WEB, [2]);
    let (asked, mut late) = (Instant::now(), first.clone());
    assert_eq!(answer(&mut late).await.expect("a set"), hosts([2]));
    assert!(asked.elapsed() < SECOND / 10);
    assert_eq!(late.age(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn if_the_next_answer_is_an_error_a_late_reader_gets_the_old_set_with_its_age() {
    let script = Script::new();
    let first = old(&script).await;
    script.instead(Some(Say::ServFail));
    let mut late = first.clone();
    assert_eq!(answer(&mut late).await.expect("a set"), hosts([1]));
    assert!((3599 * SECOND..3601 * SECOND).contains(&late.age()));
    answer(&mut late).await.expect_err("and then the error");
    script.instead(None);
    assert_eq!(set(&mut late).await, hosts([1]));
    assert_eq!(late.age(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn while_dns_is_silent_a_late_reader_gets_the_old_set_after_three_seconds() {
    let script = Script::new();
    let first = old(&script).await;
    script.instead(Some(Say::Silence));
    let (asked, mut late) = (Instant::now(), first.clone());
    assert_eq!(answer(&mut late).await.expect("a set"), hosts([1]));
    assert_eq!(asked.elapsed(), 3 * SECOND);
    assert!(late.age() >= 3600 * SECOND);
    answer(&mut late).await.expect_err("no answer");
    assert_eq!(asked.elapsed(), 4 * SECOND);
}

/// In an outage that other readers have seen, there is no reason to wait.
#[tokio::test(start_paused = true)]
async fn a_late_reader_gets_the_old_set_at_once_if_the_source_has_just_failed() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let mut first = discovery(NAME, &script);
    run(&mut first, 60 * SECOND).await;
    script.instead(Some(Say::ServFail));
    run(&mut first, 300 * SECOND).await;
    first.refresh();
    while answer(&mut first).await.is_ok() {}
    let mut late = first.clone();
    let kept = poll_immediate(answer(&mut late)).await.expect("at once");
    assert_eq!(kept.expect("a set"), hosts([1]));
    assert!(late.age() >= 299 * SECOND, "{:?}", late.age());
    let error = poll_immediate(answer(&mut late)).await.expect("at once");
    error.expect_err("the error that others have got");
}

/// It holds for a reader that wasn't polled for a while, as for a new one.
#[tokio::test(start_paused = true)]
async fn a_reader_that_was_not_polled_gets_no_old_set_either() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let mut away = discovery(NAME, &script);
    let mut other = away.clone();
    set(&mut away).await;
    run(&mut other, 60 * SECOND).await;
    drop(other);
    tokio::time::sleep(3600 * SECOND).await;
    script.pods(WEB, [2]);
    assert_eq!(answer(&mut away).await.expect("a set"), hosts([2]));
}

#[tokio::test(start_paused = true)]
async fn the_set_of_an_address_never_grows_old() {
    let mut first = discovery("10.0.0.1:80", &Script::new());
    set(&mut first).await;
    tokio::time::sleep(3600 * SECOND).await;
    let late = poll_immediate(answer(&mut first.clone())).await;
    assert_eq!(late.expect("at once").expect("a set"), hosts([1]));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_forced_refreshes_cost_one_question_a_second() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let shared = discovery(NAME, &script);
    let mut readers: Vec<_> = (0..10).map(|_| shared.clone()).collect();
    for reader in &mut readers {
        set(reader).await;
    }
    for _ in 0..1_000 {
        for reader in &mut readers {
            reader.refused(&hosts([1])[0]);
            run(reader, SECOND / 1_000).await;
        }
    }
    let times = script.times(RecordType::A);
    // Ten seconds went by.
    assert!((9..=11).contains(&times.len()), "{}", times.len());
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= SECOND));
}
