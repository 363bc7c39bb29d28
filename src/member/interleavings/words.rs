//! All pairs and triples of concurrent changes of a status word. The final word, the results and the number of trials
//! have to be as if the changes came one after the other, in some order.

use std::collections::BTreeSet;

use loom::thread;

use super::*;
use crate::interleavings::{explore, once};

type Step = fn(&Member) -> bool;

const OFFER: Step = |member| {
    member.offer_trial();
    true
};
const CLAIM: Step = |member| member.claim_trial();
const REMOVE: Step = |member| {
    member.remove();
    true
};
const REFUSE: Step = |member| member.refuse();
const ACCEPT: Step = |member| member.accept();
const EJECT: Step = |member| member.eject();
const READMIT: Step = |member| member.readmit();
const SET_UNFIT: Step = |member| member.set_unfit();
const SET_FIT: Step = |member| member.set_fit();
const BEGIN: Step = |member| member.begin();
const BEGIN_EJECTED: Step = |member| member.begin_ejected();
const END: Step = |member| {
    member.end();
    true
};

const ALL: [Step; 11] = [
    OFFER,
    CLAIM,
    REMOVE,
    REFUSE,
    ACCEPT,
    EJECT,
    READMIT,
    SET_UNFIT,
    SET_FIT,
    BEGIN,
    BEGIN_EJECTED,
];

/// The states that a word may be in before.
const STARTS: [&[Step]; 7] = [
    &[],
    &[REFUSE],
    &[REFUSE, OFFER],
    &[EJECT, OFFER],
    &[EJECT, REFUSE, OFFER],
    &[EJECT, OFFER, SET_UNFIT],
    &[REFUSE, OFFER, REMOVE],
];

/// The final word, the number of trials, and what each step returned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    word: u32,
    trials: usize,
    returned: Vec<bool>,
}

impl Outcome {
    fn of(member: &Member, returned: Vec<bool>) -> Self {
        let outcome = Self {
            word: member.word().load(Relaxed),
            trials: member.signals.trials(),
            returned,
        };
        let offered = usize::from(member.has_trial());
        assert_eq!(outcome.trials, offered, "the trials on offer are counted");
        assert!(offered == 0 || !member.is_removed());
        outcome
    }
}

fn prepared(start: &[Step], is_packed: bool) -> Arc<Member> {
    let member = member(is_packed.then(|| Slots::default().take()));
    for step in start {
        step(&member);
    }
    member
}

/// The outcomes of `steps`, one after the other, in each order.
fn sequential(start: &'static [Step], steps: &[Step], is_packed: bool) -> BTreeSet<Outcome> {
    let orders = permutations(steps.len()).into_iter().map(|order| {
        let steps = steps.to_vec();
        once(move || {
            let member = prepared(start, is_packed);
            let mut returned = vec![false; steps.len()];
            for &step in &order {
                returned[step] = steps[step](&member);
            }
            Outcome::of(&member, returned)
        })
    });
    orders.collect()
}

fn permutations(len: usize) -> Vec<Vec<usize>> {
    match len {
        0 => vec![Vec::new()],
        _ => permutations(len - 1)
            .into_iter()
            .flat_map(|shorter| {
                (0..len).map(move |at| {
                    let mut longer = shorter.clone();
                    longer.insert(at, len - 1);
                    longer
                })
            })
            .collect(),
    }
}

/// Takes `steps` at the same time, the last one on this thread.
fn concurrent(start: &[Step], steps: &[Step], is_packed: bool) -> Outcome {
    let member = prepared(start, is_packed);
    let (last, others) = steps.split_last().unwrap();
    let threads: Vec<_> = others
        .iter()
        .map(|&step| {
            let member = member.clone();
            thread::spawn(move || step(&member))
        })
        .collect();
    let last = last(&member);
    let mut returned: Vec<_> = threads.into_iter().map(|it| it.join().unwrap()).collect();
    returned.push(last);
    Outcome::of(&member, returned)
}

fn check(start: &'static [Step], steps: Vec<Step>, is_packed: bool) -> usize {
    let expected = sequential(start, &steps, is_packed);
    explore(move || {
        let outcome = concurrent(start, &steps, is_packed);
        assert!(expected.contains(&outcome), "{outcome:x?} {expected:x?}");
    })
}

#[test]
fn two_concurrent_changes_act_as_if_in_some_order() {
    let mut orders = 0;
    for start in STARTS {
        for (at, &first) in ALL.iter().enumerate() {
            for &second in &ALL[at..] {
                for is_packed in [false, true] {
                    orders += check(start, vec![first, second], is_packed);
                }
            }
        }
    }
    println!("{orders} orders");
}

#[test]
fn three_concurrent_changes_act_as_if_in_some_order() {
    let triples: [[Step; 3]; 12] = [
        [CLAIM, CLAIM, REMOVE],
        [CLAIM, CLAIM, OFFER],
        [CLAIM, CLAIM, ACCEPT],
        [CLAIM, ACCEPT, REFUSE],
        [OFFER, ACCEPT, REFUSE],
        [OFFER, REMOVE, CLAIM],
        [OFFER, SET_UNFIT, CLAIM],
        [EJECT, READMIT, OFFER],
        [READMIT, ACCEPT, CLAIM],
        [REFUSE, CLAIM, OFFER],
        [REFUSE, READMIT, ACCEPT],
        [SET_FIT, SET_UNFIT, CLAIM],
    ];
    let mut orders = 0;
    for start in STARTS {
        for triple in triples {
            orders += check(start, triple.to_vec(), false);
        }
    }
    println!("{orders} orders");
}

#[test]
fn a_count_comes_back_to_what_it_was() {
    let mut orders = 0;
    for flag in [REMOVE, REFUSE, EJECT, SET_UNFIT] {
        orders += check(&[BEGIN], vec![BEGIN, flag, END], true);
        orders += check(&[EJECT, OFFER, CLAIM], vec![BEGIN_EJECTED, flag, END], true);
    }
    println!("{orders} orders");
}
