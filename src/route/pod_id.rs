//! [`PodId`]: how a request names one pod.

use std::{
    borrow::Cow,
    cmp::Ordering,
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::PodName;
use crate::endpoint::Endpoint;

/// Identifies one pod: by its name, its ordinal in a StatefulSet, or its address.
///
/// | made of | means the pod |
/// | --- | --- |
/// | text: `"web-0"` | with this hostname, or this name |
/// | text that is an address: `"10.244.1.7"`, `"10.244.1.7:80"` | at this address, such as the downward API's `status.podIP` |
/// | an [`IpAddr`], a [`SocketAddr`] | at this address, whichever pod that is: it isn't followed to another address |
/// | an [`Endpoint`] | with its hostname or its name; if it has neither, at its address |
/// | [`ordinal`](Self::ordinal) | whose name ends in this number: `web-3` is 3 |
///
/// ```
/// use tower_headless::{Endpoint, PodId};
///
/// let pod = Endpoint::new("10.244.1.7:80".parse()?).with_hostname("web-3");
/// for id in ["web-3", "10.244.1.7", "10.244.1.7:80"] {
///     assert!(PodId::from(id).is(&pod));
/// }
/// assert!(!PodId::from("web-30").is(&pod));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodId(Id);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Id {
    Name(Box<str>),
    Ordinal(u32),
    Ip(IpAddr),
    Address(SocketAddr),
}

/// An ordinal is ambiguous, because the endpoints' names are of several StatefulSets: two of the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous(pub(crate) [Box<str>; 2]);

impl PodId {
    /// The pod of a StatefulSet by its number: 3 is `web-3`.
    ///
    /// The part before the number is taken from the names of the other endpoints. If those differ, because the Service
    /// has the pods of several StatefulSets, requests fail at once, with an error that [is
    /// unreachable](crate::Error::is_unreachable) and has two of the names. While only one StatefulSet's pods are
    /// there, the client can't know of the other one. So request the pods of such a Service by name.
    ///
    /// While no endpoint's name is known, the pod isn't there. So it is with [`Dns`](crate::Dns) if the port has no name,
    /// until a request has asked for a pod by its name.
    pub const fn ordinal(ordinal: u32) -> Self {
        Self(Id::Ordinal(ordinal))
    }

    /// Whether `endpoint` is this pod. An ordinal means any endpoint with this number.
    pub fn is(&self, endpoint: &Endpoint) -> bool {
        match &self.0 {
            Id::Name(name) => endpoint.is_called(name),
            Id::Ordinal(ordinal) => {
                let number = endpoint.name().and_then(stateful);
                number.is_some_and(|(_, number)| number == *ordinal)
            }
            Id::Ip(address) => endpoint.address().ip() == *address,
            Id::Address(address) => endpoint.address() == *address,
        }
    }

    /// The requested name. For an ordinal, it is made with `set`, the name of the only StatefulSet.
    pub(crate) fn name_with<'a>(&'a self, set: Option<&'a str>) -> Option<PodName<'a>> {
        match &self.0 {
            Id::Name(name) => Some(PodName::from(&**name)),
            Id::Ordinal(ordinal) => Some(PodName::numbered(set?, *ordinal)),
            Id::Ip(_) | Id::Address(_) => None,
        }
    }

    /// Compares `endpoint` with the requested address, in the order of identities; `None` if a name is requested.
    pub(crate) fn order(&self, endpoint: &Endpoint) -> Option<Ordering> {
        match &self.0 {
            Id::Name(_) | Id::Ordinal(_) => None,
            Id::Ip(address) => Some(endpoint.address().ip().cmp(address)),
            Id::Address(address) => Some(endpoint.address().cmp(address)),
        }
    }

