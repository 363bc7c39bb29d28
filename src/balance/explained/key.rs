//! Explains which endpoint gets a key, and why those before it don't.

use super::{super::shared::Shared, Clock, Explainer, Serving};
use crate::{
    explain::{KeyChoice, KeyExplanation},
    policy::Passed,
    route::RouteKey,
};

/// The least number of choices to show.
const SHOWN: usize = 16;

pub(in super::super) fn explain_key<S>(
    shared: &Shared<S>,
    key: RouteKey,
) -> Option<KeyExplanation> {
    let snapshot = shared.current.load();
    let found = snapshot.key_order(key)?;
    let (clock, history) = (Clock::read(), shared.history());
    let explainer = Explainer {
        shared,
        snapshot: &snapshot,
        history: history.as_deref(),
        clock: &clock,
    };
    let serving = Serving::of(&snapshot);
    let is_chosen = |index: usize| found.chosen == Some(index);
    let chosen = found.order.iter().position(|it| is_chosen(it.0));
    let shown = SHOWN.max(chosen.map_or(0, |at| at + 1));
    let choices = found.order.iter().take(shown).map(|&(index, passed)| {
        let member = &snapshot.members()[index];
        let it = explainer.endpoint(index, member, &serving);
        KeyChoice {
            is_chosen: is_chosen(index),
            verdict: it.verdict,
            why: match passed {
                Some(Passed::Out) => format!("{}: {}", it.verdict, it.why),
                Some(passed) => why(passed),
                None => String::new(),
            },
            name: it.name,
            address: it.address,
        }
    });
    Some(KeyExplanation {
        choices: choices.collect(),
    })
}

fn why(passed: Passed) -> String {
    match passed {
        Passed::Out => String::new(),
        Passed::Weightless => "weight 0: gets keys when no other endpoint accepts them".into(),
        Passed::NotYet => "new: this key moves to it later (slow start)".into(),
        Passed::Full { load, bound } => {
            format!("has its part of the requests: {load}, of {bound} at most (load factor)")
        }
    }
}
