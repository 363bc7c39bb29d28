//! The TLS settings that a client's handshakes use, and how they are replaced.
//!
//! ```text
//!  files differ ──▶ the same at a second read? ── yes ──▶ do they fit together? ── yes ──▶ the next handshake has them;
//!       ▲                      │ no                               │ no: one warning        older connections retire
//!       │                      ▼                                  ▼
//!       └──────────── read again, in a second at most ◀───────────┘
//! ```

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::{current::Current, settings::Tls};
use crate::{
    error::BoxError,
    http::{protocol::Protocol, renewal::Renewals},
    logs::{CONNECTIONS, Line, info, warn},
    sync::Mutex,
};

/// How soon files are read again that have changed, or can't be used.
const SETTLED: Duration = Duration::from_secs(1);

/// How long a handshake waits for the files to be read.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Live {
    /// The name of the service, for events.
    service: Option<Arc<str>>,
    /// What the client's requests use.
    protocol: Protocol,
    current: Mutex<Arc<Current>>,
    renewals: Arc<Renewals>,
    notes: Mutex<Notes>,
    /// Whether a task watches the files.
    is_watched: AtomicBool,
    /// Dropping it ends that task.
    watcher: Mutex<Option<oneshot::Sender<()>>>,
    /// Without a task, one handshake reads the files for all that wait.
    looking: tokio::sync::Mutex<()>,
}

/// What was found in the files.
#[derive(Debug)]
struct Notes {
    looked_at: Instant,
    /// A change that was seen only once so far.
    unsettled: Option<Tls>,
    /// What is wrong with the files, and has been logged.
    trouble: Option<String>,
}

impl Live {
    pub(super) fn new(
        settings: Tls,
        service: Arc<str>,
        protocol: Protocol,
    ) -> Result<Self, BoxError> {
        let current = Current::new(settings, protocol)?;
        Ok(Self {
            service: Some(service),
            protocol,
            current: Mutex::new(Arc::new(current)),
            renewals: Arc::new(Renewals::new()),
            notes: Mutex::new(Notes {
                looked_at: Instant::now(),
                unsettled: None,
                trouble: None,
            }),
            is_watched: AtomicBool::new(false),
            watcher: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn current(&self) -> Arc<Current> {
        self.current.lock().clone()
    }

    pub(super) fn renewals(&self) -> Arc<Renewals> {
        self.renewals.clone()
    }

    /// Replaces `before` by `next`, unless the settings have changed since; returns whether it did. Older connections
    /// retire.
    pub(super) fn replace(&self, before: &Arc<Current>, next: Tls) -> Result<bool, BoxError> {
        let retirement = next.retirement();
        let next = Arc::new(Current::new(next, self.protocol)?);
        let mut current = self.current.lock();
        if !Arc::ptr_eq(&current, before) {
            return Ok(false);
        }
        *current = next;
        drop(current);
        // Only now: a connection that was made with `next` in between counts as an older one.
        self.renewals.renew(retirement);
        Ok(true)
    }

    /// Reads the files now, and takes them if they have changed. Settings that only others can see into always count as
    /// changed.
    pub(super) fn reload(&self) -> Result<(), BoxError> {
        loop {
            let before = self.current();
            let is_opaque = before.settings.is_opaque();
            let next = before.settings.read_again()?;
            let Some(next) = next.or_else(|| is_opaque.then(|| before.settings.clone())) else {
                return Ok(());
            };
            if self.replace(&before, next)? {
                info!(
                    CONNECTIONS,
                    self.service, "TLS: certificates and authorities reloaded"
                );
                return Ok(());
            }
        }
    }

    /// Makes sure that a handshake uses what is in the files, and that a task watches them. That task ends with its
    /// runtime, and makes no progress while its runtime isn't running.
    pub(super) async fn keep_fresh(self: &Arc<Self>) {
        let Some(interval) = self.current().settings.interval() else {
            return;
        };
        if self.is_fresh(interval) {
            return;
        }
        // The handshake that reads may be in a runtime that isn't running now.
        let Ok(_one_for_all) = timeout(LOOK, self.looking.lock()).await else {
            return;
        };
        if self.is_fresh(interval) {
            return;
        }
        // Files on a network that doesn't answer must not delay a handshake.
        let _ = timeout(LOOK, self.look(false)).await;
        if !self.is_watched.swap(true, Relaxed) {
            let (alive, gone) = oneshot::channel();
            *self.watcher.lock() = Some(alive);
            tokio::spawn(watch(Watching(Arc::downgrade(self)), gone, interval));
        }
    }

    fn is_fresh(&self, interval: Duration) -> bool {
        let looked_at = self.notes.lock().looked_at;
        self.is_watched.load(Relaxed) && Instant::now() < looked_at + 2 * interval
    }

    /// Reads the files. Returns when to read again, or none if there are no files. If a change `must_settle`, it counts
    /// only when seen twice in a row.
    async fn look(&self, must_settle: bool) -> Option<Duration> {
        let before = self.current();
        let settings = before.settings.clone();
        let interval = settings.interval()?;
        self.notes.lock().looked_at = Instant::now();
        let read = spawn_blocking(move || settings.read_again()).await;
        let read = read.unwrap_or_else(|ended| Err(ended.into()));
        let soon = Some(interval.min(SETTLED));
        let next = match read {
            Ok(Some(next)) => next,
            Ok(None) => {
                self.note(None, None);
                return Some(interval);
            }
            Err(error) => {
                self.note(None, Some(&error));
                return soon;
            }
        };
        if must_settle && !self.has_seen(&next) {
            self.notes.lock().unsettled = Some(next);
            return soon;
        }
        match self.replace(&before, next.clone()) {
            Ok(true) => self.note(None, None),
            // A reload came first, so these settings are out of date.
            Ok(false) => return soon,
            Err(error) => {
                self.note(Some(next), Some(&error));
                return soon;
            }
        }
        info!(
            CONNECTIONS,
            self.service, "TLS: the files have changed; the next handshake uses them"
        );
        Some(interval)
    }

    fn has_seen(&self, next: &Tls) -> bool {
        let notes = self.notes.lock();
        let seen = notes.unsettled.as_ref();
        seen.is_some_and(|seen| seen.has_files_of(next))
    }

    /// Warns of what is wrong, once.
    fn note(&self, unsettled: Option<Tls>, trouble: Option<&BoxError>) {
        let trouble = trouble.map(|trouble| Line(&**trouble).to_string());
        let mut notes = self.notes.lock();
        notes.unsettled = unsettled;
        if let Some(trouble) = &trouble
            && notes.trouble.as_ref() != Some(trouble)
        {
            warn!(CONNECTIONS, self.service, error = %trouble, "TLS: the files can't be used; the previous ones stay in use");
        }
        notes.trouble = trouble;
    }
}

/// Marks that a task watches the files, for as long as the task lives.
struct Watching(Weak<Live>);

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(live) = self.0.upgrade() {
            live.is_watched.store(false, Relaxed);
        }
    }
}

async fn watch(live: Watching, mut gone: oneshot::Receiver<()>, mut pause: Duration) {
    while timeout(pause, &mut gone).await.is_err() {
        let Some(live) = live.0.upgrade() else { return };
        let Some(next) = live.look(true).await else {
            return;
        };
        pause = next;
    }
}
