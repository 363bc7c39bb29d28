//! When to check which endpoint, and what follows from the results. Pure: takes `now` and the generator.
//!
//! Each member is either in the queue, by the time when it is due, or being checked.

use std::{collections::BTreeSet, time::Duration};

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::Pace;
use crate::{
    backoff::jittered,
    member::{Checked, MemberId},
};

const JITTER: f64 = 0.1;

/// The longest time until an endpoint that has to pass its first check is checked again.
const IMPATIENT: Duration = Duration::from_secs(1);

/// The checks of a balancer's members.
#[derive(Debug)]
pub(crate) struct CheckScheduler {
    pace: Pace,
    /// The members that are not being checked, by when they are due.
    queue: BTreeSet<(Instant, MemberId)>,
    /// How many checks are running, including those of members that have left.
    running: usize,
}

/// The state of one member's checks.
#[derive(Debug)]
pub(crate) struct CheckState {
    checked: Checked,
    /// How many checks in a row had the last result.
    in_a_row: u32,
    has_passed_last: bool,
    turn: Turn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Due(Instant),
    Running { since: Instant },
}

impl CheckScheduler {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            queue: BTreeSet::new(),
            running: 0,
        }
    }

    /// A member has joined. Its first check is at a random time, to spread them; at once if it has to pass first.
    pub(crate) fn join(&mut self, id: MemberId, now: Instant, rng: &mut impl Rng) -> CheckState {
        let (checked, due) = match self.pace.require_initial_pass {
            true => (Checked::Pending, now),
            false => (
                Checked::Passes,
                now + self.pace.interval.mul_f64(rng.random()),
            ),
        };
        self.queue.insert((due, id));
        CheckState {
            checked,
            in_a_row: 0,
            has_passed_last: true,
            turn: Turn::Due(due),
        }
    }

    /// A member has left. If it is being checked, that check still has to [end](Self::end).
    pub(crate) fn leave(&mut self, id: MemberId, state: &CheckState) {
        if let Turn::Due(due) = state.turn {
            self.queue.remove(&(due, id));
        }
    }

    /// When the next check is due, if there is room for one.
    pub(crate) fn due(&self) -> Option<Instant> {
        let has_room = self.running < self.pace.concurrency;
        let first = self.queue.first().filter(|_| has_room);
        first.map(|&(due, _)| due)
    }

    /// Takes a member whose check is due: it has to [begin](Self::begin).
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<MemberId> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.queue.pop_first().map(|(_, id)| id)
    }

    /// Begins the check of a member. It has to [end](Self::end) even if it is aborted or the member leaves.
    pub(crate) fn begin(&mut self, state: &mut CheckState, now: Instant) {
        self.running += 1;
        state.turn = Turn::Running { since: now };
    }

    /// A check has ended.
    pub(crate) fn end(&mut self) {
        self.running -= 1;
    }

    /// All checks have ended; those of members that are still in the set begin anew when they are [due](Self::restart).
    pub(crate) fn end_all(&mut self) {
        self.running = 0;
    }

    /// A running check of this member was lost: it is due again.
    pub(crate) fn restart(&mut self, id: MemberId, state: &mut CheckState, now: Instant) {
        if let Turn::Running { .. } = state.turn {
            state.turn = Turn::Due(now);
            self.queue.insert((now, id));
        }
    }

    /// Takes in the result of a check of a member that is still in the set. Returns its new state.
    pub(crate) fn tell(
        &mut self,
        id: MemberId,
        state: &mut CheckState,
        has_passed: bool,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Checked {
        state.learn(has_passed, &self.pace);
        let interval = match state.checked {
            Checked::Pending => self.pace.interval.min(IMPATIENT),
            Checked::Passes | Checked::Fails => self.pace.interval,
        };
        let begun = match state.turn {
            Turn::Running { since } => since,
            Turn::Due(_) => now,
        };
        let due = now.max(begun + jittered(interval, JITTER, rng));
        state.turn = Turn::Due(due);
        self.queue.insert((due, id));
        state.checked
    }
}

impl CheckState {
    pub(crate) fn checked(&self) -> Checked {
        self.checked
    }

