//! What outlier detection promises, on members' real statistics and in virtual time.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use rand::{SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::{Case, Decision, EndpointHealth, OutlierDetection, OutlierDetector};
use crate::{
    endpoint::Endpoint,
    member::{EjectionReason, Member, MemberRef, RequestStats, TrialVerdict},
    signals::Signals,
};

const TICK: Duration = Duration::from_millis(25);
const MILLI: Duration = Duration::from_millis(1);

/// An endpoint, with its real statistics.
struct Set {
    detector: OutlierDetector,
    pods: Vec<Pod>,
    decisions: Vec<Decision>,
    now: Instant,
    rng: SmallRng,
}

struct Pod {
    member: Arc<Member>,
    health: EndpointHealth,
    weight: u32,
    requests: Vec<Arc<MemberRef>>,
}

impl Pod {
    fn stats(&self) -> &RequestStats {
        self.member.stats()
    }

    /// Begins requests that aren't answered.
    fn wait(&mut self, requests: usize) {
        self.requests = (0..requests).map(|_| self.member.member_ref()).collect();
    }
}

impl Set {
    fn new(len: usize, settings: OutlierDetection) -> Self {
        let now = Instant::now();
        let signals = Arc::new(Signals::new(now));
        let pod = |host: usize| Pod {
            member: {
                let address = ([10, 0, 0, host as u8], 80).into();
                Member::new(Endpoint::new(address), None, None, signals.clone())
            },
            health: EndpointHealth::new(now),
            weight: 1,
            requests: Vec::new(),
        };
        Self {
            detector: OutlierDetector::new(settings),
            pods: (0..len).map(pod).collect(),
            decisions: vec![Decision::default(); len],
            now,
            rng: SmallRng::seed_from_u64(9),
        }
    }

    /// Endpoints from this index on have no weight.
    fn weighted(mut self, first: usize) -> Self {
        let others = self.pods.iter_mut().skip(first);
        others.for_each(|pod| pod.weight = 0);
        self
    }

    fn succeed(&self, pod: usize, times: usize) {
        for _ in 0..times {
            self.pods[pod].stats().answered(MILLI);
            self.pods[pod].stats().succeeded();
        }
    }

    fn fail(&self, pod: usize, times: usize) {
        for _ in 0..times {
            self.pods[pod].stats().answered(MILLI);
            self.pods[pod].stats().failed(true);
        }
    }

    /// A review, as the background task makes it.
    fn review(&mut self) {
        let cases = self
            .pods
            .iter_mut()
            .map(|pod| Case::observe(&pod.member, pod.weight, &mut pod.health));
        let mut cases: Vec<_> = cases.collect();
        self.detector.review(&mut cases, self.now, &mut self.rng);
        for case in cases.iter().filter(|case| case.decision.is_news) {
            case.member.stats().forget_failures();
        }
        self.decisions = cases.into_iter().map(|case| case.decision).collect();
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.review();
    }

    fn out(&self) -> Vec<Option<EjectionReason>> {
        self.decisions.iter().map(|decision| decision.out).collect()
    }

    fn is_out(&self, pod: usize) -> bool {
        self.decisions[pod].out.is_some()
    }

    /// Waits until the pod may be tried. Returns how long that took.
    fn until_half_open(&mut self, pod: usize) -> Duration {
        let begun = self.now;
        while !self.decisions[pod].becomes_half_open {
            self.wait(TICK);
            assert!(self.is_out(pod), "until it has been tried");
        }
        self.now - begun
    }

    fn judge(&mut self, pod: usize, verdict: TrialVerdict) {
        self.pods[pod].stats().judge(verdict);
        self.wait(TICK);
    }
}

/// Whether a pause is this long, give or take the jitter and a review's interval.
fn about(pause: Duration, seconds: f64) -> bool {
    (seconds * 0.899..=seconds * 1.101 + 0.026).contains(&pause.as_secs_f64())
}

#[test]
fn five_failures_in_a_row_eject_and_four_do_not() {
    let mut set = Set::new(4, OutlierDetection::new().success_rate(None));
    set.fail(1, 4);
    set.review();
    assert_eq!(set.out(), [None; 4]);
    set.succeed(1, 1);
    set.fail(1, 4);
    set.review();
    assert_eq!(set.out(), [None; 4], "a success begins the count anew");
    set.fail(1, 1);
    set.review();
    let reason = Some(EjectionReason::ConsecutiveFailures);
    assert_eq!(set.out(), [None, reason, None, None]);
}

