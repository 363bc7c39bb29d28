//! Two sources that say what they are told.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{sync::mpsc, time::timeout_at};

use super::*;
use crate::discovery::Discovery;

const SECOND: Duration = Duration::from_secs(1);

type Answer = Result<Vec<Endpoint>, BoxError>;

/// A source, and what has been made of it.
struct Scripted {
    answers: mpsc::UnboundedReceiver<Answer>,
    uses: Arc<Uses>,
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
    (script, Scripted { answers, uses })
}

impl Script {
    fn answer(&self, hosts: impl IntoIterator<Item = u8>) {
        self.answers.send(Ok(endpoints(hosts))).expect("a source");
    }

    fn fail(&self) {
        self.answers.send(Err("no".into())).expect("a source");
    }

    /// How often the source has been polled since the last time.
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
        match self.answers.poll_recv(cx) {
            Poll::Ready(Some(answer)) => Poll::Ready(answer),
            _ => Poll::Pending,
        }
    }

    fn refresh(&mut self) {
        self.uses.refreshes.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&mut self, _: &Endpoint) {
        self.uses.refusals.fetch_add(1, Ordering::Relaxed);
    }
}

fn endpoints(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
    let endpoint = |host| Endpoint::new(([10, 0, 0, host], 80).into());
    hosts.into_iter().map(endpoint).collect()
}

/// All that is said in so much time, errors as none.
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
async fn the_second_is_not_asked_while_the_first_works() {
    let ((first, one), (second, two)) = (scripted(), scripted());
    let mut or = one.or(two);
    second.answer([9]);
    first.answer([1]);
    assert_eq!(run(&mut or, SECOND).await, [set([1])]);
    for _ in 0..100 {
        first.answer([1]);
        run(&mut or, 60 * SECOND).await;
    }
    // An hour without a word isn't a failure either: the source that has nothing to say stays pending.
    run(&mut or, 3600 * SECOND).await;
    or.refresh();
    or.refused(&endpoints([1])[0]);
    assert_eq!((second.polls(), second.hints()), (0, (0, 0)));
    assert_eq!(first.hints(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_second_is_asked_at_once_where_the_first_fails_from_the_start() {
    let ((first, one), (second, two)) = (scripted(), scripted());
    let mut or = one.or(two);
    second.answer([9]);
    first.fail();
    let began = Instant::now();
    // The first one's error is told: it says what is wrong, should the second one fail as well.
    assert_eq!(run(&mut or, SECOND / 10).await, [None, set([9])]);
    assert!(began.elapsed() < SECOND);
    or.refresh();
    or.refused(&endpoints([1])[0]);
    assert_eq!((first.hints(), second.hints()), ((1, 1), (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn the_second_is_asked_after_two_seconds_of_silence_from_the_start() {
    let ((_first, one), (second, two)) = (scripted(), scripted());
    let mut or = one.or(two);
    second.answer([9]);
    assert_eq!(run(&mut or, SILENCE - SECOND / 100).await, []);
    assert_eq!(second.polls(), 0);
    assert_eq!(run(&mut or, SECOND).await, [set([9])]);
}

#[tokio::test(start_paused = true)]
async fn the_first_has_the_word_again_as_soon_as_it_answers() {
    let ((first, one), (second, two)) = (scripted(), scripted());
    let mut or = one.or(two);
    first.fail();
    second.answer([9]);
    run(&mut or, SECOND).await;
    first.fail();
    second.answer([9, 8]);
    assert_eq!(run(&mut or, SECOND).await, [None, set([9, 8])]);
    first.answer([1]);
    second.answer([7]);
    second.polls();
    assert_eq!(run(&mut or, 600 * SECOND).await, [set([1])]);
    assert_eq!(second.polls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_first_that_fails_later_is_believed_for_a_minute() {
    let ((first, one), (second, two)) = (scripted(), scripted());
    let mut or = one.or(two);
    first.answer([1]);
    run(&mut or, 20 * SECOND).await;
    second.answer([9]);
    for _ in 0..5 {
        first.fail();
        assert_eq!(run(&mut or, 10 * SECOND).await, [None]);
    }
    assert_eq!(second.polls(), 0);
    assert_eq!(run(&mut or, 9 * SECOND).await, []);
    assert_eq!(run(&mut or, 2 * SECOND).await, [set([9])]);
    first.answer([1]);
    assert_eq!(run(&mut or, SECOND).await, [set([1])]);
}

#[tokio::test(start_paused = true)]
async fn trouble_that_passes_leaves_the_word_with_the_first() {
    let ((first, one), (second, two)) = (scripted(), scripted());
    let mut or = one.or(two);
    first.answer([1]);
    for _ in 0..10 {
        first.fail();
        run(&mut or, 50 * SECOND).await;
        first.answer([1]);
        run(&mut or, 50 * SECOND).await;
    }
    assert_eq!(second.polls(), 0);
}
