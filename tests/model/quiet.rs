//! How a world ends: all pods become well, all requests end, and then nothing of the past may be left.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep};
use tower_headless::{EndpointState, Proximity};

use crate::{
    cluster::host,
    explained::all_is_over,
    lock::lock,
    plan::{By, Config, Hosts, KEYS, Locality, Mood, PolicyName, Ready, Take, hosts},
    promises::{ATTEMPT, BACK_OFF, CHECKED},
    users::{Answer, Stage, User, Wish},
    world::{Broken, World, broken},
};

const MILLI: Duration = Duration::from_millis(1);

fn millis(millis: u16) -> Duration {
    Duration::from_millis(millis.into())
}

/// Between two requests while pods come back.
const PAUSE: Duration = Duration::from_millis(100);

impl World {
    /// All pods become well, and all requests end. Then every pod is available, is picked, and gets a fair share.
    pub(crate) async fn become_quiet(&mut self) -> Result<(), Broken> {
        self.users.iter().for_each(User::release);
        {
            let mut cluster = lock(&self.cluster);
            cluster.all_become_well();
            cluster.all_become_alike();
            if cluster.set.is_none_or(|set| set == Hosts::default()) {
                cluster.set(hosts(&[1, 2, 3]));
            } else {
                cluster.tell();
            }
            // Without a ready timeout, requests for pods that are away would wait for ever: they are cancelled.
            let told = cluster.told.last();
            let is_away = |user: &&User| !told.is_some_and(|told| told.has(user.wants));
            let waiting = self.users.iter().filter(is_away);
            if self.config.ready == Ready::Wait {
                waiting.filter(|user| user.waits()).for_each(User::give_up);
            }
        }
        self.wait(BACK_OFF + CHECKED).await?;
        self.nothing_is_in_flight()?;
        self.everybody_comes_back().await?;
        // A pod that failed while it was the last one may be ejected only now that there are others. And a failure
        // penalty lasts up to a second after the next request.
        self.ask().await?;
        self.wait(FORGIVEN + millis(self.config.slow_start)).await?;
        self.everybody_comes_back().await?;
        self.wait(millis(self.config.slow_start)).await?;
        self.everybody_is_picked().await?;
        self.shares_are_fair().await?;
        self.keys_have_pods().await?;
        self.wait(ATTEMPT).await?;
        self.nothing_is_in_flight()
    }

    async fn wait(&mut self, time: Duration) -> Result<(), Broken> {
        for _ in 0..4 {
            sleep(time / 4).await;
            self.settle().await;
            self.check()?;
        }
        Ok(())
    }

    fn nothing_is_in_flight(&self) -> Result<(), Broken> {
        if let Some(user) = self.users.iter().find(|user| user.is_running()) {
            let age = user.begun.elapsed();
            let what = format!("request {} after {age:?}: {:?}", user.number, user.stage());
            return broken("each request ends", what);
        }
        if self.broadcasts.iter().any(|it| it.is_running()) {
            return broken("each request ends", "a broadcast");
        }
        match self.endpoints().iter().find(|status| status.in_flight > 0) {
            Some(status) => broken("nothing is in flight when all is quiet", status.to_string()),
            None => all_is_over(&self.handles[0].explain()),
        }
    }

    async fn ask(&mut self) -> Result<u8, Broken> {
        self.ask_with(Wish::any(Take::Drop)).await
    }

    /// Sends a request that must succeed. Returns which pod has answered.
    async fn ask_with(&mut self, wish: Wish) -> Result<u8, Broken> {
        self.send(wish);
        self.settle().await;
        if self.users.last().is_some_and(User::is_running) {
            sleep(MILLI).await;
            self.settle().await;
        }
        let record = self.users.last().map(|user| user.record.clone());
        self.check()?;
        let answer = record.and_then(|record| lock(&record).answer.take());
        match answer {
            Some((_, Answer::Head { host: Some(host) })) => Ok(host),
            Some((_, Answer::Error(error))) => {
                broken("requests succeed if all pods are well", error.to_string())
            }
            _ => broken("requests succeed if all pods are well", "no answer"),
        }
    }

    async fn everybody_comes_back(&mut self) -> Result<(), Broken> {
        let begun = Instant::now();
        loop {
            let statuses = self.endpoints().into_iter();
            let mut away = statuses.filter(|status| status.state != EndpointState::Available);
            let Some(away) = away.next() else {
                return Ok(());
            };
            if begun.elapsed() > longest_absence(&self.config) {
                return broken("every pod comes back", away.to_string());
            }
            self.ask().await?;
            if away.endpoint.weight() == 0 {
                // It has no weight, so only requests for it try it.
                let wants = Some((By::Address, host(&away.endpoint)));
                let wish = Wish::any(Take::Drop);
                self.ask_with(Wish { wants, ..wish }).await?;
            }
            sleep(PAUSE).await;
        }
    }