#[test]
fn too_few_successes_eject() {
    let mut set = Set::new(4, OutlierDetection::new());
    for _ in 0..3 {
        set.fail(2, 1);
        set.succeed(2, 2);
    }
    set.wait(TICK);
    let reason = Some(EjectionReason::SuccessRate);
    assert_eq!(set.out(), [None, None, reason, None]);
}

#[test]
fn a_third_failing_after_a_long_good_time_is_out_within_ten_seconds() {
    let health = OutlierDetection::new().consecutive_failures(None);
    let mut set = Set::new(10, health);
    for _ in 0..1_200 {
        set.succeed(3, 5);
        set.wait(TICK);
    }
    let begun = set.now;
    while !set.is_out(3) {
        set.fail(3, 3);
        set.succeed(3, 7);
        set.wait(Duration::from_millis(50));
        assert!(set.now - begun < Duration::from_secs(10));
    }
}

#[test]
fn pauses_double_to_the_longest_and_begin_anew_after_a_good_time() {
    let mut set = Set::new(2, OutlierDetection::new());
    set.fail(0, 5);
    set.review();
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
        let pause = set.until_half_open(0);
        assert!(about(pause, f64::from(seconds)), "{seconds} s: {pause:?}");
        set.judge(0, TrialVerdict::Failed);
    }
    set.until_half_open(0);
    set.judge(0, TrialVerdict::Passed);
    assert!(!set.is_out(0));
    // It hasn't served for long enough.
    set.wait(Duration::from_secs(200));
    set.fail(0, 5);
    set.wait(TICK);
    assert!(about(set.until_half_open(0), 300.0));
    set.judge(0, TrialVerdict::Passed);
    set.wait(Duration::from_secs(331));
    set.fail(0, 5);
    set.wait(TICK);
    assert!(about(set.until_half_open(0), 5.0));
}

/// The endpoint loses `times` hedges in a row.
fn lose(set: &Set, pod: usize, times: usize) {
    for _ in 0..times {
        set.pods[pod].stats().lost();
    }
}

/// A set whose first endpoint has lost enough hedges to be ejected.
fn with_a_loser(endpoints: usize, settings: OutlierDetection) -> Set {
    let mut set = Set::new(endpoints, settings);
    lose(&set, 0, 3);
    set.review();
    set
}

#[test]
fn three_lost_hedges_in_a_row_pass_an_endpoint_over_and_two_do_not() {
    let mut set = Set::new(4, OutlierDetection::off().eject_slow(true));
    lose(&set, 1, 2);
    set.review();
    assert_eq!(set.out(), [None; 4]);
    set.pods[1].stats().keep_up();
    lose(&set, 1, 2);
    set.review();
    assert_eq!(
        set.out(),
        [None; 4],
        "an answer in time begins the count anew"
    );
    lose(&set, 1, 1);
    set.review();
    assert_eq!(set.out(), [None, Some(EjectionReason::Slow), None, None]);
}

#[test]
fn with_eject_slow_off_lost_hedges_eject_nobody() {
    for settings in [
        OutlierDetection::off(),
        OutlierDetection::new().eject_slow(false),
    ] {
        let mut set = Set::new(4, settings);
        lose(&set, 1, 30);
        set.review();
        assert_eq!(set.out(), [None; 4]);
    }
}

/// Whether a slow endpoint's pause is this long, give or take its jitter and a review's interval.
fn about_slow(pause: Duration, seconds: f64) -> bool {
    (seconds * 0.799..=seconds * 1.201 + 0.026).contains(&pause.as_secs_f64())
}

