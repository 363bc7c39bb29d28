//! The health service's two messages, as protobuf encodes them: a string in one, an enumeration in the other.
//!
//! By hand: for two fields, a library of protobuf's and its macros would be built by all who use the client. The tests hold it
//! against prost.

use bytes::{Buf, BufMut};

use crate::error::BoxError;

/// `HealthCheckResponse.ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServingStatus {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
}

/// `HealthCheckRequest`: the service, in field 1, unless it is empty.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | LENGTH);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    message
}

/// The status in a `HealthCheckResponse`: the last field 1. Other fields are passed over, and a status that isn't known is as
/// good as none.
pub(super) fn status(mut message: &[u8]) -> Result<ServingStatus, BoxError> {
    let mut status = 0;
    while message.has_remaining() {
        let key = u32::try_from(varint(&mut message)?).map_err(|_| MALFORMED)?;
        match (key >> 3, key as u8 & 7) {
            (0, _) => return Err(MALFORMED.into()),
            // An enumeration is an `int32`, whose upper half is its sign.
            (1, VARINT) => status = varint(&mut message)? as i32,
            (1, _) => return Err(MALFORMED.into()),
            (_, VARINT) => drop(varint(&mut message)?),
            (_, FIXED64) => skip(&mut message, 8)?,
            (_, LENGTH) => {
                let length = varint(&mut message)?;
                skip(&mut message, length)?;
            }
            (_, FIXED32) => skip(&mut message, 4)?,
            // Groups, which proto3 doesn't have.
            _ => return Err(MALFORMED.into()),
        }
    }
    Ok(match status {
        1 => ServingStatus::Serving,
        2 => ServingStatus::NotServing,
        3 => ServingStatus::ServiceUnknown,
        _ => ServingStatus::Unknown,
    })
}

// How long a field's value is, in the last three bits of its key.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

const MALFORMED: &str = "an answer that can't be decoded";

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        message.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    message.put_u8(value as u8);
}

/// Seven bits a byte, the lowest first; the tenth has room for one.
fn varint(message: &mut &[u8]) -> Result<u64, BoxError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = message.try_get_u8().map_err(|_| MALFORMED)?;
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(MALFORMED.into())
}

fn skip(message: &mut &[u8], bytes: u64) -> Result<(), BoxError> {
    let bytes = usize::try_from(bytes).map_err(|_| MALFORMED)?;
    *message = message.get(bytes..).ok_or(MALFORMED)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::{
        Message,
        encoding::{WireType, encode_key, encode_varint},
    };
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response};

    fn by_prost(message: &[u8]) -> Option<ServingStatus> {
        use health_check_response::ServingStatus as Prost;
        let answer = HealthCheckResponse::decode(message).ok()?;
        Some(match answer.status() {
            Prost::Unknown => ServingStatus::Unknown,
            Prost::Serving => ServingStatus::Serving,
            Prost::NotServing => ServingStatus::NotServing,
            Prost::ServiceUnknown => ServingStatus::ServiceUnknown,
        })
    }

    /// Any field but a group.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let value = prop_oneof![0..5_u64, any::<u64>()];
        let bytes = prop::collection::vec(any::<u8>(), 0..200);
        let tag = prop_oneof![Just(1_u32), 1..(1 << 29_u32)];
        (tag, 0..4_u8, value, bytes).prop_map(|(tag, wire, value, bytes)| {
            let mut field = Vec::new();
            let mut key = |wire| encode_key(tag, wire, &mut field);
            match wire {
                0 => key(WireType::Varint),
                1 => key(WireType::SixtyFourBit),
                2 => key(WireType::LengthDelimited),
                _ => key(WireType::ThirtyTwoBit),
            }
            match wire {
                0 => encode_varint(value, &mut field),
                1 => field.put_u64_le(value),
                2 => {
                    encode_varint(bytes.len() as u64, &mut field);
                    field.put_slice(&bytes);
                }
                _ => field.put_u32_le(value as u32),
            }
            field
        })
    }

    proptest! {
        #[test]
        fn a_request_is_what_prost_makes_of_it(service in ".{0,300}") {
            let expected = HealthCheckRequest { service: service.clone() }.encode_to_vec();
            prop_assert_eq!(request(&service), expected);
        }

        #[test]
        fn a_status_is_what_prost_reads(status in any::<i32>()) {
            let answer = HealthCheckResponse { status }.encode_to_vec();
            prop_assert_eq!(super::status(&answer).ok(), by_prost(&answer));
        }

        #[test]
        fn so_it_is_among_fields_of_later_versions_and_where_it_is_cut_off(
            fields in prop::collection::vec(field(), 0..6),
            cut in 0..8_usize,
        ) {
            let mut answer = fields.concat();
            answer.truncate(answer.len().saturating_sub(cut));
            prop_assert_eq!(status(&answer).ok(), by_prost(&answer));
        }

        #[test]
        fn what_prost_refuses_is_refused(answer in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(status) = status(&answer) {
                prop_assert_eq!(Some(status), by_prost(&answer));
            }
        }
    }
}
