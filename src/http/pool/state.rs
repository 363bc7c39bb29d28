//! The connections of a pool.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    connection::{Http1, Http2, Stream},
    dialing::{Dial, Dialing},
    room::Room,
    wait::Wait,
};
use crate::{counters::Closed, home::Home, times::DAY};

#[derive(Default)]
pub(super) struct State {
    /// HTTP/1.1 connections without a request, the last used on top. Some may not be ready yet.
    #[expect(clippy::vec_box, reason = "they are boxed where they are used")]
    pub(super) idle: Vec<Box<Http1>>,
    pub(super) http2: Vec<Arc<Http2>>,
    /// Dials for one request each, in runtimes that may not be running.
    dials: Vec<Dial>,
    /// Dials for all waiting requests, one for each runtime that needs its own.
    pub(super) dialing: Vec<Dialing>,
    pub(super) reaper: Option<Reaper>,
}

/// How long a kept connection may be idle before it is checked: a day.
const NEVER: Duration = DAY;

/// The task that waits for the next connection to grow too old. It ends when this is dropped.
pub(super) struct Reaper {
    /// When it checks next.
    pub(super) due: Instant,
    told: watch::Sender<Instant>,
    home: Home,
}

impl Reaper {
    /// For a task in this runtime.
    pub(super) fn new(due: Instant, home: Home) -> (Self, watch::Receiver<Instant>) {
        let (told, receiver) = watch::channel(due);
        (Self { due, told, home }, receiver)
    }

    /// Whether it still works. If its runtime has ended or isn't running, it is late.
    pub(super) fn is_running(&self) -> bool {
        let is_late = || self.due + LATE < Instant::now();
        !self.told.is_closed() && (self.home.runs_beside_us() || !is_late())
    }

    /// Makes it check at `due`.
    pub(super) fn set(&mut self, due: Instant) {
        self.due = due;
        self.told.send_replace(due);
    }
}

/// How late a task may be whose runtime runs.
const LATE: Duration = Duration::from_secs(1);

/// What was found when a pool was checked.
pub(super) struct Reaped {
    /// How many connections were closed.
    pub(super) closed: usize,
    /// When to check again; none if nothing is left to close.
    pub(super) due: Option<Instant>,
    /// Connections that are too old, but that the next requests will probably use.
    pub(super) wanted: Vec<Arc<Http2>>,
}

impl State {
    /// The last used connection that can take a request and whose runtime runs. Closes those that take none any more.
    pub(super) fn pop_idle(&mut self) -> Option<Box<Http1>> {
        for at in (0..self.idle.len()).rev() {
            let connection = &self.idle[at];
            if connection.is_over() {
                connection.ends_idle();
                self.idle.remove(at);
            } else if connection.is_driven() && connection.sender.is_ready() {
                return Some(self.use_idle(at));
            }
        }
        None
    }

    /// The last used connection that is not ready yet.
    pub(super) fn pop_settling(&mut self) -> Option<Box<Http1>> {
        let mut idle = self.idle.iter();
        let at = idle.rposition(|it| !it.is_over() && it.is_driven())?;
        Some(self.use_idle(at))
    }

    fn use_idle(&mut self, at: usize) -> Box<Http1> {
        let mut connection = self.idle.remove(at);
        connection.begin_use();
        connection
    }

    /// The current dial for all requests, if its runtime runs while a request waits here. The outcome of a finished
    /// dial is only for those who already waited for it.
    pub(super) fn dialing(&mut self) -> Option<Wait> {
        self.dialing.retain(|dialing| !dialing.dial.is_over());
        let mut dialing = self.dialing.iter();
        dialing.find(|it| it.dial.is_driven()).map(Dialing::wait)
    }

    /// Forgets the connection of this room, because another one has it now.
    pub(super) fn evict(&mut self, room: &Room) {
        self.idle.retain(|it| it.room != *room);
        self.http2.retain(|it| it.room != *room);
        self.dials.retain(|it| !it.evict(room));
        self.dialing.retain(|it| !it.dial.evict(room));
    }