#[test]
fn a_slow_endpoint_is_tried_after_a_fifth_of_a_second_doubling_to_five() {
    let mut set = with_a_loser(2, OutlierDetection::new());
    let verdicts = [TrialVerdict::Late, TrialVerdict::GivenUp]
        .into_iter()
        .cycle();
    for (seconds, verdict) in [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
        .into_iter()
        .zip(verdicts)
    {
        let pause = set.until_half_open(0);
        assert!(about_slow(pause, seconds), "{seconds} s: {pause:?}");
        set.judge(0, verdict);
    }
    set.until_half_open(0);
    set.judge(0, TrialVerdict::Passed);
    assert!(!set.is_out(0));
    // Failures have their own pauses.
    set.fail(0, 5);
    set.review();
    assert!(about(set.until_half_open(0), 5.0));
}

/// For example, pauses of its garbage collector.
#[test]
fn a_hiccup_now_and_then_costs_a_fifth_of_a_second_each() {
    let mut set = Set::new(4, OutlierDetection::new());
    for _ in 0..20 {
        lose(&set, 0, 3);
        set.review();
        let pause = set.until_half_open(0);
        assert!(about_slow(pause, 0.2), "{pause:?}");
        set.judge(0, TrialVerdict::Passed);
        set.wait(Duration::from_secs(10));
    }
    // An endpoint that is slow again as soon as it is back is out for longer each time.
    for seconds in [0.2, 0.4, 0.8, 1.6] {
        lose(&set, 0, 3);
        set.review();
        let pause = set.until_half_open(0);
        assert!(about_slow(pause, seconds), "{seconds} s: {pause:?}");
        set.judge(0, TrialVerdict::Passed);
    }
}

/// Short ejections for being slow in between don't prevent that.
#[test]
fn the_pauses_of_failures_begin_anew_even_if_the_endpoint_is_slow_now_and_then() {
    let mut set = Set::new(4, OutlierDetection::new());
    set.fail(0, 5);
    set.review();
    for seconds in [5.0, 10.0] {
        assert!(about(set.until_half_open(0), seconds));
        set.judge(0, TrialVerdict::Failed);
    }
    assert!(about(set.until_half_open(0), 20.0));
    set.judge(0, TrialVerdict::Passed);
    for _ in 0..4 {
        set.wait(Duration::from_secs(10));
        lose(&set, 0, 3);
        set.review();
        set.until_half_open(0);
        set.judge(0, TrialVerdict::Passed);
    }
    set.fail(0, 5);
    set.review();
    assert!(about(set.until_half_open(0), 5.0));
}

#[test]
fn slow_endpoints_make_room_for_failing_ones() {
    for len in [2, 3] {
        let mut set = with_a_loser(len, OutlierDetection::new());
        assert_eq!(set.out()[0], Some(EjectionReason::Slow));
        set.fail(1, 5);
        set.review();
        assert!(!set.is_out(0), "of {len}");
        assert_eq!(set.out()[1], Some(EjectionReason::ConsecutiveFailures));
        // It isn't ejected again while there is no room.
        lose(&set, 0, 30);
        set.wait(TICK);
        assert!(!set.is_out(0), "of {len}");
        set.until_half_open(1);
        set.judge(1, TrialVerdict::Passed);
        set.wait(TICK);
        assert_eq!(set.out()[0], Some(EjectionReason::Slow), "of {len}");
    }
}

#[test]
fn the_least_slow_endpoints_make_room_first_and_only_as_many_as_needed() {
    let mut set = with_a_loser(6, OutlierDetection::new());
    set.until_half_open(0);
    set.judge(0, TrialVerdict::Late);
    (1..3).for_each(|pod| lose(&set, pod, 3));
    set.review();
    set.fail(5, 5);
    set.fail(4, 6);
    set.review();
    let out: Vec<_> = (0..6).filter(|&pod| set.is_out(pod)).collect();
    assert_eq!(out, [0, 4, 5]);
}

#[test]
fn slow_endpoints_serve_again_before_there_is_a_panic() {
    let mut set = Set::new(10, OutlierDetection::new());
    (0..3).for_each(|pod| lose(&set, pod, 3));
    (3..5).for_each(|pod| set.fail(pod, 5));
    set.review();
    assert_eq!(set.out().iter().flatten().count(), 5);
    for pod in 8..10 {
        set.pods[pod].member.refuse();
    }
    set.wait(TICK);
    let out: Vec<_> = (0..10).filter(|&pod| set.is_out(pod)).collect();
    assert_eq!(out.len(), 3, "{out:?}");
    assert_eq!(out[1..], [3, 4]);
    // And none is ejected if that would cause a panic.
    (0..3).for_each(|pod| lose(&set, pod, 3));
    set.wait(TICK);
    assert_eq!(set.out().iter().flatten().count(), 3);
}

#[test]
fn a_slow_endpoint_whose_trial_fails_is_out_for_that() {
    let mut set = with_a_loser(4, OutlierDetection::new());
    set.until_half_open(0);
    for seconds in [5.0, 10.0, 20.0] {
        set.judge(0, TrialVerdict::Failed);
        assert_eq!(set.out()[0], Some(EjectionReason::ConsecutiveFailures));
        assert!(about(set.until_half_open(0), seconds), "{seconds} s");
    }
    // Unless failures never eject.
    let mut set = with_a_loser(4, OutlierDetection::off().eject_slow(true));
    for seconds in [0.2, 0.4] {
        assert!(about_slow(set.until_half_open(0), seconds));
        set.judge(0, TrialVerdict::Failed);
        assert_eq!(set.out()[0], Some(EjectionReason::Slow));
    }
}

#[test]
fn a_slow_endpoint_whose_trial_hangs_is_out_for_that() {
    let mut set = with_a_loser(4, OutlierDetection::new());
    set.until_half_open(0);
    set.pods[0].wait(1);
    set.wait(TICK);
    set.wait(Duration::from_secs(5));
    assert_eq!(set.out()[0], Some(EjectionReason::Unresponsive));
    assert!(about(set.until_half_open(0), 5.0));
    set.wait(TICK);
    set.wait(Duration::from_secs(5));
    assert!(about(set.until_half_open(0), 10.0));
}

/// Other requests are those for it alone, or of sticky sessions.
#[test]
fn a_slow_endpoint_whose_other_requests_fail_is_out_for_that() {
    let mut set = with_a_loser(4, OutlierDetection::new());
    set.fail(0, 5);
    set.wait(TICK);
    assert_eq!(set.out()[0], Some(EjectionReason::ConsecutiveFailures));
    assert!(about(set.until_half_open(0), 5.0));
}

/// Other requests are those of its sticky sessions, which go there although it is slow.
#[test]
fn a_slow_endpoint_whose_other_requests_hang_is_out_for_that() {
    let mut set = with_a_loser(4, OutlierDetection::new());
    assert_eq!(set.out()[0], Some(EjectionReason::Slow));
    hang(&mut set, 4);
    assert_eq!(set.out()[0], Some(EjectionReason::Slow), "too few to tell");
    hang(&mut set, 5);
    assert_eq!(set.out()[0], Some(EjectionReason::Unresponsive));
    set.succeed(0, 1);
    set.wait(TICK);
    assert!(!set.is_out(0), "back at its first answer");
}

#[test]
fn a_trial_that_loses_to_a_hedge_is_followed_by_another_one_soon() {
    let mut set = Set::new(4, OutlierDetection::new());
    set.fail(0, 5);
    set.review();
    assert!(about(set.until_half_open(0), 5.0));
    for seconds in [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0] {
        set.judge(0, TrialVerdict::Late);
        assert_eq!(set.out()[0], Some(EjectionReason::ConsecutiveFailures));
        let pause = set.until_half_open(0);
        assert!(about_slow(pause, seconds), "{seconds} s: {pause:?}");
    }
    set.judge(0, TrialVerdict::Failed);
    assert!(about(set.until_half_open(0), 10.0), "it is no failure");
}

#[test]
fn at_most_half_may_be_out_for_being_slow_and_never_the_last() {
    for (len, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)] {
        let mut set = Set::new(len, OutlierDetection::new());
        (0..len).for_each(|pod| lose(&set, pod, 3));
        set.review();
        let out = (0..len).filter(|&pod| set.is_out(pod)).count();
        assert_eq!(out, most, "of {len}");
    }
    let mut set = Set::new(2, OutlierDetection::new());
    set.pods[1].member.refuse();
    lose(&set, 0, 3);
    set.review();
    assert!(!set.is_out(0), "the other one refuses");
}