    /// Whether its checks have failed. False while a new endpoint's first check hasn't ended.
    pub(crate) fn has_failed(&self) -> bool {
        match self.checked {
            Checked::Passes => false,
            Checked::Fails => true,
            Checked::Pending => self.in_a_row > 0,
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
    use std::collections::{BTreeMap, HashMap, HashSet};

    use proptest::{collection::vec, prelude::*, sample::subsequence};
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A set of members that are checked.
    struct Set {
        scheduler: CheckScheduler,
        states: BTreeMap<MemberId, CheckState>,
        members: u64,
        now: Instant,
        rng: SmallRng,
    }

    fn set(change: impl FnOnce(&mut Pace)) -> Set {
        let mut pace = Pace::new();
        change(&mut pace);
        Set::new(pace, 3)
    }

    impl Set {
        fn new(pace: Pace, seed: u64) -> Self {
            Self {
                scheduler: CheckScheduler::new(pace),
                states: BTreeMap::new(),
                members: 0,
                now: Instant::now(),
                rng: SmallRng::seed_from_u64(seed),
            }
        }

        fn join(&mut self) -> MemberId {
            self.members += 1;
            let id = MemberId::numbered(self.members);
            let state = self.scheduler.join(id, self.now, &mut self.rng);
            self.states.insert(id, state);
            id
        }

        fn leave(&mut self, id: MemberId) {
            let state = self.states.remove(&id).expect("it is in the set");
            self.scheduler.leave(id, &state);
        }

        fn take(&mut self) -> Option<MemberId> {
            let id = self.scheduler.take_due(self.now)?;
            let state = self.states.get_mut(&id).expect("nobody else is queued");
            self.scheduler.begin(state, self.now);
            Some(id)
        }

        /// The member's state after its check; `None` if it has left.
        fn end(&mut self, id: MemberId, has_passed: bool) -> Option<Checked> {
            self.scheduler.end();
            let (state, now) = (self.states.get_mut(&id)?, self.now);
            Some(
                self.scheduler
                    .tell(id, state, has_passed, now, &mut self.rng),
            )
        }

        /// The next check, when it is due.
        fn next(&mut self) -> MemberId {
            self.now = self.scheduler.due().expect("a check is due");
            self.take().expect("it is due")
        }

        /// The states of the one member after each of these results.
        fn run(&mut self, results: &[bool]) -> Vec<Checked> {
            let run = |&has_passed: &bool| {
                let id = self.next();
                self.end(id, has_passed).expect("it is in the set")
            };
            results.iter().map(run).collect()
        }
    }

    #[test]
    fn three_failures_in_a_row_eject_and_one_success_readmits() {
        use Checked::{Fails, Passes};
        let mut set = set(|_| {});
        set.join();
        let results = [false, false, true, false, false, false, false, true, false];
        let expected = [
            Passes, Passes, Passes, Passes, Passes, Fails, Fails, Passes, Passes,
        ];
        assert_eq!(set.run(&results), expected);
    }

    #[test]
    fn readmission_takes_as_many_successes_as_are_set() {
        use Checked::{Fails, Passes, Pending};
        let mut set = set(|pace| {
            (pace.failures, pace.successes) = (1, 2);
            pace.require_initial_pass = true;
        });
        let id = set.join();
        assert_eq!(set.states[&id].checked(), Pending);
        let results = [false, false, true, false, true, false, true, true];
        let expected = [Pending, Pending, Passes, Fails, Fails, Fails, Fails, Passes];
        assert_eq!(set.run(&results), expected, "the very first takes one");
    }

    #[test]
    fn first_checks_are_spread_over_the_interval_and_the_next_follow_at_it() {
        let mut set = set(|_| {});
        (0..200).for_each(|_| _ = set.join());
        let begun = set.now;
        let mut firsts = [0; 10];
        let mut last = HashMap::new();
        for _ in 0..2_000 {
            let id = set.next();
            set.end(id, true);
            match last.insert(id, set.now) {
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
    fn an_endpoint_that_has_to_pass_first_is_checked_at_once_and_every_second() {
        let mut set = set(|pace| pace.require_initial_pass = true);
        set.join();
        assert_eq!(set.scheduler.due(), Some(set.now));
        let id = set.next();
        set.end(id, false);
        let pause = set.scheduler.due().expect("due") - set.now;
        assert!((0.89..=1.11).contains(&pause.as_secs_f64()), "{pause:?}");
        let id = set.next();
        set.end(id, true);
        assert!(set.scheduler.due().expect("due") - set.now > 8 * SECOND);
    }

    #[test]
    fn a_check_longer_than_the_interval_is_followed_at_once() {
        let mut set = set(|pace| pace.interval = SECOND);
        set.join();
        let id = set.next();
        assert_eq!(set.scheduler.due(), None, "one at a time");
        set.now += 5 * SECOND;
        set.end(id, true);
        assert_eq!(set.scheduler.due(), Some(set.now));
    }

    #[test]
    fn no_more_checks_run_than_the_concurrency_allows() {
        let mut set = set(|pace| (pace.concurrency, pace.require_initial_pass) = (3, true));
        (0..10).for_each(|_| _ = set.join());
        let running: Vec<_> = std::iter::from_fn(|| set.take()).collect();
        assert_eq!((running.len(), set.scheduler.due()), (3, None));
        set.end(running[1], true);
        assert!(set.take().is_some() && set.take().is_none());
    }

    #[test]
    fn the_check_of_a_member_that_has_left_has_no_result_and_frees_its_place() {
        let mut set = set(|pace| (pace.failures, pace.concurrency) = (1, 1));
        set.join();
        let left = set.next();
        set.leave(left);
        set.join();
        assert_eq!(set.scheduler.due(), None, "its check still runs");
        assert_eq!(set.end(left, false), None);
        assert!(set.scheduler.due().is_some());
        assert_eq!((set.scheduler.queue.len(), set.scheduler.running), (1, 0));
    }

    /// A thing that happens to a set.
    #[derive(Clone, Debug)]
    enum Step {
        Admit(Vec<u8>),
        Wait(u64),
        Begin,
        /// Which running check ends, and whether it passes.
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

    /// The state after these results, by the simplest code.
    fn judged(pace: &Pace, results: &[bool]) -> Checked {
        let mut checked = match pace.require_initial_pass {
            true => Checked::Pending,
            false => Checked::Passes,
        };
        for end in 1..=results.len() {
            let ends_with = |passed: bool, times: u32| {
                let last = results[..end].iter().rev().take(times as usize);
                last.clone().count() == times as usize && last.into_iter().all(|it| *it == passed)
            };
            checked = match checked {
                Checked::Pending if results[end - 1] => Checked::Passes,
                Checked::Passes if ends_with(false, pace.failures) => Checked::Fails,
                Checked::Fails if ends_with(true, pace.successes) => Checked::Passes,
                _ => checked,
            };
        }
        checked
    }

    /// The set, and a naive model of it.
    struct Model {
        set: Set,
        pace: Pace,
        /// For each host in the set: its member, when its last check began, and the results.
        stays: HashMap<u8, (MemberId, Option<Instant>, Vec<bool>)>,
        running: Vec<MemberId>,
    }

    impl Model {
        fn admit(&mut self, hosts: HashSet<u8>) {
            let gone = self.stays.extract_if(|host, _| !hosts.contains(host));
            let gone: Vec<_> = gone.map(|(_, (id, ..))| id).collect();
            gone.into_iter().for_each(|id| self.set.leave(id));
            for host in hosts {
                let join = || (self.set.join(), None, Vec::new());
                self.stays.entry(host).or_insert_with(join);
            }
        }

        fn stay(&mut self, id: MemberId) -> Option<&mut (MemberId, Option<Instant>, Vec<bool>)> {
            self.stays.values_mut().find(|(it, ..)| *it == id)
        }

        fn begin(&mut self) -> Result<(), TestCaseError> {
            let (now, pace) = (self.set.now, self.pace);
            let Some(id) = self.set.take() else {
                let room = self.running.len() < pace.concurrency;
                prop_assert!(!room || self.set.scheduler.due().is_none_or(|due| due > now));
                return Ok(());
            };
            prop_assert!(!self.running.contains(&id), "one at a time");
            self.running.push(id);
            prop_assert!(self.running.len() <= pace.concurrency);
            let (_, last, results) = self.stay(id).expect("it is in the set");
            let is_pending = judged(&pace, results) == Checked::Pending;
            let least = if is_pending { IMPATIENT } else { pace.interval }.mul_f64(0.9);
            prop_assert!(last.is_none_or(|last| now - last >= least));
            *last = Some(now);
            Ok(())
        }

        fn end(&mut self, at: usize, has_passed: bool) -> Result<(), TestCaseError> {
            let (id, pace) = (self.running.swap_remove(at), self.pace);
            let told = self.set.end(id, has_passed);
            let expected = self.stay(id).map(|(_, _, results)| {
                results.push(has_passed);
                judged(&pace, results)
            });
            prop_assert_eq!(told, expected);
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn a_members_state_follows_from_its_own_results(
            steps in steps(),
            (failures, successes, concurrency) in (1_u32..4, 1_u32..4, 1_usize..5),
            require_initial_pass: bool,
            seed: u64,
        ) {
            let pace = Pace { failures, successes, concurrency, require_initial_pass, ..Pace::new() };
            let set = Set::new(pace, seed);
            let mut model = Model { set, pace, stays: HashMap::new(), running: Vec::new() };
            for step in steps {
                match step {
                    Step::Admit(hosts) => model.admit(hosts.into_iter().collect()),
                    Step::Wait(millis) => model.set.now += Duration::from_millis(millis),
                    Step::Begin => model.begin()?,
                    Step::End(at, has_passed) if at < model.running.len() => {
                        model.end(at, has_passed)?;
                    }
                    Step::End(..) => {}
                }
                // No member is lost: each is in the queue, or is being checked.
                let here = model.stays.values().filter(|(id, ..)| model.running.contains(id));
                let queued = model.set.scheduler.queue.len();
                prop_assert_eq!(queued + here.count(), model.stays.len());
                prop_assert_eq!(model.set.scheduler.running, model.running.len());
            }
        }
    }
}
