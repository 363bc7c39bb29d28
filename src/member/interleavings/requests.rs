//! Requests count at their member while the background task takes the counts.

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
        let judge = thread::spawn(move || {
            judging.stats.judge(TrialVerdict::GivenUp);
            judging.stats.end_trial(TrialVerdict::Cancelled);
        });
        let take = |member: &Member| (member.stats.take_verdict(), member.stats.take_trial());
        let taking = member.clone();
        let others = thread::spawn(move || take(&taking));
        let mine = take(&member);
        judge.join().unwrap();
        let (verdicts, trials): (Vec<_>, Vec<_>) = [mine, others.join().unwrap(), take(&member)]
            .into_iter()
            .unzip();
        let once = |taken: Vec<_>, verdict| {
            let taken: Vec<_> = taken.into_iter().flatten().collect();
            assert_eq!(taken, [verdict]);
        };
        once(verdicts, TrialVerdict::GivenUp);
        once(trials, TrialVerdict::Cancelled);
    });
    println!("{orders} orders");
}
