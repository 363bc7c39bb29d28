//! JSON bodies, and errors about them that don't leak the body.

use std::any::type_name;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Error, Value, error::Category};

pub(super) fn encode(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
}

/// Returns why it can't be decoded, without any of the text, which may be secret.
pub(super) fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let why = why(&error, text);
        let name = type_name::<T>();
        format!("not the JSON of `{name}`: {why} at line {line}, column {column}")
    })
}

/// What serde calls the kinds of JSON values. Types may use other texts, taken from the body.
const KINDS: [&str; 9] = [
    "boolean",
    "character",
    "floating point",
    "integer",
    "map",
    "null",
    "number",
    "sequence",
    "string",
];

/// What serde's own types say they expect. Other types may say anything, including the body's text.
const EXPECTED: [&str; 20] = [
    "a boolean",
    "a character",
    "a map",
    "a sequence",
    "a string",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "unit",
    "isize",
    "usize",
];

fn why(error: &Error, body: &[u8]) -> String {
    let text = error.to_string();
    // Only texts that serde_json and serde themselves write.
    match error.classify() {
        Category::Data => mismatch(&text, body),
        Category::Eof => "it ends too soon".into(),
        Category::Syntax | Category::Io => "it is not JSON".into(),
    }
}

/// Serde's error about a value of another type: both kinds, and names that the type has.
fn mismatch(text: &str, body: &[u8]) -> String {
    for (known, unnamed) in [
        ("missing field `", "a field is missing"),
        ("duplicate field `", "a field that is there twice"),
    ] {
        if let Some(name) = text
            .strip_prefix(known)
            .and_then(|rest| rest.split('`').next())
        {
            // A type may use this text for an error of its own, about what it has read.
            return match says(body, name) {
                true => unnamed.into(),
                false => format!("{known}{name}`"),
            };
        }
    }
    if text.starts_with("unknown field `") {
        return "a field that the type doesn't have".into();
    }
    if text.starts_with("unknown variant `") {
        return "a variant that the type doesn't have".into();
    }
    if text.starts_with("invalid length ") {
        return "a sequence or a map of another length".into();
    }
    let invalid = ["invalid type: ", "invalid value: "];
    if let Some(what) = invalid.into_iter().find(|what| text.starts_with(what))
        && let Some((found, expected)) = text[what.len()..].rsplit_once(", expected ")
    {
        // The value is in quotes, or in backticks.
        let kind = found
            .split(['`', '"'])
            .next()
            .unwrap_or_default()
            .trim_end();
        let expected = expected.split(" at line ").next().unwrap_or_default();
        return match (KINDS.contains(&kind), EXPECTED.contains(&expected)) {
            (true, true) => format!("{what}{kind}, expected {expected}"),
            (true, false) => format!("{what}{kind}"),
            (false, _) => UNTOLD.into(),
        };
    }
    UNTOLD.into()
}

/// The text for errors whose own text may quote the body.
const UNTOLD: &str = "a value that the type doesn't take";

