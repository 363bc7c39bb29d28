//! How errors read: one line with the innermost cause, or all causes, each once.
//!
//! The rule for all texts: `{}` is one line for an engineer who is woken at night. It names the service, the pod, what
//! happened, how long the request waited and by which setting, and the innermost cause. `{:#}` names all causes, each
//! once. `source()` leads to the cause as well. So code that prints the whole chain prints the innermost cause twice,
//! and no other more than once.

use std::{error::Error as StdError, fmt};

/// Writes what went wrong and why: with the innermost cause, in one line; with `{:#}`, all causes.
pub(crate) fn tell(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    source: Option<&(dyn StdError + 'static)>,
) -> fmt::Result {
    let Some(source) = source else {
        return f.write_str(what);
    };
    if f.alternate() {
        let text = match says(what, &source.to_string()) {
            true => what.to_owned(),
            false => format!("{what}: {source:#}"),
        };
        return f.write_str(&with_causes(text, source.source()));
    }
    f.write_str(what)?;
    let why = cause(source);
    match says(what, &why) {
        true => Ok(()),
        false => write!(f, ": {why}"),
    }
}

/// The beginning of an error's text, with the service's name if known.
pub(crate) fn opening(service: Option<&str>, is_unsent: bool) -> String {
    match (service, is_unsent) {
        (Some(service), true) => format!("request to {service} was not sent: "),
        (Some(service), false) => format!("request to {service}: "),
        (None, _) => String::new(),
    }
}

/// The text of an error and of its sources, each once: some errors already have their source's text in their own.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    // With `{:#}` the crate's own errors name all their causes, in the right order.
    with_causes(format!("{error:#}"), error.source())
}

/// The text of an error and of its sources, each once, in one line: of each text only the first line.
pub(crate) fn line(error: &(dyn StdError + 'static)) -> String {
    let first = |text: &str| {
        let line = text.trim().lines().next().unwrap_or_default();
        line.trim_end_matches([':', ' ']).to_owned()
    };
    let (mut text, mut next) = (first(&format!("{error:#}")), error.source());
    while let Some(source) = next {
        let words = first(&source.to_string());
        if !says(&text, &words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}

/// The text of the innermost cause, in one line. An error whose own text contains its source's is taken whole.
pub(crate) fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !says(&text, &words) {
            text = words;
        }
        next = source.source();
    }
    let line = text.trim().lines().next().unwrap_or_default();
    line.trim_end_matches([':', ' ']).to_owned()
}

/// The text, plus those of the causes that it doesn't contain.
fn with_causes(mut text: String, mut next: Option<&(dyn StdError + 'static)>) -> String {
    while let Some(source) = next {
        let words = source.to_string();
        if !says(&text, &words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}

/// Whether the text contains this cause as a whole: after a colon, for example, and not as part of a pod's name.
fn says(text: &str, cause: &str) -> bool {
    const BEFORE: [&str; 4] = [": ", "; ", "(", "\n"];
    const AFTER: [&str; 7] = [": ", ":\n", ";", ",", " (", ")", "\n"];
    let is_whole = |(at, _): (usize, &str)| {
        let (before, after) = (&text[..at], &text[at + cause.len()..]);
        let begins = before.is_empty() || BEFORE.iter().any(|it| before.ends_with(it));
        begins && (after.is_empty() || AFTER.iter().any(|it| after.starts_with(it)))
    };
    cause.is_empty() || text.match_indices(cause).any(is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        endpoint::Endpoint,
        error::{Error, Suspect, Unsent},
    };

    #[test]
    fn a_chain_prints_each_cause_once() {
        let error = Error::endpoint_failed(
            Endpoint::new(([10, 0, 0, 1], 80).into()),
            Unsent::new((), "connection closed").into(),
        );
        let text = "pod 10.0.0.1:80 failed: the request was not sent: connection closed";
        assert_eq!(chain(&error), text);
        assert_eq!(
            chain(&Suspect::Refuses("connection closed".into())),
            "connection closed"
        );
    }

    #[test]
    fn a_cause_is_printed_even_if_a_name_contains_its_words() {
        let pod = Endpoint::new(([10, 0, 0, 1], 80).into()).with_hostname("reset-0");
        let error = |why: &str| {
            let error = Error::endpoint_failed(pod.clone(), why.into());
            error.of_service(Some(&"timeout.default".into()))
        };
        for why in ["timeout", "reset", "pod", "10.0.0.1"] {
            let error = error(why);
            for text in [error.to_string(), format!("{error:#}"), chain(&error)] {
                assert!(text.ends_with(&format!(" failed: {why}")), "{text}");
            }
        }
    }

    #[test]
    fn a_cause_that_the_text_contains_as_a_whole_is_not_repeated() {
        for text in [
            "reset",
            "read: reset",
            "read: reset: late",
            "read (reset)",
            "reset (by it)",
        ] {
            assert!(says(text, "reset"), "{text}");
        }
        for text in ["resets", "read: reset-0", "to reset: no", "read: a reset"] {
            assert!(!says(text, "reset"), "{text}");
        }
    }
}
