//! Makes a world's configuration and steps from a seed.

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use crate::{
    cluster::HOSTS,
    plan::{
        By, Checks, Config, Ending, Hosts, KEYS, Locality, Mood, Names, PolicyName, Ready, Step,
        Take::{self, Drop, Keep, Read},
    },
};

/// The world of a seed.
pub(crate) fn world(seed: u64) -> (Config, Vec<Step>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let config = config(&mut rng);
    let mut story = Story::new(rng);
    let length = story.rng.random_range(15..50);
    while story.steps.len() < length {
        story.go_on(&config);
    }
    (config, story.steps)
}

pub(crate) fn any<T: Copy>(rng: &mut impl Rng, of: &[T]) -> T {
    *of.choose(rng).expect("something to choose from")
}

const POLICIES: [PolicyName; 9] = [
    PolicyName::RoundRobin,
    PolicyName::RoundRobin,
    PolicyName::Random,
    PolicyName::LeastConnections,
    PolicyName::PowerOfTwo,
    PolicyName::PeakEwma,
    PolicyName::ConsistentHash,
    PolicyName::ConsistentHash,
    PolicyName::BoundedHash,
];

const CHECKS: [Checks; 5] = [
    Checks::Off,
    Checks::Off,
    Checks::Off,
    Checks::On,
    Checks::First,
];

const LOCALITIES: [Locality; 4] = [
    Locality::Off,
    Locality::Off,
    Locality::Zone,
    Locality::PreferZone,
];

const NAMES: [Names; 3] = [Names::Pods, Names::Hostnames, Names::Untold];

/// Subset sizes: three of five clients use all pods (zero).
const SUBSETS: [u8; 10] = [0, 0, 0, 0, 0, 0, 1, 2, 3, 4];

pub(crate) const BYS: [By; 7] = [
    By::Name,
    By::Name,
    By::Name,
    By::Number,
    By::Address,
    By::OthersByName,
    By::OthersByAddress,
];

const PATIENCE: [Ready; 4] = [
    Ready::Timeout(5_000),
    Ready::Timeout(1_000),
    Ready::FailFast,
    Ready::Wait,
];

fn config(rng: &mut SmallRng) -> Config {
    let min_ejection = any(rng, &[50, 200, 200, 1_000, 5_000]);
    let is_abrupt = rng.random_bool(0.25);
    Config {
        policy: any(rng, &POLICIES),
        seed: rng.random_range(0..1_000),
        checks: any(rng, &CHECKS),
        slow_start: any(rng, &[0, 0, 2_000]),
        locality: any(rng, &LOCALITIES),
        names: any(rng, &NAMES),
        subset: any(rng, &SUBSETS),
        ready: any(rng, &PATIENCE),
        detection: rng.random_bool(0.9),
        failures: any(rng, &[1, 3, 5]),
        min_ejection,
        max_ejection: min_ejection * any(rng, &[1, 4]),
        max_ejected: any(rng, &[0.5, 0.5, 0.34, 0.8]),
        panic_threshold: any(rng, &[0.5, 0.5, 0.0]),
        ending: if is_abrupt {
            Ending::Abrupt
        } else {
            Ending::Quiet
        },
    }
}

/// Steps in the making.
pub(crate) struct Story {
    pub(crate) rng: SmallRng,
    pub(crate) steps: Vec<Step>,
    pub(crate) set: Hosts,
    pub(crate) all: u8,
}

impl Story {
    pub(crate) fn new(mut rng: SmallRng) -> Self {
        let all = rng.random_range(1..=HOSTS);
        let set = (1..=all).fold(Hosts::default(), Hosts::toggle);
        let mut story = Self {
            rng,
            steps: Vec::new(),
            set: Hosts::default(),
            all,
        };
        if story.rng.random_bool(0.1) {
            // Requests come before the pods.
            story.requests();
            story.advance();
        }
        if story.rng.random_bool(0.3) {
            let which = story.rng.random_range(1..=all);
            story.steps.push(Step::Uid(which, true));
        }
        story.set(set);
        story
    }

    pub(crate) fn host(&mut self) -> u8 {
        self.rng.random_range(1..=self.all)
    }

    pub(crate) fn push(&mut self, step: Step) {
        // Sometimes others still have things to do when the step comes.
        if self.rng.random_bool(0.2) {
            self.steps.push(Step::Rush);
        }
        self.steps.push(step);
    }

