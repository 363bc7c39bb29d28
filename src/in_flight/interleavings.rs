//! Requests that begin, are answered, fail and are cancelled on several threads, while the background task reviews
//! them.

use std::sync::Arc;

use futures_util::FutureExt;
use shuttle::thread::{self, JoinHandle};

use super::*;
use crate::{interleavings::explore, member::Slots, signals::Signals};

/// How a request may end.
const ENDS: [fn(&mut InFlight); 6] = [
    |request| request.answer(true),
    |request| request.answer(false),
    |request| {
        request.wait();
        request.answer(false);
        request.report(Outcome::Failure);
    },
    |request| request.report(Outcome::Overload),
    |request| request.refuse(None),
    // Its caller cancels it.
    |request| request.wait(),
];

fn member() -> Arc<Member> {
    let endpoint = Endpoint::new(([10, 0, 0, 1], 80).into());
    let signals = Arc::new(Signals::new(Instant::now()).reviewed(None));
    Member::new(endpoint, Some(Slots::default().take()), None, signals)
}

/// Four requests of two threads, of which the first is a trial if there is one on offer.
fn requests(member: &Arc<Member>, thread: usize) {
    for turn in 0..2 {
        let is_trial = member.claim_trial();
        if !is_trial && !member.begin() && !member.begin_ejected() {
            continue;
        }
        let mut request = InFlight::new(member, is_trial);
        ENDS[(3 * turn + thread) % ENDS.len()](&mut request);
    }
}

/// Three numbered threads, each of which does `act` with the member.
fn three_threads<T: Send + 'static>(
    member: &Arc<Member>,
    act: fn(&Arc<Member>, usize) -> T,
) -> Vec<JoinHandle<T>> {
    let spawn = |number| {
        let member = member.clone();
        thread::spawn(move || act(&member, number))
    };
    (0..3).map(spawn).collect()
}

/// Ends the penalties, as the background task does. Returns the verdict, if there is one.
fn review(member: &Member) -> Option<TrialVerdict> {
    let penalties = member.stats().take_penalties();
    member.stats().forget_penalties(penalties);
    member.end_all(penalties);
    member.stats().take_verdict()
}

#[test]
fn every_request_counted_in_is_counted_out() {
    explore(|| {
        let member = member();
        let threads = three_threads(&member, |member, thread| requests(&member, thread));
        for _ in 0..2 {
            review(&member);
        }
        threads.into_iter().for_each(|it| it.join().unwrap());
        review(&member);
        assert_eq!((member.in_flight(), member.waiting()), (0, 0));
        assert_eq!(
            (member.stats().streaming(), member.stats().penalties()),
            (0, 0)
        );
        assert_eq!(member.counted(), 0);
    });
}

#[test]
fn one_request_at_a_time_tries_an_ejected_endpoint_and_is_judged_once() {
    explore(|| {
        let member = member();
        member.eject();
        member.offer_trial();
        let threads = three_threads(&member, |member, _| {
            let claimed = member.claim_trial();
            if claimed {
                let mut request = InFlight::new(&member, true);
                request.end_trial();
                request.report(Outcome::Failure);
            }
            claimed
        });
        let mut verdicts = usize::from(review(&member).is_some());
        let claimed = threads.into_iter().map(|it| it.join().unwrap());
        assert_eq!(claimed.filter(|&claimed| claimed).count(), 1);
        verdicts += usize::from(review(&member).is_some());
        verdicts += usize::from(review(&member).is_some());
        assert_eq!(verdicts, 1);
        assert_eq!((member.in_flight(), member.counted()), (0, 0));
        assert_eq!(member.signals().trials(), 0);
    });
}

/// Offers the next trial if the last one ended without an answer, as the background task does when it is woken. Returns
/// whether the trial's end says something about the endpoint.
fn offer_next(member: &Member) -> Option<bool> {
    member.signals().review.notified().now_or_never()?;
    let verdict = member.stats().take_trial()?;
    member.offer_trial();
    Some(verdict == TrialVerdict::GivenUp)
}

#[test]
fn the_background_task_hears_of_each_trial_that_is_given_up_and_offers_the_next() {
    explore(|| {
        let member = member();
        member.refuse();
        member.offer_trial();
        let threads = three_threads(&member, |member, thread| {
            let claimed = member.claim_trial();
            if claimed {
                let mut trial = InFlight::new(&member, true);
                if thread > 0 {
                    trial.wait();
                    trial.report(Outcome::Failure);
                }
            }
            claimed.then_some(thread > 0)
        });
        let mut told: Vec<_> = (0..2).filter_map(|_| offer_next(&member)).collect();
        let trials = threads.into_iter().map(|it| it.join().unwrap());
        let mut trials: Vec<_> = trials.flatten().collect();
        told.extend(offer_next(&member));
        assert_eq!(review(&member), None, "it is not ejected");
        told.sort();
        trials.sort();
        assert_eq!(told, trials);
        assert!(member.has_trial());
        assert_eq!(member.signals().trials(), 1);
        assert_eq!((member.in_flight(), member.counted()), (0, 0));
    });
}
