//! The simulation: a clock, the clients, and their requests.
//!
//! Time jumps from event to event. The balancers' background tasks use tokio's paused clock, which moves along, and
//! they run before and after each event. tokio's timers have a resolution of a millisecond, and everything else of a
//! nanosecond. One thread does everything, and requests are polled in the order of their numbers, so a seed repeats a
//! run.

use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Exp1};
use tokio::task::yield_now;
use tower_headless::OutlierDetection;

use crate::{
    client::{Client, Contender, Teller},
    cluster::Cluster,
    event::Event,
    pod::Request,
    requests::Requests,
    run::Run,
    scenario::{Scenario, Step},
};

const TICK: Duration = Duration::from_millis(1);

/// A run ends at the latest this long after the last request was sent. Requests that aren't answered by then have timed
/// out.
const REST: Duration = Duration::from_secs(30);

/// Runs `scenario` with the policy of `contender`.
pub(crate) fn simulate(
    scenario: &Scenario,
    contender: &Contender,
    health: &OutlierDetection,
    seed: u64,
) -> Run {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    runtime.block_on(async {
        let mut world = World::new(scenario, contender, health, seed);
        world.begin().await;
        world.run().await;
        world.end()
    })
}

struct World<'a> {
    scenario: &'a Scenario,
    cluster: Cluster,
    clients: Vec<Source>,
    requests: Requests,
    samples: Vec<Vec<usize>>,
}

/// A client, and the requests it has to send.
struct Source {
    client: Box<dyn Client>,
    teller: Teller,
    rng: SmallRng,
    lag: Duration,
}

impl<'a> World<'a> {
    fn new(
        scenario: &'a Scenario,
        contender: &Contender,
        health: &OutlierDetection,
        seed: u64,
    ) -> Self {
        let cluster = Cluster::new(scenario.workers);
        let mut rng = SmallRng::seed_from_u64(seed);
        let source = |_| {
            let (teller, client) = contender.client(&cluster, health.clone(), rng.next_u64());
            Source {
                client,
                teller,
                lag: scenario.lag.mul_f64(rng.random()),
                rng: SmallRng::from_rng(&mut rng),
            }
        };
        Self {
            clients: (0..scenario.clients).map(source).collect(),
            scenario,
            cluster,
            requests: Requests::default(),
            samples: Vec::new(),
        }
    }

    /// Waits until all clients know the pods, and schedules their first requests.
    async fn begin(&mut self) {
        for client in 0..self.clients.len() {
            self.tell(client, (0..self.scenario.pods).collect());
            self.clients[client].client.ready().await;
            self.expect_arrival(client);
        }
        let queue = &mut self.cluster.lock().queue;
        for (at, step) in &self.scenario.steps {
            queue.at(*at, Event::Step(step.clone()));
        }
        queue.at(Duration::ZERO, Event::Tick);
    }

    async fn run(&mut self) {
        while let Some(event) = self.next().await {
            self.handle(event);
            self.requests.poll_woken(self.now());
            // The background task must see what a request told it at the time of the request.
            yield_now().await;
            self.requests.poll_woken(self.now());
        }
    }

    /// Moves the time to the next event, and returns it.
    async fn next(&mut self) -> Option<Event> {
        let (event, passed, now) = {
            let queue = &mut self.cluster.lock().queue;
            let before = queue.now();
            let event = queue.pop()?;
            (event, queue.now() - before, queue.now())
        };
        let over = now >= self.scenario.duration;
        if over && (self.requests.is_empty() || now >= self.scenario.duration + REST) {
            return None;
        }
        if !passed.is_zero() {
            // Timers fire at its end, and the tasks that wait for them run after it.
            tokio::time::advance(passed).await;
            yield_now().await;
            self.requests.poll_woken(self.now());
        }
        Some(event)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival { client } => self.send(client),
            Event::Finished { pod, job } => self.cluster.lock().finish(pod, job),
            Event::Timeout { request } => self.requests.give_up(request, self.now()),
            Event::Step(Step::Pod(pod, condition)) => self.cluster.lock().change(pod, condition),
            Event::Step(Step::Members(pods)) => self.announce(&pods),
            Event::Discovered { client, pods } => self.tell(client, pods),
            Event::Tick => self.tick(),
        }
    }

    fn now(&self) -> Duration {
        self.cluster.lock().queue.now()
    }

    fn expect_arrival(&mut self, client: usize) {
        let rate = self.scenario.rate / self.clients.len() as f64;
        let pause: f64 = Exp1.sample(&mut self.clients[client].rng);
        let queue = &mut self.cluster.lock().queue;
        let at = queue.now() + Duration::from_secs_f64(pause / rate);
        if at < self.scenario.duration {
            queue.at(at, Event::Arrival { client });
        }
    }

    fn send(&mut self, client: usize) {
        self.expect_arrival(client);
        let source = &mut self.clients[client];
        let request = Request {
            work: self.scenario.work.draw(&mut source.rng),
            luck: source.rng.random(),
        };
        let sent = source.client.send(request);
        let request = self.requests.begin(sent, self.now());
        if let Some(timeout) = self.scenario.timeout {
            let event = Event::Timeout { request };
            self.cluster.lock().queue.after(timeout, event);
        }
    }

    /// Announces a new set. Each client learns it when its own discovery next looks.
    fn announce(&mut self, pods: &[usize]) {
        let queue = &mut self.cluster.lock().queue;
        for (client, source) in self.clients.iter().enumerate() {
            let pods = pods.to_vec();
            queue.after(source.lag, Event::Discovered { client, pods });
        }
    }

    fn tell(&self, client: usize, pods: Vec<usize>) {
        // It fails if the client, and its background task with it, has ended.
        let _ = self.clients[client].teller.unbounded_send(pods);
    }

    fn tick(&mut self) {
        let mut cluster = self.cluster.lock();
        if self.scenario.samples {
            self.samples.push(cluster.in_flight());
        }
        cluster.queue.after(TICK, Event::Tick);
    }

    fn end(self) -> Run {
        let now = self.now();
        let calls = std::mem::take(&mut self.cluster.lock().calls);
        let last = calls.iter().map(|call| call.pod + 1).max();
        Run {
            pods: last.unwrap_or(0).max(self.scenario.pods),
            records: self.requests.finish(now),
            calls,
            samples: self.samples,
        }
    }
}
