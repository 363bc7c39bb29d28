//! Two requests report on an endpoint at the same time: one was accepted, the other was refused since. The background
//! task may hear them in the other order.

use rand::{SeedableRng, rngs::SmallRng};
use tokio::sync::mpsc;

use super::{super::*, Pod, clock, endpoint};
use crate::{
    in_flight::InFlight,
    interleavings::explore,
    locality::LocalityPreference,
    member::Member,
    policy::{AnyPolicy, Random},
    signals::Signals,
    snapshot::Writer,
};
use attempts::Reconnects;
use generator::Generator;
use reconnect::RefusalKind;
use registry::{Life, Lives};
use shared::{Event, ReadyTimeout};
use shuttle::thread;

/// What the background task knows of one endpoint that refuses requests.
struct Background {
    attempts: Reconnects<Pod>,
    lives: Lives<Pod>,
    events: mpsc::UnboundedReceiver<Event<Pod>>,
    rng: SmallRng,
}

impl Background {
    /// Handles all events so far.
    fn hear(&mut self) {
        let now = Instant::now();
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Accepted(member) => self.attempts.accepted(&mut self.lives, &member),
                Event::Refused {
                    member, refusal, ..
                } => self
                    .attempts
                    .refused(&mut self.lives, &member, refusal, now, &mut self.rng),
                Event::Wanted(member, until) => {
                    self.attempts.want(&mut self.lives, &member, until);
                }
                Event::Asked(_)
                | Event::Named(..)
                | Event::LeftOut(_)
                | Event::Heard(_)
                | Event::Widen(_)
                | Event::Narrow => {}
            }
        }
    }
}

/// An endpoint that has handed a request back, and now has a trial on offer.
fn scene() -> (Arc<Shared<Pod>>, Arc<Member>, Background) {
    let (now, mut rng) = (Instant::now(), SmallRng::seed_from_u64(1));
    let signals = Arc::new(Signals::new(now));
    let policy = AnyPolicy::new(Random::new());
    let make = |_: &Endpoint| Pod::new(0, 0);
    let locality = LocalityPreference::default();
    let (_, current) = Writer::new(policy, locality, make, signals.clone(), &mut rng);
    let (sender, events) = mpsc::unbounded_channel();
    let generator = Generator::new(Some(1));
    let timeout = ReadyTimeout::Forever;
    let shared = Arc::new(Shared::new(
        current,
        signals.clone(),
        generator,
        timeout,
        sender,
    ));
    signals.belong_to(&shared);
    let member = Member::new(endpoint(1), None, None, signals);
    let mut life = Life::new(member.clone(), Pod::new(0, 0), now);
    member.refuse();
    let mut reconnect = reconnect::Reconnect::new(RefusalKind::HandedBack, now, &mut rng);
    reconnect.begin();
    life.reconnect = Some(reconnect);
    member.offer_trial();
    let background = Background {
        attempts: Reconnects::new(),
        lives: Lives::from([(member.id(), life)]),
        events,
        rng,
    };
    (shared, member, background)
}

/// The trial request, which the endpoint accepts.
fn accepted(member: &Member) {
    assert!(member.claim_trial());
    let mut trial = InFlight::new(member, true);
    Shared::<Pod>::accepted(&mut trial, true);
}

/// A request that comes when the endpoint has just become reachable; it is refused.
fn refused(shared: &Shared<Pod>, member: &Member) {
    for _ in 0..3 {
        if member.begin() {
            let request = InFlight::new(member, false);
            let ready = place::ready::<Pod, u32>;
            shared.refused(
                request,
                RefusalKind::HandedBack,
                false,
                "later".into(),
                ready,
            );
            return;
        }
    }
}

#[test]
fn an_endpoint_that_refuses_is_tried_again_whatever_the_order_of_events() {
    let runtime = clock();
    explore(move || {
        let _entered = runtime.enter();
        let (shared, member, mut background) = scene();
        let accepting = member.clone();
        let accepting = thread::spawn(move || accepted(&accepting));
        let (telling, refusing) = (shared.clone(), member.clone());
        let refusing = thread::spawn(move || refused(&telling, &refusing));
        let hearing = thread::spawn(move || {
            background.hear();
            background
        });
        accepting.join().unwrap();
        refusing.join().unwrap();
        let mut background = hearing.join().unwrap();
        background.hear();
        let is_due = background.attempts.due(false).is_some();
        assert_eq!(member.is_unreachable(), is_due);
        assert!(!member.has_trial() && member.in_flight() == 0);
    });
}
