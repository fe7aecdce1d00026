//! What one consumer needs to know of a table, and what of it is the same for all.
//!
//! Owns the names of tables and captured values in the outbox. They come from the mapping and from nothing else, so
//! that two consumers that need the same value of the same column find it under the same name. It must not make SQL.

use std::collections::{BTreeMap, BTreeSet};

use mcache_graph::{Entity, Field};

use super::form::Form;
use super::mapping::{MappedTable, Mapping, stored_fields};

/// What a consumer needs of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// The values that name a row.
    pub(super) keys: BTreeSet<String>,
    /// All values, those among them.
    pub(super) columns: BTreeSet<String>,
}

/// The name under which the outbox has the value of a field.
pub(super) fn captured_name(table: &MappedTable, field: &Field) -> Option<String> {
    Some(Form::of(field.kind()).name(table.bare_column(field.name())?))
}

/// What an entity needs of its table.
pub(super) fn of_entity(entity: &Entity, table: &MappedTable) -> Interest {
    let columns = stored_fields(entity).filter_map(|field| captured_name(table, field));
    let keys = entity.key_fields().iter();
    let keys = keys.filter_map(|name| captured_name(table, entity.get_field(name)?));
    Interest {
        columns: columns.collect(),
        keys: keys.collect(),
    }
}

/// What a mapping needs, by table. Several entities can be stored in one.
pub(super) fn of_mapping(mapping: &Mapping) -> BTreeMap<String, Interest> {
    let mut interests: BTreeMap<String, Interest> = BTreeMap::new();
    for (entity, table) in mapping.entities() {
        let interest = interests.entry(table.quoted.clone()).or_default();
        let more = of_entity(entity, table);
        interest.columns.extend(more.columns);
        interest.keys.extend(more.keys);
    }
    interests
}
