//! How times are written: in seconds.

pub(super) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        time.as_secs_f64().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        match seconds >= 0.0 {
            // `Duration::MAX` is written as a number that is a little more than that.
            true => Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)),
            false => Err(D::Error::custom(format_args!(
                "{seconds} seconds: a time is zero or more"
            ))),
        }
    }
}