    /// Notes a dial for one request, in a runtime that may not be running.
    pub(super) fn dials(&mut self, dial: Dial) {
        self.dials.retain(|it| !it.is_over());
        self.dials.push(dial);
    }

    /// Takes a place on an HTTP/2 connection; on one that is too old only if no other has any.
    pub(super) fn begin_stream(&mut self) -> Option<Stream> {
        self.drop_those_that_are_over();
        let driven = || self.http2.iter().filter(|it| it.is_driven());
        let mut young = driven().filter(|it| !it.age.is_reached());
        let stream = young.find_map(Stream::begin);
        stream.or_else(|| driven().find_map(Stream::begin))
    }

    /// They keep their requests, if any, and give up their room.
    pub(super) fn drop_those_that_are_over(&mut self) {
        self.http2.retain(|connection| {
            let is_over = connection.is_over();
            if is_over {
                connection.retire();
            }
            !is_over
        });
    }

    /// Notes why all connections are about to be closed, or only those of HTTP/1.1.
    pub(super) fn end_all(&self, cause: Closed, with_http2: bool) {
        for it in &self.idle {
            if !it.sender.is_closed() {
                it.hints.ending().because(cause);
            }
        }
        if with_http2 {
            self.http2.iter().for_each(|it| it.because(cause));
        }
    }

    /// How many have no request.
    pub(super) fn count_idle(&self) -> u64 {
        let http2 = self.http2.iter();
        let http2 = http2.filter(|it| !it.is_over() && it.idle_since().is_some());
        let idle = self.idle.iter().filter(|it| !it.sender.is_closed());
        (idle.count() + http2.count()) as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.http2.is_empty()
    }

    /// Closes connections that are idle for too long, or too old. If it `keeps_one`, the last used may be idle forever.
    pub(super) fn reap(&mut self, timeout: Duration, keeps_one: bool) -> Reaped {
        let now = Instant::now();
        let before = self.idle.len() + self.http2.len();
        let mut kept = match keeps_one {
            true => self.idle.pop_if(|it| it.sender.is_ready()),
            false => None,
        };
        if let Some(old) = kept.take_if(|it| it.is_over() || it.due(NEVER) <= now) {
            old.ends_idle();
        }
        self.idle.retain_mut(|it| {
            let stays = !it.is_over() && it.due(timeout) > now;
            if !stays {
                it.ends_idle();
            }
            if it.idle_since + timeout <= now {
                it.cut_upload();
            }
            stays
        });
        let idle = self.idle.iter().map(|it| it.due(timeout));
        let idle = idle.chain(kept.as_ref().map(|it| it.due(NEVER))).min();
        self.idle.extend(kept);
        let timeout = match keeps_one && self.http2.len() == 1 {
            true => NEVER,
            false => timeout,
        };
        let wanted = self.reap_http2(now, timeout, keeps_one);
        let http2 = self.http2.iter().map(|it| it.due(timeout, now));
        let due = http2.chain(idle).min();
        let closed = before - self.idle.len() - self.http2.len();
        Reaped {
            closed,
            due,
            wanted,
        }
    }

    /// Connections that are too old but wanted are kept until they are replaced.
    fn reap_http2(&mut self, now: Instant, timeout: Duration, keeps_one: bool) -> Vec<Arc<Http2>> {
        let mut wanted = Vec::new();
        self.drop_those_that_are_over();
        self.http2.retain(|it| {
            let Some(since) = it.idle_since() else {
                return true;
            };
            if since + timeout <= now {
                it.because(Closed::Idle);
                return false;
            }
            if !it.age.is_reached() {
                return true;
            }
            let is_wanted = keeps_one || it.is_wanted(now);
            if is_wanted {
                wanted.push(it.clone());
            } else {
                it.because(Closed::Age);
            }
            is_wanted
        });
        wanted
    }
}
