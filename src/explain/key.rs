//! Which endpoint gets a key's requests.

use std::{fmt, net::SocketAddr};

use super::Verdict;

/// Which endpoint has a key now: [`Balance::explain_key`](crate::Balance::explain_key).
///
/// Its `Display` is a line for each choice, with a star at the one that a request would get.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KeyExplanation {
    /// The key's endpoints in the order in which they are asked, its home first. The first sixteen, or more if the
    /// endpoint that a request would get comes later.
    pub choices: Vec<KeyChoice>,
}

impl KeyExplanation {
    /// The endpoint that a request of the key would get now; `None` if it would have to wait.
    pub fn endpoint(&self) -> Option<&KeyChoice> {
        self.choices.iter().find(|choice| choice.is_chosen)
    }
}

/// One of a key's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KeyChoice {
    /// The pod's hostname or its own name, if known.
    pub name: Option<String>,
    /// Its address.
    pub address: SocketAddr,
    /// Whether a request of the key would get it now.
    pub is_chosen: bool,
    /// Whether a request without a key would get it.
    pub verdict: Verdict,
    /// Why a request of the key passes it over, in a sentence. Empty if it isn't passed over.
    pub why: String,
}

impl KeyChoice {
    /// The name and the address, or the address alone.
    pub fn label(&self) -> String {
        super::label(self.name.as_deref(), self.address)
    }
}

impl fmt::Display for KeyExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.endpoint().is_none() {
            writeln!(f, "no endpoint accepts requests of this key: they wait")?;
        }
        for (choice, number) in self.choices.iter().zip(1..) {
            let mark = if choice.is_chosen { "*" } else { " " };
            write!(f, "{mark} {number}. {}", choice.label())?;
            match choice.why.is_empty() {
                true => writeln!(f)?,
                false => writeln!(f, ": {}", choice.why)?,
            }
        }
        Ok(())
    }
}
