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
mod tests {
    use std::sync::Arc;

    use super::*;
    use mcache_graph::{Field, Schema};

    const PRODUCT: &str = r#""public"."product""#;

    fn decoder() -> Decoder {
        let product = Entity::new("Product")
            .fields(["title", "description"])
            .field(Field::integer("rank"))
            .field(Field::json("metadata"))
            .field(Field::timestamp("deleted_at"))
            .soft_delete("deleted_at");
        let link = Entity::link("Link", ("a_id", "Product"), ("b_id", "Product"));
        let schema = Schema::builder()
            .entity(product)
            .entity(link)
            .build()
            .unwrap();
        Decoder::new(&Mapping::builder(Arc::new(schema)).build().unwrap())
    }

    fn row(id: &str, rank: &str) -> Value {
        json!({ "id": id, "title": "a", "rank": rank, "metadata@j": null, "description": null, "deleted_at@t": null })
    }

    fn events(operation: &str, images: Value) -> Vec<ChangeEvent> {
        decoder().events(PRODUCT, operation, Some(&images.to_string()), None)
    }

    #[test]
    fn values_are_those_of_query_results_and_digests_are_unknown() {
        let (mut old, mut new) = (row("p1", "1"), row("p1", "2"));
        old["metadata@j"] = json!({ "sha256": "x" });
        new["metadata@j"] = json!({ "sha256": "y" });
        let events = events("update", json!({ "old": [old], "new": [new] }));
        let [event] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(
            (event.operation, &event.ids[..]),
            (Operation::Updated, &["p1".to_owned()][..])
        );
        let after = &event.after.as_ref().unwrap()["p1"];
        assert_eq!(after["rank"], json!(2));
        assert_eq!(after["description"], Value::Null);
        assert!(!after.contains_key("metadata"));
        let changed: Vec<_> = event.changed.iter().flatten().collect();
        assert_eq!(changed, ["metadata", "rank"]);
    }

