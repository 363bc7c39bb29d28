//! The visible state of the balancer and its pods at one time.

use std::sync::Arc;

use tokio::time::Instant;
use tower_headless::{EjectionReason, EndpointState, EndpointStatus};

use crate::{
    cluster::{Cluster, host},
    life::{Life, Log},
    plan::Config,
    world::{Broken, broken},
};

/// The visible state at one time.
pub(crate) struct View {
    pub(crate) at: Instant,
    pub(crate) version: u32,
    pub(crate) pods: Vec<Seen>,
}

/// The visible state of one pod.
pub(crate) struct Seen {
    pub(crate) life: Arc<Life>,
    pub(crate) status: EndpointStatus,
    pub(crate) log: Log,
    /// If it is ejected: how many requests it had answered well when it was last seen not ejected, and the set of that
    /// time.
    pub(crate) good_before: Option<(u32, u32)>,
    /// The set in which it was ejected first, if that has been seen.
    pub(crate) out_in: Option<u32>,
}

impl Seen {
    pub(crate) fn is_out(&self) -> bool {
        use EjectionReason::CheckFailed;
        matches!(self.status.state, EndpointState::Ejected(reason) if reason != CheckFailed)
    }

    pub(crate) fn refusals(&self) -> u32 {
        self.log.refusals + self.log.handed_back
    }

    pub(crate) fn is_ejected(&self) -> bool {
        matches!(self.status.state, EndpointState::Ejected(_))
    }

    /// Whether it accepts requests, or is new and may.
    pub(crate) fn may_accept(&self) -> bool {
        matches!(
            self.status.state,
            EndpointState::Available | EndpointState::Pending
        )
    }

    /// Whether its requests may have given a reason to eject it, or to find it refusing.
    pub(crate) fn may_have_refused(&self) -> bool {
        let log = self.log;
        log.bad + log.handed_back > 0 || log.most_waiting > 1
    }

    /// Whether it may have failed enough to be ejected, but is in because as many are out as may be.
    pub(crate) fn may_lack_room(&self, config: &Config) -> bool {
        let Log {
            begun,
            bad,
            refusals,
            most_waiting,
            ..
        } = self.log;
        // As many as it takes to judge a success rate or a silence.
        let is_enough = bad > 0 && begun + refusals >= 5 || most_waiting >= 5;
        bad >= u32::from(config.failures) || is_enough
    }

    /// Whether it counts for how many of the set may be out: it has weight.
    pub(crate) fn has_weight(&self) -> bool {
        self.status.endpoint.weight() > 0
    }

    pub(crate) fn is_available(&self) -> bool {
        self.status.state == EndpointState::Available
    }
}

impl View {
    /// The view of these statuses. Checks that the endpoints are those that discovery has told.
    pub(crate) fn new(cluster: &Cluster, statuses: Vec<EndpointStatus>) -> Result<Self, Broken> {
        let lives: Vec<_> = cluster.lives().cloned().collect();
        let told = lives.iter().map(|life| life.host);
        let shown = statuses.iter().map(|status| host(&status.endpoint));
        if told.clone().ne(shown.clone()) {
            let (told, shown): (Vec<_>, Vec<_>) = (told.collect(), shown.collect());
            return broken("the set is discovery's", format!("{told:?}, not {shown:?}"));
        }
        let seen = |(life, status): (Arc<Life>, EndpointStatus)| Seen {
            log: life.log(),
            life,
            status,
            good_before: None,
            out_in: None,
        };
        Ok(Self {
            at: Instant::now(),
            version: cluster.version,
            pods: lives.into_iter().zip(statuses).map(seen).collect(),
        })
    }

    pub(crate) fn of(&self, life: &Arc<Life>) -> Option<&Seen> {
        self.pods.iter().find(|seen| Arc::ptr_eq(&seen.life, life))
    }

    /// Notes which pods are ejected, and since which set.
    pub(crate) fn note_ejections(&mut self, before: Option<&Self>) {
        let version = before.map_or(self.version, |before| before.version);
        for seen in &mut self.pods {
            let before = before.and_then(|before| before.of(&seen.life));
            let known = before.and_then(|before| before.out_in);
            seen.out_in = known.or(seen.is_out().then_some(version));
        }
    }

    /// The pods that count for how many may be out.
    pub(crate) fn counted(&self) -> Vec<&Seen> {
        let counted: Vec<_> = self.pods.iter().filter(|seen| seen.has_weight()).collect();
        match counted.is_empty() {
            true => self.pods.iter().collect(),
            false => counted,
        }
    }

    /// Whether the same pods count.
    pub(crate) fn counts_the_same(&self, other: &Self) -> bool {
        let is_same = |(ours, theirs): (&&Seen, &&Seen)| Arc::ptr_eq(&ours.life, &theirs.life);
        let (ours, theirs) = (self.counted(), other.counted());
        ours.len() == theirs.len() && ours.iter().zip(&theirs).all(is_same)
    }

    pub(crate) fn refusals(&self) -> u32 {
        self.pods.iter().map(Seen::refusals).sum()
    }

    /// Whether pods are out only because of their requests.
    pub(crate) fn is_plain(&self) -> bool {
        let mut pods = self.pods.iter();
        pods.all(|seen| seen.is_available() || seen.is_out())
    }
}
