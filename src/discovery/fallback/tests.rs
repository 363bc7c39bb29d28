//! `Fallback` over two scripted sources.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{sync::mpsc, time::timeout_at};

use super::*;
use crate::discovery::{Discovery, StaticEndpoints};

const SECOND: Duration = Duration::from_secs(1);

type Answer = Result<Vec<Endpoint>, BoxError>;

/// A scripted source that counts its calls.
struct Scripted {
    answers: mpsc::UnboundedReceiver<Answer>,
    uses: Arc<Uses>,
    age: Duration,
    /// What it yields if there is no other answer.
    always: Option<Vec<Endpoint>>,
}

#[derive(Default)]
struct Uses {
    polls: AtomicUsize,
    refreshes: AtomicUsize,
    refusals: AtomicUsize,
}

struct Script {
    answers: mpsc::UnboundedSender<Answer>,
    uses: Arc<Uses>,
}

fn scripted() -> (Script, Scripted) {
    let (sender, answers) = mpsc::unbounded_channel();
    let uses = Arc::<Uses>::default();
    let script = Script {
        answers: sender,
        uses: uses.clone(),
    };
    let source = Scripted {
        answers,
        uses,
        age: Duration::ZERO,
        always: None,
    };
    (script, source)
}

impl Script {
    fn answer(&self, hosts: impl IntoIterator<Item = u8>) {
        self.answers.send(Ok(endpoints(hosts))).expect("a source");
    }

    fn fail(&self) {
        self.answers.send(Err("no".into())).expect("a source");
    }

    /// How often the source was polled since the last call.
    fn polls(&self) -> usize {
        self.uses.polls.swap(0, Ordering::Relaxed)
    }

    fn hints(&self) -> (usize, usize) {
        let uses = &self.uses;
        let count = |hints: &AtomicUsize| hints.swap(0, Ordering::Relaxed);
        (count(&uses.refreshes), count(&uses.refusals))
    }
}

impl Discovery for Scripted {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        self.uses.polls.fetch_add(1, Ordering::Relaxed);
        match (self.answers.poll_recv(cx), &self.always) {
            (Poll::Ready(Some(answer)), _) => Poll::Ready(answer),
            (_, Some(always)) => Poll::Ready(Ok(always.clone())),
            _ => Poll::Pending,
        }
    }

    fn refresh(&mut self) {
        self.uses.refreshes.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&mut self, _: &Endpoint) {
        self.uses.refusals.fetch_add(1, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        self.age
    }
}

fn endpoints(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
    let endpoint = |host| Endpoint::new(([10, 0, 0, host], 80).into());
    hosts.into_iter().map(endpoint).collect()
}

/// All answers within `time`, errors as none.
async fn run(discovery: &mut impl Discovery, time: Duration) -> Vec<Option<Vec<Endpoint>>> {
    let (end, mut said) = (Instant::now() + time, Vec::new());
    while let Ok(answer) = timeout_at(end, poll_fn(|cx| discovery.poll_next(cx))).await {
        said.push(answer.ok());
    }
    said
}

fn set(hosts: impl IntoIterator<Item = u8>) -> Option<Vec<Endpoint>> {
    Some(endpoints(hosts))
}

