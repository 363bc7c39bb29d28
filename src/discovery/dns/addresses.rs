//! Looks up the addresses of a name.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::lookup::{
    Answer, Family, LookupError, Nothing, Query, Reason, Records, Resolve, Transport, Via,
};

/// A name's addresses of one family.
pub(super) struct Addresses {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
    /// None if no name server was asked.
    pub(super) via: Option<Via>,
}

/// The TTL of answers that need no name server.
const LOCAL_TTL: Duration = Duration::from_secs(30);

/// Looks up the addresses of one family, by the `deadline`.
pub(super) async fn addresses<R: Resolve>(
    resolver: &R,
    name: Arc<str>,
    family: Family,
    over: Transport,
    deadline: Instant,
) -> Answer<Addresses> {
    let record_type = family.record_type();
    let query = Query { name, record_type };
    if let Some(all) = resolver.local(&query.name) {
        return Ok(local(&query, family, all));
    }
    let reply = match resolver.ask(query, over, deadline).await? {
        Ok(reply) => reply,
        Err(nothing) => return Ok(Err(nothing)),
    };
    let addresses = match reply.records {
        Records::Addresses(addresses) => addresses,
        Records::Services { .. } => Vec::new(),
    };
    Ok(Ok(Addresses {
        addresses,
        ttl: reply.ttl,
        via: Some(reply.via),
    }))
}

fn local(query: &Query, family: Family, mut addresses: Vec<IpAddr>) -> Result<Addresses, Nothing> {
    addresses.retain(|address| family.has(address));
    if addresses.is_empty() {
        let error = LookupError::new(query, Reason::NoRecords);
        return Err(Nothing::new(Some(LOCAL_TTL), error));
    }
    Ok(Addresses {
        addresses,
        ttl: LOCAL_TTL,
        via: None,
    })
}

/// Looks up the addresses of `family`, by the `deadline`; if there are none or that fails, those of the other family.
pub(super) async fn either<R: Resolve>(
    resolver: &R,
    name: Arc<str>,
    family: Family,
    over: Transport,
    deadline: Instant,
) -> Answer<Addresses> {
    let ask = |family| addresses(resolver, name.clone(), family, over, deadline);
    let mut preferred = pin!(ask(family));
    // A family whose lookup hangs must not use up the other one's time.
    let early = timeout_at(part_way(deadline, 0.5), &mut preferred).await;
    let (preferred, other) = match early {
        Ok(Ok(Ok(found))) => return Ok(Ok(found)),
        Ok(preferred) => (preferred, ask(family.other()).await),
        Err(_) => {
            let mut other = pin!(ask(family.other()));
            tokio::select! {
                preferred = &mut preferred => match preferred {
                    Ok(Ok(found)) => return Ok(Ok(found)),
                    preferred => (preferred, other.await),
                },
                other = &mut other => (preferred.await, other),
            }
        }
    };
    match (&preferred, &other) {
        (Ok(Ok(_)), _) => preferred,
        // A failure outranks a negative answer, because it leaves open what is there.
        (Ok(Err(_)), _) | (_, Ok(Ok(_))) => other,
        (Err(_), _) => preferred,
    }
}

/// When a `share` of the remaining time will have passed.
pub(super) fn part_way(deadline: Instant, share: f32) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now).mul_f32(share)
}

impl Family {
    pub(super) fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    pub(super) fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}
