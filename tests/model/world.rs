//! A world: pods, their users and the balancer between them, and the steps that it goes through.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    runtime::Builder,
    task::yield_now,
    time::{Instant, sleep},
};
use tower_headless::EndpointStatus;

use crate::{
    cluster::{Change, Cluster, host},
    life::lock,
    plan::{Config, Ending, Hosts, Step, Take},
    promises::Promises,
    subject::{self, Subject},
    users::{User, Wish},
    view::View,
};

/// A promise that was broken.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    /// Its name.
    pub(crate) promise: &'static str,
    pub(crate) what: String,
}

pub(crate) fn broken<T>(promise: &'static str, what: impl Into<String>) -> Result<T, Broken> {
    let what = what.into();
    Err(Broken { promise, what })
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// What has happened in a run, in one number: equal runs have equal ones.
pub(crate) type Trace = u64;

/// How many requests may run, and responses be held.
const MOST_USERS: usize = 150;

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) cluster: Arc<Mutex<Cluster>>,
    pub(crate) handles: Vec<Box<dyn Subject>>,
    pub(crate) users: Vec<User>,
    pub(crate) started: Instant,
    pub(crate) promises: Promises,
    next_number: u32,
}

/// Goes through `steps`, and then to the end. The first promise that is broken ends it.
pub(crate) fn run(config: &Config, steps: &[Step]) -> Result<Trace, Broken> {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O");
    runtime.block_on(async {
        let mut world = World::new(config);
        world.go(steps).await?;
        match config.ending {
            Ending::Quiet => world.become_quiet().await?,
            Ending::Abrupt => {}
        }
        world.end().await?;
        Ok(world.promises.trace)
    })
}

impl World {
    fn new(config: &Config) -> Self {
        let cluster = Cluster::new(config);
        let (births, source) = (cluster.births(), cluster.source.clone());
        let cluster = Arc::new(Mutex::new(cluster));
        let checked = cluster.clone();
        let check = move |endpoint| {
            let result = lock(&checked).run_check(host(&endpoint));
            async { result }
        };
        let make = move |endpoint: &_| births.make(endpoint);
        Self {
            handles: vec![subject::build(config, source, make, check)],
            config: *config,
            cluster,
            users: Vec::new(),
            started: Instant::now(),
            promises: Promises::default(),
            next_number: 0,
        }
    }

    async fn go(&mut self, steps: &[Step]) -> Result<(), Broken> {
        let mut rushes = false;
        for &step in steps {
            if step == Step::Rush {
                rushes = true;
                continue;
            }
            // Two sets between two turns might be taken for one.
            if !rushes || lock(&self.cluster).births().are_unborn() {
                self.settle().await;
                self.check()?;
            }
            rushes = false;
            self.step(step).await?;
        }
        self.settle().await;
        self.check()
    }

    async fn step(&mut self, step: Step) -> Result<(), Broken> {
        match step {
            Step::Rush => {}
            Step::Advance(millis) => sleep(Duration::from_millis(millis.into())).await,
            Step::Set(set) => lock(&self.cluster).set(set),
            Step::Replace(host) => self.change(host, Change::Replace),
            Step::Uid(host, is_told) => self.change(host, Change::Uid(is_told)),
            Step::Weight(host, weight) => self.change(host, Change::Weight(weight)),
            Step::Zone(host, zone) => self.change(host, Change::Zone(zone)),
            Step::SourceFails => lock(&self.cluster).source.say(Err("SERVFAIL".into())),
            Step::Behave(host, mood) => lock(&self.cluster).behave(host, mood),
            Step::Check(host, passes) => lock(&self.cluster).check(host, passes),
            Step::Send(avoid, take) => self.send(avoid, None, true, take),
            Step::SendTo(host, take) => self.send(Hosts::default(), Some(host), true, take),
            Step::Call(take) => self.send(Hosts::default(), None, false, take),
            Step::Traffic(requests, every, take) => self.traffic(requests, every, take).await?,
            Step::Glance(looks) => {
                let wish = self.wish(Hosts::default(), None, true, Take::Drop);
                self.start(wish, looks, false);
            }
            Step::GiveUp(which) => {
                nth(&self.users, which, User::is_running).map_or((), User::give_up)
            }
            Step::Release(which) => nth(&self.users, which, User::keeps).map_or((), User::release),
            Step::CloneHandle => self.handles.push(self.handles[0].handle()),
            Step::DropHandle => drop((self.handles.len() > 1).then(|| self.handles.remove(0))),
        }
        Ok(())
    }

    fn change(&self, host: u8, change: Change) {
        lock(&self.cluster).change(host, change);
    }

    async fn traffic(&mut self, requests: u8, every: u16, take: Take) -> Result<(), Broken> {
        for _ in 0..requests {
            self.send(Hosts::default(), None, true, take);
            self.settle().await;
            self.check()?;
            sleep(Duration::from_millis(every.into())).await;
        }
        Ok(())
    }

    fn wish(&mut self, avoid: Hosts, pod: Option<u8>, readies: bool, take: Take) -> Wish {
        self.next_number += 1;
        Wish {
            number: self.next_number,
            avoid,
            pod,
            readies,
            take,
        }
    }

    pub(crate) fn send(&mut self, avoid: Hosts, pod: Option<u8>, readies: bool, take: Take) {
        if self.users.len() < MOST_USERS {
            let wish = self.wish(avoid, pod, readies, take);
            self.start(wish, 1, true);
        }
    }

    fn start(&mut self, wish: Wish, looks: u8, stays: bool) {
        let handle = &self.handles[wish.number as usize % self.handles.len()];
        self.users.push(User::start(&**handle, wish, looks, stays));
    }

    /// Gives everybody else the turns that they need.
    pub(crate) async fn settle(&self) {
        for _ in 0..TURNS {
            yield_now().await;
        }
    }

    pub(crate) fn endpoints(&self) -> Vec<EndpointStatus> {
        self.handles[0].endpoints()
    }

    /// Whether all promises are kept so far.
    pub(crate) fn check(&mut self) -> Result<(), Broken> {
        let cluster = lock(&self.cluster);
        let mut view = View::new(&cluster, self.endpoints())?;
        self.promises.check(
            &self.config,
            &cluster,
            &mut view,
            &mut self.users,
            self.started,
        )?;
        drop(cluster);
        self.promises.previous = Some(view);
        self.users.retain(|user| user.is_running() || user.keeps());
        Ok(())
    }
}

/// How many turns of the runtime it takes until nobody has anything to do.
const TURNS: usize = 20;

fn nth(users: &[User], which: u8, is_meant: impl Fn(&User) -> bool) -> Option<&User> {
    let meant: Vec<_> = users.iter().filter(|user| is_meant(user)).collect();
    (!meant.is_empty()).then(|| meant[usize::from(which) % meant.len()])
}
