//! Request bodies as pods get them: one type for all, so that all requests share connections. A body is copied if
//! possible, so that its request can be sent again.

mod begun;
mod reading;

pub(super) use begun::panicked;
pub(super) use reading::Reading;

use std::{
    any::Any,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt};
use http::Request;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody};

use self::{begun::Begun, reading::Reader};
use super::{measured::Measured, sync_body::SyncBody};
use crate::{error::BoxError, sync::Mutex};

/// A request on its way to a pod.
pub(super) type PodRequest = Request<RequestBody>;

/// The body of a request: none, bytes, or any [`http_body::Body`]. [Layers](super::Client::layer) around a client get
/// every body as this type.
///
/// Convert bytes or text with `into()`, and any other body with [`new`](Self::new). A body in memory is sent again if
/// that is safe; a stream can be read only once. The default is no body.
///
/// ```
/// use http_body_util::StreamBody;
/// use tower_headless::http::RequestBody;
///
/// let text = RequestBody::from("hello");
/// assert!(text.try_clone().is_some());
/// # let frames = futures::stream::iter([Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::new()))]);
/// let stream = RequestBody::new(StreamBody::new(frames));
/// assert!(stream.try_clone().is_none()); // it can be read only once
/// ```
// One word, because most requests have none, and each body moves with its request.
#[derive(Default)]
pub struct RequestBody(Option<Box<Kind>>);

enum Kind {
    Whole(Option<Bytes>),
    Stream(Streamed),
    Begun(Begun<Streamed>),
    Watched { body: RequestBody, reader: Reader },
}

/// A stream, which can be read once, or as far as it is recorded.
enum Streamed {
    Once(SyncBody),
    Recorded(ReplayBody),
}

/// What is kept of a request's body to send it again. It needs no box of its own, as a [`RequestBody`] would.
pub(super) enum KeptBody {
    Empty,
    Whole(Option<Bytes>),
    Recorded(ReplayBody),
}

impl RequestBody {
    /// No body.
    pub(super) const EMPTY: Self = Self(None);

