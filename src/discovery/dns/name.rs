//! A name as the user writes it, and the full names that it may stand for.

use std::fmt;

/// RFC 1035 §2.3.4, less the length bytes of the first and the root label.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// Whether a name, in lower case and without the trailing dot, means this machine (RFC 6761 §6.3).
pub(super) fn is_localhost(name: &str) -> bool {
    let rest = name.strip_suffix("localhost");
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A name that may be short.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    /// Lower case, without the trailing dot.
    text: String,
    /// It was written with a trailing dot: no domain is appended.
    absolute: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    #[error("no name")]
    Empty,
    #[error("the name is {0} bytes long; DNS allows {LONGEST_NAME}")]
    Long(usize),
    #[error("the label {0:?} of the name is empty or longer than {LONGEST_LABEL} bytes")]
    LabelLength(String),
    #[error("the label {0:?} of the name has a character other than a-z, 0-9, '-' and '_'")]
    LabelCharacter(String),
}

impl Name {
    /// Checks a name against the lengths of RFC 1035 §2.3.4 and the characters of RFC 952, plus the underscore, which
    /// SRV names and many private zones have.
    pub(super) fn parse(name: &str) -> Result<Self, NameError> {
        let (text, absolute) = match name.strip_suffix('.') {
            Some(text) => (text, true),
            None => (name, false),
        };
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > LONGEST_NAME {
            return Err(NameError::Long(text.len()));
        }
        for label in text.split('.') {
            if !(1..=LONGEST_LABEL).contains(&label.len()) {
                return Err(NameError::LabelLength(label.to_owned()));
            }
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !label.bytes().all(allowed) {
                return Err(NameError::LabelCharacter(label.to_owned()));
            }
        }
        Ok(Self {
            text: text.to_ascii_lowercase(),
            absolute,
        })
    }

    /// Parses a domain of a search list. It may be the root, and may begin with a dot, as in the C library.
    pub(super) fn parse_domain(domain: &str) -> Result<Self, NameError> {
        match domain.strip_prefix('.').unwrap_or(domain) {
            "" => Ok(Self {
                text: String::new(),
                absolute: true,
            }),
            domain => Self::parse(domain),
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The full names that this one may stand for, in the order of resolv.conf(5): each domain of the search list
    /// appended, and the name as it is, which comes first if it has at least `ndots` dots.
    ///
    /// There is at least one.
    pub(super) fn candidates(&self, search: &[Self], ndots: usize) -> Vec<Self> {
        let as_it_is = Self {
            absolute: true,
            ..self.clone()
        };
        if self.absolute {
            return vec![as_it_is];
        }
        let mut candidates: Vec<_> = search
            .iter()
            .map(|domain| match &*domain.text {
                "" => self.text.clone(),
                domain => format!("{}.{domain}", self.text),
            })
            .filter(|text| text.len() <= LONGEST_NAME)
            .map(|text| Self {
                text,
                absolute: true,
            })
            .collect();
        let dots = self.text.bytes().filter(|&byte| byte == b'.').count();
        let first = dots >= ndots;
        candidates.insert(if first { 0 } else { candidates.len() }, as_it_is);
        let mut seen = Vec::with_capacity(candidates.len());
        candidates.retain(|candidate| {
            let new = !seen.contains(candidate);
            seen.push(candidate.clone());
            new
        });
        candidates
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.absolute { "." } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect(text)
    }

    fn candidates(text: &str, ndots: usize) -> Vec<String> {
        let search = [
            "default.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
        ];
        let candidates = name(text).candidates(&search.map(name), ndots);
        candidates.iter().map(Name::to_string).collect()
    }

    #[test]
    fn localhost_must_be_a_whole_label() {
        for name in ["localhost", "web.localhost", "a.b.localhost"] {
            assert!(is_localhost(name), "{name}");
        }
        for name in ["mylocalhost", "localhost.corp", "local", ""] {
            assert!(!is_localhost(name), "{name}");
        }
    }

    #[test]
    fn a_short_name_goes_through_the_search_list_first() {
        assert_eq!(
            candidates("web", 5),
            [
                "web.default.svc.cluster.local.",
                "web.svc.cluster.local.",
                "web.cluster.local.",
                "web.",
            ]
        );
        assert_eq!(
            candidates("web.default.svc", 5)[2],
            "web.default.svc.cluster.local."
        );
    }

    #[test]
    fn a_name_with_ndots_dots_comes_first_as_it_is() {
        assert_eq!(
            candidates("web.default.svc.cluster.local", 1)[..2],
            [
                "web.default.svc.cluster.local.",
                "web.default.svc.cluster.local.default.svc.cluster.local.",
            ]
        );
        // With a pod's `ndots:5`, four dots are too few, and the name comes last.
        let all = candidates("web.default.svc.cluster.local", 5);
        assert_eq!(all[3], "web.default.svc.cluster.local.");
    }

    #[test]
    fn a_name_with_a_trailing_dot_is_its_only_candidate() {
        assert_eq!(candidates("web.", 5), ["web."]);
    }

    #[test]
    fn without_a_search_list_the_name_is_its_only_candidate() {
        assert_eq!(name("web").candidates(&[], 5), [name("web.")]);
    }

    #[test]
    fn duplicate_and_too_long_candidates_are_left_out() {
        let twice = [name("svc"), name("svc")];
        assert_eq!(name("web").candidates(&twice, 1).len(), 2);
        let long = name(&["a".repeat(60).as_str(); 4].join("."));
        assert_eq!(long.candidates(&[name("svc.cluster.local")], 5).len(), 1);
    }
}
