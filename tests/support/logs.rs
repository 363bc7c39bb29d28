//! Records what is logged on a test's thread: events and spans with their fields.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, LazyLock, Mutex},
};

use tracing::{
    Dispatch, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry,
    registry::LookupSpan,
};

use super::lock;

/// The fields of an event or a span, as text.
pub type Fields = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub struct Event {
    pub level: Level,
    pub target: String,
    pub fields: Fields,
}

impl Event {
    pub fn message(&self) -> &str {
        self.fields.get("message").map_or("", String::as_str)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Span {
    pub name: String,
    pub fields: Fields,
    /// The index of its parent among all spans.
    pub parent: Option<usize>,
    pub is_closed: bool,
}

impl Span {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Records what this crate logs, at all levels, on the thread that made it, until it is dropped.
pub struct Logs {
    log: Log,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    events: Vec<Event>,
    spans: Vec<Span>,
    open: HashMap<u64, usize>,
}

/// A second subscriber. With only one, tracing caches whether the first thread that reaches a line wants it. That
/// thread may be another test's, without a subscriber. With two subscribers, tracing asks both.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(registry()));

impl Logs {
    pub fn new() -> Self {
        LazyLock::force(&ANOTHER);
        let log = Log::default();
        let guard = tracing::subscriber::set_default(registry().with(log.clone()));
        Self { log, _guard: guard }
    }

    pub fn events(&self) -> Vec<Event> {
        lock(&self.log.0).events.clone()
    }

    /// How many events have this text, at this level.
    pub fn count(&self, level: Level, text: &str) -> usize {
        let events = &lock(&self.log.0).events;
        let is_it = |it: &&Event| it.level == level && it.message().contains(text);
        events.iter().filter(is_it).count()
    }

    pub fn spans(&self) -> Vec<Span> {
        lock(&self.log.0).spans.clone()
    }

    pub fn of_name(&self, name: &str) -> Vec<Span> {
        let is_it = |span: &Span| span.name == name;
        self.spans().into_iter().filter(is_it).collect()
    }
}

struct Texts<'a>(&'a mut Fields);

impl Visit for Texts<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

fn is_ours(target: &str) -> bool {
    target.starts_with("tower_headless")
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if !is_ours(metadata.target()) {
            return;
        }
        let mut fields = Fields::new();
        event.record(&mut Texts(&mut fields));
        lock(&self.0).events.push(Event {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            fields,
        });
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !is_ours(attributes.metadata().target()) {
            return;
        }
        let mut fields = Fields::new();
        attributes.record(&mut Texts(&mut fields));
        let parent = context.span(id).and_then(|span| span.parent());
        let parent = parent.map(|parent| parent.id().into_u64());
        let mut recorded = lock(&self.0);
        let span = Span {
            name: attributes.metadata().name().to_owned(),
            fields,
            parent: parent.and_then(|parent| recorded.open.get(&parent).copied()),
            is_closed: false,
        };
        let place = recorded.spans.len();
        recorded.open.insert(id.into_u64(), place);
        recorded.spans.push(span);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut recorded = lock(&self.0);
        if let Some(&place) = recorded.open.get(&id.into_u64()) {
            values.record(&mut Texts(&mut recorded.spans[place].fields));
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut recorded = lock(&self.0);
        if let Some(place) = recorded.open.remove(&id.into_u64()) {
            recorded.spans[place].is_closed = true;
        }
    }
}
