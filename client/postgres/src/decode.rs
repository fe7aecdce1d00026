//! From a row of the outbox to what it means to one consumer.
//!
//! Owns the meaning of what the trigger functions of `capture.rs` write: which rows belong together, which entities
//! they are of, what happened to them. It must not fail: what it cannot read becomes an event of the whole entity,
//! which is correct for every row. A value that was not captured counts as unknown, never as unchanged.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use mcache::change::{ChangeEvent, Operation, RowsById};
use mcache_graph::{Entity, FieldType, key_text};

use super::form::Form;
use super::interest::captured_name;
use super::mapping::{MappedTable, Mapping, stored_fields};
use super::value::from_text;

/// A row of a table as captured: texts by the names of `interest.rs`.
type Captured = Map<String, Value>;

/// The rows of a statement, without those that did not change.
#[derive(Debug, Default, Deserialize)]
struct Images {
    #[serde(default)]
    old: Vec<Captured>,
    #[serde(default)]
    new: Vec<Captured>,
}

/// The only row of a statement: the names of its values, and these.
#[derive(Clone, Debug)]
pub(super) struct One<'a> {
    pub(super) columns: Vec<&'a str>,
    pub(super) was: Option<Vec<Option<&'a str>>>,
    pub(super) is_now: Option<Vec<Option<&'a str>>>,
}

impl One<'_> {
    /// As if it were one of several. `None` if it is not what it should be.
    fn images(&self) -> Option<Images> {
        let image = |values: &Option<Vec<Option<&str>>>| -> Option<Vec<Captured>> {
            let Some(values) = values else {
                return Some(Vec::new());
            };
            if values.len() != self.columns.len() {
                return None;
            }
            let named = self.columns.iter().zip(values).map(|(&name, &value)| {
                let value = match (value, Form::parse(name).1) {
                    (None, _) => Value::Null,
                    (Some(digest), Form::Digest) => json!({ "sha256": digest }),
                    (Some(text), _) => Value::String(text.to_owned()),
                };
                (name.to_owned(), value)
            });
            Some(vec![named.collect()])
        };
        Some(Images {
            old: image(&self.was)?,
            new: image(&self.is_now)?,
        })
    }
}

/// What one consumer makes of rows of the outbox.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    /// By the table's name in the outbox.
    tables: HashMap<String, Vec<Decoded>>,
}

/// An entity of a table.
#[derive(Clone, Debug)]
struct Decoded {
    name: String,
    is_link: bool,
    /// The names of the values that make its key.
    keys: Vec<String>,
    /// The name of the value that is not null in a row that counts as deleted.
    soft_delete: Option<String>,
    /// Field, type, and the name of its value.
    fields: Vec<(String, FieldType, String)>,
}

/// Several rows of one side can have one key, if the key is not one.
#[derive(Default)]
struct Pair {
    old: Vec<Captured>,
    new: Vec<Captured>,
}

/// One changed row, as an event will have it.
struct Row {
    id: String,
    before: Option<Captured>,
    after: Option<Captured>,
}

impl Decoder {
    pub(super) fn new(mapping: &Mapping) -> Self {
        let mut tables: HashMap<String, Vec<Decoded>> = HashMap::new();
        for (entity, table) in mapping.entities() {
            let decoded = Decoded::new(entity, table);
            tables
                .entry(table.quoted.clone())
                .or_default()
                .push(decoded);
        }
        Self { tables }
    }

    /// The names of all tables.
    pub(super) fn relations(&self) -> Vec<&str> {
        self.tables.keys().map(String::as_str).collect()
    }

    /// Any change of anything.
    pub(super) fn everything(&self) -> Vec<ChangeEvent> {
        let mut names: Vec<&str> = self
            .tables
            .values()
            .flatten()
            .map(|entity| &*entity.name)
            .collect();
        names.sort_unstable();
        names.into_iter().map(ChangeEvent::everything).collect()
    }

    /// The events that a row of the outbox describes.
    pub(super) fn events(
        &self,
        relation: &str,
        operation: &str,
        rows: Option<&str>,
        one: Option<One<'_>>,
    ) -> Vec<ChangeEvent> {
        let images = match operation {
            "insert" | "update" | "delete" => match one {
                Some(one) => one.images(),
                None => rows.and_then(|rows| serde_json::from_str(rows).ok()),
            },
            _ => None,
        };
        let entities = self.tables.get(relation).into_iter().flatten();
        entities
            .flat_map(|entity| {
                let described = images
                    .as_ref()
                    .and_then(|images| entity.events(images, operation));
                described.unwrap_or_else(|| vec![ChangeEvent::everything(&*entity.name)])
            })
            .collect()
    }
}

/// The tags of a row of the outbox that `invalidate` wrote.
pub(super) fn tags(rows: Option<&str>) -> Vec<String> {
    rows.and_then(|rows| serde_json::from_str(rows).ok())
        .unwrap_or_default()
}

impl Decoded {
    fn new(entity: &Entity, table: &MappedTable) -> Self {
        let captured = |field: &str| captured_name(table, entity.get_field(field)?);
        Self {
            name: entity.name().to_owned(),
            is_link: entity.is_link(),
            keys: entity
                .key_fields()
                .iter()
                .filter_map(|field| captured(field))
                .collect(),
            soft_delete: entity.soft_delete_field().and_then(captured),
            fields: stored_fields(entity)
                .filter_map(|field| {
                    let name = captured_name(table, field)?;
                    Some((field.name().to_owned(), field.kind(), name))
                })
                .collect(),
        }
    }

