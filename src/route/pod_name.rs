//! Pod names, split into a StatefulSet's name and a number.

use std::fmt;

/// A pod's name, ordered as StatefulSets order their pods: `web-3` is number 3 of `web`. Any other name isn't split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodName<'a> {
    stem: &'a str,
    number: Option<u32>,
}

impl<'a> PodName<'a> {
    /// The pod of this number in a StatefulSet.
    pub(crate) fn numbered(set: &'a str, number: u32) -> Self {
        Self {
            stem: set,
            number: Some(number),
        }
    }

    /// The StatefulSet and the number, if it is such a pod's name.
    pub(crate) fn stateful(self) -> Option<(&'a str, u32)> {
        self.number.map(|number| (self.stem, number))
    }
}

impl<'a> From<&'a str> for PodName<'a> {
    fn from(name: &'a str) -> Self {
        match split(name) {
            Some((set, number)) => Self::numbered(set, number),
            None => Self {
                stem: name,
                number: None,
            },
        }
    }
}

impl fmt::Display for PodName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stem)?;
        self.number.map_or(Ok(()), |number| write!(f, "-{number}"))
    }
}

/// Splits a pod's name into its StatefulSet's name and its ordinal.
fn split(pod: &str) -> Option<(&str, u32)> {
    let (set, ordinal) = pod.rsplit_once('-')?;
    let is_plain = ordinal.bytes().all(|digit| digit.is_ascii_digit())
        && (ordinal == "0" || !ordinal.starts_with('0'));
    let ordinal = ordinal.parse().ok().filter(|_| is_plain)?;
    (!set.is_empty()).then_some((set, ordinal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_split_is_displayed_unchanged() {
        for name in [
            "web-3",
            "a-b-0",
            "web",
            "web-03",
            "-3",
            "web-",
            "web-+3",
            "3",
            "",
            "web-4294967296",
            "web-4294967295",
        ] {
            assert_eq!(PodName::from(name).to_string(), name);
        }
    }

    #[test]
    fn only_a_plain_number_at_the_end_is_an_ordinal() {
        assert_eq!(PodName::from("a-b-0").stateful(), Some(("a-b", 0)));
        for name in ["web", "web-03", "-3", "web-+3", "web-4294967296"] {
            assert_eq!(PodName::from(name).stateful(), None, "{name}");
        }
    }
}