#[test]
fn the_many_failures_of_one_crash_are_one_ejection() {
    let mut set = Set::new(3, OutlierDetection::new());
    set.fail(0, 40);
    set.review();
    // The rest of the requests that were in flight.
    set.fail(0, 60);
    set.wait(TICK);
    assert!(about(set.until_half_open(0), 5.0));
    set.fail(0, 7);
    set.judge(0, TrialVerdict::Passed);
    set.wait(TICK);
    assert!(!set.is_out(0), "back, with nothing to its name");
}

#[test]
fn a_long_answer_that_begins_well_is_a_success() {
    let mut set = Set::new(3, OutlierDetection::new());
    set.fail(0, 5);
    set.review();
    set.until_half_open(0);
    set.judge(0, TrialVerdict::Answered);
    assert!(set.is_out(0), "its end may come soon");
    set.wait(Duration::from_secs(1));
    assert!(!set.is_out(0));
}

#[test]
fn a_trial_that_hangs_is_a_failure_until_one_succeeds() {
    let mut set = Set::new(3, OutlierDetection::new());
    set.fail(0, 5);
    set.review();
    set.until_half_open(0);
    set.pods[0].wait(1);
    set.wait(TICK);
    set.wait(Duration::from_secs(5));
    assert!(about(set.until_half_open(0), 10.0));
    set.wait(TICK);
    set.wait(Duration::from_secs(5));
    set.judge(0, TrialVerdict::Passed);
    assert!(!set.is_out(0), "late, but a success");
}

