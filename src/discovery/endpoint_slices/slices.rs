//! The slices of a Service as last heard, and the set that comes of them.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use tracing::warn;

use super::{
    endpoints::{FQDN, IPV4, IPV6, endpoints},
    error::Reason,
    target::Port,
};
use crate::{
    discovery::filter::{Filter, Rejected},
    endpoint::Endpoint,
};

pub(super) struct Slices {
    by_name: BTreeMap<String, EndpointSlice>,
    families: [&'static str; 2],
    port: Port,
    filter: Filter,
    /// It has been said that slices of names are ignored.
    warned: bool,
}

impl Slices {
    pub(super) fn new(port: Port, prefer_ipv6: bool, allow_loopback: bool) -> Self {
        Self {
            by_name: BTreeMap::new(),
            families: if prefer_ipv6 {
                [IPV6, IPV4]
            } else {
                [IPV4, IPV6]
            },
            port,
            filter: Filter::new(allow_loopback),
            warned: false,
        }
    }

    /// These are all that there are.
    pub(super) fn replace(&mut self, slices: Vec<EndpointSlice>) {
        self.by_name.clear();
        slices.into_iter().for_each(|slice| self.apply(slice));
    }

    /// One is new, or has changed.
    pub(super) fn apply(&mut self, slice: EndpointSlice) {
        let name = slice.metadata.name.clone().unwrap_or_default();
        if slice.address_type == FQDN && !std::mem::replace(&mut self.warned, true) {
            warn!(
                slice = name,
                "a slice of names instead of addresses is ignored"
            );
        }
        self.by_name.insert(name, slice);
    }

    /// One is gone.
    pub(super) fn remove(&mut self, slice: &EndpointSlice) {
        self.by_name
            .remove(slice.metadata.name.as_deref().unwrap_or_default());
    }

    /// The endpoints to use.
    pub(super) fn endpoints(&mut self) -> Result<Vec<Endpoint>, Reason> {
        let endpoints = endpoints(self.by_name.values(), self.families, &self.port);
        let mut endpoints = endpoints.map_err(Reason::UnknownPort)?;
        let allowed = self.filter.apply(&mut endpoints);
        allowed.map_err(|Rejected(address, why)| Reason::Rejected(address, why))?;
        Ok(endpoints)
    }
}
