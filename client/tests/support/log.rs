//! What is written to the log, for tests that expect a line or none.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Lines of the level it was made for and of more serious ones, of the thread it was installed in.
#[derive(Clone)]
pub struct Log {
    level: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

#[allow(dead_code, reason = "each test binary uses some of it")]
impl Log {
    /// Listens until the guard is dropped.
    pub fn listen(level: Level) -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self {
            level,
            lines: Arc::default(),
        };
        let guard = tracing::subscriber::set_default(log.clone());
        (log, guard)
    }

    /// The lines that contain these words.
    pub fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let has_all = |line: &&String| words.iter().all(|word| line.contains(word));
        lines.iter().filter(has_all).cloned().collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{}", event.metadata().level()));
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}
