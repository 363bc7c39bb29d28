//! A balancer's endpoints as it shows them.

use std::{fmt, sync::Arc};

use crate::{
    endpoint::Endpoint,
    member::{Checked, EjectionReason, Member},
    snapshot::Snapshot,
};

/// One endpoint as [`Balance::endpoints`](super::Balance::endpoints) shows it.
///
/// Its `Display` begins with what keeps requests away: `web-0 (10.244.1.7:80): far, unreachable, 0 in flight`. With a
/// [`Subset`](crate::Subset), a pod outside of the subset has `weight 0`; it is in the set for requests by its name, or
/// for a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// How many requests of this balancer are in flight there now.
    pub in_flight: u32,
    /// Whether it is picked, and if not, why not.
    pub state: EndpointState,
    /// Whether it is preferred because it is near the client; `None` if the balancer has no preference.
    pub proximity: Option<Proximity>,
}

/// Whether an endpoint is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointState {
    /// It gets requests.
    Available,
    /// It is passed over for one of three reasons:
    ///
    /// - its requests failed ([`OutlierDetection`](crate::OutlierDetection)), until a trial request succeeds;
    /// - it is slow ([`Hedge`](crate::Hedge#slow-pods)), until a trial request is answered in time;
    /// - its checks fail ([`HealthCheck`](crate::HealthCheck)), until they pass.
    Ejected(EjectionReason),
    /// It is new, and gets no request before [it has passed a check](crate::HealthCheck::require_initial_pass) or, if
    /// the client connects to pods ahead, before it is connected.
    Pending,
    /// It refused a request, and gets none until it accepts requests again.
    Unreachable,
}

/// Whether an endpoint is preferred because it is [near](crate::guide::near_pods).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proximity {
    /// It is near, and preferred.
    Near,
    /// It gets only what exceeds the near ones' fair share, which may be nothing.
    Far,
}

/// The endpoints of a snapshot, in the order of their addresses.
pub(super) fn statuses<S>(snapshot: &Snapshot<S>) -> Vec<EndpointStatus> {
    let endpoints = snapshot.endpoints().iter().zip(snapshot.members());
    let status = |(index, (endpoint, member)): (usize, (&Endpoint, &Arc<Member>))| EndpointStatus {
        endpoint: endpoint.clone(),
        in_flight: member.in_flight(),
        state: state(member),
        proximity: snapshot.is_near(index).map(|is_near| {
            if is_near {
                Proximity::Near
            } else {
                Proximity::Far
            }
        }),
    };
    endpoints.enumerate().map(status).collect()
}

pub(super) fn state(member: &Member) -> EndpointState {
    if member.is_unreachable() {
        return match member.is_unready() {
            true => EndpointState::Pending,
            false => EndpointState::Unreachable,
        };
    }
    if member.is_unfit() {
        return match member.stats().checked() {
            Checked::Pending => EndpointState::Pending,
            _ => EndpointState::Ejected(EjectionReason::CheckFailed),
        };
    }
    let reason = member.stats().reason();
    reason.map_or(EndpointState::Available, EndpointState::Ejected)
}

impl fmt::Display for EndpointStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.endpoint)?;
        if let Some(proximity) = self.proximity {
            write!(f, "{proximity}, ")?;
        }
        if self.endpoint.is_terminating() {
            f.write_str("terminating, ")?;
        }
        if self.endpoint.weight() == 0 {
            f.write_str("weight 0, ")?;
        }
        write!(f, "{}, {} in flight", self.state, self.in_flight)
    }
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available => f.write_str("available"),
            Self::Ejected(reason) => write!(f, "ejected ({reason})"),
            Self::Pending => f.write_str("pending (no health check passed, or not connected yet)"),
            Self::Unreachable => f.write_str("unreachable"),
        }
    }
}

impl fmt::Display for Proximity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Near => "near",
            Self::Far => "far",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_begins_with_what_keeps_requests_away() {
        let endpoint = Endpoint::new(([10, 244, 1, 7], 80).into());
        let mut status = EndpointStatus {
            endpoint: endpoint.clone(),
            in_flight: 2,
            state: EndpointState::Available,
            proximity: None,
        };
        assert_eq!(status.to_string(), "10.244.1.7:80: available, 2 in flight");
        status.endpoint = endpoint.with_hostname("web-0").with_terminating(true);
        status.state = EndpointState::Unreachable;
        status.proximity = Some(Proximity::Far);
        assert_eq!(
            status.to_string(),
            "web-0 (10.244.1.7:80): far, terminating, unreachable, 2 in flight"
        );
        status.endpoint = status.endpoint.with_weight(0).with_terminating(false);
        assert_eq!(
            status.to_string(),
            "web-0 (10.244.1.7:80): far, weight 0, unreachable, 2 in flight"
        );
    }
}
