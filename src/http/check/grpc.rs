//! gRPC's health service, version 1: one message to ask, one to answer, each in a gRPC frame.

mod message;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::{BodyExt, Limited};

use crate::error::BoxError;

pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";

/// The longest answer; real ones are far shorter.
const MOST: usize = 4096;

/// The prefix of each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The body of a request for the status of `service`.
pub(super) fn request(service: &str) -> Bytes {
    let message = message::request(service);
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

/// Checks that the answer says `SERVING`.
pub(super) async fn judge<B>(response: Response<B>) -> Result<(), BoxError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MOST).collect().await?;
    // If there is no message, the status is in the head.
    status(body.trailers().unwrap_or(&head.headers))?;
    let status = message::status(&message(body.to_bytes())?);
    match status.ok_or("an answer that can't be decoded")? {
        SERVING => Ok(()),
        other => Err(format!("the service is {}", name(other)).into()),
    }
}

/// The only good `HealthCheckResponse.ServingStatus`.
const SERVING: i32 = 1;

fn name(status: i32) -> &'static str {
    match status {
        SERVING => "Serving",
        2 => "NotServing",
        3 => "ServiceUnknown",
        _ => "Unknown",
    }
}

fn status(headers: &HeaderMap) -> Result<(), BoxError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => Ok(()),
        None => Err("an answer without a gRPC status".into()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default();
            Err(format!("gRPC status {code}: {message:?}").into())
        }
    }
}

fn message(mut frame: Bytes) -> Result<Bytes, BoxError> {
    if frame.len() < PREFIX {
        return Err("an answer without a message".into());
    }
    let is_compressed = frame.get_u8() != 0;
    let length = frame.get_u32() as usize;
    if is_compressed || length != frame.len() {
        return Err("an answer that is not a single uncompressed message".into());
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    fn answer(code: &'static str, body: &'static [u8]) -> Response<Full<Bytes>> {
        let body = Full::new(Bytes::from_static(body));
        let response = Response::builder().header("grpc-status", code);
        response.body(body).expect("a response")
    }

    #[test]
    fn a_request_is_the_message_in_a_frame() {
        assert_eq!(&request("")[..], [0; 5]);
        let expected = [&[0, 0, 0, 0, 5, 0x0a, 3][..], b"a.b"].concat();
        assert_eq!(&request("a.b")[..], expected);
    }

    #[tokio::test]
    async fn only_serving_passes() {
        assert!(judge(answer("0", &[0, 0, 0, 0, 2, 8, 1])).await.is_ok());
        for (code, body, error) in [
            ("0", &[0, 0, 0, 0, 2, 8, 2][..], "NotServing"),
            ("0", &[0, 0, 0, 0, 2, 8, 3], "ServiceUnknown"),
            ("0", &[0, 0, 0, 0, 2, 8, 99], "Unknown"),
            ("0", &[0, 0, 0, 0, 0], "Unknown"),
            ("5", &[], "gRPC status 5"),
            ("0", &[], "without a message"),
            ("0", &[1, 0, 0, 0, 2, 8, 1], "single uncompressed"),
            ("0", &[0, 0, 0, 0, 9, 8, 1], "single uncompressed"),
            ("0", &[0, 0, 0, 0, 2, 8, 0xff], "decode"),
            ("0", &[0; 5000], "limit"),
        ] {
            let failed = judge(answer(code, body)).await.expect_err(error);
            assert!(failed.to_string().contains(error), "{failed}");
        }
    }
}
