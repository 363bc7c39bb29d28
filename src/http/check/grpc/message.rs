//! The health service's two messages in protobuf: one has a string, the other an enumeration.
//!
//! Encoded by hand: otherwise every user of the client would build a protobuf library and its macros for two fields.
//! The tests compare it with prost.

/// Encodes `HealthCheckRequest`: field 1 is the service, after its length, unless it is empty.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length > 0x7f {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend(service.as_bytes());
    }
    message
}

/// Decodes the status of a `HealthCheckResponse`: the last field 1. Other fields are skipped. None if the message is
/// malformed, or has groups, which proto3 doesn't have.
pub(super) fn status(mut message: &[u8]) -> Option<i32> {
    let mut status = 0;
    while !message.is_empty() {
        let key = u32::try_from(varint(&mut message)?).ok()?;
        // A field's number and its wire type: a varint, 8 bytes, length-delimited, or 4 bytes.
        let skipped = match (key >> 3, key & 7) {
            (0, _) => return None,
            (1, 0) => {
                // An `int32`: the upper half only extends its sign.
                status = varint(&mut message)? as i32;
                0
            }
            (1, _) => return None,
            (_, 0) => varint(&mut message).map(|_| 0)?,
            (_, 1) => 8,
            (_, 2) => varint(&mut message)?,
            (_, 5) => 4,
            _ => return None,
        };
        message = message.get(usize::try_from(skipped).ok()?..)?;
    }
    Some(status)
}

/// Seven bits a byte, the lowest first. The tenth byte has room for one bit.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (shift < 63 || byte <= 1).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use proptest::prelude::*;
    use prost::{
        Message,
        encoding::{WireType, encode_key, encode_varint},
    };
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

    fn by_prost(message: &[u8]) -> Option<i32> {
        Some(HealthCheckResponse::decode(message).ok()?.status)
    }

    /// Any field except a group.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let value = prop_oneof![0..5_u64, any::<u64>()];
        let bytes = prop::collection::vec(any::<u8>(), 0..200);
        let tag = prop_oneof![Just(1_u32), 1..1_u32 << 29];
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
        fn a_request_is_encoded_as_by_prost(service in ".{0,300}") {
            let expected = HealthCheckRequest { service: service.clone() }.encode_to_vec();
            prop_assert_eq!(request(&service), expected);
        }

        #[test]
        fn a_status_is_read_as_by_prost(status in any::<i32>()) {
            let answer = HealthCheckResponse { status }.encode_to_vec();
            prop_assert_eq!(super::status(&answer), by_prost(&answer));
        }

        #[test]
        fn unknown_fields_and_truncated_messages_are_read_as_by_prost(
            fields in prop::collection::vec(field(), 0..6),
            cut in 0..8_usize,
        ) {
            let mut answer = fields.concat();
            answer.truncate(answer.len().saturating_sub(cut));
            prop_assert_eq!(status(&answer), by_prost(&answer));
        }

        #[test]
        fn bytes_that_prost_refuses_are_refused(answer in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Some(status) = status(&answer) {
                prop_assert_eq!(Some(status), by_prost(&answer));
            }
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        for last in [0, 1, 2, 0x7f, 0x80] {
            let answer = [&[8][..], &[0xff; 9], &[last]].concat();
            assert_eq!(status(&answer), by_prost(&answer), "{last}");
        }
        let most = [&[8][..], &[0xff; 9], &[1]].concat();
        assert_eq!(status(&most), Some(-1));
    }
}
