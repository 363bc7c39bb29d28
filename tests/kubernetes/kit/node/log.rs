//! A container's log, read as `kubectl logs` asks for it.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use http_body::Frame;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, SeekFrom},
    time::sleep,
};

use crate::support::lock;

use super::State;

/// How often to check for more output.
const POLL: Duration = Duration::from_millis(20);

/// Which part of a log.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// How many of the existing lines, counted from the end; all if none is given.
    pub(super) tail: Option<usize>,
    /// Whether to include what is written from now on, until the container has ended.
    pub(super) follow: bool,
}

/// A log being read.
struct Reading {
    state: Arc<State>,
    uid: String,
    file: File,
    follow: bool,
}

/// What the pod's container has written since its latest start. `None` if no such pod runs here.
pub(super) async fn read(
    state: Arc<State>,
    pod: &str,
    part: Part,
) -> Option<io::Result<impl Stream<Item = io::Result<Frame<Bytes>>> + use<>>> {
    let (uid, begin) = {
        let shared = lock(&state.shared);
        let found = shared.pods.iter().find(|(_, running)| running.name == pod);
        let (uid, running) = found?;
        (uid.clone(), running.log_begins)
    };
    let file = open(&state, pod, begin, part.tail).await;
    let reading = file.map(|file| Reading {
        state,
        uid,
        file,
        follow: part.follow,
    });
    Some(reading.map(|reading| stream::try_unfold(reading, next)))
}

/// Opens the file at the beginning of the part.
async fn open(state: &State, pod: &str, begin: u64, tail: Option<usize>) -> io::Result<File> {
    let mut file = File::open(state.log_file(pod)).await?;
    file.seek(SeekFrom::Start(begin)).await?;
    if let Some(lines) = tail {
        let mut text = Vec::new();
        file.read_to_end(&mut text).await?;
        let skipped = text.len() - tail_of(&text, lines).len();
        file.seek(SeekFrom::Start(begin + skipped as u64)).await?;
    }
    Ok(file)
}

/// The last lines, counting one that isn't finished yet.
fn tail_of(text: &[u8], lines: usize) -> &[u8] {
    let whole: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let skipped = whole.iter().take(whole.len().saturating_sub(lines));
    let skipped: usize = skipped.map(|line| line.len()).sum();
    &text[skipped..]
}

async fn next(mut reading: Reading) -> io::Result<Option<(Frame<Bytes>, Reading)>> {
    loop {
        // Checked before reading, so that the last output is still read.
        let is_over = !reading.follow || reading.is_over();
        let mut piece = vec![0; 16 * 1024];
        let read = reading.file.read(&mut piece).await?;
        if read > 0 {
            piece.truncate(read);
            return Ok(Some((Frame::data(piece.into()), reading)));
        }
        if is_over {
            return Ok(None);
        }
        sleep(POLL).await;
    }
}

impl Reading {
    fn is_over(&self) -> bool {
        let shared = lock(&self.state.shared);
        shared
            .pods
            .get(&self.uid)
            .is_none_or(|running| running.is_over)
    }
}