/// With few requests, the trial request may come long after it was allowed.
#[test]
fn a_trial_request_that_comes_late_does_not_count_as_hanging() {
    for is_slow in [false, true] {
        let mut set = Set::new(3, OutlierDetection::new());
        match is_slow {
            true => lose(&set, 0, 3),
            false => set.fail(0, 5),
        }
        set.review();
        let reason = set.out()[0];
        set.until_half_open(0);
        set.wait(Duration::from_secs(60));
        set.pods[0].wait(1);
        set.wait(TICK);
        set.judge(0, TrialVerdict::Late);
        assert_eq!(set.out()[0], reason);
        let pause = set.until_half_open(0);
        assert!(pause < Duration::from_secs(1), "{pause:?}");
    }
}

/// A request of one broadcast is seen waiting, and one of another broadcast much later.
#[test]
fn requests_of_broadcasts_do_not_count_as_a_hanging_trial() {
    let mut set = Set::new(3, OutlierDetection::new());
    set.fail(0, 5);
    set.review();
    set.until_half_open(0);
    for _ in 0..2 {
        set.pods[0].wait(1);
        set.wait(TICK);
        assert!(set.pods[0].health.is_half_open());
        set.succeed(0, 1);
        set.pods[0].wait(0);
        set.wait(Duration::from_secs(6));
    }
    assert!(set.pods[0].health.is_half_open());
}

#[test]
fn at_most_half_may_be_out_and_never_the_last() {
    for (len, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
        let mut set = Set::new(len, OutlierDetection::new());
        (0..len).for_each(|pod| set.fail(pod, 10));
        set.review();
        set.wait(TICK);
        let out = set.out().iter().flatten().count();
        assert_eq!(out, most, "of {len}");
    }
}

#[test]
fn endpoints_without_weight_do_not_raise_the_ejection_limit() {
    for weight_too in [false, true] {
        let mut set = Set::new(40, OutlierDetection::new()).weighted(4);
        let failing = if weight_too { 40 } else { 4 };
        (0..failing).for_each(|pod| set.fail(pod, 10));
        set.review();
        set.wait(TICK);
        let out = set.out();
        assert_eq!(out[..4].iter().flatten().count(), 2, "half of four");
        assert_eq!(out.iter().flatten().count(), failing - 2);
    }
}

/// For example, a subset's pods that lose their weight when a broadcast has ended.
#[test]
fn endpoints_that_count_again_come_back_until_the_ejection_limit_holds() {
    let settings = OutlierDetection::new().panic_threshold(0.0);
    let mut set = Set::new(5, settings).weighted(1);
    set.pods[4].member.refuse();
    for pod in [3, 1, 2] {
        set.fail(pod, 5);
        set.wait(Duration::from_secs(1));
    }
    let out = |set: &Set| -> Vec<_> { (0..5).filter(|&pod| set.is_out(pod)).collect() };
    assert_eq!(out(&set), [1, 2, 3], "extra, they have no limit");
    set.pods[0].weight = 0;
    set.wait(TICK);
    assert_eq!(out(&set), [1, 2], "of five: the next to be tried serves");
    // An endpoint that refuses is not ejected, and stays as it is.
    assert!(set.pods[4].member.is_unreachable());
    set.wait(TICK);
    assert_eq!(out(&set), [1, 2]);
}

#[test]
fn a_set_that_shrinks_takes_back_endpoints_over_the_ejection_limit() {
    let settings = OutlierDetection::new().panic_threshold(0.0);
    let mut set = Set::new(6, settings);
    for pod in 0..3 {
        set.fail(pod, 5);
        set.wait(Duration::from_secs(1));
    }
    set.pods.truncate(4);
    set.wait(TICK);
    assert_eq!(set.out().iter().flatten().count(), 2, "half of four");
    assert!(!set.is_out(0));
    set.pods.truncate(1);
    set.wait(TICK);
    assert!(!set.is_out(0), "the last one");
}

/// Their failures are kept until the panic ends.
#[test]
fn endpoints_over_the_limit_serve_in_a_panic_and_are_out_again_after_it() {
    let mut set = Set::new(6, OutlierDetection::new());
    (0..3).for_each(|pod| set.fail(pod, 5));
    set.review();
    let left: Vec<_> = set.pods.drain(4..).collect();
    set.wait(TICK);
    assert_eq!(set.out(), [None; 4]);
    set.pods.extend(left);
    set.wait(TICK);
    assert_eq!(set.out().iter().flatten().count(), 3);
}

