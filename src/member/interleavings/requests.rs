//! What requests count at their member, and what the background task takes from it.

use loom::thread;

use super::*;
use crate::interleavings::explore;

#[test]
fn a_penalty_is_counted_out_as_often_as_in() {
    let orders = explore(|| {
        let member = member(Some(Slots::default().take()));
        let requests: Vec<_> = (0..2)
            .map(|_| {
                let member = member.clone();
                thread::spawn(move || {
                    if member.begin() && !member.stats.penalise() {
                        member.end();
                    }
                })
            })
            .collect();
        let mut taken = member.stats.take_penalties();
        for request in requests {
            request.join().unwrap();
        }
        taken += member.stats.take_penalties();
        assert_eq!(taken, 2);
        member.stats.forget_penalties(taken);
        member.end_all(taken);
        assert_eq!((member.stats.penalties(), member.counted()), (0, 0));
    });
    println!("{orders} orders");
}

#[test]
fn a_verdict_is_taken_once() {
    let orders = explore(|| {
        let member = member(None);
        let judging = member.clone();
        let judge = thread::spawn(move || judging.stats.judge(Verdict::Passed));
        let taking = member.clone();
        let take = thread::spawn(move || taking.stats.take_verdict());
        let mine = member.stats.take_verdict();
        judge.join().unwrap();
        let others = take.join().unwrap();
        let taken = [mine, others, member.stats.take_verdict()];
        let passed = taken.iter().filter(|it| **it == Some(Verdict::Passed));
        assert_eq!(passed.count(), 1);
    });
    println!("{orders} orders");
}
