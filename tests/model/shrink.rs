//! Shrinks a run that breaks a promise to a short one that breaks the same promise.

use crate::{
    plan::{By, Config, Hosts, Mood, Step, Take},
    world::{Broken, run},
};

/// A run that breaks a promise.
pub(crate) struct Case {
    pub(crate) config: Config,
    pub(crate) steps: Vec<Step>,
    pub(crate) broken: Broken,
}

/// The most runs to try.
const MOST_RUNS: usize = 3_000;

/// Removes and simplifies what isn't needed.
pub(crate) fn shrink(case: Case) -> Case {
    let mut search = Search { case, runs: 0 };
    loop {
        let before = (search.case.config, search.case.steps.clone());
        search.leave_out();
        search.simplify();
        search.plain_config();
        if search.runs >= MOST_RUNS || before == (search.case.config, search.case.steps.clone()) {
            return search.case;
        }
    }
}

struct Search {
    case: Case,
    runs: usize,
}

impl Search {
    /// Replaces the case by this one, if it breaks the same promise.
    fn does(&mut self, config: Config, steps: Vec<Step>) -> bool {
        if self.runs >= MOST_RUNS {
            return false;
        }
        self.runs += 1;
        match run(&config, &steps) {
            Err(broken) if broken.promise == self.case.broken.promise => {
                self.case = Case {
                    config,
                    steps,
                    broken,
                };
                true
            }
            _ => false,
        }
    }

    /// Removes steps: large chunks first, then halves of them, in the end single steps.
    fn leave_out(&mut self) {
        let mut size = self.case.steps.len().div_ceil(2);
        while size > 0 {
            let mut at = self.case.steps.len();
            while at > 0 {
                let from = at.saturating_sub(size);
                let mut steps = self.case.steps.clone();
                steps.drain(from..at);
                self.does(self.case.config, steps);
                at = from.min(self.case.steps.len());
            }
            size /= 2;
        }
    }

    fn simplify(&mut self) {
        let mut at = 0;
        while at < self.case.steps.len() {
            for simpler in simpler(self.case.steps[at]) {
                let mut steps = self.case.steps.clone();
                steps[at] = simpler;
                if self.does(self.case.config, steps) {
                    break;
                }
            }
            at += 1;
        }
    }

    fn plain_config(&mut self) {
        for config in self.case.config.simpler() {
            self.does(config, self.case.steps.clone());
        }
        // Once more, because a simplification may work only after others.
        for config in self.case.config.simpler() {
            self.does(config, self.case.steps.clone());
        }
    }
}

/// Simpler steps for this one.
fn simpler(step: Step) -> Vec<Step> {
    let none = Hosts::default();
    match step {
        Step::Traffic(requests, every, take) => {
            let mut simpler = vec![Step::Send(none, take)];
            simpler.extend((requests > 2).then_some(Step::Traffic(requests / 2, every, take)));
            simpler.extend((requests > 1).then_some(Step::Traffic(requests - 1, every, take)));
            simpler.extend((take != Take::Drop).then_some(Step::Traffic(
                requests,
                every,
                Take::Drop,
            )));
            simpler
        }
        Step::Call(take) | Step::SendTo(By::Name, _, take) | Step::SendKey(_, take) => {
            vec![Step::Send(none, take)]
        }
        Step::SendTo(pin, pod, take) if !pin.is_others() => {
            vec![Step::SendTo(By::Name, pod, take)]
        }
        Step::Broadcast(at_once, deadline, joins) => {
            let simpler = [
                Step::Broadcast(64, deadline, joins),
                Step::Broadcast(at_once, 0, joins),
                Step::Broadcast(at_once, deadline, false),
            ];
            simpler.into_iter().filter(|&it| it != step).collect()
        }
        Step::Glance(_) => vec![Step::Send(none, Take::Drop)],
        Step::Send(avoid, take) => {
            let mut simpler = Vec::new();
            if avoid != none || take != Take::Drop {
                simpler.push(Step::Send(none, Take::Drop));
                simpler.push(Step::Send(none, take));
                simpler.push(Step::Send(avoid, Take::Drop));
            }
            simpler.retain(|&simpler| simpler != step);
            simpler
        }
        Step::Advance(time) if time > 1 => vec![Step::Advance(time / 2)],
        Step::Behave(host, mood) if mood != Mood::Well => vec![Step::Behave(host, Mood::Well)],
        Step::Set(set) => {
            let fewer = set.iter().map(|host| Step::Set(set.toggle(host)));
            fewer.collect()
        }
        _ => Vec::new(),
    }
}