    /// Wraps any body; it is read as the pod takes it. One that is complete, such as `http_body_util`'s `Full<Bytes>`
    /// and `Empty`, is kept as bytes; any other is a stream.
    ///
    /// A stream can be sent only once: if a part of it may have been read, its request isn't sent again, unless the
    /// request is [`Idempotent`](super::Idempotent), which records the stream up to a limit.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::at_hand(body).unwrap_or_else(|body| Streamed::Once(SyncBody::new(body)).into())
    }

    /// Wraps a stream of bytes. Like any other stream it can be sent only once: see [`new`](Self::new).
    ///
    /// ```
    /// use bytes::Bytes;
    /// use futures::stream;
    /// use tower_headless::http::RequestBody;
    ///
    /// let lines = stream::iter(["one\n", "two\n"].map(|line| Ok::<_, std::io::Error>(Bytes::from(line))));
    /// let body = RequestBody::from_stream(lines);
    /// # drop(body);
    /// ```
    pub fn from_stream<S, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        Self::new(StreamBody::new(stream.map_ok(Frame::data)))
    }

    /// Reads the whole body, for a layer or a test that gets the request ([`Client::from_fn`](super::Client::from_fn)).
    /// It is held in memory, however long it is. Trailers are dropped.
    ///
    /// # Errors
    ///
    /// If the body fails.
    pub async fn bytes(self) -> Result<Bytes, BoxError> {
        Ok(self.collect().await?.to_bytes())
    }

    /// [`bytes`](Self::bytes) as UTF-8 text. Invalid bytes become U+FFFD.
    ///
    /// # Errors
    ///
    /// If the body fails.
    pub async fn text(self) -> Result<String, BoxError> {
        Ok(lossy(self.bytes().await?))
    }

    /// No body.
    pub fn empty() -> Self {
        Self::EMPTY
    }

    /// Copies the body; none if it is a stream, which can be read only once.
    pub fn try_clone(&self) -> Option<Self> {
        self.again()
    }

    /// A body that fails if it doesn't have its length. `declared` is the length in the request's headers, if they have
    /// one.
    pub(super) fn measured<B>(body: B, declared: Option<u64>) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::at_hand(body).map_or_else(
            |body| Self::measured_stream(body, declared),
            |body| body.remeasured(declared),
        )
    }

    fn measured_stream<B>(body: B, declared: Option<u64>) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Streamed::Once(SyncBody::new(Measured::new(body, declared))).into()
    }

    /// Converts a body of a known type without boxing it, or gives it back.
    #[inline]
    fn at_hand<B>(body: B) -> Result<Self, B>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        if body.is_end_stream() {
            return Ok(Self::EMPTY);
        }
        let mut body = Some(body);
        let any = &mut body as &mut dyn Any;
        if let Some(whole) = any.downcast_mut::<Option<Full<Bytes>>>() {
            return Ok(Self::whole(whole.take()));
        }
        if let Some(own) = any.downcast_mut::<Option<Self>>() {
            return Ok(own.take().unwrap_or_default());
        }
        Err(body.expect("not taken above"))
    }

    /// Measures a stream that came as a `RequestBody`, and so has not been measured before.
    fn remeasured(self, declared: Option<u64>) -> Self {
        match self.0 {
            Some(kind) if matches!(*kind, Kind::Stream(Streamed::Once(_))) => match *kind {
                Kind::Stream(Streamed::Once(stream)) => Self::measured_stream(stream, declared),
                other => other.into(),
            },
            other => Self(other),
        }
    }

    fn whole(body: Option<Full<Bytes>>) -> Self {
        let mut body = body.unwrap_or_default();
        // `Full` is ready at once, so nobody needs waking.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let data = match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        };
        Kind::Whole(data).into()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it is complete, and no longer than `limit`.
    pub(super) fn is_within(&self, limit: usize) -> bool {
        match self.0.as_deref() {
            None => true,
            Some(Kind::Whole(data)) => data.as_ref().is_none_or(|data| data.len() <= limit),
            Some(Kind::Stream(_) | Kind::Begun(_) | Kind::Watched { .. }) => false,
        }
    }

    /// Lets `reading` tell whether hyper still reads a stream.
    pub(super) fn watch(&mut self, reading: &Reading) {
        if let Some(Kind::Stream(_) | Kind::Begun(_)) = self.0.as_deref() {
            let stream = std::mem::take(self);
            *self = Kind::Watched {
                body: stream,
                reader: reading.begin(),
            }
            .into();
        }
    }

    /// The body as it was before it was watched.
    pub(super) fn unwatched(mut self) -> Self {
        match self.0.as_deref_mut() {
            Some(Kind::Watched { body, .. }) => std::mem::take(body),
            _ => self,
        }
    }

    /// Reads what a stream has ready, in the caller's task: if the stream panics or blocks, it does so there.
    pub(super) fn begin(&mut self) {
        self.replace_stream(|stream| Kind::Begun(Begun::of(stream)));
    }

    /// Whether the next frame, or the end, can be had without running foreign code.
    pub(super) fn is_at_hand(&self) -> bool {
        match self.0.as_deref() {
            None | Some(Kind::Whole(_)) => true,
            Some(Kind::Stream(_)) => false,
            Some(Kind::Begun(begun)) => begun.is_at_hand(),
            Some(Kind::Watched { body, .. }) => body.is_at_hand(),
        }
    }

    /// Records a stream as it is sent, so that up to `limit` bytes of it can be sent again.
    pub(super) fn record(&mut self, limit: usize) {
        self.replace_stream(|stream| {
            Kind::Stream(match stream {
                Streamed::Once(stream) => Streamed::Recorded(ReplayBody::new(stream, limit)),
                recorded @ Streamed::Recorded(_) => recorded,
            })
        });
    }

    /// Replaces a stream that has not been read yet, in its box.
    fn replace_stream(&mut self, replace: impl FnOnce(Streamed) -> Kind) {
        if let Some(kind) = self.0.as_deref_mut()
            && let Kind::Stream(_) = kind
            && let Kind::Stream(stream) = std::mem::replace(kind, Kind::Whole(None))
        {
            *kind = replace(stream);
        }
    }

    /// A copy of the body. None if it can be read only once, or if more was read than recorded.
    pub(super) fn again(&self) -> Option<Self> {
        self.keep().map(|kept| kept.again())
    }

    /// Keeps what is needed to send the body again. None if it can be read only once.
    pub(super) fn keep(&self) -> Option<KeptBody> {
        match self.0.as_deref() {
            None => Some(KeptBody::Empty),
            Some(Kind::Whole(data)) => Some(KeptBody::Whole(data.clone())),
            Some(Kind::Stream(stream)) => stream.keep(),
            Some(Kind::Begun(begun)) => begun.stream().keep(),
            Some(Kind::Watched { body, .. }) => body.keep(),
        }
    }
}

impl Streamed {
    fn keep(&self) -> Option<KeptBody> {
        match self {
            Self::Once(_) => None,
            Self::Recorded(replayed) => Some(KeptBody::Recorded(replayed.again())),
        }
    }
}

impl KeptBody {
    /// The body from its beginning.
    pub(super) fn again(&self) -> RequestBody {
        match self {
            Self::Empty => RequestBody::EMPTY,
            Self::Whole(data) => Kind::Whole(data.clone()).into(),
            Self::Recorded(replayed) => Streamed::Recorded(replayed.again()).into(),
        }
    }

