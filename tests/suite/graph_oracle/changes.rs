//! Random changes of the data, told truthfully with a random amount of detail.

use std::collections::BTreeSet;

use harness::Seed;
use mcache::change::{ChangeEvent, Operation, RowsById};
use mcache_graph::{Entity, MemoryResolver, Row, Schema};
use serde_json::{Map, Value, json};

use super::world::{random_row, random_value};

/// Changes one or several rows of a random entity. `None`: the draw fell on a row that is not there.
pub fn random_change(
    seed: &mut Seed,
    schema: &Schema,
    store: &MemoryResolver,
) -> Option<ChangeEvent> {
    let entity = seed.pick(schema.entities());
    if seed.chance(6) {
        return rename_row(seed, schema, store, entity);
    }
    let kind = seed.u8(0..10);
    let mut event = change_row(seed, schema, store, entity, kind)?;
    if seed.chance(15) {
        // Several rows in one event.
        for _ in 0..seed.usize(1..3) {
            let more = change_row(seed, schema, store, entity, kind);
            if let Some(more) = more {
                event = merge(event, more);
            }
        }
    }
    if seed.chance(3) {
        return Some(ChangeEvent::everything(entity.name()));
    }
    if event.ids.is_empty() {
        return Some(event);
    }
    let event = relabel(seed, entity, event);
    Some(tell_less(seed, event))
}

fn change_row(
    seed: &mut Seed,
    schema: &Schema,
    store: &MemoryResolver,
    entity: &Entity,
    kind: u8,
) -> Option<ChangeEvent> {
    let name = entity.name();
    if kind < 3 {
        let row = random_row(seed, schema, entity);
        return Some(store.put(name, row).expect("random rows fit the schema"));
    }
    let ids = store.ids(name);
    if ids.is_empty() {
        return None;
    }
    let id = seed.pick(&ids).clone();
    if kind < 5 {
        return store.remove(name, &id).expect("the entity exists");
    }
    let mut fields = Map::new();
    let stored = entity.all_fields().iter().filter(|field| {
        let is_of_key = entity.key_fields().iter().any(|key| **key == *field.name());
        !field.is_computed() && !is_of_key
    });
    let stored: Vec<&str> = stored.map(|field| field.name()).collect();
    for _ in 0..seed.usize(1..3) {
        let field = *seed.pick(&stored);
        fields.insert(
            field.into(),
            random_value(seed, schema, entity, field, true),
        );
    }
    if let (5, Some(field)) = (kind, entity.soft_delete_field()) {
        let value = if seed.bool() {
            Value::Null
        } else {
            json!("2026-01-01T00:00:00Z")
        };
        fields = Map::from_iter([(field.to_owned(), value)]);
    }
    store
        .update(name, &id, Value::Object(fields))
        .expect("the entity exists")
}

/// Gives a row another key, which its event says, if not always to which.
fn rename_row(
    seed: &mut Seed,
    schema: &Schema,
    store: &MemoryResolver,
    entity: &Entity,
) -> Option<ChangeEvent> {
    let name = entity.name();
    let ids = store.ids(name);
    if ids.is_empty() {
        return None;
    }
    let id = seed.pick(&ids).clone();
    let before = store.get(name, &id)?;
    let mut after = before.clone();
    for field in entity.key_fields() {
        if seed.chance(70) {
            let value = random_value(seed, schema, entity, field, false);
            after.insert(field.to_string(), value);
        }
    }
    let changed: BTreeSet<String> = after
        .iter()
        .filter(|(field, value)| before.get(*field) != Some(value))
        .map(|(field, _)| field.clone())
        .collect();
    if changed.is_empty() {
        return None;
    }
    let removed = store.remove(name, &id).expect("the entity exists");
    let put = store.put(name, Value::Object(after.clone()));
    if put.expect("a row that was there").before.is_some() {
        // It took the place of another.
        return Some(ChangeEvent::everything(name));
    }
    let renamed = removed.map(|removed| {
        let mut event = ChangeEvent::new(name, Operation::Updated, removed.ids);
        for (rows, row) in [(&mut event.before, before), (&mut event.after, after)] {
            if seed.chance(80) {
                *rows = Some(RowsById::from([(id.clone(), row)]));
            }
            if let Some(rows) = rows.as_mut().filter(|_| seed.chance(20)) {
                thin_out(seed, rows);
            }
        }
        event
    });
    renamed.map(|event| event.with_changed(changed))
}

