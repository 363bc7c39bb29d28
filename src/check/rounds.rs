//! Who is to be checked when, and what follows from the answers. Pure: takes `now` and the generator.
//!
//! Each endpoint is either in the queue, by the time when it is due, or being checked. A check has a number, so that the
//! answer of one that was begun before its endpoint left the set says nothing of another that has its address now.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::Pace;
use crate::{
    backoff::jittered,
    load::{Checked, Load},
};

const JITTER: f64 = 0.1;

/// How long it is at most until an endpoint that is waited for is asked again.
const IMPATIENT: Duration = Duration::from_secs(1);

/// The checks of a set of endpoints.
#[derive(Debug)]
pub(crate) struct Rounds {
    pace: Pace,
    pods: HashMap<SocketAddr, Pod>,
    /// Those that are not being checked.
    queue: BTreeSet<(Instant, SocketAddr)>,
    /// How many checks are running, those of endpoints that have left among them.
    running: usize,
    /// How many there have been.
    begun: u64,
}

#[derive(Debug)]
struct Pod {
    load: Arc<Load>,
    checked: Checked,
    /// How many checks in a row have said what the last one said.
    in_a_row: u32,
    has_passed_last: bool,
    turn: Turn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Due(Instant),
    Running { number: u64, since: Instant },
}

/// A check that is to be made.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) load: Arc<Load>,
    number: u64,
}

impl Rounds {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            pods: HashMap::new(),
            queue: BTreeSet::new(),
            running: 0,
            begun: 0,
        }
    }

    /// The set is now this. Who stays goes on; who is new, or returns, begins anew, and is returned with how.
    pub(crate) fn admit(
        &mut self,
        loads: &[Arc<Load>],
        now: Instant,
        rng: &mut impl Rng,
    ) -> (Vec<Arc<Load>>, Checked) {
        let mut before = std::mem::take(&mut self.pods);
        self.queue.clear();
        let begins = match self.pace.require_initial_pass {
            true => Checked::Pending,
            false => Checked::Passes,
        };
        let mut new = Vec::new();
        for load in loads {
            let identity = load.endpoint().identity();
            let known = before.remove(&identity);
            let pod = known.filter(|pod| Arc::ptr_eq(&pod.load, load));
            let pod = pod.unwrap_or_else(|| {
                new.push(load.clone());
                Pod::new(load, begins, self.first(now, rng))
            });
            if let Turn::Due(due) = pod.turn {
                self.queue.insert((due, identity));
            }
            self.pods.insert(identity, pod);
        }
        (new, begins)
    }

    /// When a new endpoint is checked: at some time, lest all are at the same time; at once if it is waited for.
    fn first(&self, now: Instant, rng: &mut impl Rng) -> Instant {
        match self.pace.require_initial_pass {
            true => now,
            false => now + self.pace.interval.mul_f64(rng.random()),
        }
    }

    /// When the next check is due, if there is room for one.
    pub(crate) fn due(&self) -> Option<Instant> {
        let has_room = self.running < self.pace.concurrency;
        let first = self.queue.first().filter(|_| has_room);
        first.map(|&(due, _)| due)
    }

    /// Takes a check that is due, to be made; what comes of it is to be [told](Self::tell), always.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Check> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        let (_, identity) = self.queue.pop_first()?;
        let pod = self.pods.get_mut(&identity)?;
        self.begun += 1;
        self.running += 1;
        let number = self.begun;
        pod.turn = Turn::Running { number, since: now };
        let load = pod.load.clone();
        Some(Check { load, number })
    }

    /// The check has been made. How its endpoint stands from now on, unless it has left.
    pub(crate) fn tell(
        &mut self,
        check: &Check,
        has_passed: bool,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Checked> {
        self.running -= 1;
        let identity = check.load.endpoint().identity();
        let pod = self.pods.get_mut(&identity)?;
        let since = match pod.turn {
            Turn::Running { number, since } if number == check.number => since,
            _ => return None,
        };
        pod.learn(has_passed, &self.pace);
        let pause = match pod.checked {
            Checked::Pending => self.pace.interval.min(IMPATIENT),
            Checked::Passes | Checked::Fails => self.pace.interval,
        };
        let due = now.max(since + jittered(pause, JITTER, rng));
        pod.turn = Turn::Due(due);
        self.queue.insert((due, identity));
        Some(pod.checked)
    }
}

