//! Checks with scripted answers.

// `pub` marks what tests use, although nothing here can be reached from another crate.
#![allow(unreachable_pub)]

use std::{
    collections::HashMap,
    future::pending,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower_headless::{BoxError, Endpoint, HealthCheck};

use crate::support::lock;

/// What a check answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    #[default]
    Pass,
    Fail,
    /// Passes after this time.
    Slow(Duration),
    /// Never answers.
    Hang,
    Panic,
}

/// All checks of a test.
#[derive(Clone, Default)]
pub struct ScriptedChecks(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answers: HashMap<u8, Answer>,
    begun: Vec<(Instant, u8)>,
    running: usize,
    most: usize,
}

/// A check that runs.
struct Running(ScriptedChecks);

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.0.0).running -= 1;
    }
}

impl ScriptedChecks {
    pub fn check(&self) -> HealthCheck {
        let checks = self.clone();
        HealthCheck::by(move |endpoint: Endpoint| {
            let (running, answer) = checks.begin(&endpoint);
            async move {
                let _running = running;
                match answer {
                    Answer::Pass => Ok(()),
                    Answer::Fail => Err(BoxError::from("not well")),
                    Answer::Hang => pending().await,
                    Answer::Panic => panic!("a bug in a check"),
                    Answer::Slow(time) => {
                        sleep(time).await;
                        Ok(())
                    }
                }
            }
        })
    }

    fn begin(&self, endpoint: &Endpoint) -> (Running, Answer) {
        let host = match endpoint.address().ip() {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => unreachable!("the pods are IPv4"),
        };
        let mut state = lock(&self.0);
        state.begun.push((Instant::now(), host));
        state.running += 1;
        state.most = state.most.max(state.running);
        let answer = state.answers.get(&host).copied().unwrap_or_default();
        (Running(self.clone()), answer)
    }

    pub fn set(&self, hosts: impl IntoIterator<Item = u8>, answer: Answer) {
        let hosts = hosts.into_iter().map(|host| (host, answer));
        lock(&self.0).answers.extend(hosts);
    }

    /// When checks began, and of which pods.
    pub fn all(&self) -> Vec<(Instant, u8)> {
        lock(&self.0).begun.clone()
    }

    /// How many checks of the pod have begun.
    pub fn begun(&self, host: u8) -> usize {
        let all = &lock(&self.0).begun;
        all.iter().filter(|(_, it)| *it == host).count()
    }

    /// Waits until this many checks of the pod have begun, and a millisecond more.
    pub async fn until_begun(&self, host: u8, checks: usize) {
        while self.begun(host) < checks {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(1)).await;
    }

    pub fn running(&self) -> usize {
        lock(&self.0).running
    }

    /// The most that ran at the same time.
    pub fn most(&self) -> usize {
        lock(&self.0).most
    }

    /// How many references to the checks there are: each user and each running check has one.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}
