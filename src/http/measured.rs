//! A request's body that must have its declared length.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::error::BoxError;

pin_project! {
    /// A body that fails if it is shorter or longer than declared.
    ///
    /// hyper would silently cut off what is too much. A failed body closes its connection (HTTP/1.1) or resets its
    /// stream (HTTP/2), so that the pod neither waits for the rest nor takes the next request for it.
    pub(super) struct Measured<B> {
        #[pin]
        body: B,
        // How many bytes are still to come; none if neither the body nor its request says.
        left: Option<u64>,
        // Trailers that were found while looking for more data.
        trailers: Option<Frame<Bytes>>,
        ended: bool,
    }
}

impl<B: Body<Data = Bytes>> Measured<B> {
    /// `declared` is the length in the request's headers, if they have one.
    pub(super) fn new(body: B, declared: Option<u64>) -> Self {
        Self {
            left: declared.or(body.size_hint().exact()),
            body,
            trailers: None,
            ended: false,
        }
    }
}

impl<B> Measured<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// Counts a frame. The last data is held back until it is known to be the last, if that can be known at once.
    fn count(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        frame: &Frame<Bytes>,
    ) -> Result<(), BoxError> {
        let this = self.project();
        let (Some(left), Some(data)) = (this.left, frame.data_ref()) else {
            return Ok(());
        };
        *left = left.checked_sub(data.len() as u64).ok_or_else(too_long)?;
        if *left > 0 {
            return Ok(());
        }
        let mut body = this.body;
        while !body.is_end_stream() {
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                    Some(data) if data.is_empty() => {}
                    Some(_) => return Err(too_long()),
                    None => {
                        *this.trailers = Some(frame);
                        break;
                    }
                },
                Poll::Ready(Some(Err(error))) => return Err(error.into()),
                Poll::Ready(None) => {
                    *this.ended = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

impl<B> Body for Measured<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.as_mut().project();
        if let Some(trailers) = this.trailers.take() {
            return Poll::Ready(Some(Ok(trailers)));
        }
        if *this.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(this.body.poll_frame(cx)) {
            Some(Ok(frame)) => self.as_mut().count(cx, &frame).map(|()| frame),
            Some(Err(error)) => Err(error.into()),
            None => {
                *this.ended = true;
                return Poll::Ready(match *this.left {
                    Some(left @ 1..) => Some(Err(too_short(left))),
                    _ => None,
                });
            }
        };
        *self.project().ended |= frame.is_err();
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        // A body that ends too soon must be polled once more, to report that.
        let is_due = self.trailers.is_some() || matches!(self.left, Some(1..));
        self.ended || (!is_due && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None => self.body.size_hint(),
        }
    }
}

fn too_long() -> BoxError {
    "the body is longer than its declared length".into()
}

fn too_short(left: u64) -> BoxError {
    format!("the body ends {left} bytes before its declared length").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use http::HeaderMap;
    use http_body_util::{BodyExt, StreamBody};

    fn of(
        chunks: &[&'static str],
        length: Option<u64>,
    ) -> Measured<impl Body<Data = Bytes, Error = BoxError> + Unpin + use<>> {
        let frame = |&chunk: &&'static str| Ok(Frame::data(Bytes::from(chunk)));
        let frames: Vec<_> = chunks.iter().map(frame).collect();
        Measured::new(StreamBody::new(stream::iter(frames)), length)
    }

    async fn read(body: impl Body<Data = Bytes, Error = BoxError>) -> Result<Bytes, BoxError> {
        Ok(body.collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn a_body_of_the_right_length_passes() {
        assert_eq!(
            of(&["ab", "", "c", ""], Some(3)).size_hint().exact(),
            Some(3)
        );
        let whole = read(of(&["ab", "", "c", ""], Some(3))).await;
        assert_eq!(whole.expect("as long as was said"), "abc");
        let whole = read(of(&["ab", "c"], None)).await;
        assert_eq!(whole.expect("nothing was said"), "abc");
        assert_eq!(read(of(&[], Some(0))).await.expect("nothing"), "");
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_fails_before_its_last_byte_is_sent() {
        for chunks in [
            &["abc", "d"][..],
            &["abcd"],
            &["ab", "cd"],
            &["abc", "", "d"],
        ] {
            let mut body = of(chunks, Some(3));
            let mut sent = 0;
            let error = loop {
                match body.frame().await.expect("no end") {
                    Ok(frame) => sent += frame.into_data().expect("data").len(),
                    Err(error) => break error,
                }
            };
            assert!(sent < 3, "{chunks:?}");
            assert!(error.to_string().contains("is longer"), "{error}");
            assert!(body.frame().await.is_none(), "nothing follows");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_short_fails_at_its_end() {
        let error = read(of(&["ab"], Some(5))).await.expect_err("too short");
        assert!(error.to_string().contains("3 bytes before"), "{error}");
    }

    #[tokio::test]
    async fn trailers_and_a_late_end_do_not_make_a_body_too_long() {
        let trailers = HeaderMap::new();
        let frames = [Frame::data(Bytes::from("abc")), Frame::trailers(trailers)];
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, BoxError>)));
        let mut body = Measured::new(body, Some(3));
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(!body.is_end_stream(), "the trailers");
        assert!(
            body.frame()
                .await
                .is_some_and(|frame| frame.is_ok_and(|it| it.is_trailers()))
        );
        assert!(body.frame().await.is_none());
        // A stream that isn't closed yet must not be waited for.
        let open = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from("abc")))]);
        let body = StreamBody::new(open.chain(stream::pending()));
        let mut body = Measured::new(body, Some(3));
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
    }
}
