//! The addresses of a name.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::lookup::{
    Answer, Family, LookupError, Nothing, Query, Reason, Records, Resolve, Transport, Via,
};

/// The addresses of one family that a name has.
pub(super) struct Addresses {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
    /// None where no name server was asked.
    pub(super) via: Option<Via>,
}

/// For how long an answer holds that no name server gave.
const LOCAL_TTL: Duration = Duration::from_secs(30);

pub(super) async fn addresses<R: Resolve>(
    resolver: &R,
    name: Arc<str>,
    family: Family,
    over: Transport,
) -> Answer<Addresses> {
    let record_type = family.record_type();
    let query = Query { name, record_type };
    if let Some(all) = resolver.local(&query.name) {
        return Ok(local(&query, family, all));
    }
    let reply = match resolver.ask(query, over).await? {
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
        return Err(Nothing {
            ttl: Some(LOCAL_TTL),
            error: LookupError::new(query, Reason::NoRecords),
        });
    }
    Ok(Addresses {
        addresses,
        ttl: LOCAL_TTL,
        via: None,
    })
}

/// The addresses of the family; those of the other one where there are none, or where they can't be had.
pub(super) async fn either<R: Resolve>(
    resolver: &R,
    name: Arc<str>,
    family: Family,
    over: Transport,
) -> Answer<Addresses> {
    let preferred = addresses(resolver, name.clone(), family, over).await;
    if let Ok(Ok(_)) = preferred {
        return preferred;
    }
    let other = addresses(resolver, name, family.other(), over).await;
    match (&preferred, &other) {
        // A failure goes before a "nothing": who knows what is there?
        (Ok(Err(_)), _) | (_, Ok(Ok(_))) => other,
        (Err(_), _) | (Ok(Ok(_)), _) => preferred,
    }
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