/// Fails every other request.
fn fail_half(set: &Set, pod: usize, times: usize) {
    for _ in 0..times {
        set.fail(pod, 1);
        set.succeed(pod, 1);
    }
}

#[test]
fn a_failing_endpoint_without_room_is_bad_until_it_is_ejected_or_well() {
    for in_a_row in [false, true] {
        let mut set = Set::new(2, OutlierDetection::new()).weighted(1);
        // The only other one refuses, so this one may not be ejected.
        set.pods[1].member.refuse();
        match in_a_row {
            true => set.fail(0, 10),
            false => fail_half(&set, 0, 10),
        }
        set.review();
        for _ in 0..100 {
            assert!(!set.is_out(0) && set.pods[0].health.is_bad());
            set.wait(TICK);
        }
        // Another endpoint that accepts requests.
        set.pods[1].member.accept();
        set.pods[1].weight = 1;
        set.wait(TICK);
        assert!(set.is_out(0) && set.pods[0].health.is_bad());
        set.until_half_open(0);
        set.judge(0, TrialVerdict::Passed);
        assert!(!set.is_out(0) && !set.pods[0].health.is_bad());
    }
    let mut set = Set::new(1, OutlierDetection::new());
    fail_half(&set, 0, 10);
    set.review();
    assert!(set.pods[0].health.is_bad());
    set.succeed(0, 100);
    set.review();
    assert!(!set.pods[0].health.is_bad());
}

#[test]
fn a_slow_endpoint_without_room_is_not_bad() {
    let mut set = Set::new(1, OutlierDetection::new());
    lose(&set, 0, 9);
    set.review();
    assert!(!set.is_out(0) && !set.pods[0].health.is_bad());
    set.fail(0, 10);
    set.review();
    assert!(set.pods[0].health.is_bad());
}

#[test]
fn if_not_all_can_be_out_the_worst_are() {
    let mut set = Set::new(4, OutlierDetection::new());
    for (pod, times) in [(0, 5), (1, 9), (2, 7), (3, 20)] {
        set.fail(pod, times);
    }
    set.review();
    let out: Vec<_> = (0..4).filter(|&pod| set.is_out(pod)).collect();
    assert_eq!(out, [1, 3]);
}

#[test]
fn a_panic_brings_back_ejected_endpoints_but_not_refusing_ones() {
    let mut set = Set::new(10, OutlierDetection::new());
    (0..5).for_each(|pod| set.fail(pod, 5));
    set.review();
    assert_eq!(set.out().iter().flatten().count(), 5);
    set.pods[9].member.refuse();
    set.wait(TICK);
    assert_eq!(set.out(), [None; 10], "four of ten are too few");
    set.pods[9].member.accept();
    set.wait(TICK);
    assert_eq!(set.out().iter().flatten().count(), 5, "half is enough");
}

#[test]
fn refusing_endpoints_do_not_use_up_the_ejection_limit() {
    let mut set = Set::new(4, OutlierDetection::new().panic_threshold(0.0));
    set.pods[0].member.refuse();
    set.fail(0, 5);
    (1..3).for_each(|pod| set.fail(pod, 5));
    set.review();
    let out: Vec<_> = (0..4).filter(|&pod| set.is_out(pod)).collect();
    assert_eq!(out, [1, 2]);
}

/// A pod that answers nothing while the others do, with `waiting` requests.
fn hang(set: &mut Set, waiting: usize) {
    set.pods[0].wait(waiting);
    for _ in 0..8 {
        (1..set.pods.len()).for_each(|pod| set.succeed(pod, 5));
        set.wait(TICK);
    }
}

#[test]
fn several_requests_without_an_answer_make_an_endpoint_unresponsive() {
    let mut set = Set::new(4, OutlierDetection::new());
    hang(&mut set, 4);
    assert!(!set.is_out(0), "too few to tell");
    hang(&mut set, 5);
    assert_eq!(set.out()[0], Some(EjectionReason::Unresponsive));
    set.succeed(0, 1);
    set.wait(TICK);
    assert!(!set.is_out(0), "back at its first answer");
}

#[test]
fn answers_of_endpoints_without_weight_make_no_other_unresponsive() {
    let mut set = Set::new(44, OutlierDetection::new()).weighted(4);
    set.pods[0].wait(5);
    for _ in 0..8 {
        (1..4).for_each(|pod| set.succeed(pod, 5));
        set.wait(TICK);
    }
    assert_eq!(set.out()[0], Some(EjectionReason::Unresponsive));
    // Answers of endpoints without weight don't show that the others answer.
    let mut set = Set::new(44, OutlierDetection::new()).weighted(4);
    set.pods[0].wait(5);
    for _ in 0..8 {
        (4..44).for_each(|pod| set.succeed(pod, 5));
        set.wait(TICK);
    }
    assert!(!set.is_out(0));
}