    /// The name, if the pod is requested by name.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.0 {
            Id::Name(name) => Some(name),
            _ => None,
        }
    }

    /// What to do if the pod isn't there, for the end of an error's text. Empty for a name, which is the best way to ask.
    pub(crate) fn advice(&self) -> &'static str {
        match &self.0 {
            Id::Name(_) => "",
            Id::Ordinal(_) => "; ask for it by its name",
            Id::Ip(_) | Id::Address(_) => {
                "; a pod that is replaced gets another address: ask for it by its name"
            }
        }
    }

    /// Resolves an ordinal to a name among `endpoints`, if they have one StatefulSet. Any other id stays as it is.
    pub(crate) fn among(&self, endpoints: &[Endpoint]) -> Result<Cow<'_, Self>, Box<Ambiguous>> {
        let Id::Ordinal(ordinal) = &self.0 else {
            return Ok(Cow::Borrowed(self));
        };
        let mut names = endpoints.iter().filter_map(Endpoint::name);
        let Some((first, set)) = names.find_map(|name| Some((name, stateful(name)?.0))) else {
            return Ok(Cow::Borrowed(self));
        };
        let is_other = |name: &&str| stateful(name).is_some_and(|(other, _)| other != set);
        match names.find(is_other) {
            Some(other) => Err(Box::new(Ambiguous([first.into(), other.into()]))),
            None => Ok(Cow::Owned(Self(Id::Name(
                format!("{set}-{ordinal}").into(),
            )))),
        }
    }
}

/// Splits a pod's name into its StatefulSet's name and its ordinal.
fn stateful(pod: &str) -> Option<(&str, u32)> {
    PodName::from(pod).stateful()
}

impl From<&str> for PodId {
    fn from(text: &str) -> Self {
        Self::from(Box::<str>::from(text))
    }
}

impl From<String> for PodId {
    fn from(text: String) -> Self {
        Self::from(text.into_boxed_str())
    }
}

impl From<&String> for PodId {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Box<str>> for PodId {
    fn from(text: Box<str>) -> Self {
        let address = || text.parse().map(Id::Address).ok();
        let ip = text.parse().map(Id::Ip).ok().or_else(address);
        Self(ip.unwrap_or(Id::Name(text)))
    }
}

impl From<IpAddr> for PodId {
    fn from(address: IpAddr) -> Self {
        Self(Id::Ip(address))
    }
}

impl From<SocketAddr> for PodId {
    fn from(address: SocketAddr) -> Self {
        Self(Id::Address(address))
    }
}

impl From<&Endpoint> for PodId {
    fn from(endpoint: &Endpoint) -> Self {
        Self(match endpoint.name() {
            Some(name) => Id::Name(name.into()),
            None => Id::Address(endpoint.address()),
        })
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Name(name) => f.write_str(name),
            Id::Ordinal(ordinal) => write!(f, "number {ordinal}"),
            Id::Ip(address) => write!(f, "at {address}"),
            Id::Address(address) => write!(f, "at {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<Endpoint> {
        let endpoint = |(host, name): (usize, &&str)| {
            let address = ([10, 0, 0, host as u8], 80).into();
            Endpoint::new(address).with_hostname(*name)
        };
        names.iter().enumerate().map(endpoint).collect()
    }

    fn third(names: &[&str]) -> Result<PodId, Box<Ambiguous>> {
        let pod = PodId::ordinal(3);
        pod.among(&named(names)).map(Cow::into_owned)
    }

    #[test]
    fn an_ordinal_means_the_pod_of_the_only_stateful_set() {
        assert_eq!(third(&["web-0", "web-12"]), Ok("web-3".into()));
        assert_eq!(third(&["a-b-0", "x7k2p", "a-b-1"]), Ok("a-b-3".into()));
        for not_stateful in ["web-x7k2p", "web-03", "-3", "web", "web-+3"] {
            assert_eq!(third(&[not_stateful]), Ok(PodId::ordinal(3)));
        }
        assert_eq!(third(&[]), Ok(PodId::ordinal(3)));
    }

    #[test]
    fn an_ordinal_is_ambiguous_among_several_stateful_sets() {
        let ambiguous = Ambiguous(["web-3".into(), "api-0".into()]);
        assert_eq!(third(&["web-3", "api-0"]), Err(Box::new(ambiguous)));
    }

    #[test]
    fn text_that_parses_as_an_address_means_the_address() {
        let pod = &Endpoint::new("[fd00::7]:80".parse().expect("an address"));
        for (text, expected) in [
            ("fd00::7", true),
            ("fd00:0::7", true),
            ("[fd00::7]:80", true),
            ("[fd00::7]:81", false),
            ("fd00::8", false),
        ] {
            assert_eq!(PodId::from(text).is(pod), expected, "{text}");
        }
        assert_eq!(PodId::from(pod), PodId::from(pod.address()));
        let named = pod.clone().with_pod_name("web-0");
        assert_eq!(PodId::from(&named), PodId::from("web-0"));
    }
}