    pub(crate) fn set(&mut self, set: Hosts) {
        self.set = set;
        self.push(Step::Set(set));
    }

    pub(crate) fn behave(&mut self, host: u8) {
        let mood = self.mood();
        self.push(Step::Behave(host, mood));
    }

    pub(crate) fn mood(&mut self) -> Mood {
        use Mood::*;
        let time = any(&mut self.rng, &[1, 20, 300, 2_000]);
        any(
            &mut self.rng,
            &[
                Well,
                Well,
                Well,
                Slow(time),
                Slow(time),
                Unavailable,
                Error,
                Refuse,
                Refuse,
                Stall,
                Stall,
                HandBack,
                HandBack,
                Hang,
                Stream,
                StreamUnavailable,
                Break,
                Panic,
                PanicInReady,
            ],
        )
    }

    pub(crate) fn take(&mut self) -> Take {
        any(&mut self.rng, &[Drop, Read, Keep])
    }

    pub(crate) fn requests(&mut self) {
        for _ in 0..self.rng.random_range(1..=4) {
            let take = self.take();
            let step = match self.rng.random_range(0..12) {
                0 => Step::Call(take),
                1 => Step::Glance(self.rng.random_range(0..3)),
                2 | 3 => {
                    let (one, other) = (self.host(), self.host());
                    let avoid = Hosts::default().toggle(one);
                    let both = one != other && self.rng.random_bool(0.3);
                    Step::Send(if both { avoid.toggle(other) } else { avoid }, take)
                }
                4 | 5 => Step::SendTo(any(&mut self.rng, &BYS), self.host(), take),
                6 | 7 => Step::SendKey(self.rng.random_range(0..KEYS), take),
                8 => self.broadcast(),
                _ => Step::Send(Hosts::default(), take),
            };
            self.push(step);
        }
    }

    pub(crate) fn broadcast(&mut self) -> Step {
        let at_once = any(&mut self.rng, &[1, 2, 64]);
        let deadline = any(&mut self.rng, &[0, 0, 500, 4_000]);
        Step::Broadcast(at_once, deadline, self.rng.random_bool(0.4))
    }

    pub(crate) fn traffic(&mut self) {
        let requests = self.rng.random_range(3..25);
        let every = any(&mut self.rng, &[0, 1, 5, 20]);
        let take = self.take();
        self.steps.push(Step::Traffic(requests, every, take));
    }

    pub(crate) fn advance(&mut self) {
        const TIMES: [u16; 13] = [
            1, 10, 50, 100, 200, 250, 300, 500, 1_000, 1_100, 3_000, 5_500, 7_000,
        ];
        let time = any(&mut self.rng, &TIMES);
        self.steps.push(Step::Advance(time));
    }

    pub(crate) fn identity(&mut self, host: u8) {
        let is_told = self.rng.random_bool(0.7);
        let weight = any(&mut self.rng, &[0, 1, 3]);
        let step = match self.rng.random_range(0..8) {
            0 | 1 => Step::Uid(host, is_told),
            2..5 => Step::Replace(host),
            5 | 6 => self.reschedule(host),
            _ => Step::Weight(host, weight),
        };
        self.push(step);
    }

    /// A pod comes up at another address, or two pods swap addresses.
    pub(crate) fn reschedule(&mut self, host: u8) -> Step {
        let to = self.rng.random_range(1..=HOSTS);
        if self.set.contains(host) && !self.set.contains(to) {
            self.set = self.set.toggle(host).toggle(to);
        }
        Step::Reschedule(host, to)
    }

    pub(crate) fn end_of_request(&mut self) {
        let which = self.rng.random();
        let step = any(
            &mut self.rng,
            &[
                Step::GiveUp(which),
                Step::GiveUp(which),
                Step::Release(which),
                Step::Release(which),
                Step::DropBroadcast(which),
            ],
        );
        self.push(step);
    }

    pub(crate) fn oddity(&mut self, host: u8) {
        let clone = any(&mut self.rng, &[Step::CloneHandle, Step::DropHandle]);
        let step = any(
            &mut self.rng,
            &[clone, Step::SourceFails, Step::Behave(host, Mood::Well)],
        );
        self.push(step);
    }
}