#[test]
fn no_endpoint_is_unresponsive_if_answers_usually_take_that_long() {
    let mut set = Set::new(4, OutlierDetection::new());
    set.pods[0].wait(20);
    for _ in 0..8 {
        for pod in 1..4 {
            for _ in 0..5 {
                set.pods[pod].stats().answered(Duration::from_millis(100));
            }
        }
        set.wait(TICK);
        assert!(!set.is_out(0));
    }
}

#[test]
fn if_all_endpoints_hang_none_is_unresponsive() {
    let mut set = Set::new(4, OutlierDetection::new());
    (0..4).for_each(|pod| set.succeed(pod, 50));
    set.review();
    set.pods.iter_mut().for_each(|pod| pod.wait(20));
    for _ in 0..400 {
        set.wait(TICK);
        assert_eq!(set.out(), [None; 4]);
    }
}

#[test]
fn an_endpoint_unresponsive_to_the_end_is_ejected_and_tried() {
    let mut set = Set::new(4, OutlierDetection::new());
    hang(&mut set, 10);
    assert!(set.is_out(0));
    set.pods[0].wait(0);
    set.wait(TICK);
    assert!(about(set.until_half_open(0), 5.0));
    // The same for an endpoint whose requests aren't cancelled.
    hang(&mut set, 0);
    set.judge(0, TrialVerdict::Passed);
    hang(&mut set, 10);
    assert!(set.is_out(0));
    assert!(about(set.until_half_open(0), 5.0));
}

/// Good for ten seconds, bad for ten.
#[test]
fn a_flapping_pod_fails_few_requests_in_ten_minutes() {
    let mut set = Set::new(10, OutlierDetection::new());
    let begun = set.now;
    let (mut failed, mut trials, mut is_half_open) = (0, 0, false);
    while set.now - begun < Duration::from_secs(600) {
        let is_good = (set.now - begun).as_secs() % 20 < 10;
        (1..10).for_each(|pod| set.succeed(pod, 5));
        is_half_open |= set.decisions[0].becomes_half_open;
        if !set.is_out(0) {
            if is_good {
                set.succeed(0, 5);
            } else {
                set.fail(0, 5);
                failed += 5;
            }
        } else if std::mem::take(&mut is_half_open) {
            trials += 1;
            failed += u32::from(!is_good);
            let verdict = if is_good {
                TrialVerdict::Passed
            } else {
                TrialVerdict::Failed
            };
            set.pods[0].stats().judge(verdict);
        }
        set.wait(TICK);
    }
    // 5, 10, 20 … 300 s: seven or eight intervals, each with a trial and at most one burst.
    assert!(trials <= 9, "{trials} trials");
    assert!(
        failed <= 6 * (trials + 1),
        "{failed} failed, {trials} trials"
    );
    assert!(failed >= 10, "it has been bad");
}

#[test]
fn an_old_silence_does_not_count_once_it_has_ended() {
    let mut set = Set::new(4, OutlierDetection::new());
    hang(&mut set, 5);
    assert_eq!(set.out()[0], Some(EjectionReason::Unresponsive));
    // It answers one request, and stays busy with the others.
    set.succeed(0, 1);
    set.wait(TICK);
    assert!(!set.is_out(0));
    (1..4).for_each(|pod| set.succeed(pod, 100));
    set.wait(Duration::from_millis(10));
    assert!(!set.is_out(0), "it has been silent for 10 ms since");
}

#[test]
fn streaming_responses_do_not_make_an_endpoint_unresponsive() {
    let mut set = Set::new(4, OutlierDetection::new());
    (0..10).for_each(|_| set.pods[0].stats().begin_stream());
    hang(&mut set, 10);
    hang(&mut set, 14);
    assert!(!set.is_out(0), "four wait");
    hang(&mut set, 15);
    assert!(set.is_out(0), "five wait");
}

