//! What may happen next: one step, or several that belong together.
//!
//! Random steps alone seldom lead anywhere: an attempt that is under way while its pod leaves and returns takes six
//! steps in the right order. So among them there are stories of what happens to pods, with random figures.

use rand::RngExt;

use crate::{
    generate::{Story, any},
    plan::{By, Checks, Config, Hosts, KEYS, Locality, Mood, PolicyName, Step, Take::Keep},
};

impl Story {
    /// One more step, or several that belong together.
    pub(crate) fn go_on(&mut self, config: &Config) {
        let host = self.host();
        if config.policy == PolicyName::BoundedHash && self.rng.random_bool(0.15) {
            return self.hot_key();
        }
        if config.policy.is_keyed() && self.rng.random_bool(0.15) {
            return self.keys();
        }
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
            92..95 => self.streams(host),
            95 => self.trial_is_given_up(host),
            96 => self.is_rescheduled(host),
            97 => self.broadcasts(host),
            _ => self.blip(),
        }
    }

    fn checks_fail(&mut self, host: u8) {
        self.steps.push(Step::Check(host, false));
        self.advance();
        if self.rng.random_bool(0.7) {
            self.steps.push(Step::Check(host, true));
        }
    }

    /// A pod leaves and returns at the same address, while requests of its former life are under way.
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

    /// A pod hands requests back, and its trial request hangs and is given up.
    fn trial_is_given_up(&mut self, host: u8) {
        let others = Hosts(self.set.0 & !(1 << host));
        let meanwhile = any(&mut self.rng, &[Mood::Stall, Mood::Hang]);
        self.steps.push(Step::Behave(host, Mood::HandBack));
        self.steps.push(Step::Send(others, Keep));
        self.steps.push(Step::Behave(host, Mood::Hang));
        let pause = any(&mut self.rng, &[250, 300, 500]);
        self.steps.push(Step::Advance(pause));
        self.steps.push(Step::Behave(host, meanwhile));
        // The others may have to wait for the first one's outcome.
        for _ in 0..self.rng.random_range(1..=3) {
            self.steps.push(Step::Send(others, Keep));
        }
        if self.rng.random_bool(0.5) {
            self.steps.push(Step::Advance(50));
        }
        for _ in 0..self.rng.random_range(1..4) {
            let which = self.rng.random();
            self.steps.push(Step::GiveUp(which));
        }
        self.requests();
    }

    /// Responses that stream, while other requests come and go.
    fn streams(&mut self, host: u8) {
        self.steps.push(Step::Behave(host, Mood::Stream));
        // A load-aware policy sends them here only if they avoid the others.
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

    /// Requests with keys, while a pod goes and comes back.
    fn keys(&mut self) {
        let host = self.host();
        let away = any(
            &mut self.rng,
            &[Mood::Refuse, Mood::Unavailable, Mood::HandBack],
        );
        let most = self.rng.random_range(3..=KEYS);
        self.ask_with_keys(most);
        self.steps.push(Step::Behave(host, away));
        self.ask_with_keys(most);
        if self.rng.random_bool(0.3) {
            self.set(self.set.toggle(host));
            self.ask_with_keys(most);
        }
        self.set(Hosts(self.set.0 | 1 << host));
        self.steps.push(Step::Behave(host, Mood::Well));
        self.advance();
        self.ask_with_keys(most);
    }

    /// One key has most of the requests, and pods also have requests for them alone.
    fn hot_key(&mut self) {
        // New lives, because failed requests count as load for a while.
        self.set(Hosts::default());
        self.set((1..=self.all).fold(Hosts::default(), Hosts::toggle));
        let pods = (1..=self.all).map(|host| Step::Behave(host, Mood::Stream));
        self.steps.extend(pods);
        for _ in 0..self.rng.random_range(0..3) {
            let pinned = Step::SendTo(By::Address, self.host(), Keep);
            let requests = self.rng.random_range(3..12);
            self.steps.extend(std::iter::repeat_n(pinned, requests));
        }
        let hot = Step::SendKey(self.rng.random_range(0..KEYS), Keep);
        let requests = self.rng.random_range(3..12);
        self.steps.extend(std::iter::repeat_n(hot, requests));
    }

    fn ask_with_keys(&mut self, keys: u8) {
        let take = self.take();
        let keys = 0..keys;
        self.steps.extend(keys.map(|key| Step::SendKey(key, take)));
    }

    /// A pod that requests wait for comes up at another address, and a pod that takes its old address may be ready
    /// first.
    fn is_rescheduled(&mut self, host: u8) {
        let before = any(
            &mut self.rng,
            &[Mood::Stall, Mood::Stall, Mood::Refuse, Mood::Hang],
        );
        self.steps.push(Step::Behave(host, before));
        for _ in 0..self.rng.random_range(1..=3) {
            let pin = any(
                &mut self.rng,
                &[By::Name, By::Name, By::Number, By::Address],
            );
            let take = self.take();
            self.steps.push(Step::SendTo(pin, host, take));
        }
        if self.rng.random_bool(0.7) {
            self.advance();
        }
        // The balancer already has other events to handle, and may handle the set first.
        self.steps.push(Step::SourceFails);
        let rushes = self.rng.random_bool(0.7);
        self.steps.extend(rushes.then_some(Step::Rush));
        self.steps.push(Step::Behave(host, Mood::Well));
        self.steps.extend(rushes.then_some(Step::Rush));
        let step = self.reschedule(host);
        self.steps.push(step);
        self.requests();
        if self.rng.random_bool(0.5) {
            self.advance();
        }
    }

    /// A broadcast, while one pod doesn't answer, and leaves or returns.
    fn broadcasts(&mut self, host: u8) {
        let mood = self.mood();
        self.steps.push(Step::Behave(host, mood));
        let broadcast = self.broadcast();
        self.steps.push(broadcast);
        if self.rng.random_bool(0.5) {
            self.set(self.set.toggle(host));
        }
        if self.rng.random_bool(0.5) {
            self.advance();
        }
        if self.rng.random_bool(0.5) {
            self.set(self.set.toggle(host));
        }
        self.behave(host);
        self.advance();
    }

    /// For a moment no pod accepts, or there is none.
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
