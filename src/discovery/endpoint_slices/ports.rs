//! Which port of a slice is meant.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};

use super::target::Port;

/// A protocol that isn't given is this one.
const TCP: &str = "TCP";

/// No slice that has endpoints has the port that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnknownPort {
    wanted: Port,
    /// What there is instead, as text.
    known: Vec<String>,
}

impl UnknownPort {
    pub(super) fn new<'a>(
        wanted: &Port,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
    ) -> Self {
        let ports = slices.into_iter().filter_map(|slice| slice.ports.as_ref());
        let known: BTreeSet<_> = ports.flatten().map(describe).collect();
        Self {
            wanted: wanted.clone(),
            known: known.into_iter().collect(),
        }
    }
}

/// The number of the port that is wanted, at the pods of `slice`.
pub(super) fn number(wanted: &Port, slice: &EndpointSlice) -> Option<u16> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let mut numbers = ports.iter().map(|port| (port, port_number(port)));
    match wanted {
        // A Service without ports has slices without, and leaves the choice to its clients.
        Port::Number(number) if ports.is_empty() => Some(*number),
        Port::Number(wanted) => numbers
            .find(|(port, number)| *number == Some(*wanted) || port.port.is_none())
            .map(|_| *wanted),
        Port::Named(name) => numbers.find(|(port, _)| is_named(port, name))?.1,
        Port::Srv(name, protocol) => {
            let is_meant =
                |port: &EndpointPort| is_named(port, name) && self::protocol(port) == &**protocol;
            numbers.find(|(port, _)| is_meant(port))?.1
        }
    }
}

/// The number of a port that there can be: 0 is none.
fn port_number(port: &EndpointPort) -> Option<u16> {
    let number = port.port.and_then(|number| number.try_into().ok());
    number.filter(|number| *number != 0)
}

/// A port of a slice that there can't be.
pub(super) fn impossible(slice: &EndpointSlice) -> Option<i32> {
    let mut ports = slice.ports.iter().flatten();
    ports.find_map(|port| port.port.filter(|_| port_number(port).is_none()))
}

/// A Service's only port may do without a name, which then is empty.
fn is_named(port: &EndpointPort, name: &str) -> bool {
    port.name.as_deref() == Some(name)
}

fn protocol(port: &EndpointPort) -> &str {
    port.protocol.as_deref().unwrap_or(TCP)
}

fn describe(port: &EndpointPort) -> String {
    let number = port
        .port
        .map_or_else(|| "any".to_owned(), |number| number.to_string());
    let name = port.name.as_deref().filter(|name| !name.is_empty());
    format!(
        "{} = {number}/{}",
        name.unwrap_or("(no name)"),
        protocol(port)
    )
}

impl fmt::Display for UnknownPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wanted {
            Port::Number(number) => write!(f, "the pods don't serve port {number}")?,
            Port::Named(name) => write!(f, "the Service has no port named {name:?}")?,
            Port::Srv(name, protocol) => {
                write!(f, "the Service has no {protocol} port named {name:?}")?;
            }
        }
        match &self.known[..] {
            [] => f.write_str("; it has no ports: give a number"),
            known => write!(f, "; the pods' ports are {}", known.join(", ")),
        }
    }
}
