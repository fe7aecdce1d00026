//! What is written to the log, for tests that expect a line or none.
//!
//! tracing remembers for each place that logs whether a subscriber wants its lines. While one subscriber is known,
//! the thread that comes there first decides for all by its own subscriber: a subscriber of one thread misses what a
//! thread without one met before. So the process has one subscriber. It wants everything and hands it to the thread's
//! listener. What was decided before it was there is decided anew.

use std::{
    cell::RefCell,
    fmt::{Debug, Write},
    marker::PhantomData,
    sync::Once,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

thread_local! {
    /// What was written in this thread since it listens.
    static LINES: RefCell<Option<Vec<(Level, String)>>> = const { RefCell::new(None) };
}

/// Lines of the level it was made for and of more serious ones, of the thread it was made in.
pub struct Log {
    level: Level,
    of_this_thread: PhantomData<*const ()>,
}

impl Log {
    /// Listens until it is dropped.
    pub fn listen(level: Level) -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            tracing::subscriber::set_global_default(Everything).expect("no other subscriber");
            tracing::callsite::rebuild_interest_cache();
        });
        let before = LINES.replace(Some(Vec::new()));
        assert_eq!(before, None, "one listens in a thread");
        Self {
            level,
            of_this_thread: PhantomData,
        }
    }

    /// The lines that contain these words.
    pub fn lines_with(&self, words: &[&str]) -> Vec<String> {
        LINES.with_borrow(|lines| {
            let lines = lines.iter().flatten();
            let heard = lines.filter(|(level, _)| *level <= self.level);
            let lines = heard.map(|(_, line)| line);
            let has_all = |line: &&String| words.iter().all(|word| line.contains(word));
            lines.filter(has_all).cloned().collect()
        })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        LINES.set(None);
    }
}

struct Everything;

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let level = *event.metadata().level();
        let mut line = Line(level.to_string());
        event.record(&mut line);
        LINES.with_borrow_mut(|lines| {
            lines
                .iter_mut()
                .for_each(|lines| lines.push((level, line.0.clone())))
        });
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
