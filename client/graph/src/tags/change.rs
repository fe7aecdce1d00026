//! From a change to the tags it clears: every region the changed row belonged or belongs to, and
//! what about it changed there. What the event leaves open counts as changed, or as any value.

use std::borrow::Cow;

use serde_json::Value;

use super::super::resolver::Row;
use super::super::schema::{Entity, FieldIndex, ID, Name, Schema, joined};
use super::name::{Aspect, Region, TagSink, TagWriter};
use super::{TagLimits, UnknownEntity};
use mcache::change::{ChangeEvent, Operation, key_text};

pub(super) fn tags_of<S: TagSink>(
    schema: &Schema,
    event: &ChangeEvent,
    limits: &TagLimits,
    tags: &mut S,
) -> Result<(), UnknownEntity> {
    let entity = schema.entity(&event.entity).ok_or_else(|| UnknownEntity {
        entity: event.entity.clone(),
    })?;
    let mut writer = TagWriter {
        set: tags,
        entity,
        distinct: false,
    };
    writer.put(Region::All, Aspect::Any);
    let rows = event.ids.iter();
    let rows: Vec<RowChange<'_>> = rows.map(|id| RowChange::new(entity, event, id)).collect();
    for key in rows.iter().flat_map(|row| &row.keys) {
        writer.put(Region::Value(ID, key), Aspect::Any);
    }
    // A name that is not known here is one of another release, whose entries only this tag is certain to reach.
    let knows = |name: &String| entity.index_of(name).is_some();
    let unknown = event.changed.iter().flatten().any(|name| !knows(name));
    if unknown || rows.iter().any(|row| !row.is_named) {
        writer.put_entity();
    }
    if event.ids.is_empty() || event.ids.len() > limits.changed_rows_max {
        writer.put_entity();
        return Ok(());
    }
    for row in &rows {
        row.put(&mut writer);
    }
    Ok(())
}

/// One row before or after its change.
#[derive(Clone, Copy)]
enum Side<'a> {
    /// There is no such row.
    Absent,
    /// There is, and this much is known of it.
    Known(&'a Row),
    /// There is; nothing is known of it.
    Unknown,
}

impl<'a> Side<'a> {
    fn get(self, field: &str) -> Option<&'a Value> {
        match self {
            Self::Known(row) => row.get(field),
            Self::Absent | Self::Unknown => None,
        }
    }
}

/// Whether queries see a row on one side of its change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Present,
    Absent,
    /// Its soft-delete field is not known.
    Maybe,
}

/// What an event says about one of its rows.
struct RowChange<'a> {
    entity: &'a Entity,
    event: &'a ChangeEvent,
    before: Side<'a>,
    after: Side<'a>,
    /// The parts of the key, as the event names the row.
    parts: Option<Vec<String>>,
    /// The keys the row is known to have had or to have: usually one.
    keys: Vec<String>,
    /// Whether it cannot have had another.
    is_named: bool,
    /// Whether it was given another key: a row went, and one came.
    is_renamed: bool,
}

impl<'a> RowChange<'a> {
    fn new(entity: &'a Entity, event: &'a ChangeEvent, id: &str) -> Self {
        let before = event.before.as_ref().and_then(|rows| rows.get(id));
        let after = event.after.as_ref().and_then(|rows| rows.get(id));
        let known = |row: Option<&'a Row>| row.map_or(Side::Unknown, Side::Known);
        let (before, after) = match event.operation {
            // One that tells how the row was has overwritten it.
            Operation::Created | Operation::Restored | Operation::Attached => {
                (before.map_or(Side::Absent, Side::Known), known(after))
            }
            Operation::Deleted | Operation::Detached => (known(before), Side::Absent),
            // What is not known yet is treated as the widest: any change of an existing row.
            _ => (known(before), known(after)),
        };
        let parts = entity.parts_of_key(id);
        // What the event knows of the row says better what its key is than how the event names it.
        let told = [before, after].map(|side| match side {
            Side::Known(row) => entity.text_in(ID, row),
            Side::Absent | Side::Unknown => None,
        });
        let named = parts.as_ref().map(|parts| {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            Cow::Owned(key_text(&parts))
        });
        let differs = matches!(&told, [Some(before), Some(after)] if before != after);
        let mut of_key = entity.key.iter();
        let says_so = |name: &Name| event.changed.as_ref().is_some_and(|c| c.contains(&**name));
        let is_renamed = differs || of_key.any(says_so);
        let is_named = match is_renamed {
            true => told.iter().all(Option::is_some),
            false => named.is_some() || told.iter().any(Option::is_some),
        };
        let mut keys: Vec<String> = Vec::with_capacity(1);
        for key in named.into_iter().chain(told.into_iter().flatten()) {
            if !keys.iter().any(|known| **known == *key) {
                keys.push(key.into_owned());
            }
        }
        Self {
            entity,
            event,
            before,
            after,
            parts,
            keys,
            is_named,
            is_renamed,
        }
    }