    /// Whether everything that was read of it has been recorded.
    pub(super) fn is_playable(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(_) => true,
            Self::Recorded(replayed) => !replayed.recording.lock().overrun,
        }
    }
}

impl From<Streamed> for RequestBody {
    fn from(stream: Streamed) -> Self {
        Kind::Stream(stream).into()
    }
}

impl From<Kind> for RequestBody {
    fn from(kind: Kind) -> Self {
        Self(Some(Box::new(kind)))
    }
}

/// Complete bodies.
impl From<Bytes> for RequestBody {
    fn from(data: Bytes) -> Self {
        match data.is_empty() {
            true => Self::EMPTY,
            false => Kind::Whole(Some(data)).into(),
        }
    }
}

macro_rules! from_bytes {
    ($($data:ty)*) => {$(
        impl From<$data> for RequestBody {
            fn from(data: $data) -> Self {
                Bytes::from(data).into()
            }
        }
    )*};
}

from_bytes!(&'static str &'static [u8] String Vec<u8> Box<[u8]> BytesMut);

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = self.size_hint();
        let mut body = f.debug_struct("RequestBody");
        match hint.exact() {
            Some(length) => body.field("length", &length).finish(),
            None => body.finish_non_exhaustive(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.0.as_deref_mut() {
            None => Poll::Ready(None),
            Some(Kind::Whole(data)) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Some(Kind::Stream(stream)) => Pin::new(stream).poll_frame(cx),
            Some(Kind::Begun(begun)) => begun.poll_frame(cx),
            Some(Kind::Watched { body, reader }) => reader.poll_frame(body, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.0.as_deref() {
            None => true,
            Some(Kind::Whole(data)) => data.is_none(),
            Some(Kind::Stream(stream)) => stream.is_end_stream(),
            Some(Kind::Begun(begun)) => begun.is_end_stream(),
            Some(Kind::Watched { body, .. }) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.as_deref() {
            None => SizeHint::with_exact(0),
            Some(Kind::Whole(data)) => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
            Some(Kind::Stream(stream)) => stream.size_hint(),
            Some(Kind::Begun(begun)) => begun.size_hint(),
            Some(Kind::Watched { body, .. }) => body.size_hint(),
        }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Once(stream) => Pin::new(stream).poll_frame(cx),
            Self::Recorded(replayed) => replayed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Once(stream) => stream.is_end_stream(),
            Self::Recorded(replayed) => replayed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Once(stream) => stream.size_hint(),
            Self::Recorded(replayed) => replayed.size_hint,
        }
    }
}

/// A stream that is recorded, and a position in the recording.
///
/// The newest replay reads on where the recording ends; older ones belong to attempts that have failed.
pub(super) struct ReplayBody {
    recording: Arc<Mutex<Recording>>,
    /// The number of this replay among those that have been read; none before the first read.
    turn: Option<usize>,
    at: usize,
    /// Of the whole body.
    size_hint: SizeHint,
}

/// Why an attempt's body ends early: a later attempt reads it now. Neither the caller nor the pod has failed.
#[derive(Debug, thiserror::Error)]
#[error("the request's body has gone on to another pod")]
pub(super) struct Elsewhere;

struct Recording {
    stream: SyncBody,
    recorded: Frames,
    /// How many replays have been read; the newest of them reads on.
    turns: usize,
    /// How many frames have been read, recorded or not.
    read: usize,
    room: usize,
    /// Whether more was read than there is room for.
    overrun: bool,
    ended: bool,
}

/// Recorded frames. Most streams are gRPC calls of one message, and need no list.
#[derive(Default)]
struct Frames {
    first: Option<Bytes>,
    more: Vec<Bytes>,
}

impl Frames {
    fn push(&mut self, data: Bytes) {
        match self.first {
            None => self.first = Some(data),
            Some(_) => self.more.push(data),
        }
    }

    fn get(&self, at: usize) -> Option<&Bytes> {
        match at.checked_sub(1) {
            None => self.first.as_ref(),
            Some(at) => self.more.get(at),
        }
    }
}

impl ReplayBody {
    fn new(stream: SyncBody, limit: usize) -> Self {
        let size_hint = stream.size_hint();
        let recording = Recording {
            stream,
            recorded: Frames::default(),
            turns: 0,
            read: 0,
            room: limit,
            overrun: false,
            ended: false,
        };
        Self {
            recording: Arc::new(Mutex::new(recording)),
            turn: None,
            at: 0,
            size_hint,
        }
    }

    fn again(&self) -> Self {
        Self {
            recording: self.recording.clone(),
            turn: None,
            at: 0,
            size_hint: self.size_hint,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut recording = self.recording.lock();
        let turn = *self.turn.get_or_insert_with(|| {
            recording.turns += 1;
            recording.turns
        });
        if turn != recording.turns {
            // Its attempt has failed, but its connection may not know yet. It must take no frame and no wakeup.
            return Poll::Ready(Some(Err(Elsewhere.into())));
        }
        if self.at < recording.read {
            let Some(data) = recording.recorded.get(self.at) else {
                let lost = "the body was sent further than it was recorded";
                return Poll::Ready(Some(Err(lost.into())));
            };
            self.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if recording.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut recording.stream).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                recording.record(frame);
                self.at += 1;
            }
            Some(Err(_)) => recording.overrun = true,
            None => recording.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let recording = self.recording.lock();
        self.at == recording.read && (recording.ended || recording.stream.is_end_stream())
    }
}

impl Recording {
    /// Trailers are not worth recording: a body with trailers isn't sent again.
    fn record(&mut self, frame: &Frame<Bytes>) {
        self.read += 1;
        match frame.data_ref() {
            Some(data) if !self.overrun && data.len() <= self.room => {
                self.room -= data.len();
                self.recorded.push(data.clone());
            }
            _ => {
                self.overrun = true;
                self.recorded = Frames::default();
            }
        }
    }
}

/// As UTF-8; what is none becomes U+FFFD.
pub(super) fn lossy(bytes: Bytes) -> String {
    String::from_utf8(Vec::from(bytes))
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::Empty;

    fn chunks(chunks: &'static [&'static str]) -> RequestBody {
        let frames = chunks
            .iter()
            .copied()
            .map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk))));
        RequestBody::measured(StreamBody::new(stream::iter(frames)), None)
    }

    async fn read(body: &mut RequestBody, frames: usize) -> Vec<u8> {
        let mut read = Vec::new();
        for _ in 0..frames {
            let frame = body.frame().await.expect("a frame").expect("no error");
            read.extend(frame.into_data().expect("data"));
        }
        read
    }

    #[test]
    fn complete_bodies_can_be_copied_and_streams_cannot() {
        assert!(RequestBody::measured(Empty::new(), None).is_empty());
        assert!(RequestBody::measured(Full::new(Bytes::new()), None).is_empty());
        let whole = RequestBody::measured(Full::new(Bytes::from("abc")), None);
        let kind = whole.0.as_deref();
        assert!(matches!(kind, Some(Kind::Whole(Some(data))) if data == "abc"));
        assert_eq!(whole.size_hint().exact(), Some(3));
        assert!(whole.again().is_some());
        assert!(
            chunks(&["a"]).again().is_none(),
            "a stream can be read once"
        );
    }

    #[tokio::test]
    async fn a_replay_sends_the_recording_and_reads_on_in_the_stream() {
        let mut first = chunks(&["ab", "cd", "ef"]);
        first.record(10);
        assert_eq!(read(&mut first, 2).await, b"abcd");
        let kept = first.keep().expect("recorded");
        assert!(kept.is_playable());
        let mut second = kept.again();
        drop(first);
        assert!(!second.is_end_stream());
        assert_eq!(read(&mut second, 3).await, b"abcdef");
        assert!(second.frame().await.is_none());
        let mut third = second.again().expect("recorded");
        assert_eq!(read(&mut third, 3).await, b"abcdef");
        assert!(third.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_replay_reads_no_more_once_a_newer_one_reads() {
        let mut first = chunks(&["ab", "cd"]);
        first.record(10);
        let kept = first.keep().expect("recorded");
        let reading = Reading::default();
        first.watch(&reading);
        assert_eq!(read(&mut first, 1).await, b"ab");
        let mut second = kept.again();
        assert_eq!(read(&mut second, 1).await, b"ab");
        let frame = first.frame().await.expect("a frame");
        assert!(frame.is_err(), "what follows is the second's");
        let why = reading.take_error().expect("why it has ended");
        assert!(why.is::<Elsewhere>(), "{why}");
        assert_eq!(read(&mut second, 1).await, b"cd");
    }

    #[tokio::test]
    async fn a_stream_longer_than_its_recording_is_sent_once() {
        let mut body = chunks(&["ab", "cd", "ef"]);
        body.record(3);
        assert_eq!(read(&mut body, 3).await, b"abcdef");
        assert!(body.frame().await.is_none());
        let kept = body.keep().expect("recorded");
        assert!(!kept.is_playable());
        let mut again = kept.again();
        let frame = again.frame().await.expect("a frame");
        assert!(frame.is_err(), "not a body with a hole in it");
    }
}
