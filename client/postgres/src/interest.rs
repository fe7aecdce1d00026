//! What one consumer needs to know of a table, and what of it is the same for all.
//!
//! Owns the names of tables and captured values in the outbox. They come from the mapping and from nothing else, so
//! that two consumers that need the same value of the same column find it under the same name. It must not make SQL.

use std::collections::{BTreeMap, BTreeSet};

use mcache_graph::{Entity, Field, FieldType};

use super::mapping::{MappedTable, Mapping, stored_fields};

/// What a consumer needs of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// The values that name a row.
    pub(super) keys: BTreeSet<String>,
    /// All values, those among them.
    pub(super) columns: BTreeSet<String>,
}

/// How a value is captured. One column can be needed in several forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Its text; a digest if that is long.
    Text,
    /// As a point in time.
    Time,
    /// A digest of its JSON.
    Digest,
}

impl Form {
    /// The form in which a field of this type is needed.
    pub(super) fn of(kind: FieldType) -> Self {
        match kind {
            FieldType::Timestamp => Self::Time,
            FieldType::Json => Self::Digest,
            _ => Self::Text,
        }
    }

    /// The name of a captured value: the column's, and what tells the form. No other column's value has it: `@` is
    /// doubled in names.
    pub(super) fn name(self, column: &str) -> String {
        let column = column.replace('@', "@@");
        match self {
            Self::Text => column,
            Self::Time => format!("{column}@t"),
            Self::Digest => format!("{column}@j"),
        }
    }

    /// Column and form of a captured value.
    pub(super) fn parse(name: &str) -> (String, Self) {
        let ends_in = |mark: &str| {
            let column = name.strip_suffix(mark)?;
            let ats = column.len() - column.trim_end_matches('@').len();
            (ats % 2 == 0).then_some(column)
        };
        let (column, form) = match (ends_in("@t"), ends_in("@j")) {
            (Some(column), _) => (column, Self::Time),
            (_, Some(column)) => (column, Self::Digest),
            _ => (name, Self::Text),
        };
        (column.replace("@@", "@"), form)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_captured_value_has_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for column in ["a", "a@t", "a@@t", "a@", "@t", "a@j", "a@@"] {
            for form in [Form::Text, Form::Time, Form::Digest] {
                let name = form.name(column);
                assert_eq!(Form::parse(&name), (column.to_owned(), form), "{name}");
                assert!(names.insert(name));
            }
        }
    }
}
