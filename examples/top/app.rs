//! The state of the screen: the last reading, and what the user has selected.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tokio::time::Instant;
use tower_headless::{EndpointExplanation, Explanation, Verdict};

use crate::reader::Reading;

/// A pod looks stuck if at least this many requests wait for it. The page has the same two numbers
/// (`src/inspect/row.js`).
pub(crate) const STUCK_FROM: u32 = 5;

/// And if at least this many times as many wait for it as for the usual pod.
pub(crate) const STUCK_TIMES: u32 = 4;

/// How many rows the page keys move.
const PAGE: isize = 10;

pub(crate) struct App {
    pub(crate) url: String,
    pub(crate) balancers: BTreeMap<String, Explanation>,
    pub(crate) read_at: Option<Instant>,
    /// Why the last reading failed, if it did.
    pub(crate) failure: Option<String>,
    /// The name of the balancer that is shown.
    pub(crate) balancer: String,
    /// The label of the selected pod. It stays selected wherever its row goes.
    pub(crate) pod: Option<String>,
    /// Set if the selected pod is shown in full: the first line that is shown.
    pub(crate) told: Option<u16>,
    pub(crate) is_over: bool,
    requests: HashMap<(String, String), Counted>,
}

/// A pod's requests at two readings.
struct Counted {
    at: SystemTime,
    requests: u64,
    per_second: Option<f64>,
}

impl App {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            balancers: BTreeMap::new(),
            read_at: None,
            failure: None,
            balancer: String::new(),
            pod: None,
            told: None,
            is_over: false,
            requests: HashMap::new(),
        }
    }

    pub(crate) fn read(&mut self, reading: Reading) {
        let balancers = match reading.what {
            Ok(balancers) => balancers,
            Err(error) => {
                self.failure = Some(error);
                return;
            }
        };
        self.failure = None;
        self.read_at = Some(reading.at);
        let mut before = std::mem::take(&mut self.requests);
        for (name, balancer) in &balancers {
            for pod in &balancer.endpoints {
                let Some(counts) = &pod.counts else { continue };
                let key = (name.clone(), pod.label());
                let last = before.remove(&key);
                let counted = Counted::after(last, balancer.at, counts.requests);
                self.requests.insert(key, counted);
            }
        }
        self.balancers = balancers;
        if !self.balancers.contains_key(&self.balancer) {
            // The first balancer with trouble, otherwise the first one.
            let mut names = self.balancers.iter();
            let worst = names.find(|(_, it)| !it.trouble.is_empty());
            let shown = worst.or_else(|| self.balancers.iter().next());
            self.balancer = shown.map(|(name, _)| name.clone()).unwrap_or_default();
        }
    }

    pub(crate) fn shown(&self) -> Option<&Explanation> {
        self.balancers.get(&self.balancer)
    }

    /// The shown balancer's pods, the worst first.
    pub(crate) fn pods(&self) -> Vec<&EndpointExplanation> {
        let endpoints = self.shown().map(|it| it.endpoints.as_slice());
        let mut pods: Vec<_> = endpoints.unwrap_or_default().iter().collect();
        let usual = self.usual_waiting();
        pods.sort_by_key(|pod| (Reverse(badness(pod.verdict)), Reverse(is_stuck(pod, usual))));
        pods
    }

    /// How many requests wait for the usual pod (of two pods, the one that isn't stuck).
    pub(crate) fn usual_waiting(&self) -> u32 {
        let pods = self.shown().map(|it| it.endpoints.as_slice());
        let mut waiting: Vec<_> = pods
            .unwrap_or_default()
            .iter()
            .map(|pod| pod.waiting)
            .collect();
        waiting.sort_unstable();
        let middle = waiting.len().saturating_sub(1) / 2;
        waiting.get(middle).copied().unwrap_or_default()
    }

    /// The row of the selected pod; the first row if it has left.
    pub(crate) fn row(&self, pods: &[&EndpointExplanation]) -> usize {
        let chosen = self.pod.as_deref();
        let row = pods.iter().position(|pod| Some(&*pod.label()) == chosen);
        row.unwrap_or(0)
    }

    pub(crate) fn per_second(&self, pod: &EndpointExplanation) -> Option<f64> {
        let key = (self.balancer.clone(), pod.label());
        self.requests.get(&key)?.per_second
    }

    pub(crate) fn press(&mut self, key: KeyEvent) {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => self.is_over = true,
            KeyCode::Char('q') => self.is_over = true,
            KeyCode::Esc if self.told.is_some() => self.told = None,
            KeyCode::Esc => self.is_over = true,
            KeyCode::Enter => self.told = self.told.is_none().then_some(0),
            KeyCode::Tab => self.next_balancer(1),
            KeyCode::BackTab => self.next_balancer(self.balancers.len().saturating_sub(1)),
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-PAGE),
            KeyCode::PageDown => self.go(PAGE),
            KeyCode::Home => self.go(isize::MIN),
            KeyCode::End => self.go(isize::MAX),
            _ => {}
        }
    }

    /// Moves to another pod; if one is shown in full, scrolls it.
    fn go(&mut self, by: isize) {
        if let Some(line) = &mut self.told {
            let moved = isize::try_from(*line)
                .unwrap_or_default()
                .saturating_add(by);
            *line = u16::try_from(moved.clamp(0, 1_000)).unwrap_or_default();
            return;
        }
        let pods = self.pods();
        let last = pods.len().saturating_sub(1);
        let row = self.row(&pods).saturating_add_signed(by).min(last);
        self.pod = pods.get(row).map(|pod| pod.label());
    }

    fn next_balancer(&mut self, by: usize) {
        let names: Vec<_> = self.balancers.keys().collect();
        let at = names.iter().position(|name| **name == self.balancer);
        let next = at.map(|at| names[(at + by) % names.len()].clone());
        self.balancer = next.unwrap_or_default();
        (self.pod, self.told) = (None, None);
    }
}

impl Counted {
    fn after(last: Option<Self>, at: SystemTime, requests: u64) -> Self {
        let per_second = last.and_then(|last| {
            // `None` if the last time is in the future, because the clock was set back.
            let time = at.duration_since(last.at).ok()?;
            if time.is_zero() {
                // The same reading again.
                return last.per_second;
            }
            // A pod that rejoined counts from zero.
            let more = requests.checked_sub(last.requests)?;
            Some(more as f64 / time.as_secs_f64())
        });
        Self {
            at,
            requests,
            per_second,
        }
    }
}

/// How bad a verdict is. Worse pods come first.
pub(crate) fn badness(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Ejected | Verdict::Unreachable | Verdict::CheckFails => 5,
        Verdict::LastResort | Verdict::Panic => 4,
        Verdict::Trial => 3,
        Verdict::Picked => 1,
        Verdict::Far | Verdict::OnlyByName => 0,
        _ => 2,
    }
}

/// A pod whose requests wait, while those of the usual one don't, looks stuck before the balancer is sure.
pub(crate) fn is_stuck(pod: &EndpointExplanation, usual: u32) -> bool {
    pod.waiting >= STUCK_FROM && pod.waiting > usual.saturating_mul(STUCK_TIMES)
}
