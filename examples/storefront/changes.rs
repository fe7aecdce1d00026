//! What a write of our own clears, before its caller hears that it was done.
//!
//! The outbox would clear all of it a few milliseconds later, as it does for changes by `psql`. Telling the cache at
//! once buys one thing: a user who changed something sees it with the next request. If Redis is away the cache keeps
//! the order and sends it again; if this process ends first, the outbox still has it.

use mcache::change::{ChangeEvent, Operation};
use serde_json::{Map, Value};

use crate::store::Store;

/// One committed change of one row: what it was, as far as that matters.
pub fn created(entity: &str, row: Value) -> ChangeEvent {
    let (id, row) = id_and_row(row);
    ChangeEvent::new(entity, Operation::Created, [&id]).with_after(&id, row)
}

/// A change of these fields. `row` is the row as it is now; its id and keys are enough.
pub fn updated(entity: &str, row: Value, changed: &[&str]) -> ChangeEvent {
    let (id, row) = id_and_row(row);
    ChangeEvent::new(entity, Operation::Updated, [&id])
        .with_after(&id, row)
        .with_changed(changed.iter().copied())
}

fn id_and_row(row: Value) -> (String, Map<String, Value>) {
    let id = row["id"].as_str().unwrap_or_default().to_owned();
    match row {
        Value::Object(row) => (id, row),
        _ => (id, Map::new()),
    }
}

impl Store {
    /// Clears what was made from the rows that changed. To be called after the commit, before the answer.
    pub async fn clear(&self, events: &[ChangeEvent]) {
        let tagger = self.catalogue.change_tags();
        let mut tags = Vec::new();
        for event in events {
            match tagger.of(event) {
                Ok(more) => tags.extend(more.iter().map(str::to_owned)),
                Err(error) => tracing::error!(%error, "a change that clears nothing"),
            }
        }
        if let Err(error) = self.cache.invalidate_auto(&tags).await {
            tracing::error!(%error, "the cache refused an invalidation; the outbox repeats it");
        }
    }
}
