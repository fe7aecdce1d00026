//! From a row of the outbox to a change event.
//!
//! Owns the meaning of what the trigger functions of `capture.rs` write. It must not fail: what it cannot read becomes an
//! event of the whole entity, which is correct whatever the row said.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use mcache::change::{ChangeEvent, Operation, RowsById};
use mcache_graph::Entity;

use super::mapping::Mapping;
use super::value::from_text;

/// One row of a statement, as captured.
#[derive(Debug, Deserialize)]
struct CapturedRow {
    id: Option<String>,
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
}

/// The event that a row of the outbox describes.
pub(super) fn event(
    mapping: &Mapping,
    entity: &str,
    operation: &str,
    rows: Option<&str>,
) -> ChangeEvent {
    let described = || {
        let (entity, _) = mapping.entity(entity)?;
        let operation = Operation::from_word(operation)?;
        let rows: Vec<CapturedRow> = serde_json::from_str(rows?).ok()?;
        from_rows(entity, operation, rows)
    };
    described().unwrap_or_else(|| ChangeEvent::everything(entity))
}

fn from_rows(entity: &Entity, operation: Operation, rows: Vec<CapturedRow>) -> Option<ChangeEvent> {
    let mut event = ChangeEvent::new(entity.name(), operation, Vec::<String>::new());
    let mut before_all = RowsById::new();
    let mut after_all = RowsById::new();
    let mut changed = BTreeSet::new();
    let mut all_pairs_known = operation == Operation::Updated;
    for row in rows {
        let id = row.id?;
        match (&row.before, &row.after) {
            (Some(before), Some(after)) => changed.extend(differences(before, after)),
            _ => all_pairs_known = false,
        }
        if let Some(before) = row.before {
            before_all.insert(id.clone(), known_values(entity, before));
        }
        if let Some(after) = row.after {
            after_all.insert(id.clone(), known_values(entity, after));
        }
        event.ids.push(id);
    }
    if event.ids.is_empty() {
        return None;
    }
    event.before = Some(before_all).filter(|rows| !rows.is_empty());
    event.after = Some(after_all).filter(|rows| !rows.is_empty());
    event.changed = all_pairs_known.then_some(changed);
    Some(event)
}

/// The fields that differ, digests included.
fn differences<'a>(
    before: &'a Map<String, Value>,
    after: &'a Map<String, Value>,
) -> impl Iterator<Item = String> + 'a {
    let names = before.keys().chain(after.keys());
    names
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
}

/// The values as query results have them. A digest stands for a value that was not sent: it is left out, which means
/// "unknown".
fn known_values(entity: &Entity, captured: Map<String, Value>) -> Map<String, Value> {
    captured
        .into_iter()
        .filter_map(|(name, value)| {
            let kind = entity.get_field(&name)?.kind();
            let value = match value {
                Value::Null => Value::Null,
                Value::String(text) => from_text(kind, Some(&text)),
                _ => return None,
            };
            Some((name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use mcache_graph::{Field, Schema};
    use serde_json::json;

    fn mapping() -> Mapping {
        let entity = Entity::new("Product")
            .fields(["title", "description"])
            .field(Field::integer("rank"))
            .field(Field::json("metadata"));
        let schema = Schema::builder().entity(entity).build().unwrap();
        Mapping::builder(Arc::new(schema)).build().unwrap()
    }

    #[test]
    fn values_are_those_of_query_results_and_digests_are_unknown() {
        let rows = json!([{
            "id": "p1",
            "before": { "id": "p1", "title": "a", "rank": "1", "metadata": { "sha256": "x" }, "description": null },
            "after": { "id": "p1", "title": "a", "rank": "2", "metadata": { "sha256": "y" }, "description": null },
        }]);
        let event = event(&mapping(), "Product", "updated", Some(&rows.to_string()));
        assert_eq!(event.ids, ["p1"]);
        let after = &event.after.unwrap()["p1"];
        assert_eq!(after["rank"], json!(2));
        assert_eq!(after["description"], Value::Null);
        assert!(!after.contains_key("metadata"));
        let changed: Vec<_> = event.changed.unwrap().into_iter().collect();
        assert_eq!(changed, ["metadata", "rank"]);
    }

    #[test]
    fn with_ids_only_nothing_is_claimed_about_values() {
        let event = event(
            &mapping(),
            "Product",
            "updated",
            Some(r#"[{"id":"p1"},{"id":"p2"}]"#),
        );
        assert_eq!(event.ids, ["p1", "p2"]);
        assert_eq!(
            (event.before, event.after, event.changed),
            (None, None, None)
        );
    }

    #[test]
    fn what_cannot_be_read_concerns_the_whole_entity() {
        for rows in [None, Some("nonsense"), Some("[]"), Some(r#"[{"id":null}]"#)] {
            let event = event(&mapping(), "Product", "deleted", rows);
            assert_eq!(event, ChangeEvent::everything("Product"), "{rows:?}");
        }
        let unknown = event(&mapping(), "Gone", "updated", None);
        assert_eq!(unknown, ChangeEvent::everything("Gone"));
    }
}
