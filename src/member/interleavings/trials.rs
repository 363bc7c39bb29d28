//! The number of trials, and the flags in the same word.

use futures_util::FutureExt;
use loom::thread;

use super::*;
use crate::interleavings::explore;

#[test]
fn a_trial_that_is_taken_before_it_is_added_leaves_the_flags_alone() {
    let orders = explore(|| {
        let member = member(None);
        member.refuse();
        let (offering, claiming) = (member.clone(), member.clone());
        let offering = thread::spawn(move || offering.offer_trial());
        let claiming = thread::spawn(move || claiming.claim_trial());
        member.signals.set_slow_start(true);
        assert!(!member.signals.look_out(), "there was no pick");
        assert!(member.signals.fall_asleep());
        offering.join().unwrap();
        let claimed = claiming.join().unwrap();
        assert_eq!(member.has_trial(), !claimed);
        assert_eq!(member.signals.trials(), usize::from(!claimed));
        assert!(!member.signals.look_out(), "there was no pick");
        let flags = member.signals.heed();
        assert_eq!((flags.trials, flags.slow_start), (!claimed, true));
        let woken = member.signals.review.notified().now_or_never();
        assert!(woken.is_some(), "the background task was asleep");
    });
    println!("{orders} orders");
}

#[test]
fn the_next_pick_wakes_a_background_task_that_fell_asleep() {
    let orders = explore(|| {
        let member = member(None);
        member.signals.heed();
        let _ = member.signals.review.notified().now_or_never();
        let picking = member.clone();
        let pick = thread::spawn(move || {
            for _ in 0..2 {
                if picking.signals.has_flags() {
                    picking.signals.heed();
                }
            }
        });
        let signals = &member.signals;
        let stays_awake = signals.look_out() || !signals.fall_asleep();
        pick.join().unwrap();
        // The next pick.
        signals.heed();
        let is_woken = signals.review.notified().now_or_never().is_some();
        assert!(stays_awake || is_woken);
    });
    println!("{orders} orders");
}

#[test]
fn a_trial_given_back_is_gone_when_its_member_is() {
    let orders = explore(|| {
        let member = member(None);
        member.refuse();
        member.offer_trial();
        let requests: Vec<_> = (0..2)
            .map(|_| {
                let member = member.clone();
                thread::spawn(move || {
                    let claimed = member.claim_trial();
                    if claimed {
                        // It is cancelled.
                        member.offer_trial();
                    }
                    claimed
                })
            })
            .collect();
        member.remove();
        for request in requests {
            request.join().unwrap();
        }
        assert!(!member.has_trial());
        assert_eq!(member.flags(), UNREACHABLE | REMOVED);
        assert_eq!(member.signals.trials(), 0);
    });
    println!("{orders} orders");
}
