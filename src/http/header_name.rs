//! Names of headers, as callers write them.

use std::fmt;

use http::HeaderName;

/// How many bytes of an invalid name its error shows.
const SHOWN: usize = 64;

/// The header's name, or an error's text that shows what was given.
pub(super) fn parse<N>(name: N) -> Result<HeaderName, String>
where
    N: TryInto<HeaderName, Error: Into<http::Error>> + AsRef<[u8]>,
{
    let shown = Shown::of(name.as_ref());
    name.try_into()
        .map_err(|error| format!("the header name {shown}: {}", error.into()))
}

/// The beginning of a name. The conversion consumes the name, and most are valid, so this copy takes no memory.
struct Shown {
    bytes: [u8; SHOWN],
    /// How long the whole name is.
    len: usize,
}

impl Shown {
    fn of(name: &[u8]) -> Self {
        let mut bytes = [0; SHOWN];
        let part = &name[..name.len().min(SHOWN)];
        bytes[..part.len()].copy_from_slice(part);
        Self {
            bytes,
            len: name.len(),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = &self.bytes[..self.len.min(SHOWN)];
        let end = if self.len > SHOWN { "…" } else { "" };
        write!(f, "\"{}{end}\"", part.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_name_is_shown_escaped_and_cut_off() {
        let why = |name: &[u8]| parse(name).expect_err("invalid");
        let text = "invalid HTTP header name";
        assert_eq!(why(b"a b"), format!("the header name \"a b\": {text}"));
        assert_eq!(why(b""), format!("the header name \"\": {text}"));
        assert_eq!(
            why(b"a\n\"\xff"),
            format!("the header name \"a\\n\\\"\\xff\": {text}")
        );
        let (long, shown) = (" ".repeat(65), " ".repeat(64));
        assert_eq!(
            why(long.as_bytes()),
            format!("the header name \"{shown}…\": {text}")
        );
        assert!(why(&long.as_bytes()[1..]).contains(&format!("\"{shown}\"")));
        assert_eq!(parse("X-A"), Ok(HeaderName::from_static("x-a")));
    }
}
