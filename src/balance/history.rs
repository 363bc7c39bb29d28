//! What has happened to a balancer's endpoints and to its source, for [`Balance::explain`](super::Balance::explain).
//!
//! The background task writes here what it finds changed. Requests write the errors that they fail with, at most ten
//! times a second for each endpoint. Picks don't use this.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::status::{EndpointState, state};
use crate::{
    discovery::DiscoveryReport,
    endpoint::Endpoint,
    explain::EventKind,
    member::{EjectionReason, Member, MemberId},
};

/// How many events are kept, and for how long.
const EVENTS: usize = 256;
const KEPT: Duration = Duration::from_secs(3_600);

/// The least time between two errors of one endpoint's requests that are kept.
const PACE: Duration = Duration::from_millis(100);

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct History {
    past: BTreeMap<MemberId, Past>,
    happened: VecDeque<Happened>,
    pub(super) report: Option<DiscoveryReport>,
    pub(super) discovery_error: Option<(Arc<str>, Instant)>,
    /// Discovery's last attempt failed.
    pub(super) is_failing: bool,
    pub(super) is_panic: bool,
    /// When an endpoint last joined or left.
    pub(super) last_change: Option<Instant>,
}

/// What is known of an endpoint's past.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) joined: Instant,
    pub(super) standing: Standing,
    pub(super) since: Instant,
    pub(super) next_trial: Option<Instant>,
    pub(super) last_error: Option<(Arc<str>, Instant)>,
}

/// How an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    In,
    /// It would be ejected, but there is a panic, or as many are out as may be.
    Panic(EjectionReason),
    Ejected(EjectionReason),
    CheckFails,
    /// It is new: it has passed no check yet, or isn't connected.
    Pending,
    Unreachable,
}

impl Standing {
    /// How `member` stands. `complaint` is why its requests would have it ejected, if they would.
    pub(super) fn of(member: &Member, complaint: Option<EjectionReason>) -> Self {
        match state(member) {
            EndpointState::Available => complaint.map_or(Self::In, Self::Panic),
            EndpointState::Ejected(EjectionReason::CheckFailed) => Self::CheckFails,
            EndpointState::Ejected(reason) => Self::Ejected(reason),
            EndpointState::Pending => Self::Pending,
            EndpointState::Unreachable => Self::Unreachable,
        }
    }

    pub(super) fn reason(self) -> Option<EjectionReason> {
        match self {
            Self::Panic(reason) | Self::Ejected(reason) => Some(reason),
            Self::CheckFails => Some(EjectionReason::CheckFailed),
            Self::In | Self::Pending | Self::Unreachable => None,
        }
    }
}

/// An event.
#[derive(Debug)]
pub(super) struct Happened {
    pub(super) at: Instant,
    pub(super) kind: EventKind,
    pub(super) endpoint: Option<Arc<str>>,
    pub(super) detail: Option<Arc<str>>,
}

impl History {
    pub(super) fn past(&self, id: MemberId) -> Option<&Past> {
        self.past.get(&id)
    }

    /// What has happened in the last hour, the oldest first.
    pub(super) fn happened(&self, now: Instant) -> impl Iterator<Item = &Happened> {
        let is_kept = move |it: &&Happened| now.saturating_duration_since(it.at) <= KEPT;
        self.happened.iter().filter(is_kept)
    }

    pub(super) fn join(&mut self, id: MemberId, endpoint: &Endpoint, now: Instant) {
        self.past.insert(
            id,
            Past {
                joined: now,
                standing: Standing::In,
                since: now,
                next_trial: None,
                last_error: None,
            },
        );
        self.last_change = Some(now);
        self.push(EventKind::Joined, Some(endpoint), None, now);
    }

    pub(super) fn leave(&mut self, id: MemberId, endpoint: &Endpoint, now: Instant) {
        self.past.remove(&id);
        self.last_change = Some(now);
        self.push(EventKind::Left, Some(endpoint), None, now);
    }

    /// An endpoint's standing is now this, and it is tried again then.
    pub(super) fn see(
        &mut self,
        id: MemberId,
        endpoint: &Endpoint,
        (standing, next_trial): (Standing, Option<Instant>),
        now: Instant,
    ) {
        let Some(past) = self.past.get_mut(&id) else {
            return;
        };
        past.next_trial = next_trial;
        let before = std::mem::replace(&mut past.standing, standing);
        if before == standing {
            return;
        }
        past.since = now;
        let error = past.last_error.as_ref().map(|(text, _)| text.clone());
        let (kind, detail) = match (before, standing) {
            (_, Standing::Unreachable) => (EventKind::Unreachable, error),
            (_, Standing::CheckFails) => (EventKind::CheckFailed, error),
            (_, Standing::Ejected(reason)) => (EventKind::Ejected, Some(reason.to_string().into())),
            (Standing::Unreachable, Standing::In | Standing::Panic(_)) => {
                (EventKind::Reachable, None)
            }
            (Standing::Ejected(_) | Standing::CheckFails, Standing::In | Standing::Panic(_)) => {
                (EventKind::Readmitted, None)
            }
            _ => return,
        };
        self.push(kind, Some(endpoint), detail, now);
    }

    /// A request, an attempt or a check of the endpoint has failed.
    pub(super) fn note_error(&mut self, id: MemberId, text: impl Into<Arc<str>>, now: Instant) {
        if let Some(past) = self.past.get_mut(&id) {
            past.last_error = Some((text.into(), now));
        }
    }

