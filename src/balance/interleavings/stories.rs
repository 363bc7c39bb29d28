//! Clients whose requests are refused and accepted at the same time, wait, or are cancelled.

use futures_util::FutureExt;

use super::*;
use crate::{Subset, interleavings::explore};

/// Two requests, one after the other.
fn call_twice(balance: Balance<Pod>) {
    call(balance.clone());
    call(balance);
}

/// Waits for the first answer, and then calls.
fn ready_and_call(mut balance: Balance<Pod>) {
    let ready = std::future::poll_fn(|cx| Service::<u32>::poll_ready(&mut balance, cx));
    block_on(ready).unwrap();
    call(balance);
}

/// Cancels its request at some time.
fn give_up(balance: Balance<Pod>) {
    let mut request = Box::pin(balance.call_with(7, Route::new()));
    for _ in 0..4 {
        if request.as_mut().now_or_never().is_some() {
            return;
        }
        thread::yield_now();
    }
}

/// A request that may fail: there may be no endpoints.
fn try_to_call(balance: Balance<Pod>) {
    let _ = block_on(balance.call_with(7, Route::new()));
}

fn tell(
    pod: impl Fn() -> Pod + Send + Sync + 'static,
    settings: Settings,
    told: &'static [&[u8]],
    clients: &'static [Client],
) {
    let runtime = clock();
    explore(move || {
        play(&runtime, scene(pod(), settings), sets(told), clients);
    });
}

#[test]
fn requests_that_wait_for_the_first_answer_are_woken() {
    let clients: &[Client] = &[ready_and_call, ready_and_call, call];
    tell(|| Pod::new(0, 0), PLAIN, &[&[1]], clients);
}

#[test]
fn an_endpoint_that_was_not_ready_is_not_lost() {
    for settings in [PLAIN, PACKED] {
        let clients: &[Client] = &[call, call_twice];
        tell(|| Pod::new(0b1_0101, 0), settings, &[&[1]], clients);
    }
}

#[test]
fn an_endpoint_that_handed_requests_back_is_not_lost() {
    for settings in [PLAIN, PACKED] {
        let clients: &[Client] = &[call, call_twice];
        tell(|| Pod::new(0, 0b1_0101), settings, &[&[1]], clients);
    }
}

#[test]
fn an_endpoint_that_refused_in_both_ways_is_not_lost() {
    let clients: &[Client] = &[call, call, call_twice];
    tell(|| Pod::new(0b1001, 0b10_1011), PLAIN, &[&[1]], clients);
}

/// The background task hears of it, and offers the trial again.
#[test]
fn a_cancelled_trial_passes_to_the_next_request() {
    let clients: &[Client] = &[call, give_up, give_up];
    tell(|| Pod::new(0, 0b101), PLAIN, &[&[1]], clients);
}

#[test]
fn a_request_that_found_no_endpoint_sees_a_new_one() {
    let clients: &[Client] = &[call, call];
    tell(
        || Pod::new(0b11, 0b1),
        PACKED,
        &[&[1], &[1, 2], &[2]],
        clients,
    );
}

#[test]
fn a_pod_that_left_and_came_back_is_not_lost() {
    let clients: &[Client] = &[try_to_call, try_to_call, give_up];
    tell(|| Pod::new(0b1, 0b110), PACKED, &[&[1], &[], &[1]], clients);
}

/// A subset of one pod, which takes in those that are asked for.
const PART: Settings = |builder| builder.subset(Subset::of(1).seed(1));

/// [`PART`], and no request waits for a pod.
const HASTY_PART: Settings = |builder| PART(builder).fail_fast();

/// A set of pods by their addresses and numbers.
fn named(set: &[(u8, u8)]) -> Vec<Endpoint> {
    let named = |&(host, number)| endpoint(host).with_hostname(format!("web-{number}"));
    set.iter().map(named).collect()
}

/// One request for a pod by its name, which has to be answered.
fn ask_for(balance: &Balance<Pod>, name: &str) {
    loop {
        match block_on(balance.call_with(7, Route::new().pod(name))) {
            // Discovery hasn't answered.
            Err(error) if error.is_no_endpoints() => thread::yield_now(),
            answer => return assert_eq!(answer.unwrap(), 7),
        }
    }
}

fn ask_for_1(balance: Balance<Pod>) {
    ask_for(&balance, "web-1");
}

fn ask_for_2(balance: Balance<Pod>) {
    ask_for(&balance, "web-2");
}

fn ask_for_both(balance: Balance<Pod>) {
    ask_for_1(balance.clone());
    ask_for_2(balance);
}

#[test]
fn a_pod_that_is_asked_for_is_found_at_its_new_address() {
    let clients: &[Client] = &[ask_for_1, ask_for_both, give_up];
    for settings in [PLAIN, PART] {
        let runtime = clock();
        explore(move || {
            let sets = [
                named(&[(1, 1), (2, 2)]),
                named(&[(2, 2)]),
                named(&[(2, 2), (3, 1)]),
            ];
            play(
                &runtime,
                scene(Pod::new(0b10, 0b1), settings),
                sets.into(),
                clients,
            );
        });
    }
}

#[test]
fn a_pod_outside_of_the_subset_is_reached_even_if_requests_never_wait() {
    let clients: &[Client] = &[ask_for_1, ask_for_2, ask_for_both];
    let runtime = clock();
    explore(move || {
        let sets = [named(&[(1, 1), (2, 2), (3, 3)]), named(&[(1, 1), (2, 2)])];
        play(
            &runtime,
            scene(Pod::new(0, 0), HASTY_PART),
            sets.into(),
            clients,
        );
    });
}