#[derive(Clone, Debug)]
enum Step {
    Succeed(usize),
    Fail(usize),
    Wait(u64),
    Refuse(usize, bool),
    Hold(usize, usize),
    Judge(usize, TrialVerdict),
    Lose(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pod = any::<usize>;
    let step = prop_oneof![
        3 => pod().prop_map(Step::Succeed),
        5 => pod().prop_map(Step::Fail),
        3 => (1..8_000_u64).prop_map(Step::Wait),
        1 => (pod(), any::<bool>()).prop_map(|(pod, is)| Step::Refuse(pod, is)),
        1 => (pod(), 0..20_usize).prop_map(|(pod, held)| Step::Hold(pod, held)),
        2 => (pod(), verdict()).prop_map(|(pod, verdict)| Step::Judge(pod, verdict)),
        3 => pod().prop_map(Step::Lose),
    ];
    prop::collection::vec(step, 1..300)
}

fn verdict() -> impl Strategy<Value = TrialVerdict> {
    prop::sample::select(
        &[
            TrialVerdict::Passed,
            TrialVerdict::Failed,
            TrialVerdict::Late,
        ][..],
    )
}

proptest! {
    /// Whichever endpoints count, and however many there are.
    #[test]
    fn no_review_leaves_more_out_than_allowed(
        len in 1..9_usize,
        steps in prop::collection::vec((any::<usize>(), 0..5_u8), 1..60),
    ) {
        let mut set = Set::new(len, OutlierDetection::new().panic_threshold(0.0));
        for (pod, what) in steps {
            let pod = pod % set.pods.len();
            match what {
                0 => set.pods[pod].weight ^= 1,
                1 if set.pods.len() > 1 => drop(set.pods.remove(pod)),
                2 => lose(&set, pod, 3),
                _ => set.fail(pod, 5),
            }
            set.wait(TICK);
            let with_weight = |set: &Set, pod: usize| set.pods[pod].weight > 0;
            let all_count = (0..set.pods.len()).all(|pod| !with_weight(&set, pod));
            let counted = (0..set.pods.len()).filter(|&pod| all_count || with_weight(&set, pod));
            let (all, out) = counted.fold((0, 0), |(all, out), pod| {
                (all + 1, out + usize::from(set.is_out(pod)))
            });
            prop_assert!(out <= all / 2, "{} of {} are out", out, all);
        }
    }

    /// Whatever happens, at most half is out, one endpoint that accepts requests is left, and each that is out may be
    /// tried after the longest pause at the latest. A slow endpoint is out only if there is room.
    #[test]
    fn at_most_half_is_out_never_the_last_and_never_for_ever(len in 1..12_usize, steps in steps()) {
        let health = OutlierDetection::new().ejection_time(Duration::from_secs(1), Duration::from_secs(20));
        let mut set = Set::new(len, health);
        for step in steps {
            match step {
                Step::Succeed(pod) => set.succeed(pod % len, 3),
                Step::Fail(pod) => set.fail(pod % len, 3),
                Step::Wait(millis) => set.now += Duration::from_millis(millis),
                Step::Refuse(pod, true) => drop(set.pods[pod % len].member.refuse()),
                Step::Refuse(pod, false) => drop(set.pods[pod % len].member.accept()),
                Step::Hold(pod, held) => set.pods[pod % len].wait(held),
                Step::Judge(pod, verdict) => set.pods[pod % len].stats().judge(verdict),
                Step::Lose(pod) => lose(&set, pod % len, 3),
            }
            let before = set.out();
            set.review();
            let out = set.out();
            let reachable = |pod: &usize| !set.pods[*pod].member.is_unreachable();
            let newly_out = (0..len).any(|pod| out[pod].is_some() && before[pod].is_none());
            let left = (0..len).filter(reachable).any(|pod| out[pod].is_none());
            prop_assert!(!newly_out || left, "the last one is out");
            let out_now = (0..len).filter(reachable).filter(|&pod| out[pod].is_some()).count();
            prop_assert!(!newly_out || out_now <= len / 2, "{} of {} are out", out_now, len);
            let slow = (0..len).filter(reachable).any(|pod| out[pod] == Some(EjectionReason::Slow));
            let all_out = out.iter().flatten().count();
            prop_assert!(!slow || left && all_out <= len / 2, "a slow one yields");
            // From here on only time passes: each endpoint that is out comes up for trial.
            let due = set.detector.due();
            prop_assert!(due.is_none_or(|due| due <= set.now + Duration::from_secs(22)));
        }
        for pod in 0..len {
            set.pods[pod].member.accept();
            set.pods[pod].wait(0);
        }
        // All trials succeed: all endpoints are back at the end of the longest pause.
        for _ in 0..60 {
            (0..len).for_each(|pod| set.pods[pod].stats().judge(TrialVerdict::Passed));
            (0..len).for_each(|pod| set.succeed(pod, 30));
            set.wait(Duration::from_secs(1));
        }
        prop_assert!(set.out().iter().all(Option::is_none));
    }
}