    async fn everybody_is_picked(&mut self) -> Result<(), Broken> {
        let statuses = self.endpoints().into_iter();
        // Pods without weight get only requests for them.
        let near = statuses
            .filter(|status| status.proximity != Some(Proximity::Far))
            .filter(|status| status.endpoint.weight() > 0);
        let mut missing: Vec<_> = near.map(|status| host(&status.endpoint)).collect();
        if self.config.policy == PolicyName::PeakEwma {
            // The policy learns nothing from answers that take no time.
            let cluster = lock(&self.cluster);
            cluster.lives().for_each(|life| life.set(Mood::Slow(1)));
        }
        for _ in 0..REQUESTS {
            let host = self.ask().await?;
            missing.retain(|&other| other != host);
            if missing.is_empty() {
                return Ok(());
            }
            // Under peak EWMA, a pod that was slow becomes cheaper with time.
            if self.config.policy == PolicyName::PeakEwma {
                sleep(5 * PAUSE).await;
            }
        }
        // A substitute may have left the subset meanwhile, or stay only for requests for it, without weight.
        let statuses = self.endpoints();
        missing.retain(|&it| {
            let mut these = statuses
                .iter()
                .filter(|status| host(&status.endpoint) == it);
            these.any(|status| status.endpoint.weight() > 0)
        });
        let statuses = self.endpoints().into_iter();
        let mut away = statuses.filter(|status| status.state != EndpointState::Available);
        match away.next() {
            Some(away) => broken("a pod that is well stays available", away.to_string()),
            None if missing.is_empty() => Ok(()),
            None => broken("every available pod is picked", format!("not {missing:?}")),
        }
    }

    async fn shares_are_fair(&mut self) -> Result<(), Broken> {
        let is_split = self.config.locality != Locality::Off;
        let mut statuses = self.endpoints();
        statuses.retain(|status| status.endpoint.weight() > 0);
        let pods = statuses.len();
        if is_split || self.config.policy == PolicyName::PeakEwma || pods < 2 {
            return Ok(());
        }
        let mut shares = BTreeMap::new();
        for status in statuses {
            shares.insert(host(&status.endpoint), 0_u32);
        }
        for _ in 0..pods * ROUNDS {
            *shares.entry(self.ask().await?).or_default() += 1;
        }
        let shares: Vec<_> = shares.into_values().collect();
        let is_fair = match self.config.policy {
            PolicyName::RoundRobin => shares
                .iter()
                .all(|share| share.abs_diff(ROUNDS as u32) <= 1),
            _ => is_even(&shares),
        };
        if !is_fair {
            return broken("shares are fair", format!("{shares:?}"));
        }
        Ok(())
    }

    /// Each key is at its pod again. The promises know which pod that is if they have seen the key before.
    async fn keys_have_pods(&mut self) -> Result<(), Broken> {
        if !self.config.policy.is_keyed() {
            return Ok(());
        }
        for key in (0..KEYS).chain(0..KEYS) {
            let key = Some(key);
            let wish = Wish::any(Take::Drop);
            self.ask_with(Wish { key, ..wish }).await?;
        }
        Ok(())
    }

    /// The last handle is dropped.
    pub(crate) async fn end(&mut self) -> Result<(), Broken> {
        // Users that wait for readiness have a handle.
        let readying = self
            .users
            .iter()
            .filter(|user| user.stage() == Stage::Readying);
        readying.for_each(User::give_up);
        self.broadcasts.iter().for_each(|it| it.give_up());
        self.settle().await;
        self.check()?;
        self.handles.clear();
        self.promises.close();
        sleep(1_000 * MILLI).await;
        self.settle().await;
        if !lock(&self.cluster).source.is_dropped() {
            return broken(
                "the background task ends with the last handle",
                "1 s later it runs",
            );
        }
        lock(&self.cluster).all_become_well();
        self.users.iter().for_each(User::release);
        sleep(LONGEST_ANSWER).await;
        self.settle().await;
        if let Some(user) = self.users.iter().find(|user| user.is_running()) {
            let what = format!("request {}: {:?}", user.number, user.stage());
            return broken("each request ends, after the last handle, too", what);
        }
        let cluster = lock(&self.cluster);
        for mut user in std::mem::take(&mut self.users) {
            self.promises
                .see(&self.config, &cluster, &mut user, self.started)?;
        }
        let departed = cluster.departed.iter().map(|(life, _)| life);
        match departed.chain(cluster.lives()).find(|life| life.is_held()) {
            Some(life) => broken("all services are dropped", format!("pod {}", life.host)),
            None => Ok(()),
        }
    }
}

/// How long failure penalties last.
const FORGIVEN: Duration = Duration::from_millis(1_100);

/// How many requests it takes to reach every pod, except once in 10¹⁸ times.
const REQUESTS: usize = 400;

/// How many requests each pod should get when shares are counted.
const ROUNDS: usize = 8;

/// Longer than any pod takes to answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(4);

/// The longest time until a healthy pod is available again, as long as there are requests.
fn longest_absence(config: &Config) -> Duration {
    let longest = millis(config.max_ejection.max(config.min_ejection));
    let shortest = millis(config.min_ejection);
    // A pod that was unresponsive may have been out for its first ejection time before.
    longest.mul_f64(1.1) + shortest + BACK_OFF + CHECKED
}

/// Whether a policy that draws evenly may have these shares: χ² at one in 10⁹, because there are many seeds.
fn is_even(shares: &[u32]) -> bool {
    const LIMITS: [f64; 6] = [0.0, 37.3, 41.5, 44.8, 47.9, 50.8];
    let mean = f64::from(shares.iter().sum::<u32>()) / shares.len() as f64;
    let square = |&share: &u32| (f64::from(share) - mean).powi(2) / mean;
    shares.iter().map(square).sum::<f64>() <= LIMITS[shares.len() - 1]
}
