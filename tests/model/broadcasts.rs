//! Broadcasts: users that send a request to all pods, and its outcome at each pod.

use std::{
    error::Error as _,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt};
use tokio::{task::AbortHandle, time::Instant};
use tower_headless::{Endpoint, Error};

use crate::{
    cluster::{Cluster, Told, host},
    failures::{Case, Facts},
    life::Life,
    lock::lock,
    plan::{BROADCAST_TIMEOUT, Config},
    pod::{PodError, Request, Sent, ServedBy},
    promises::{BACK_OFF, ready_timeout},
    subject::{Ask, Subject},
    view::View,
    world::{Broken, broken},
};

/// A request to all pods, and the user that waits for the answers.
pub(crate) struct Broadcast {
    number: u32,
    begun: Instant,
    at_once: u8,
    deadline: Option<Duration>,
    joins: bool,
    record: Arc<Mutex<Record>>,
    task: AbortHandle,
    /// How many answers have been checked.
    seen: usize,
}

/// What the user has seen.
#[derive(Default)]
struct Record {
    /// Once it was known which pods to ask: how many they are, and the set that the balancer knew.
    found: Option<(usize, u32)>,
    asked: Vec<Asked>,
    answers: Vec<(Instant, u8, Result<Option<u8>, Error>)>,
    failed: Option<(Instant, Error)>,
    end: Option<End>,
}

struct Asked {
    at: Instant,
    /// The set that the balancer knew at the call.
    known: u32,
    host: u8,
    sent: Arc<Mutex<Sent>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    Failed,
    Panicked,
    Dropped,
}

impl Broadcast {
    pub(crate) fn start(
        subject: &dyn Subject,
        cluster: &Cluster,
        number: u32,
        (at_once, deadline, joins): (u8, u16, bool),
    ) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let (asking, known) = (record.clone(), cluster.source.known.clone());
        let ask = move |endpoint: &Endpoint| {
            let sent = Arc::<Mutex<Sent>>::default();
            lock(&asking).asked.push(Asked {
                at: Instant::now(),
                known: known.load(Relaxed),
                host: host(endpoint),
                sent: sent.clone(),
            });
            Request { number, sent }
        };
        let deadline = (deadline > 0).then(|| Duration::from_millis(deadline.into()));
        let answers = subject.broadcast(Ask {
            request: Box::new(ask),
            at_once: at_once.into(),
            timeout: Duration::from_millis(BROADCAST_TIMEOUT),
            deadline,
            joins,
        });
        let (collecting, known) = (record.clone(), cluster.source.known.clone());
        let collect = async move {
            let mut answers = match answers.await {
                Ok(answers) => answers,
                Err(error) => {
                    lock(&collecting).failed = Some((Instant::now(), error));
                    return End::Failed;
                }
            };
            let found = (answers.size_hint().0, known.load(Relaxed));
            lock(&collecting).found = Some(found);
            while let Some((endpoint, answer)) = answers.next().await {
                let answer =
                    answer.map(|response| response.extensions().get().map(|&ServedBy(host)| host));
                let mut record = lock(&collecting);
                record
                    .answers
                    .push((Instant::now(), host(&endpoint), answer));
            }
            End::Answered
        };
        let ended = record.clone();
        let task = tokio::spawn(async move {
            let end = AssertUnwindSafe(collect).catch_unwind().await;
            lock(&ended).end = Some(end.unwrap_or(End::Panicked));
        });
        Self {
            number,
            begun: Instant::now(),
            at_once,
            deadline,
            joins,
            record,
            task: task.abort_handle(),
            seen: 0,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        lock(&self.record).end.is_none()
    }

    pub(crate) fn give_up(&self) {
        self.task.abort();
        lock(&self.record).end.get_or_insert(End::Dropped);
    }

    /// Each pod of the set at the call has an answer or an error, once; and no other pod does.
    pub(crate) fn check(
        &mut self,
        config: &Config,
        cluster: &Cluster,
        view: &View,
        facts: &Facts,
        started: Instant,
    ) -> Result<(), Broken> {
        let record = lock(&self.record);
        self.asks_each_once(cluster, &record)?;
        self.does_not_wait_for_pods_that_accept(cluster, view, &record)?;
        for (at, host, answer) in &record.answers[self.seen..] {
            // A pod that joins at the address of one that left is asked, too.
            let asked = record.asked.iter().filter(|asked| asked.host == *host);
            let mut asked: Vec<_> = asked.map(Some).collect();
            let answers = record.answers.iter().filter(|it| it.1 == *host);
            if answers.count() > asked.len() {
                // One of them never had its turn.
                asked.push(None);
            }
            let is_right = |asked| match answer {
                Ok(served) => is_answer_of(*host, *served, asked),
                Err(error) => self.may_fail(config, cluster, facts, (*at, *host, error), asked),
            };
            let mut why = String::new();
            let is_one = asked
                .into_iter()
                .map(is_right)
                .any(|it| it.map_err(|it| why = it).is_ok());
            if !is_one {
                let what = format!(
                    "broadcast {}, pod {host}: {answer:?}, but {why}",
                    self.number
                );
                return broken("an answer to a broadcast is the pod's own", what);
            }
        }
        self.seen = record.answers.len();
        if let Some((at, error)) = &record.failed {
            let case = Case {
                number: self.number,
                at: *at,
                started,
                begun: self.begun,
                wants: None,
            };
            facts.may_fail_before(config, cluster, &case, self.deadline, error)?;
        }
        Ok(())
    }

