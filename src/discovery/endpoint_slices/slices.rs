//! A Service's slices as they are known, and the set that they make.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{
    endpoints::{FQDN, IPV4, IPV6, endpoints, ready, unreadable},
    error::Reason,
    ports,
    target::Port,
};
use crate::{
    discovery::filter::{Filter, Rejected},
    endpoint::Endpoint,
    logs::{DISCOVERY, here, warn},
};

pub(super) struct Slices {
    by_name: BTreeMap<String, EndpointSlice>,
    families: [&'static str; 2],
    port: Port,
    filter: Filter,
    /// Which kinds of warnings about ignored slices, or parts of them, have been logged.
    warned: Warned,
}

/// Each warning is logged once.
#[derive(Clone, Copy, Default)]
struct Warned {
    of_names: bool,
    of_address: bool,
    of_port: bool,
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
            warned: Warned::default(),
        }
    }

    /// A copy with the same settings, but no slices yet.
    pub(super) fn renewed(&self) -> Self {
        Self {
            by_name: BTreeMap::new(),
            families: self.families,
            port: self.port.clone(),
            filter: self.filter.clone(),
            warned: self.warned,
        }
    }

    /// Replaces all known slices.
    pub(super) fn replace(&mut self, slices: Vec<EndpointSlice>) {
        self.by_name.clear();
        slices.into_iter().for_each(|slice| self.apply(slice));
    }

    /// Adds or replaces a slice.
    pub(super) fn apply(&mut self, slice: EndpointSlice) {
        let name = slice.metadata.name.clone().unwrap_or_default();
        self.warned.look(&name, &slice);
        self.by_name.insert(name, slice);
    }

    /// Removes a slice.
    pub(super) fn remove(&mut self, slice: &EndpointSlice) {
        self.by_name
            .remove(slice.metadata.name.as_deref().unwrap_or_default());
    }

    /// The endpoints to use. `is_other`: the family that isn't preferred comes first, because the preferred one's pods
    /// refuse connections.
    pub(super) fn endpoints(&self, is_other: bool) -> Result<Vec<Endpoint>, Reason> {
        let [preferred, other] = self.families;
        let families = match is_other {
            true => [other, preferred],
            false => [preferred, other],
        };
        let find = |families| {
            let mut endpoints = endpoints(self.by_name.values(), families, &self.port)?;
            let allowed = self.filter.apply(&mut endpoints);
            allowed.map_err(|Rejected(address, why)| Reason::Rejected(address, why))?;
            Ok(endpoints)
        };
        match find(families) {
            // A family without a possible address gives way to the other one.
            Err(rejected @ Reason::Rejected(..)) => match find([families[1]; 2]) {
                Ok(endpoints) if !endpoints.is_empty() => Ok(endpoints),
                _ => Err(rejected),
            },
            found => found,
        }
    }

    /// The ready endpoints of each family, the preferred one's first. There are none if all slices have one family.
    pub(super) fn families(&self) -> [Vec<Endpoint>; 2] {
        let has = |family| {
            let mut slices = self.by_name.values();
            slices.any(|slice| slice.address_type == family)
        };
        if !self.families.into_iter().all(has) {
            return Default::default();
        }
        self.families.map(|family| {
            let mut endpoints = ready(self.by_name.values(), family, &self.port);
            // An error says only that nothing is left.
            let _ = self.filter.apply(&mut endpoints);
            endpoints
        })
    }
}

impl Warned {
    fn look(&mut self, name: &str, slice: &EndpointSlice) {
        if slice.address_type == FQDN {
            if !std::mem::replace(&mut self.of_names, true) {
                warn!(
                    DISCOVERY,
                    here(),
                    slice = name,
                    "ignored a slice of names (FQDN): only addresses are used"
                );
            }
            return;
        }
        if let Some(address) = unreadable(slice)
            && !std::mem::replace(&mut self.of_address, true)
        {
            warn!(
                DISCOVERY,
                here(),
                slice = name,
                address,
                "ignored a pod: its address is invalid"
            );
        }
        if let Some(port) = ports::impossible(slice)
            && !std::mem::replace(&mut self.of_port, true)
        {
            warn!(
                DISCOVERY,
                here(),
                slice = name,
                port,
                "ignored a slice's port: no pod can listen there"
            );
        }
    }
}