#[tokio::test(start_paused = true)]
async fn the_fallback_is_not_asked_while_the_primary_works() {
    let ((primary, one), (fallback, two)) = (scripted(), scripted());
    let mut discovery = one.or(two);
    fallback.answer([9]);
    primary.answer([1]);
    assert_eq!(run(&mut discovery, SECOND).await, [set([1])]);
    for _ in 0..100 {
        primary.answer([1]);
        run(&mut discovery, 60 * SECOND).await;
    }
    // An hour of silence isn't a failure either: a source with nothing to say stays pending.
    run(&mut discovery, 3600 * SECOND).await;
    discovery.refresh();
    discovery.refused(&endpoints([1])[0]);
    assert_eq!((fallback.polls(), fallback.hints()), (0, (0, 0)));
    assert_eq!(primary.hints(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_fallback_is_asked_at_once_if_the_primary_fails_from_the_start() {
    let ((primary, one), (fallback, two)) = (scripted(), scripted());
    let mut discovery = one.or(two);
    fallback.answer([9]);
    primary.fail();
    let began = Instant::now();
    // The primary's error is yielded, because the fallback may fail as well.
    assert_eq!(run(&mut discovery, SECOND / 10).await, [None, set([9])]);
    assert!(began.elapsed() < SECOND);
    discovery.refresh();
    discovery.refused(&endpoints([1])[0]);
    assert_eq!((primary.hints(), fallback.hints()), ((1, 1), (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn the_fallback_is_asked_after_two_seconds_of_silence_from_the_start() {
    let ((_primary, one), (fallback, two)) = (scripted(), scripted());
    let mut discovery = one.or(two);
    fallback.answer([9]);
    assert_eq!(run(&mut discovery, SILENCE - SECOND / 100).await, []);
    assert_eq!(fallback.polls(), 0);
    assert_eq!(run(&mut discovery, SECOND).await, [set([9])]);
}

#[tokio::test(start_paused = true)]
async fn the_primary_is_used_again_as_soon_as_it_answers() {
    let ((primary, one), (fallback, two)) = (scripted(), scripted());
    let mut discovery = one.or(two);
    primary.fail();
    fallback.answer([9]);
    run(&mut discovery, SECOND).await;
    primary.fail();
    fallback.answer([9, 8]);
    assert_eq!(run(&mut discovery, SECOND).await, [None, set([9, 8])]);
    primary.answer([1]);
    fallback.answer([7]);
    fallback.polls();
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [set([1])]);
    assert_eq!(fallback.polls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_never_changes_is_used_whenever_the_primary_fails() {
    let (primary, one) = scripted();
    let mut discovery = one.or(endpoints([9]).into_iter().collect::<StaticEndpoints>());
    primary.fail();
    assert_eq!(run(&mut discovery, SECOND).await, [None, set([9])]);
    for _ in 0..2 {
        primary.answer([1]);
        assert_eq!(run(&mut discovery, 100 * SECOND).await, [set([1])]);
        primary.fail();
        assert_eq!(run(&mut discovery, 100 * SECOND).await, [None, set([9])]);
        assert_eq!(discovery.age(), Duration::ZERO);
        primary.fail();
        assert_eq!(run(&mut discovery, 100 * SECOND).await, [None], "once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_static_endpoints_yields_its_set_anew() {
    let mut fixed = endpoints([9]).into_iter().collect::<StaticEndpoints>();
    assert_eq!(run(&mut fixed, SECOND).await, [set([9])]);
    assert_eq!(run(&mut fixed.clone(), SECOND).await, [set([9])]);
}

/// Discovery whose fallback was in use until the primary answered, an hour ago.
async fn used_before() -> (Script, Script, Fallback<Scripted, Scripted>) {
    let ((primary, one), (fallback, two)) = (scripted(), scripted());
    let mut discovery = one.or(two);
    primary.fail();
    fallback.answer([9]);
    assert_eq!(run(&mut discovery, SECOND).await, [None, set([9])]);
    primary.answer([1]);
    assert_eq!(run(&mut discovery, 3600 * SECOND).await, [set([1])]);
    fallback.hints();
    (primary, fallback, discovery)
}

/// Discovery whose primary fails from the start, and whose fallback's set is an hour old.
async fn with_a_fallback_an_hour_old() -> (Script, Script, Fallback<Scripted, Scripted>) {
    let ((primary, one), (fallback, mut two)) = (scripted(), scripted());
    two.age = 3600 * SECOND;
    let mut discovery = one.or(two);
    primary.fail();
    fallback.answer([9]);
    assert_eq!(run(&mut discovery, SECOND).await, [None, set([9])]);
    (primary, fallback, discovery)
}

#[tokio::test(start_paused = true)]
async fn a_silent_fallbacks_last_set_is_used_after_the_time_for_a_look() {
    let (primary, fallback, mut discovery) = used_before().await;
    primary.answer([1, 2]);
    primary.fail();
    let said = run(&mut discovery, TRUST + LOOK - SECOND).await;
    assert_eq!(said, [set([1, 2]), None], "the last set stays");
    assert_eq!(fallback.hints(), (1, 0), "it is asked to look anew");
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [set([9])], "once");
    fallback.answer([8]);
    assert_eq!(run(&mut discovery, SECOND).await, [set([8])]);
    primary.answer([1]);
    primary.fail();
    let said = run(&mut discovery, 600 * SECOND).await;
    assert_eq!(said, [set([1]), None, set([8])]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_set_of_the_fallback_replaces_its_earlier_one() {
    let (primary, fallback, mut discovery) = used_before().await;
    primary.fail();
    assert_eq!(run(&mut discovery, TRUST + SECOND).await, [None]);
    fallback.answer([8]);
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [set([8])]);
}

#[tokio::test(start_paused = true)]
async fn silence_of_the_fallback_never_drops_all_endpoints() {
    let ((primary, one), (fallback, two)) = (scripted(), scripted());
    let mut discovery = one.or(two);
    primary.fail();
    fallback.answer([]);
    assert_eq!(run(&mut discovery, SECOND).await, [None, set([])]);
    primary.answer([1]);
    primary.fail();
    let said = run(&mut discovery, 600 * SECOND).await;
    assert_eq!(said, [set([1]), None]);
    fallback.answer([]);
    assert_eq!(run(&mut discovery, SECOND).await, [set([])]);
}

#[tokio::test(start_paused = true)]
async fn a_fallbacks_last_set_that_was_already_old_is_not_used() {
    let (primary, _fallback, mut discovery) = with_a_fallback_an_hour_old().await;
    primary.answer([1]);
    primary.fail();
    let said = run(&mut discovery, 600 * SECOND).await;
    assert_eq!(said, [set([1]), None]);
}

#[tokio::test(start_paused = true)]
async fn the_last_set_stays_while_the_fallback_fails_as_well() {
    let (primary, fallback, mut discovery) = used_before().await;
    primary.fail();
    run(&mut discovery, 61 * SECOND).await;
    for _ in 0..3 {
        fallback.fail();
        assert_eq!(run(&mut discovery, 600 * SECOND).await, [None]);
    }
    // The fallback's last set stays too, once that is in use.
    fallback.answer([8]);
    fallback.fail();
    assert_eq!(run(&mut discovery, SECOND).await, [set([8]), None]);
    primary.fail();
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [None]);
}

#[tokio::test(start_paused = true)]
async fn the_fallback_is_not_polled_in_the_minute_before_it_is_used() {
    let (primary, fallback, mut discovery) = used_before().await;
    fallback.polls();
    fallback.answer([8]);
    primary.fail();
    assert_eq!(run(&mut discovery, TRUST - SECOND).await, [None]);
    assert_eq!((fallback.polls(), fallback.hints()), (0, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn answers_that_the_fallback_has_stored_wait_for_a_newer_one() {
    let kept = async || {
        let (primary, fallback, mut discovery) = used_before().await;
        fallback.answer([6]);
        fallback.answer([7]);
        fallback.fail();
        primary.fail();
        let said = run(&mut discovery, TRUST + LOOK - SECOND).await;
        assert_eq!(said, [None]);
        (primary, fallback, discovery)
    };
    let (_primary, _fallback, mut discovery) = kept().await;
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [set([7])]);
    let (_primary, fallback, mut discovery) = kept().await;
    fallback.answer([8]);
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [set([8])]);
    let (_primary, fallback, mut discovery) = kept().await;
    fallback.fail();
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [None]);
}

/// 500 answers are more than tokio's task budget lets a task read from a channel at once.
#[tokio::test(start_paused = true)]
async fn the_last_of_the_fallbacks_stored_answers_is_used() {
    let (primary, fallback, mut discovery) = used_before().await;
    for _ in 0..500 {
        fallback.answer([6]);
    }
    fallback.answer([7]);
    primary.fail();
    let said = run(&mut discovery, 600 * SECOND).await;
    assert_eq!(said, [None, set([7])]);
}

/// One poll.
fn poll(discovery: &mut impl Discovery) -> Poll<Answer> {
    discovery.poll_next(&mut Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_source_that_always_has_an_old_set_does_not_block_the_task() {
    let (primary, fallback, mut discovery) = used_before().await;
    primary.fail();
    run(&mut discovery, TRUST + SECOND).await;
    for source in [&mut discovery.primary, &mut discovery.fallback] {
        source.always = Some(endpoints([5]));
        source.age = 24 * 3600 * SECOND;
    }
    primary.polls();
    fallback.polls();
    assert!(poll(&mut discovery).is_pending());
    assert_eq!((primary.polls(), fallback.polls()), (MOST, MOST));
    // Nor does it keep the last set from being used.
    tokio::time::advance(LOOK).await;
    assert!(matches!(poll(&mut discovery), Poll::Ready(Ok(set)) if set == endpoints([9])));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_is_always_ready_does_not_delay_the_switch() {
    let (primary, _fallback, mut discovery) = used_before().await;
    primary.fail();
    assert_eq!(run(&mut discovery, TRUST - SECOND).await, [None]);
    discovery.fallback.always = Some(endpoints([5]));
    tokio::time::advance(2 * SECOND).await;
    assert!(matches!(poll(&mut discovery), Poll::Ready(Ok(set)) if set == endpoints([5])));
}

/// The primary's set comes at the start. It fails 100 s later, and 60 s after that the fallback comes into use, with a
/// set of this `age`.
async fn with_an_old_set(age: Duration) -> (Script, Script, Fallback<Scripted, Scripted>) {
    let ((primary, one), (fallback, mut two)) = (scripted(), scripted());
    two.age = age;
    let mut discovery = one.or(two);
    primary.answer([1]);
    assert_eq!(run(&mut discovery, 100 * SECOND).await, [set([1])]);
    primary.fail();
    fallback.answer([9]);
    assert_eq!(run(&mut discovery, 59 * SECOND).await, [None]);
    (primary, fallback, discovery)
}

#[tokio::test(start_paused = true)]
async fn a_set_of_the_fallback_older_than_the_one_in_use_is_never_used() {
    let (primary, fallback, mut discovery) = with_an_old_set(170 * SECOND).await;
    assert_eq!(run(&mut discovery, 600 * SECOND).await, []);
    // Nor after the fallback has yielded a newer one.
    discovery.fallback.age = 5 * SECOND;
    fallback.answer([8]);
    assert_eq!(run(&mut discovery, SECOND).await, [set([8])]);
    discovery.fallback.age = 10 * SECOND;
    fallback.answer([7]);
    assert_eq!(run(&mut discovery, 600 * SECOND).await, []);
    assert_eq!(discovery.age(), 5 * SECOND);
    primary.answer([1]);
    assert_eq!(run(&mut discovery, SECOND).await, [set([1])]);
}

#[tokio::test(start_paused = true)]
async fn a_set_fetched_since_the_failure_is_used_at_once() {
    for age in [0, 30, 60, 64] {
        let (_primary, _fallback, mut discovery) = with_an_old_set(age * SECOND).await;
        assert_eq!(run(&mut discovery, 2 * SECOND).await, [set([9])], "{age} s");
        assert_eq!(discovery.age(), age * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_from_before_the_failure_is_used_if_nothing_newer_comes() {
    let old = 100 * SECOND;
    let (_primary, _fallback, mut discovery) = with_an_old_set(old).await;
    assert_eq!(run(&mut discovery, LOOK).await, []);
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [set([9])]);
    assert!(discovery.age() >= old + LOOK, "its true age counts");

    let (_primary, fallback, mut discovery) = with_an_old_set(old).await;
    assert_eq!(run(&mut discovery, 2 * SECOND).await, []);
    discovery.fallback.age = Duration::ZERO;
    fallback.answer([8]);
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [set([8])]);

    let (_primary, fallback, mut discovery) = with_an_old_set(old).await;
    fallback.fail();
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [None]);

    let (primary, _fallback, mut discovery) = with_an_old_set(old).await;
    assert_eq!(run(&mut discovery, 2 * SECOND).await, []);
    primary.answer([1]);
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [set([1])]);
}

/// As without a fallback: a source that expects a fresh set waits by itself.
#[tokio::test(start_paused = true)]
async fn an_old_set_of_the_fallback_is_used_at_once_if_there_is_no_other() {
    let (_primary, _fallback, discovery) = with_a_fallback_an_hour_old().await;
    assert_eq!(discovery.age(), 3600 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_fails_later_is_believed_for_a_minute() {
    let ((primary, one), (fallback, two)) = (scripted(), scripted());
    let mut discovery = one.or(two);
    primary.answer([1]);
    run(&mut discovery, 20 * SECOND).await;
    fallback.answer([9]);
    for _ in 0..5 {
        primary.fail();
        assert_eq!(run(&mut discovery, 10 * SECOND).await, [None]);
    }
    assert_eq!(fallback.polls(), 0);
    assert_eq!(run(&mut discovery, 9 * SECOND).await, []);
    assert_eq!(run(&mut discovery, 2 * SECOND).await, [set([9])]);
    primary.answer([1]);
    assert_eq!(run(&mut discovery, SECOND).await, [set([1])]);
}

#[tokio::test(start_paused = true)]
async fn failures_of_less_than_a_minute_do_not_fall_back() {
    let ((primary, one), (fallback, two)) = (scripted(), scripted());
    let mut discovery = one.or(two);
    primary.answer([1]);
    for _ in 0..10 {
        primary.fail();
        run(&mut discovery, 50 * SECOND).await;
        primary.answer([1]);
        run(&mut discovery, 50 * SECOND).await;
    }
    assert_eq!(fallback.polls(), 0);
}

/// The clone of a source that wasn't polled may yield an old set, and then fail.
#[tokio::test(start_paused = true)]
async fn an_old_set_of_the_primary_does_not_count_as_an_answer() {
    let ((primary, mut one), (fallback, two)) = (scripted(), scripted());
    one.age = 3600 * SECOND;
    let mut discovery = one.or(two);
    primary.answer([1]);
    fallback.answer([9]);
    assert_eq!(run(&mut discovery, SECOND).await, [set([1])]);
    assert_eq!(discovery.age(), 3600 * SECOND);
    primary.fail();
    assert_eq!(run(&mut discovery, SECOND).await, [None, set([9])]);
    assert_eq!(discovery.age(), Duration::ZERO);
    primary.answer([1]);
    assert_eq!(run(&mut discovery, SECOND).await, []);
    discovery.primary.age = 5 * SECOND;
    primary.answer([1]);
    assert_eq!(run(&mut discovery, SECOND).await, [set([1])]);
    assert_eq!(discovery.age(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_error_after_an_empty_set_does_not_count_as_a_failure() {
    let ((primary, one), (fallback, two)) = (scripted(), scripted());
    let mut discovery = one.or(two);
    primary.answer([]);
    primary.fail();
    assert_eq!(run(&mut discovery, 600 * SECOND).await, [set([]), None]);
    assert_eq!(fallback.polls(), 0);
    primary.fail();
    run(&mut discovery, 61 * SECOND).await;
    assert!(fallback.polls() > 0);
}