    fn asks_each_once(&self, cluster: &Cluster, record: &Record) -> Result<(), Broken> {
        let Some((count, known)) = record.found else {
            return Ok(());
        };
        let wrong = |what: String| {
            let what = format!("broadcast {}: {what}", self.number);
            broken("a broadcast asks each pod of the set once", what)
        };
        let Some(Told { set, .. }) = cluster.told(known) else {
            return wrong("no set was known".into());
        };
        if set.len() != count {
            return wrong(format!("it asks {count} of {set:?}"));
        }
        if record.asked.len() > record.answers.len() + usize::from(self.at_once) {
            return wrong(format!("more than {} at once", self.at_once));
        }
        let joined = |life: &&Arc<Life>| life.born_in > known && self.joins;
        for host in 0..8 {
            let departed = cluster.departed.iter().map(|(life, _)| life);
            let lives = departed.chain(cluster.lives()).filter(joined);
            let joined = lives.filter(|life| life.host == host).count();
            let is_meant = usize::from(set.contains(host));
            let asked: Vec<_> = record.asked.iter().filter(|it| it.host == host).collect();
            let answers = record.answers.iter().filter(|it| it.1 == host).count();
            let is_over = record.end == Some(End::Answered);
            if asked.iter().any(|asked| lock(&asked.sent).times > 1) {
                return wrong(format!("pod {host} got it twice"));
            }
            let is_later = |asked: &&Asked| {
                let known = if self.joins { asked.known } else { known };
                let last = lock(&asked.sent).last;
                last.is_some_and(|it| it.host != host || it.born_in > known)
            };
            if let Some(asked) = asked.iter().copied().find(is_later) {
                let last = lock(&asked.sent).last;
                return wrong(format!("for pod {host}, {last:?} got it"));
            }
            if asked.len().max(answers) > is_meant + joined || is_over && answers < is_meant {
                let (asked, all) = (asked.len(), is_meant + joined);
                return wrong(format!(
                    "of pod {host} {asked} asked, {answers} answers, for {all}"
                ));
            }
        }
        Ok(())
    }

    fn does_not_wait_for_pods_that_accept(
        &self,
        cluster: &Cluster,
        view: &View,
        record: &Record,
    ) -> Result<(), Broken> {
        let departed = cluster.departed.iter().map(|(life, _)| life);
        let mut lives = departed.chain(cluster.lives());
        if record.end.is_some() || lives.any(|life| life.log().stalled > 0) {
            return Ok(());
        }
        for asked in record.asked.iter().filter(|it| lock(&it.sent).times == 0) {
            let is_over = record.answers.iter().any(|it| it.1 == asked.host);
            let has_it = |seen: &&crate::view::Seen| {
                let accepts = seen.is_available() || seen.is_ejected();
                seen.life.host == asked.host && accepts && seen.life.prompt_since().is_some()
            };
            if let Some(seen) = view.pods.iter().find(has_it).filter(|_| !is_over) {
                let what = format!("broadcast {} does, and {}", self.number, seen.status);
                return broken("no broadcast waits for pods that accept", what);
            }
        }
        Ok(())
    }

    /// Whether a pod may have this error.
    fn may_fail(
        &self,
        config: &Config,
        cluster: &Cluster,
        facts: &Facts,
        (at, host, error): (Instant, u8, &Error),
        asked: Option<&Asked>,
    ) -> Result<(), String> {
        let times = asked.map_or(0, |asked| lock(&asked.sent).times);
        if error.is_unsent() != (times == 0) && !error.is_endpoint() {
            return Err(format!("it was sent {times} times"));
        }
        let has_had = |time| asked.is_some_and(|asked| at >= asked.at + time);
        let is_right = if error.is_endpoint() {
            let given = error.source().and_then(|it| it.downcast_ref::<PodError>());
            given.is_some_and(|given| given.number == self.number && given.host == host)
        } else if error.is_timeout() {
            let is_over = self.deadline.is_some_and(|time| at >= self.begun + time);
            is_over || has_had(Duration::from_millis(BROADCAST_TIMEOUT))
        } else if error.is_gone() {
            let mut departed = cluster.departed.iter();
            departed.any(|(life, left)| life.host == host && *left >= self.begun)
        } else if error.is_unreachable() {
            let accepts = cluster
                .prompt_since(host)
                .is_some_and(|it| it + BACK_OFF < at);
            ready_timeout(config).is_some_and(has_had) && !accepts
        } else {
            facts.is_closed
        };
        match is_right {
            true => Ok(()),
            false => Err("it may not fail so".into()),
        }
    }
}

fn is_answer_of(host: u8, served: Option<u8>, asked: Option<&Asked>) -> Result<(), String> {
    let sent = asked.and_then(|asked| lock(&asked.sent).last);
    match sent {
        Some(to) if to.host == host && served == Some(host) => Ok(()),
        _ => Err(format!("it was sent to {sent:?}")),
    }
}
