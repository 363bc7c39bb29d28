//! Finds the wanted port in a slice.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};

use super::target::Port;

/// The protocol of a port that doesn't name one.
const TCP: &str = "TCP";

/// No slice with endpoints has the wanted port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnknownPort {
    wanted: Port,
    /// The ports that the slices do have, as text.
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

/// The number of the wanted port at the pods of `slice`.
pub(super) fn number(wanted: &Port, slice: &EndpointSlice) -> Option<u16> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let mut numbers = ports.iter().map(|port| (port, port_number(port)));
    match wanted {
        // A Service without ports has slices without ports, and any number will do.
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

/// The port's number, if it is a valid one; 0 isn't.
fn port_number(port: &EndpointPort) -> Option<u16> {
    let number = port.port.and_then(|number| number.try_into().ok());
    number.filter(|number| *number != 0)
}

/// The first invalid port number of a slice.
pub(super) fn impossible(slice: &EndpointSlice) -> Option<i32> {
    let mut ports = slice.ports.iter().flatten();
    ports.find_map(|port| port.port.filter(|_| port_number(port).is_none()))
}

/// Whether the port has this name. A Service's only port may have none: then its name is empty.
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