    #[test]
    fn the_only_row_of_a_statement_means_what_one_of_several_does() {
        let columns = [
            "id",
            "title",
            "rank",
            "metadata@j",
            "description",
            "deleted_at@t",
        ];
        let was = [Some("p1"), Some("a"), Some("1"), Some("x"), None, None];
        let is_now = [Some("p1"), Some("a"), Some("2"), Some("y"), None, None];
        let told = |operation,
                    was: Option<&[Option<&'static str>]>,
                    is_now: Option<&[Option<&'static str>]>| {
            let one = One {
                columns: columns.to_vec(),
                was: was.map(<[_]>::to_vec),
                is_now: is_now.map(<[_]>::to_vec),
            };
            decoder().events(PRODUCT, operation, None, Some(one))
        };
        let (mut old, mut new) = (row("p1", "1"), row("p1", "2"));
        old["metadata@j"] = json!({ "sha256": "x" });
        new["metadata@j"] = json!({ "sha256": "y" });
        for (operation, old, new) in [
            ("insert", None, Some(new.clone())),
            ("delete", Some(old.clone()), None),
            ("update", Some(old), Some(new)),
        ] {
            let list = |row: &Option<Value>| row.iter().cloned().collect::<Vec<_>>();
            let among_others = events(operation, json!({ "old": list(&old), "new": list(&new) }));
            let alone = told(
                operation,
                old.as_ref().map(|_| &was[..]),
                new.as_ref().map(|_| &is_now[..]),
            );
            assert_eq!(alone, among_others, "{operation}");
            assert_eq!(alone.len(), 1, "{operation}");
        }
        // What cannot be read concerns the whole entity.
        let everything = [ChangeEvent::everything("Product")];
        assert_eq!(told("update", Some(&was[1..]), Some(&is_now)), everything);
        assert_eq!(told("everything", Some(&was), Some(&is_now)), everything);
    }

    #[test]
    fn what_was_not_captured_is_unknown_and_counts_as_changed() {
        let mut new = row("p1", "2");
        new.as_object_mut().unwrap().remove("title");
        let known = events("update", json!({ "old": [row("p1", "2")], "new": [new] }));
        let changed: Vec<_> = known[0].changed.iter().flatten().collect();
        assert_eq!(changed, ["title"]);
        assert!(!known[0].after.as_ref().unwrap()["p1"].contains_key("title"));

        let ids_only = events(
            "update",
            json!({ "old": [{ "id": "p1" }], "new": [{ "id": "p1" }] }),
        );
        assert_eq!(ids_only[0].ids, ["p1"]);
        let after = &ids_only[0].after.as_ref().unwrap()["p1"];
        assert_eq!(after.len(), 1, "its id is known");
        let changed: Vec<_> = ids_only[0].changed.iter().flatten().collect();
        let all_but_the_id = ["deleted_at", "description", "metadata", "rank", "title"];
        assert_eq!(changed, all_but_the_id);
    }

    #[test]
    fn a_change_of_what_another_consumer_needs_is_none() {
        let (mut old, mut new) = (row("p1", "1"), row("p1", "1"));
        old["stock"] = json!("1");
        new["stock"] = json!("2");
        assert_eq!(events("update", json!({ "old": [old], "new": [new] })), []);
    }

    #[test]
    fn soft_deletion_is_the_consumers_own_word() {
        let mut gone = row("p1", "1");
        gone["deleted_at@t"] = json!("2026-01-31T12:00:00.000000Z");
        let what = |operation, old: &[&Value], new: &[&Value]| {
            let events = events(operation, json!({ "old": old, "new": new }));
            events
                .iter()
                .map(|event| event.operation)
                .collect::<Vec<_>>()
        };
        let there = row("p1", "1");
        assert_eq!(what("update", &[&there], &[&gone]), [Operation::Deleted]);
        assert_eq!(what("update", &[&gone], &[&there]), [Operation::Restored]);
        assert_eq!(what("update", &[&gone], &[&gone]), []);
        assert_eq!(what("insert", &[], &[&gone]), []);
        assert_eq!(what("delete", &[&gone], &[]), []);
        assert_eq!(what("insert", &[], &[&there]), [Operation::Created]);
        let moved = row("p2", "1");
        assert_eq!(
            what("update", &[&there], &[&moved]),
            [Operation::Deleted, Operation::Restored]
        );
    }

    #[test]
    fn rows_that_share_a_key_are_not_told_apart() {
        let images = json!({ "old": [row("p1", "1"), row("p1", "2")], "new": [row("p1", "3"), row("p1", "4")] });
        let events = events("update", images);
        assert_eq!(events[0].ids, ["p1"]);
        assert_eq!(
            (&events[0].before, &events[0].after, &events[0].changed),
            (&None, &None, &None)
        );
    }

    #[test]
    fn rows_that_share_a_key_and_come_or_go_concern_the_whole_entity() {
        for (operation, old, new) in [
            ("insert", vec![], vec!["1", "2"]),
            ("delete", vec!["1", "2"], vec![]),
            ("update", vec!["1", "2"], vec!["3"]),
        ] {
            let rows = |ranks: Vec<&str>| -> Vec<Value> {
                ranks.into_iter().map(|rank| row("p1", rank)).collect()
            };
            let events = events(operation, json!({ "old": rows(old), "new": rows(new) }));
            assert_eq!(events, [ChangeEvent::everything("Product")], "{operation}");
        }
    }

    #[test]
    fn a_key_of_several_columns_is_one_text_and_another_key_is_another_row() {
        let order = Entity::new("Order")
            .key(["tenant", "id"])
            .field(Field::integer("id"))
            .field("state");
        let schema = Schema::builder().entity(order).build().unwrap();
        let mapping = Mapping::builder(Arc::new(schema)).table(
            "Order",
            crate::Table::named("orders").column("tenant", "the tenant"),
        );
        let decoder = Decoder::new(&mapping.build().unwrap());
        let row =
            |tenant: &str, id: &str| json!({ "the tenant": tenant, "id": id, "state": "paid" });
        let happened = |old: Value, new: Value| {
            let rows = json!({ "old": old, "new": new }).to_string();
            let events = decoder.events(r#""public"."orders""#, "update", Some(&rows), None);
            let told = events.into_iter().map(|event| (event.operation, event.ids));
            told.collect::<Vec<_>>()
        };
        let mut unpaid = row("a|b", "7");
        unpaid["state"] = json!("new");
        assert_eq!(
            happened(json!([unpaid]), json!([row("a|b", "7")])),
            [(Operation::Updated, vec![r"a\|b|7".to_owned()])]
        );
        assert_eq!(
            happened(json!([row("a", "7")]), json!([row("b", "7")])),
            [
                (Operation::Deleted, vec!["a|7".to_owned()]),
                (Operation::Created, vec!["b|7".to_owned()])
            ]
        );
        // Null in the key names no row.
        let nameless = json!({ "the tenant": null, "id": "7", "state": "paid" });
        assert_eq!(
            happened(json!([nameless]), json!([])),
            [(Operation::Updated, vec![])]
        );
    }

    #[test]
    fn keys_of_several_columns_do_not_run_into_each_other() {
        let link = |a, b| json!({ "a_id": a, "b_id": b });
        let images = json!({ "new": [link("a|b", "c"), link("a", "b|c"), link("a\\", "|c")] });
        let events = decoder().events(
            r#""public"."link""#,
            "insert",
            Some(&images.to_string()),
            None,
        );
        let ids: BTreeSet<_> = events[0].ids.iter().collect();
        assert_eq!(ids.len(), 3, "{ids:?}");
        assert_eq!(events[0].operation, Operation::Attached);
    }

    #[test]
    fn what_cannot_be_read_concerns_the_whole_entity() {
        for (operation, rows) in [
            ("update", None),
            ("update", Some("nonsense")),
            ("everything", Some("{}")),
            ("update", Some(r#"{"new":[{"title":"no key"}]}"#)),
            ("update", Some(r#"{"new":[{"id":null}]}"#)),
            ("a word of a later version", Some(r#"{"new":[]}"#)),
        ] {
            let events = decoder().events(PRODUCT, operation, rows, None);
            assert_eq!(events, [ChangeEvent::everything("Product")], "{rows:?}");
        }
        assert_eq!(decoder().events("another", "update", None, None), []);
        assert_eq!(tags(Some(r#"["a", "b"]"#)), ["a", "b"]);
        assert!(tags(None).is_empty());
    }
}