    fn put<S: TagSink>(&self, writer: &mut TagWriter<'_, S>) {
        let presences = self.presences();
        if presences == [Presence::Absent; 2] {
            return;
        }
        let stays_present = presences == [Presence::Present; 2];
        let absent_on_a_side = presences.contains(&Presence::Absent);
        let changed: Vec<FieldIndex> = if absent_on_a_side {
            // The row comes or goes as a whole.
            Vec::new()
        } else {
            self.entity
                .changeable()
                .filter(|&field| self.may_have_changed(field))
                .collect()
        };
        let comes_or_goes = !stays_present || self.is_renamed;
        if !comes_or_goes && changed.is_empty() {
            return;
        }

        let of_keys = self.keys.iter().map(|key| Region::Value(ID, key));
        for region in std::iter::once(Region::All).chain(of_keys) {
            // Where the row may come or go.
            if comes_or_goes {
                writer.put(region, Aspect::Member);
            }
            // Where it may stay and change.
            for &field in &changed {
                writer.put(region, Aspect::Field(field));
            }
        }
        for &lookup in &self.entity.lookups {
            let mut parts = self.entity.parts_of(lookup);
            let moves = parts.any(|part| changed.contains(&part));
            for (side, presence) in [self.before, self.after].into_iter().zip(presences) {
                if presence != Presence::Absent {
                    let text = self.text(side, lookup);
                    self.put_lookup(writer, lookup, text, &changed, comes_or_goes, moves);
                }
            }
        }
    }

    /// The tags of the rows that have the same value in a lookup as this row has on one side.
    fn put_lookup<S: TagSink>(
        &self,
        writer: &mut TagWriter<'_, S>,
        lookup: FieldIndex,
        text: Option<Cow<'_, str>>,
        changed: &[FieldIndex],
        comes_or_goes: bool,
        moves: bool,
    ) {
        let region = match &text {
            Some(text) => Region::Value(lookup, text),
            None => Region::Unknown(lookup),
        };
        writer.put(region, Aspect::Any);
        if comes_or_goes || moves {
            writer.put(region, Aspect::Member);
        }
        if !moves {
            for &field in changed {
                writer.put(region, Aspect::Field(field));
            }
        }
    }

    /// Whether queries saw the row before, and whether they see it now.
    fn presences(&self) -> [Presence; 2] {
        let [before, after] = [self.before, self.after].map(|side| self.told_presence(side));
        let kept = match (&self.entity.soft_delete, &self.event.changed) {
            (Some(field), Some(changed)) => !changed.contains(&**field),
            _ => false,
        };
        // What a side does not tell, the operation does, or the other side if nothing changed there.
        let (then, now) = match self.event.operation {
            Operation::Created | Operation::Restored | Operation::Attached => {
                (Presence::Maybe, Presence::Present)
            }
            Operation::Deleted | Operation::Detached => (Presence::Present, Presence::Absent),
            Operation::Updated if kept => {
                let either = before.or(after).unwrap_or(Presence::Present);
                (either, either)
            }
            _ => (Presence::Maybe, Presence::Maybe),
        };
        [before.unwrap_or(then), after.unwrap_or(now)]
    }

    fn told_presence(&self, side: Side<'_>) -> Option<Presence> {
        if matches!(side, Side::Absent) {
            return Some(Presence::Absent);
        }
        let Some(field) = &self.entity.soft_delete else {
            return Some(Presence::Present);
        };
        Some(match side.get(field)? {
            Value::Null => Presence::Present,
            _ => Presence::Absent,
        })
    }

    /// The text of a field or tuple on one side, if it is known.
    fn text(&self, side: Side<'a>, index: FieldIndex) -> Option<Cow<'_, str>> {
        let mut parts = self.entity.parts_of(index).map(|part| {
            let field = self.entity.field_at(part);
            match self.value(side, part) {
                Some(value) => field.kind.canonical_text(value),
                None => self.named_part(part),
            }
        });
        match self.entity.field_at(index).parts.is_empty() {
            true => parts.next().flatten(),
            false => joined(parts),
        }
    }

    /// A part of the key out of what the event calls the row. What links are called is not asked: each source has its
    /// way.
    fn named_part(&self, field: FieldIndex) -> Option<Cow<'_, str>> {
        if self.is_renamed || self.entity.is_link() {
            return None;
        }
        let position = self.entity.key_parts().position(|part| part == field)?;
        let part = self.parts.as_ref()?.get(position)?;
        Some(Cow::Borrowed(part))
    }

    /// The value of a field on one side, if it is known: also from the other side if it kept it.
    fn value(&self, side: Side<'a>, field: FieldIndex) -> Option<&'a Value> {
        let name = &*self.entity.field_at(field).name;
        side.get(name).or_else(|| {
            if self.may_have_changed(field) {
                return None;
            }
            self.before.get(name).or_else(|| self.after.get(name))
        })
    }

    fn may_have_changed(&self, field: FieldIndex) -> bool {
        let name = &*self.entity.field_at(field).name;
        match (self.before.get(name), self.after.get(name)) {
            (Some(before), Some(after)) => before != after,
            // Of a row that stays the one it is.
            _ if !self.is_renamed && self.entity.is_key_part(field) => false,
            _ => self
                .event
                .changed
                .as_ref()
                .is_none_or(|changed| changed.contains(name)),
        }
    }
}
