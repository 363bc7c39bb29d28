//! From a seed to a world's configuration and steps.
//!
//! Steps drawn at random alone seldom lead anywhere: a probe that is under way while its pod leaves and returns takes six steps
//! in the right order. So there are stories among them, of what happens to pods, with figures that are drawn.

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use crate::{
    cluster::HOSTS,
    plan::{
        Checks, Config, Ending, Hosts, Locality, Mood, PolicyName, Ready, Step,
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

fn any<T: Copy>(rng: &mut impl Rng, of: &[T]) -> T {
    *of.choose(rng).expect("something to choose from")
}

fn config(rng: &mut SmallRng) -> Config {
    use PolicyName::*;
    let min_ejection = any(rng, &[50, 200, 200, 1_000, 5_000]);
    Config {
        policy: any(
            rng,
            &[
                RoundRobin,
                RoundRobin,
                Random,
                LeastConnections,
                PowerOfTwo,
                PeakEwma,
            ],
        ),
        seed: rng.random_range(0..1_000),
        checks: any(
            rng,
            &[
                Checks::Off,
                Checks::Off,
                Checks::Off,
                Checks::On,
                Checks::First,
            ],
        ),
        slow_start: any(rng, &[0, 0, 2_000]),
        locality: any(
            rng,
            &[
                Locality::Off,
                Locality::Off,
                Locality::Zone,
                Locality::PreferZone,
            ],
        ),
        ready: any(
            rng,
            &[
                Ready::Timeout(5_000),
                Ready::Timeout(1_000),
                Ready::FailFast,
                Ready::Wait,
            ],
        ),
        detection: rng.random_bool(0.9),
        failures: any(rng, &[1, 3, 5]),
        min_ejection,
        max_ejection: min_ejection * any(rng, &[1, 4]),
        max_ejected: any(rng, &[0.5, 0.5, 0.34, 0.8]),
        panic_threshold: any(rng, &[0.5, 0.5, 0.0]),
        ending: any(
            rng,
            &[Ending::Quiet, Ending::Quiet, Ending::Quiet, Ending::Abrupt],
        ),
    }
}

/// Steps in the making.
struct Story {
    rng: SmallRng,
    steps: Vec<Step>,
    set: Hosts,
    all: u8,
}

impl Story {
    fn new(mut rng: SmallRng) -> Self {
        let all = rng.random_range(1..=HOSTS);
        let set = (1..=all).fold(Hosts::default(), Hosts::toggle);
        let mut story = Self {
            rng,
            steps: Vec::new(),
            set: Hosts::default(),
            all,
        };
        if story.rng.random_bool(0.1) {
            // Users are there before the pods.
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

    fn host(&mut self) -> u8 {
        self.rng.random_range(1..=self.all)
    }

    /// One more step, or several that belong together.
    fn go_on(&mut self, config: &Config) {
        let host = self.host();
        match self.rng.random_range(0..100) {
            0..20 => self.requests(),
            20..30 => self.traffic(),
            30..46 => self.behave(host),
            46..58 => self.advance(),
            58..64 => self.set(self.set.toggle(host)),
            64..70 => self.identity(host),
            70..76 => self.end_of_request(),
            76..79 => self.oddity(host),
            79..82 if config.locality != Locality::Off => {
                let zone = self.rng.random_range(0..=2);
                self.steps.push(Step::Zone(host, zone));
            }
            79..84 if config.checks != Checks::Off => self.checks_fail(host),
            79..88 => self.restart(host),
            88..92 => self.goes_bad(host),
            92..96 => self.streams(host),
            _ => self.blip(),
        }
    }

    fn push(&mut self, step: Step) {
        // Whoever has something to do has it to do still.
        if self.rng.random_bool(0.2) {
            self.steps.push(Step::Rush);
        }
        self.steps.push(step);
    }

    fn set(&mut self, set: Hosts) {
        self.set = set;
        self.push(Step::Set(set));
    }

    fn behave(&mut self, host: u8) {
        let mood = self.mood();
        self.push(Step::Behave(host, mood));
    }

    fn mood(&mut self) -> Mood {
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

    fn take(&mut self) -> Take {
        any(&mut self.rng, &[Drop, Read, Keep])
    }

    fn requests(&mut self) {
        for _ in 0..self.rng.random_range(1..=4) {
            let take = self.take();
            let step = match self.rng.random_range(0..8) {
                0 => Step::Call(take),
                1 => Step::Glance(self.rng.random_range(0..3)),
                2 | 3 => {
                    let (one, other) = (self.host(), self.host());
                    let avoid = Hosts::default().toggle(one);
                    let both = one != other && self.rng.random_bool(0.3);
                    Step::Send(if both { avoid.toggle(other) } else { avoid }, take)
                }
                _ => Step::Send(Hosts::default(), take),
            };
            self.push(step);
        }
    }

    fn traffic(&mut self) {
        let requests = self.rng.random_range(3..25);
        let every = any(&mut self.rng, &[0, 1, 5, 20]);
        let take = self.take();
        self.steps.push(Step::Traffic(requests, every, take));
    }

    fn advance(&mut self) {
        const TIMES: [u16; 13] = [
            1, 10, 50, 100, 200, 250, 300, 500, 1_000, 1_100, 3_000, 5_500, 7_000,
        ];
        let time = any(&mut self.rng, &TIMES);
        self.steps.push(Step::Advance(time));
    }

    fn identity(&mut self, host: u8) {
        let is_told = self.rng.random_bool(0.7);
        let weight = any(&mut self.rng, &[0, 1, 3]);
        let step = match self.rng.random_range(0..6) {
            0 | 1 => Step::Uid(host, is_told),
            2..5 => Step::Replace(host),
            _ => Step::Weight(host, weight),
        };
        self.push(step);
    }

    fn end_of_request(&mut self) {
        let which = self.rng.random();
        let step = any(&mut self.rng, &[Step::GiveUp(which), Step::Release(which)]);
        self.push(step);
    }

    fn oddity(&mut self, host: u8) {
        let clone = any(&mut self.rng, &[Step::CloneHandle, Step::DropHandle]);
        let step = any(
            &mut self.rng,
            &[clone, Step::SourceFails, Step::Behave(host, Mood::Well)],
        );
        self.push(step);
    }

    fn checks_fail(&mut self, host: u8) {
        self.steps.push(Step::Check(host, false));
        self.advance();
        if self.rng.random_bool(0.7) {
            self.steps.push(Step::Check(host, true));
        }
    }

    /// A pod goes and returns at the same address, and what was begun with its former life is under way.
    fn restart(&mut self, host: u8) {
        let before = any(&mut self.rng, &[Mood::Refuse, Mood::Refuse, Mood::HandBack]);
        let meanwhile = any(&mut self.rng, &[Mood::Stall, Mood::Stall, Mood::Hang]);
        let after = any(&mut self.rng, &[Mood::Refuse, Mood::HandBack, Mood::Well]);
        self.steps.push(Step::Behave(host, before));
        self.requests();
        self.steps.push(Step::Behave(host, meanwhile));
        self.advance();
        let set = self.set;
        if set.contains(host) {
            self.set(set.toggle(host));
        }
        if self.rng.random_bool(0.3) {
            self.advance();
        }
        self.set(Hosts(set.0 | 1 << host));
        self.push(Step::Behave(host, after));
        self.requests();
        self.advance();
        self.behave(host);
    }

    /// A pod fails its requests, and something happens to it while it is out.
    fn goes_bad(&mut self, host: u8) {
        use Mood::*;
        let bad = any(
            &mut self.rng,
            &[Unavailable, Error, StreamUnavailable, Break, Hang],
        );
        self.steps.push(Step::Behave(host, bad));
        self.traffic();
        if self.rng.random_bool(0.3) {
            self.set(self.set.toggle(host));
            self.set(self.set.toggle(host));
        }
        self.advance();
        self.traffic();
        self.advance();
    }

    /// Responses that go on, while others come and go.
    fn streams(&mut self, host: u8) {
        self.steps.push(Step::Behave(host, Mood::Stream));
        // A policy that looks at what is in flight brings them here only if they avoid the others.
        let others = Hosts(self.set.0 & !(1 << host));
        for _ in 0..self.rng.random_range(1..8) {
            self.steps.push(Step::Send(others, Keep));
        }
        let requests = self.rng.random_range(10..60);
        let every = any(&mut self.rng, &[1, 5]);
        let take = self.take();
        self.steps.push(Step::Traffic(requests, every, take));
        if self.rng.random_bool(0.5) {
            self.behave(host);
        }
    }

    /// Nobody accepts for a moment, or there is nobody.
    fn blip(&mut self) {
        let set = self.set;
        if self.rng.random_bool(0.4) {
            self.set(Hosts::default());
            self.requests();
            self.set(set);
            return;
        }
        for host in 1..=self.all {
            self.steps.push(Step::Behave(host, Mood::Refuse));
        }
        self.requests();
        self.advance();
        for host in 1..=self.all {
            if self.rng.random_bool(0.7) {
                self.steps.push(Step::Behave(host, Mood::Well));
            }
        }
    }
}
