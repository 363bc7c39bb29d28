//! A world: pods, their users and the balancer between them, and the steps that it goes through.

use std::{
    fmt,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    runtime::Builder,
    task::yield_now,
    time::{Instant, sleep},
};
use tower_headless::EndpointStatus;

use crate::{
    broadcasts::Broadcast,
    cluster::{Change, Cluster, host},
    explained::{self, Told},
    lock::lock,
    plan::{Config, Ending, Step, Take},
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

/// A hash of what happened in a run: equal runs have equal hashes.
pub(crate) type Trace = u64;

/// How many requests may run, and responses be held.
const MOST_USERS: usize = 150;

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) cluster: Arc<Mutex<Cluster>>,
    pub(crate) handles: Vec<Box<dyn Subject>>,
    pub(crate) users: Vec<User>,
    pub(crate) broadcasts: Vec<Broadcast>,
    pub(crate) started: Instant,
    pub(crate) promises: Promises,
    next_number: u32,
    /// A request didn't go where `explain` said.
    disagrees: Option<Broken>,
}

/// Runs `steps`, and then to the end. The first broken promise ends it.
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
        let source = cluster.source.clone();
        let cluster = Arc::new(Mutex::new(cluster));
        let (checked, making) = (cluster.clone(), cluster.clone());
        let check = move |endpoint| {
            let result = lock(&checked).run_check(host(&endpoint));
            async { result }
        };
        let make = move |endpoint: &_| lock(&making).make(endpoint);
        Self {
            handles: vec![subject::build(config, source, make, check)],
            config: *config,
            cluster,
            users: Vec::new(),
            broadcasts: Vec::new(),
            started: Instant::now(),
            promises: Promises::default(),
            next_number: 0,
            disagrees: None,
        }
    }

    /// How many requests pods have refused or handed back.
    fn refusals(&self) -> u32 {
        let cluster = lock(&self.cluster);
        let departed = cluster.departed.iter().map(|(life, _)| life);
        let logs = cluster.lives().chain(departed).map(|life| life.log());
        logs.map(|log| log.refusals + log.handed_back).sum()
    }

    async fn go(&mut self, steps: &[Step]) -> Result<(), Broken> {
        let mut rushes = false;
        for &step in steps {
            if step == Step::Rush {
                rushes = true;
                continue;
            }
            // Two sets between two turns might count as one.
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
            Step::Reschedule(host, to) => lock(&self.cluster).reschedule(host, to),
            Step::Uid(host, is_told) => self.change(host, Change::Uid(is_told)),
            Step::Weight(host, weight) => self.change(host, Change::Weight(weight)),
            Step::Zone(host, zone) => self.change(host, Change::Zone(zone)),
            Step::SourceFails => lock(&self.cluster).source.say(Err("SERVFAIL".into())),
            Step::Behave(host, mood) => lock(&self.cluster).behave(host, mood),
            Step::Check(host, passes) => lock(&self.cluster).check(host, passes),
            Step::Send(avoid, take) => self.send(Wish {
                avoid,
                ..Wish::any(take)
            }),
            Step::SendTo(pin, pod, take) => self.send(Wish {
                wants: Some((pin, pod)),
                ..Wish::any(take)
            }),
            Step::SendKey(key, take) => self.send(Wish {
                key: Some(key),
                ..Wish::any(take)
            }),
            Step::Call(take) => self.send(Wish {
                readies: false,
                ..Wish::any(take)
            }),
            Step::Traffic(requests, every, take) => self.traffic(requests, every, take).await?,
            Step::Broadcast(at_once, deadline, joins) => {
                self.broadcast(at_once, deadline, joins);
            }
            Step::DropBroadcast(which) => {
                let running = self.broadcasts.iter().filter(|it| it.is_running());
                let running: Vec<_> = running.collect();
                let which = usize::from(which) % running.len().max(1);
                if let Some(broadcast) = running.get(which) {
                    broadcast.give_up();
                }
            }
            Step::Glance(looks) => self.start(Wish::any(Take::Drop), looks, false),
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
            self.send(Wish::any(take));
            self.settle().await;
            self.check()?;
            sleep(Duration::from_millis(every.into())).await;
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, wish: Wish) {
        if self.users.len() < MOST_USERS {
            self.start(wish, 1, true);
        }
    }

    fn start(&mut self, mut wish: Wish, looks: u8, stays: bool) {
        self.next_number += 1;
        wish.number = self.next_number;
        self.promises.part.note(wish.wants);
        let known = lock(&self.cluster).source.known.load(Relaxed);
        let handle = &self.handles[wish.number as usize % self.handles.len()];
        let told = Told::before(&**handle, &self.config, &wish, self.refusals());
        let user = User::start(&**handle, wish, known, looks, stays);
        if let Some(told) = told {
            let agrees = told.agrees(&user, self.refusals());
            self.disagrees = self.disagrees.take().or(agrees.err());
        }
        self.users.push(user);
    }

    fn broadcast(&mut self, at_once: u8, deadline: u16, joins: bool) {
        self.next_number += 1;
        let number = self.next_number;
        let handle = &self.handles[number as usize % self.handles.len()];
        let terms = (at_once, deadline, joins);
        let broadcast = Broadcast::start(&**handle, &lock(&self.cluster), number, terms);
        self.broadcasts.push(broadcast);
    }

    /// Gives all other tasks the turns that they need.
    pub(crate) async fn settle(&self) {
        for _ in 0..TURNS {
            yield_now().await;
        }
    }

    pub(crate) fn endpoints(&self) -> Vec<EndpointStatus> {
        self.handles[0].endpoints()
    }

    /// Checks that all promises are kept so far.
    pub(crate) fn check(&mut self) -> Result<(), Broken> {
        if let Some(broken) = self.disagrees.take() {
            return Err(broken);
        }
        let explained = self.handles[0].explain();
        let mut cluster = lock(&self.cluster);
        let shown = self.endpoints();
        cluster.note_chosen(&shown);
        let mut view = View::new(&cluster, shown)?;
        explained::it_agrees(&self.config, &view, &explained)?;
        self.promises.check(
            &self.config,
            &cluster,
            &mut view,
            &mut self.users,
            &mut self.broadcasts,
            self.started,
        )?;
        drop(cluster);
        self.promises.previous = Some(view);
        self.users.retain(|user| user.is_running() || user.keeps());
        self.broadcasts.retain(Broadcast::is_running);
        Ok(())
    }
}

/// How many turns of the runtime it takes until no task has anything to do.
const TURNS: usize = 20;

fn nth(users: &[User], which: u8, is_meant: impl Fn(&User) -> bool) -> Option<&User> {
    let meant: Vec<_> = users.iter().filter(|user| is_meant(user)).collect();
    (!meant.is_empty()).then(|| meant[usize::from(which) % meant.len()])
}