/// Whether `name` is anywhere in the body.
fn says(body: &[u8], name: &str) -> bool {
    fn is_in(value: &Value, name: &str) -> bool {
        let has = |text: &str| text.to_lowercase().contains(name);
        match value {
            Value::String(text) => has(text),
            Value::Number(number) => has(&number.to_string()),
            Value::Array(values) => values.iter().any(|value| is_in(value, name)),
            Value::Object(fields) => fields
                .iter()
                .any(|(key, value)| has(key) || is_in(value, name)),
            Value::Null | Value::Bool(_) => false,
        }
    }
    let name = name.to_lowercase();
    serde_json::from_slice(body).map_or(true, |value| is_in(&value, &name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashMap};

    #[derive(Debug)]
    struct Never;

    impl<'de> serde::Deserialize<'de> for Never {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let text = <String as serde::Deserialize>::deserialize(from)?;
            Err(serde::de::Error::custom(format_args!("no such: {text}")))
        }
    }

    #[derive(Debug)]
    struct Odd;

    impl<'de> serde::Deserialize<'de> for Odd {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let text = <String as serde::Deserialize>::deserialize(from)?;
            let unexpected = serde::de::Unexpected::Other(&text);
            Err(serde::de::Error::invalid_value(unexpected, &"a date"))
        }
    }

    /// Fails with serde's text for a missing field, which quotes the body.
    #[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Missing;

    impl<'de> serde::Deserialize<'de> for Missing {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let text = <String as serde::Deserialize>::deserialize(from)?;
            let text = format_args!("missing field `{text}`");
            Err(serde::de::Error::custom(text))
        }
    }

    /// Expects a text that isn't the body's.
    #[derive(Debug)]
    struct Unlike;

    impl<'de> serde::Deserialize<'de> for Unlike {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let text = <String as serde::Deserialize>::deserialize(from)?;
            let unexpected = serde::de::Unexpected::Str(&text);
            let expected = format!("not {text}");
            Err(serde::de::Error::invalid_value(
                unexpected,
                &expected.as_str(),
            ))
        }
    }

    /// Fails with serde's texts, which quote the body.
    #[derive(Debug)]
    struct Speaks<const HOW: usize>;

    impl<'de, const HOW: usize> serde::Deserialize<'de> for Speaks<HOW> {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let value = <Value as serde::Deserialize>::deserialize(from)?;
            let text = value.as_str().map_or_else(|| value.to_string(), Into::into);
            Err(serde::de::Error::custom(match HOW {
                0 => format!("invalid type: string, expected {text}"),
                1 => format!("invalid length {text}, expected 1"),
                _ => format!("missing field `{}`", text.to_uppercase()),
            }))
        }
    }

    fn error<T: DeserializeOwned>(text: &str) -> String {
        decode::<T>(text.as_bytes()).err().expect("it is none")
    }

    #[test]
    fn an_error_names_type_place_and_kind_but_quotes_no_text() {
        let secret = "hunter2, expected `a\\\"b";
        for (error, why) in [
            (
                error::<HashMap<String, u32>>(&format!("{{\n\"a\": \"{secret}\"}}")),
                "invalid type: string, expected u32 at line 2, column ",
            ),
            (
                error::<u8>("4711"),
                "invalid value: integer, expected u8 at",
            ),
            (
                error::<u8>("-4711.5"),
                "invalid type: floating point, expected u8 at",
            ),
            (
                error::<(u8, u8)>("[1]"),
                "a sequence or a map of another length at",
            ),
            (
                error::<Vec<u8>>("[1, "),
                "it ends too soon at line 1, column 4",
            ),
            (
                error::<Vec<u8>>("<html>hunter2"),
                "it is not JSON at line 1, column 1",
            ),
            (
                error::<Never>(&format!("\"{secret}\"")),
                "a value that the type doesn't take",
            ),
            (
                error::<Odd>("\"hunter2\""),
                "a value that the type doesn't take",
            ),
            (
                error::<Odd>("\"4711\""),
                "a value that the type doesn't take",
            ),
            (error::<Missing>("\"hunter2\""), "a field is missing at "),
            (
                error::<BTreeMap<Missing, u8>>("{\"hunter2\": 1}"),
                "a field is missing at ",
            ),
            (error::<Unlike>("\"hunter2\""), "invalid value: string at "),
            (
                error::<Speaks<0>>("\"hunter2\""),
                "invalid type: string at ",
            ),
            (error::<Speaks<1>>("4711"), "of another length at "),
            (error::<Speaks<2>>("\"hunter2\""), "a field is missing at "),
            (
                error::<Missing>("\"hunter\\u0032\""),
                "a field is missing at ",
            ),
        ] {
            assert!(error.contains(why), "{error}");
            for of_text in ["hunter2", "4711", "html"] {
                assert!(!error.to_lowercase().contains(of_text), "{error}");
            }
        }
        let named = error::<Vec<u8>>("{}");
        assert!(named.contains("`alloc::vec::Vec<u8>`"), "{named}");
    }
}