    /// One event for each thing that happened. `None` if it cannot be told to which rows.
    fn events(&self, images: &Images, operation: &str) -> Option<Vec<ChangeEvent>> {
        let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
        for old in &images.old {
            pairs
                .entry(self.key(old)?)
                .or_default()
                .old
                .push(old.clone());
        }
        for new in &images.new {
            pairs
                .entry(self.key(new)?)
                .or_default()
                .new
                .push(new.clone());
        }
        let mut happened: Vec<(Operation, Vec<Row>)> = Vec::new();
        for (id, pair) in pairs {
            if pair.old.len() != pair.new.len() && pair.old.len().max(pair.new.len()) > 1 {
                // Rows that share what should name one, and there are more or fewer of them now.
                return None;
            }
            let Some((what, row)) = self.change(id, pair, operation) else {
                continue;
            };
            match happened.iter_mut().find(|(known, _)| *known == what) {
                Some((_, rows)) => rows.push(row),
                None => happened.push((what, vec![row])),
            }
        }
        let events = happened.into_iter();
        Some(events.map(|(what, rows)| self.event(what, rows)).collect())
    }

    /// What names a row.
    fn key(&self, row: &Captured) -> Option<String> {
        let parts: Option<Vec<&str>> = self
            .keys
            .iter()
            .map(|name| row.get(name)?.as_str())
            .collect();
        parts.map(|parts| key_text(&parts))
    }

    /// What happened to a row, if queries can see it.
    fn change(&self, id: String, mut pair: Pair, operation: &str) -> Option<(Operation, Row)> {
        if pair.old.len() > 1 || pair.new.len() > 1 {
            // Rows that share what should name one: something happened to some of them.
            let unknown = Row {
                id,
                before: None,
                after: None,
            };
            return Some((Operation::Updated, unknown));
        }
        let (old, new) = (pair.old.pop(), pair.new.pop());
        let [was_live, is_live] =
            [&old, &new].map(|row| row.as_ref().and_then(|row| self.is_live(row)));
        let (appears, reappears, vanishes) = match self.is_link {
            true => (
                Operation::Attached,
                Operation::Attached,
                Operation::Detached,
            ),
            false => (Operation::Created, Operation::Restored, Operation::Deleted),
        };
        // An UPDATE makes a row appear by clearing its soft deletion, or by giving it another key.
        let appears = match operation == "update" && self.soft_delete.is_some() {
            true => reappears,
            false => appears,
        };
        let row = |before, after| Row { id, before, after };
        match (old, new) {
            (Some(old), Some(new)) => match (was_live, is_live) {
                (Some(false), Some(false)) => None,
                (Some(false), Some(true)) => Some((reappears, row(None, Some(new)))),
                (Some(true), Some(false)) => Some((vanishes, row(Some(old), None))),
                _ if self.is_same(&old, &new) => None,
                _ => Some((Operation::Updated, row(Some(old), Some(new)))),
            },
            (None, Some(new)) => (is_live != Some(false)).then(|| (appears, row(None, Some(new)))),
            (Some(old), None) => {
                (was_live != Some(false)).then(|| (vanishes, row(Some(old), None)))
            }
            (None, None) => None,
        }
    }

    /// Whether the row is one that queries see. `None` if that was not captured.
    fn is_live(&self, row: &Captured) -> Option<bool> {
        match &self.soft_delete {
            None => Some(true),
            Some(name) => row.get(name).map(Value::is_null),
        }
    }

    /// Whether a row did not change as far as this entity goes: another consumer may need more of it.
    fn is_same(&self, old: &Captured, new: &Captured) -> bool {
        let mut values = self
            .fields
            .iter()
            .map(|(_, _, name)| (old.get(name), new.get(name)));
        values.all(|(old, new)| old.is_some() && old == new)
    }

    fn event(&self, what: Operation, rows: Vec<Row>) -> ChangeEvent {
        let mut event = ChangeEvent::new(&*self.name, what, Vec::<String>::new());
        let mut before_all = RowsById::new();
        let mut after_all = RowsById::new();
        let mut changed = BTreeSet::new();
        let mut all_pairs_known = what == Operation::Updated;
        for row in rows {
            match (&row.before, &row.after) {
                (Some(before), Some(after)) => changed.extend(self.differences(before, after)),
                _ => all_pairs_known = false,
            }
            if let Some(before) = row.before {
                before_all.insert(row.id.clone(), self.known_values(before));
            }
            if let Some(after) = row.after {
                after_all.insert(row.id.clone(), self.known_values(after));
            }
            event.ids.push(row.id);
        }
        event.before = Some(before_all).filter(|rows| !rows.is_empty());
        event.after = Some(after_all).filter(|rows| !rows.is_empty());
        event.changed = all_pairs_known.then_some(changed);
        event
    }

    /// The fields that differ, digests included, and those of which one side is not known.
    fn differences<'a>(
        &'a self,
        before: &'a Captured,
        after: &'a Captured,
    ) -> impl Iterator<Item = String> + 'a {
        self.fields
            .iter()
            .filter(|(_, _, name)| match (before.get(name), after.get(name)) {
                (Some(before), Some(after)) => before != after,
                _ => true,
            })
            .map(|(field, _, _)| field.clone())
    }

    /// The values as query results have them. A digest stands for a value that was not sent: it is left out, which
    /// means "unknown".
    fn known_values(&self, captured: Captured) -> Map<String, Value> {
        let fields = self.fields.iter();
        fields
            .filter_map(|(field, kind, name)| {
                let value = match captured.get(name)? {
                    Value::Null => Value::Null,
                    Value::String(text) => from_text(*kind, Some(text)),
                    _ => return None,
                };
                Some((field.clone(), value))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
