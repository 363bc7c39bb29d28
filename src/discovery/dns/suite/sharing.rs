//! Clones of one `Dns`.

use super::*;
use crate::discovery::dns::lookup::RecordType;

const NAME: &str = "web.default.svc.cluster.local.:80";
const WEB: &str = "web.default.svc.cluster.local";

/// Questions in the five minutes after the first set.
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
async fn eight_readers_cost_what_one_costs() {
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
    let mut second = MembershipStream::new(first.clone());
    assert_eq!(set(&mut first).await, hosts([1]));
    assert_eq!(change(&mut second).await.joined, hosts([1]));
    assert!(poll_immediate(answer(&mut first)).await.is_none());
    drop(first);
    script.pods(WEB, [1, 2]);
    assert_eq!(change(&mut second).await.joined, hosts([2]));
}

#[tokio::test(start_paused = true)]
async fn who_comes_late_gets_the_last_set_at_once() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let mut first = discovery(NAME, &script);
    set(&mut first).await;
    script.take_asked();
    let late = poll_immediate(answer(&mut first.clone())).await;
    assert_eq!(late.expect("at once").expect("a set"), hosts([1]));
    assert!(script.take_asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_forced_refreshes_are_one_question_a_second() {
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
