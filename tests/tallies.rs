//! Retries, hedges and cancellations in random order: the counters and the logs of attempts tell the same story.

mod support;

use std::time::Duration;

use proptest::prelude::*;
use support::scripted::{Behaviour, Request, World, endpoint, settle};
use tokio::{
    runtime::Builder,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower::Layer;
use tower_headless::{
    AttemptCause, AttemptLog, AttemptOutcome as Outcome, Attempts, BalanceCounts, Error, Hedge,
    RetryLayer, RetryPolicy, Route,
};

const MILLI: Duration = Duration::from_millis(1);

/// Everything may be retried and hedged. An even answer isn't good.
#[derive(Clone, Copy)]
struct All;

impl<E> RetryPolicy<Request, (E, u32)> for All {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&(E, u32), &Error>) -> bool {
        match result {
            Ok((_, number)) => number.is_multiple_of(2),
            Err(error) => error.is_endpoint() || error.is_unsent(),
        }
    }

    fn may_hedge(&self, _: &Request) -> bool {
        true
    }

    fn is_good(&self, (_, number): &(E, u32)) -> bool {
        !number.is_multiple_of(2)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Behave(u8, Behaviour),
    Send(u32, Option<u8>),
    Cancel(usize),
    Advance(u64),
    Set(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Behaviour::{After, Answer, Fail, FailAfter, HandBack, Hold, NotReady, Pending};
    let behaviours = vec![
        Answer,
        Answer,
        Hold,
        NotReady,
        Pending,
        HandBack,
        Fail,
        After(5 * MILLI),
        After(60 * MILLI),
        FailAfter(15 * MILLI),
        FailAfter(60 * MILLI),
    ];
    let step = prop_oneof![
        3 => (1..4_u8, prop::sample::select(behaviours)).prop_map(|(pod, it)| Step::Behave(pod, it)),
        5 => (0..4_u32, prop::option::weighted(0.2, 1..4_u8)).prop_map(|(number, pod)| Step::Send(number, pod)),
        1 => any::<usize>().prop_map(Step::Cancel),
        4 => prop_oneof![0..30_u64, 0..2_000_u64].prop_map(Step::Advance),
        1 => prop::sample::subsequence(vec![1, 2, 3], 1..=3).prop_map(Step::Set),
    ];
    prop::collection::vec(step, 1..60)
}

struct Sent {
    log: AttemptLog,
    task: JoinHandle<bool>,
}

fn retries(counts: &BalanceCounts) -> u64 {
    let it = &counts.retries;
    it.answered + it.lost + it.unprocessed + it.unsent
}

async fn tallies_agree(steps: Vec<Step>, hedges: bool) -> Result<(), TestCaseError> {
    let set = (1..4).map(endpoint).collect();
    let world = World::of(set, |builder| {
        builder.counters(true).ready_timeout(1_000 * MILLI).seed(1)
    })
    .await;
    let layer = RetryLayer::new(All).retries(2);
    let layer = match hedges {
        true => layer.hedge(Hedge::after(20 * MILLI).share(1.0)),
        false => layer,
    };
    let service = layer.layer(world.balance.clone());
    let mut sent = Vec::new();
    for step in steps {
        match step {
            Step::Behave(pod, behaviour) => world.pods.set([pod], behaviour),
            Step::Send(number, pod) => {
                let log = AttemptLog::new();
                let mut route = Route::new().record(&log);
                if let Some(pod) = pod {
                    route = route.pod(endpoint(pod).address());
                }
                let request = service.call_with(Request(number), route);
                let task = tokio::spawn(async move { request.await.is_ok() });
                sent.push(Sent { log, task });
            }
            Step::Cancel(at) if !sent.is_empty() => sent[at % sent.len()].task.abort(),
            Step::Cancel(_) => {}
            Step::Advance(millis) => sleep(Duration::from_millis(millis)).await,
            Step::Set(hosts) => world.script.answer(hosts),
        }
        settle().await;
    }
    world.pods.set(1..4, Behaviour::Answer);
    let mut logs = Vec::new();
    for Sent { log, task } in sent {
        let ended = timeout(100_000 * MILLI, task).await;
        prop_assert!(ended.is_ok(), "hangs: {}", log.attempts());
        logs.push(log.attempts());
    }
    settle().await;
    agree(&world, &logs)
}

fn agree(world: &World, logs: &[Attempts]) -> Result<(), TestCaseError> {
    let it = world.balance.explain();
    let counts = it.totals.as_ref().expect("it counts");
    let all = || logs.iter().flat_map(|attempts| &attempts.list);
    let how_many = |is: &dyn Fn(&Outcome) -> bool| {
        let picked = all().filter(|attempt| attempt.address.is_some());
        picked.filter(|attempt| is(&attempt.outcome)).count() as u64
    };
    let told = || {
        logs.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    prop_assert_eq!(logs.iter().map(|it| it.omitted).sum::<u64>(), 0);
    let under_way = all().find(|it| it.outcome == Outcome::UnderWay);
    prop_assert!(under_way.is_none(), "{}", told());
    let pods = &counts.endpoints;
    prop_assert_eq!(
        pods.requests,
        how_many(&|_| true),
        "requests\n{}\n{}",
        it,
        told()
    );
    let refused = how_many(&|it| matches!(it, Outcome::Refused { .. }));
    prop_assert_eq!(
        pods.refused + pods.handed_back,
        refused,
        "refused\n{}\n{}",
        it,
        told()
    );
    let answered = how_many(&|it| matches!(it, Outcome::Answered { .. }));
    prop_assert_eq!(pods.successes, answered, "answered\n{}\n{}", it, told());
    let lost = how_many(&|it| matches!(it, Outcome::Lost { .. }));
    let failed = pods.failures.total() - pods.failures.given_up;
    prop_assert_eq!(failed, lost, "lost\n{}\n{}", it, told());
    let ended = pods.successes + pods.failures.total() + pods.overloads + pods.cancelled;
    let ended = ended + pods.refused + pods.handed_back + pods.busy;
    prop_assert_eq!(pods.requests, ended, "{}\n{}", it, told());
    let caused = |is: &dyn Fn(AttemptCause) -> bool| all().filter(|it| is(it.cause)).count() as u64;
    use AttemptCause::{Hedge, RetryAnswered, RetryLost, RetryUnprocessed, RetryUnsent};
    let retried = caused(&|it| {
        matches!(
            it,
            RetryAnswered | RetryLost | RetryUnprocessed | RetryUnsent
        )
    });
    prop_assert!(retried <= retries(counts), "retries\n{}\n{}", it, told());
    prop_assert!(
        caused(&|it| it == Hedge) <= counts.hedges,
        "hedges\n{}\n{}",
        it,
        told()
    );
    prop_assert!(counts.hedges_won <= counts.hedges);
    let overtaken = how_many(&|it| *it == Outcome::Overtaken);
    prop_assert!(pods.overtaken <= overtaken, "overtaken\n{}\n{}", it, told());
    for waits in [
        &counts.waits.discovery,
        &counts.waits.unreachable,
        &counts.waits.connection,
        &counts.waits.pod,
    ] {
        prop_assert_eq!(waits.waiting(), 0, "{}", it);
    }
    let in_flight = it.endpoints.iter().map(|pod| pod.in_flight).sum::<u32>();
    prop_assert_eq!(in_flight, 0, "{}", it);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn counters_and_logs_of_attempts_agree(steps in steps(), hedges in any::<bool>()) {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O");
        runtime.block_on(tallies_agree(steps, hedges))?;
    }
}