    /// Whether to keep the error of one more request of the endpoint: the last one was kept long enough ago.
    pub(super) fn wants_error(&self, id: MemberId, now: Instant) -> bool {
        self.past.get(&id).is_some_and(|past| {
            let last = past.last_error.as_ref();
            last.is_none_or(|(_, at)| now.saturating_duration_since(*at) >= PACE)
        })
    }

    /// Discovery has answered, or failed with this.
    pub(super) fn discovered(&mut self, error: Option<String>, now: Instant) {
        let was_failing = std::mem::replace(&mut self.is_failing, error.is_some());
        if let Some(error) = error {
            let text: Arc<str> = error.into();
            let is_news = self.discovery_error.as_ref().is_none_or(|it| it.0 != text);
            self.discovery_error = Some((text.clone(), now));
            if !was_failing || is_news {
                self.push(EventKind::DiscoveryFailed, None, Some(text), now);
            }
        } else if was_failing {
            self.push(EventKind::DiscoveryAnswers, None, None, now);
        }
    }

    /// Keeps discovery's report of itself.
    pub(super) fn reported(&mut self, report: DiscoveryReport, now: Instant) {
        let before = self.report.replace(report);
        let (Some(report), Some(before)) = (&self.report, before) else {
            return;
        };
        if !report.is_of_same_source(&before) {
            let which = if report.is_fallback {
                " (fallback)"
            } else {
                ""
            };
            let detail = format!("{}{which}", report.kind).into();
            self.push(EventKind::SourceChanged, None, Some(detail), now);
        }
    }

    pub(super) fn set_panic(&mut self, is_panic: bool, now: Instant) {
        let was_panic = std::mem::replace(&mut self.is_panic, is_panic);
        match (was_panic, is_panic) {
            (false, true) => self.push(EventKind::PanicBegan, None, None, now),
            (true, false) => self.push(EventKind::PanicEnded, None, None, now),
            _ => {}
        }
    }

    fn push(
        &mut self,
        kind: EventKind,
        endpoint: Option<&Endpoint>,
        detail: Option<Arc<str>>,
        now: Instant,
    ) {
        if self.happened.len() == EVENTS {
            self.happened.pop_front();
        }
        self.happened.push_back(Happened {
            at: now,
            kind,
            endpoint: endpoint.map(|endpoint| endpoint.to_string().into()),
            detail,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::new(([10, 0, 0, 1], 80).into())
    }

    fn kinds(history: &History, now: Instant) -> Vec<EventKind> {
        history.happened(now).map(|it| it.kind).collect()
    }

    #[test]
    fn the_last_256_events_are_kept_for_an_hour() {
        let (mut history, now) = (History::default(), Instant::now());
        let id = MemberId::numbered(1);
        (0..300).for_each(|_| history.leave(id, &endpoint(), now));
        assert_eq!(kinds(&history, now).len(), EVENTS);
        let later = now + KEPT + Duration::from_secs(1);
        history.join(id, &endpoint(), later);
        assert_eq!(kinds(&history, later), [EventKind::Joined]);
    }

    #[test]
    fn an_unchanged_standing_is_no_event() {
        let (mut history, now) = (History::default(), Instant::now());
        let id = MemberId::numbered(1);
        history.join(id, &endpoint(), now);
        let mut see = |standing, after: u64| {
            let now = now + Duration::from_secs(after);
            history.see(id, &endpoint(), (standing, None), now);
        };
        let out = Standing::Ejected(EjectionReason::SuccessRate);
        see(Standing::In, 1);
        see(out, 2);
        see(out, 3);
        see(Standing::In, 4);
        see(Standing::Unreachable, 5);
        see(Standing::In, 6);
        let expected = [
            EventKind::Joined,
            EventKind::Ejected,
            EventKind::Readmitted,
            EventKind::Unreachable,
            EventKind::Reachable,
        ];
        assert_eq!(kinds(&history, now + Duration::from_secs(6)), expected);
    }

    #[test]
    fn coming_back_by_a_panic_is_an_event_as_any_return_is() {
        let (mut history, now) = (History::default(), Instant::now());
        let id = MemberId::numbered(1);
        history.join(id, &endpoint(), now);
        let reason = EjectionReason::SuccessRate;
        let (out, panic) = (Standing::Ejected(reason), Standing::Panic(reason));
        let path = [
            out,
            panic,
            Standing::In,
            Standing::Unreachable,
            panic,
            Standing::In,
            Standing::CheckFails,
            panic,
            out,
        ];
        for standing in path {
            history.see(id, &endpoint(), (standing, None), now);
        }
        let expected = [
            EventKind::Joined,
            EventKind::Ejected,
            EventKind::Readmitted,
            EventKind::Unreachable,
            EventKind::Reachable,
            EventKind::CheckFailed,
            EventKind::Readmitted,
            EventKind::Ejected,
        ];
        assert_eq!(kinds(&history, now), expected);
    }

    #[test]
    fn an_outage_of_discovery_is_two_events() {
        let (mut history, now) = (History::default(), Instant::now());
        for error in [None, Some("down"), Some("down"), None, None] {
            history.discovered(error.map(str::to_owned), now);
        }
        let expected = [EventKind::DiscoveryFailed, EventKind::DiscoveryAnswers];
        assert_eq!(kinds(&history, now), expected);
    }
}