/// Two events as one, as far as one event can say it: the same row twice cannot be said with detail.
fn merge(mut event: ChangeEvent, more: ChangeEvent) -> ChangeEvent {
    let twice = more.ids.iter().any(|id| event.ids.contains(id));
    let said = event.ids.is_empty();
    if said || twice || more.operation != event.operation {
        return ChangeEvent::everything(event.entity);
    }
    event.ids.extend(more.ids);
    for (rows, more) in [
        (&mut event.before, more.before),
        (&mut event.after, more.after),
    ] {
        if let Some(more) = more {
            rows.get_or_insert_with(RowsById::new).extend(more);
        }
    }
    event.changed = match (event.changed, more.changed) {
        (Some(changed), Some(more)) => Some(changed.into_iter().chain(more).collect()),
        _ => None,
    };
    event
}

/// The same change under another name it may go by.
fn relabel(seed: &mut Seed, entity: &Entity, mut event: ChangeEvent) -> ChangeEvent {
    event.operation = match event.operation {
        Operation::Attached if seed.bool() => Operation::Created,
        Operation::Detached if seed.bool() => Operation::Deleted,
        Operation::Updated => match entity.soft_delete_field() {
            Some(field) if seed.bool() => soft_operation(field, &event),
            _ => Operation::Updated,
        },
        other => other,
    };
    event
}

/// A soft deletion may be called a deletion, and its undoing a restoration.
fn soft_operation(field: &str, event: &ChangeEvent) -> Operation {
    let is_deleted = |rows: &Option<RowsById>, id: &String| {
        let row = rows.as_ref().and_then(|rows| rows.get(id));
        row.map(|row| !row.get(field).is_none_or(Value::is_null))
    };
    let flips = |from: bool, to: bool| {
        event.ids.iter().all(|id| {
            is_deleted(&event.before, id) == Some(from) && is_deleted(&event.after, id) == Some(to)
        })
    };
    if flips(false, true) {
        Operation::Deleted
    } else if flips(true, false) {
        Operation::Restored
    } else {
        Operation::Updated
    }
}

/// Leaves things out, never says a wrong one.
fn tell_less(seed: &mut Seed, mut event: ChangeEvent) -> ChangeEvent {
    let differing = event
        .before
        .is_some()
        .then(|| differing_fields(&event))
        .flatten();
    match seed.u8(0..9) {
        0 | 1 => {}
        2 => event.changed = None,
        3 => {
            event.before = None;
            event.after = None;
            event.changed = differing;
        }
        4 => {
            event.before = None;
            event.after = None;
            event.changed = None;
        }
        5 => {
            event.before = None;
            event.changed = differing;
        }
        6 => {
            event.after = None;
            event.changed = differing.filter(|_| seed.bool());
        }
        _ => {
            event.changed = differing.filter(|_| seed.bool());
            for rows in [&mut event.before, &mut event.after].into_iter().flatten() {
                thin_out(seed, rows);
            }
        }
    }
    event
}

fn thin_out(seed: &mut Seed, rows: &mut RowsById) {
    for row in rows.values_mut() {
        row.retain(|_, _| seed.chance(60));
    }
    rows.retain(|_, _| seed.chance(85));
}

/// The fields that differ in any of the rows; `None` if the event does not have both sides.
fn differing_fields(event: &ChangeEvent) -> Option<BTreeSet<String>> {
    let mut fields = BTreeSet::new();
    let differs = |a: &Row, b: &Row| -> BTreeSet<String> {
        let names = a.keys().chain(b.keys());
        names
            .filter(|name| a.get(*name) != b.get(*name))
            .cloned()
            .collect()
    };
    for id in &event.ids {
        let before = event.before.as_ref()?.get(id)?;
        let after = event.after.as_ref()?.get(id)?;
        fields.extend(differs(before, after));
    }
    Some(fields)
}