impl Pod {
    fn new(load: &Arc<Load>, checked: Checked, due: Instant) -> Self {
        Self {
            load: load.clone(),
            checked,
            in_a_row: 0,
            has_passed_last: true,
            turn: Turn::Due(due),
        }
    }

    fn learn(&mut self, has_passed: bool, pace: &Pace) {
        let goes_on = has_passed == self.has_passed_last;
        self.in_a_row = if goes_on {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        self.has_passed_last = has_passed;
        self.checked = match self.checked {
            Checked::Pending if has_passed => Checked::Passes,
            Checked::Passes if !has_passed && self.in_a_row >= pace.failures => Checked::Fails,
            Checked::Fails if has_passed && self.in_a_row >= pace.successes => Checked::Passes,
            as_before => as_before,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::{collection::vec, prelude::*, sample::subsequence};
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::{endpoint::Endpoint, signals::Signals};

    const SECOND: Duration = Duration::from_secs(1);

    fn load(host: u8) -> Arc<Load> {
        let endpoint = Endpoint::new(([10, 0, 0, host], 80).into());
        Load::new(endpoint, None, None, Arc::new(Signals::new(Instant::now())))
    }

    fn loads(hosts: u8) -> Vec<Arc<Load>> {
        (0..hosts).map(load).collect()
    }

    struct Set {
        rounds: Rounds,
        now: Instant,
        rng: SmallRng,
    }

    fn set(change: impl FnOnce(&mut Pace)) -> Set {
        let mut pace = Pace::new();
        change(&mut pace);
        Set {
            rounds: Rounds::new(pace),
            now: Instant::now(),
            rng: SmallRng::seed_from_u64(3),
        }
    }

    impl Set {
        fn admit(&mut self, loads: &[Arc<Load>]) -> (usize, Checked) {
            let (new, begins) = self.rounds.admit(loads, self.now, &mut self.rng);
            (new.len(), begins)
        }

        fn take(&mut self) -> Option<Check> {
            self.rounds.take_due(self.now)
        }

        fn tell(&mut self, check: &Check, has_passed: bool) -> Option<Checked> {
            self.rounds.tell(check, has_passed, self.now, &mut self.rng)
        }

        /// The next check, when it is due.
        fn next(&mut self) -> Check {
            self.now = self.rounds.due().expect("a check is due");
            self.take().expect("it is due")
        }

        /// What becomes of the one endpoint.
        fn run(&mut self, answers: &[bool]) -> Vec<Checked> {
            let run = |&has_passed: &bool| {
                let check = self.next();
                self.tell(&check, has_passed).expect("it is in the set")
            };
            answers.iter().map(run).collect()
        }
    }

    #[test]
    fn three_failures_in_a_row_put_out_and_one_success_takes_back() {
        use Checked::{Fails, Passes};
        let mut set = set(|_| {});
        assert_eq!(set.admit(&loads(1)), (1, Passes));
        let answers = [false, false, true, false, false, false, false, true, false];
        let expected = [
            Passes, Passes, Passes, Passes, Passes, Fails, Fails, Passes, Passes,
        ];
        assert_eq!(set.run(&answers), expected);
    }

    #[test]
    fn as_many_successes_as_are_asked_for_take_back() {
        use Checked::{Fails, Passes, Pending};
        let mut set = set(|pace| {
            (pace.failures, pace.successes) = (1, 2);
            pace.require_initial_pass = true;
        });
        assert_eq!(set.admit(&loads(1)), (1, Pending));
        let answers = [false, false, true, false, true, false, true, true];
        let expected = [Pending, Pending, Passes, Fails, Fails, Fails, Fails, Passes];
        assert_eq!(set.run(&answers), expected, "the very first takes one");
    }

    #[test]
    fn first_checks_are_spread_over_the_interval_and_the_next_follow_at_it() {
        let mut set = set(|_| {});
        set.admit(&loads(200));
        let begun = set.now;
        let mut firsts = [0; 10];
        let mut last = HashMap::new();
        for _ in 0..2_000 {
            let check = set.next();
            set.tell(&check, true);
            let identity = check.load.endpoint().identity();
            match last.insert(identity, set.now) {
                None => firsts[set.now.duration_since(begun).as_secs() as usize] += 1,
                Some(before) => {
                    let pause = set.now.duration_since(before).as_secs_f64();
                    assert!((8.99..=11.01).contains(&pause), "{pause}");
                }
            }
        }
        assert_eq!(last.len(), 200);
        assert!(firsts.iter().all(|n| (8..=36).contains(n)), "{firsts:?}");
    }

    #[test]
    fn who_is_waited_for_is_asked_at_once_and_again_after_a_second() {
        let mut set = set(|pace| pace.require_initial_pass = true);
        set.admit(&loads(1));
        assert_eq!(set.rounds.due(), Some(set.now));
        let check = set.next();
        set.tell(&check, false);
        let pause = set.rounds.due().expect("due") - set.now;
        assert!((0.89..=1.11).contains(&pause.as_secs_f64()), "{pause:?}");
        let check = set.next();
        set.tell(&check, true);
        assert!(set.rounds.due().expect("due") - set.now > 8 * SECOND);
    }

    #[test]
    fn a_check_longer_than_the_interval_is_followed_at_once() {
        let mut set = set(|pace| pace.interval = SECOND);
        set.admit(&loads(1));
        let check = set.next();
        assert_eq!(set.rounds.due(), None, "one at a time");
        set.now += 5 * SECOND;
        set.tell(&check, true);
        assert_eq!(set.rounds.due(), Some(set.now));
    }

    #[test]
    fn no_more_run_than_may() {
        let mut set = set(|pace| (pace.concurrency, pace.require_initial_pass) = (3, true));
        set.admit(&loads(10));
        let running: Vec<_> = std::iter::from_fn(|| set.take()).collect();
        assert_eq!((running.len(), set.rounds.due()), (3, None));
        set.tell(&running[1], true);
        assert!(set.take().is_some() && set.take().is_none());
    }

    #[test]
    fn who_returns_begins_anew_and_checks_from_before_say_nothing() {
        let mut set = set(|pace| pace.failures = 1);
        let loads = loads(2);
        set.admit(&loads);
        let check = set.next();
        let other: Vec<_> = loads
            .iter()
            .filter(|load| !Arc::ptr_eq(load, &check.load))
            .cloned()
            .collect();
        assert_eq!(set.admit(&other), (0, Checked::Passes));
        assert_eq!(set.admit(&loads), (1, Checked::Passes));
        assert_eq!(set.tell(&check, false), None);
        set.admit(&loads);
        assert_eq!(set.rounds.queue.len(), 2);
        assert_eq!(set.rounds.running, 0);
    }

    /// What happens to a set.
    #[derive(Clone, Debug)]
    enum Step {
        Admit(Vec<u8>),
        Wait(u64),
        Begin,
        /// Of those that run, which, and whether it passes.
        End(usize, bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let hosts: Vec<_> = (0..6).collect();
        let step = prop_oneof![
            1 => subsequence(hosts, 0..=6).prop_map(Step::Admit),
            4 => (0_u64..4_000).prop_map(Step::Wait),
            4 => Just(Step::Begin),
            6 => (0_usize..8, any::<bool>()).prop_map(|(at, passed)| Step::End(at, passed)),
        ];
        vec(step, 1..300)
    }

    /// What a stay in the set has seen, and what that comes to.
    fn judged(pace: &Pace, answers: &[bool]) -> Checked {
        let mut checked = match pace.require_initial_pass {
            true => Checked::Pending,
            false => Checked::Passes,
        };
        for end in 1..=answers.len() {
            let ends_with = |passed: bool, times: u32| {
                let last = answers[..end].iter().rev().take(times as usize);
                last.clone().count() == times as usize && last.into_iter().all(|it| *it == passed)
            };
            checked = match checked {
                Checked::Pending if answers[end - 1] => Checked::Passes,
                Checked::Passes if ends_with(false, pace.failures) => Checked::Fails,
                Checked::Fails if ends_with(true, pace.successes) => Checked::Passes,
                _ => checked,
            };
        }
        checked
    }

    proptest! {
        #[test]
        fn rounds_are_what_the_answers_of_each_stay_come_to(
            steps in steps(),
            (failures, successes, concurrency) in (1_u32..4, 1_u32..4, 1_usize..5),
            require_initial_pass: bool,
            seed: u64,
        ) {
            let pace = Pace { failures, successes, concurrency, require_initial_pass, ..Pace::new() };
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut rounds, mut now) = (Rounds::new(pace), Instant::now());
            let all = loads(6);
            // Of each endpoint in the set: when its last check began, and what they have said.
            let mut stays = HashMap::<u8, (Option<Instant>, Vec<bool>)>::new();
            let mut running = Vec::<(u8, bool, Check)>::new();
            let host = |load: &Arc<Load>| all.iter().position(|it| Arc::ptr_eq(it, load)).expect("one of all") as u8;
            for step in steps {
                match step {
                    Step::Admit(hosts) => {
                        let set: Vec<_> = hosts.iter().map(|&host| all[usize::from(host)].clone()).collect();
                        let hosts: HashSet<_> = hosts.into_iter().collect();
                        stays.retain(|host, _| hosts.contains(host));
                        // What runs for those that have left is nobody's.
                        running.iter_mut().for_each(|(host, counts, _)| *counts &= hosts.contains(host));
                        let (new, _) = rounds.admit(&set, now, &mut rng);
                        let new: HashSet<_> = new.iter().map(host).collect();
                        let expected = hosts.iter().filter(|it| !stays.contains_key(it)).copied().collect();
                        prop_assert_eq!(new, expected);
                        hosts.into_iter().for_each(|host| { stays.entry(host).or_default(); });
                    }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                    Step::Begin => {
                        let Some(check) = rounds.take_due(now) else {
                            let room = running.len() < concurrency;
                            prop_assert!(!room || rounds.due().is_none_or(|due| due > now));
                            continue;
                        };
                        let host = host(&check.load);
                        prop_assert!(!running.iter().any(|&(it, counts, _)| it == host && counts), "one at a time");
                        let (last, answers) = stays.get_mut(&host).expect("it is in the set");
                        let is_pending = judged(&pace, answers) == Checked::Pending;
                        let least = if is_pending { IMPATIENT } else { pace.interval }.mul_f64(0.9);
                        prop_assert!(last.is_none_or(|last| now - last >= least));
                        *last = Some(now);
                        running.push((host, true, check));
                        prop_assert!(running.len() <= concurrency);
                    }
                    Step::End(at, has_passed) if at < running.len() => {
                        let (host, counts, check) = running.swap_remove(at);
                        let told = rounds.tell(&check, has_passed, now, &mut rng);
                        let expected = counts.then(|| {
                            let (_, answers) = stays.get_mut(&host).expect("it is in the set");
                            answers.push(has_passed);
                            judged(&pace, answers)
                        });
                        prop_assert_eq!(told, expected);
                    }
                    Step::End(..) => {}
                }
                // Nobody is forgotten: who is in the set is in the queue, or is being checked.
                let busy = running.iter().filter(|(_, counts, _)| *counts).count();
                prop_assert_eq!(rounds.queue.len() + busy, stays.len());
            }
        }
    }
}
