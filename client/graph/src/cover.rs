//! Which rows a filter can be about: the part of it that tags can express.
//!
//! Tags are compared for equality, so only equality on lookups (and the key) narrows a filter down. A key or lookup of
//! several fields is named by a conjunction that says what each of them equals.
//! Everything else is kept as "could be any row".

use std::borrow::Cow;

use serde_json::Value;

use super::filter::{Comparison, Filter};
use super::schema::{Entity, FieldIndex, FieldType, ID, Name, Schema, joined};
use mcache::change::key_text;

/// Tuples that a conjunction of lists is spelled out to; beyond, one of its conditions stands for all.
const TUPLES_MAX: usize = 4_096;

/// A set of rows that contains every row a filter can hold for, now or after any change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cover {
    pub(crate) rows: CoverRows,
    /// Whether the filter holds for all of these rows, so that the two are one set.
    pub(crate) exact: bool,
}

/// The rows of a [`Cover`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CoverRows {
    /// Any row of the entity.
    All,
    /// The rows that belong to one of these sets.
    AnyOf(Vec<CoverSet>),
}

/// The rows whose lookup `field` has one of the values, given as canonical text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CoverSet {
    pub(crate) field: FieldIndex,
    pub(crate) values: Vec<String>,
}

impl Cover {
    pub(crate) fn of(schema: &Schema, entity: &Entity, filter: &Filter) -> Self {
        match filter {
            Filter::And(all) => Self::of_all(schema, entity, all),
            Filter::Or(any) => Self::of_any(schema, entity, any),
            Filter::IsNull(field) => {
                Self::of_values(entity, field, std::slice::from_ref(&Value::Null))
            }
            Filter::Compare(field, Comparison::Eq, value) => {
                Self::of_values(entity, field, std::slice::from_ref(value))
            }
            Filter::In(field, values) => Self::of_values(entity, field, values),
            Filter::InTuples { fields, values } => Self::of_tuples(entity, fields, values),
            Filter::Related { relation, filter } => {
                Self::of_related(schema, entity, relation, filter)
            }
            Filter::Not(_) | Filter::Compare(..) | Filter::Like { .. } => Self::ANYTHING,
        }
    }

    const ANYTHING: Self = Self {
        rows: CoverRows::All,
        exact: false,
    };

    /// The ids, if the filter can only be about rows named by id.
    pub(crate) fn ids(&self) -> Option<&[String]> {
        match &self.rows {
            CoverRows::AnyOf(sets) => match &sets[..] {
                [] => Some(&[]),
                [only] if only.field == ID => Some(&only.values),
                _ => None,
            },
            CoverRows::All => None,
        }
    }

    /// Any one condition covers the conjunction, and so do those that say together what a tuple is; the most selective
    /// is the best choice.
    fn of_all(schema: &Schema, entity: &Entity, all: &[Filter]) -> Self {
        let covers = all.iter().map(|filter| {
            let cover = Self::of(schema, entity, filter);
            Self {
                exact: cover.exact && all.len() == 1,
                ..cover
            }
        });
        let tuples = entity.tuples();
        let of_tuples = tuples.filter_map(|tuple| Self::of_tuple(entity, tuple, all));
        let best = covers
            .chain(of_tuples)
            .min_by_key(|cover| cover.rank(entity));
        best.unwrap_or(Self {
            rows: CoverRows::All,
            exact: true,
        })
    }

    /// The rows for which a conjunction says what every field of a tuple equals.
    fn of_tuple(entity: &Entity, tuple: FieldIndex, all: &[Filter]) -> Option<Self> {
        let mut texts: Vec<String> = Vec::new();
        for (position, part) in entity.parts_of(tuple).enumerate() {
            let field = entity.field_at(part);
            let values = all.iter().find_map(|filter| match filter {
                Filter::Compare(name, Comparison::Eq, value) if *name == field.name => {
                    Some(std::slice::from_ref(value))
                }
                Filter::In(name, values) if *name == field.name => Some(&values[..]),
                _ => None,
            })?;
            let parts: Vec<String> = values
                .iter()
                .map(|value| Some(escaped(&field.kind.canonical_text(value)?)))
                .collect::<Option<_>>()?;
            texts = match position {
                0 => parts,
                _ if texts.len().saturating_mul(parts.len()) > TUPLES_MAX => return None,
                _ => texts
                    .iter()
                    .flat_map(|text| parts.iter().map(move |part| format!("{text}|{part}")))
                    .collect(),
            };
        }
        Some(Self {
            exact: all.len() == entity.parts_of(tuple).count(),
            ..Self::of_texts(tuple, texts)
        })
    }

    fn of_tuples(entity: &Entity, fields: &[Name], values: &[Vec<Value>]) -> Self {
        let Some(index) = lookup(entity, fields) else {
            return match values {
                [] => Self::nothing(),
                _ => Self::ANYTHING,
            };
        };
        let texts: Option<Vec<String>> = values
            .iter()
            .map(|values| {
                let kinds = entity
                    .parts_of(index)
                    .map(|part| entity.field_at(part).kind);
                let texts = kinds
                    .zip(values)
                    .map(|(kind, value)| kind.canonical_text(value));
                joined(texts).map(Cow::into_owned)
            })
            .collect();
        texts.map_or(Self::ANYTHING, |texts| Self::of_texts(index, texts))
    }

    /// The rows with one of these canonical texts.
    fn of_texts(field: FieldIndex, mut values: Vec<String>) -> Self {
        if values.is_empty() {
            return Self::nothing();
        }
        values.sort_unstable();
        values.dedup();
        Self {
            rows: CoverRows::AnyOf(vec![CoverSet { field, values }]),
            exact: true,
        }
    }

    /// A disjunction is about the rows of all its conditions together.
    fn of_any(schema: &Schema, entity: &Entity, any: &[Filter]) -> Self {
        let mut sets: Vec<CoverSet> = Vec::new();
        let mut exact = true;
        for filter in any {
            let cover = Self::of(schema, entity, filter);
            exact &= cover.exact;
            let CoverRows::AnyOf(more) = cover.rows else {
                return Self {
                    exact,
                    ..Self::ANYTHING
                };
            };
            for set in more {
                match sets.iter_mut().find(|known| known.field == set.field) {
                    Some(known) => known.values.extend(set.values),
                    None => sets.push(set),
                }
            }
        }
        for set in &mut sets {
            set.values.sort_unstable();
            set.values.dedup();
        }
        Self {
            rows: CoverRows::AnyOf(sets),
            exact,
        }
    }

    fn of_values(entity: &Entity, name: &Name, values: &[Value]) -> Self {
        let Some(index) = lookup(entity, std::slice::from_ref(name)) else {
            // An empty list finds nothing, for every field.
            return match values {
                [] => Self::nothing(),
                _ => Self::ANYTHING,
            };
        };
        let kind = entity.field_at(index).kind;
        let texts: Option<Vec<String>> = values
            .iter()
            .map(|value| kind.canonical_text(value).map(Cow::into_owned))
            .collect();
        texts.map_or(Self::ANYTHING, |texts| Self::of_texts(index, texts))
    }

    /// `collection: { id: "c" }` is about the rows whose `collection_id` is "c".
    fn of_related(schema: &Schema, entity: &Entity, name: &str, filter: &Filter) -> Self {
        let through_key = || {
            let relation = entity.get_relation(name).filter(|r| r.through.is_none())?;
            let target = schema.entity(&relation.target)?;
            let CoverRows::AnyOf(sets) = Self::of(schema, target, filter).rows else {
                return None;
            };
            let foreign = target.index_of_all(&relation.foreign)?;
            let [set] = &sets[..] else { return None };
            let local = lookup(entity, &relation.local)?;
            let kinds = |entity: &Entity, field| -> Vec<FieldType> {
                let parts = entity.parts_of(field);
                parts.map(|part| entity.field_at(part).kind).collect()
            };
            let same_text = kinds(entity, local) == kinds(target, foreign);
            (set.field == foreign && same_text).then(|| CoverSet {
                field: local,
                values: set.values.clone(),
            })
        };
        match through_key() {
            Some(set) => Self {
                rows: CoverRows::AnyOf(vec![set]),
                exact: false,
            },
            None => Self::ANYTHING,
        }
    }

    fn nothing() -> Self {
        Self {
            rows: CoverRows::AnyOf(Vec::new()),
            exact: true,
        }
    }

    /// Smaller is more selective: nothing, keys, tuples, lookups in order of declaration (disjunctions by
    /// their least selective part), everything.
    fn rank(&self, entity: &Entity) -> (usize, usize) {
        let rank = |field: FieldIndex| match field {
            ID => 1,
            field if !entity.field_at(field).parts.is_empty() => 2,
            field => usize::from(field) + 2,
        };
        match &self.rows {
            CoverRows::AnyOf(sets) => {
                let field = sets.iter().map(|set| rank(set.field)).max();
                let values = sets.iter().map(|set| set.values.len()).sum();
                (field.unwrap_or(0), values)
            }
            CoverRows::All => (usize::MAX, 0),
        }
    }
}

/// The field (or tuple), if equality on it can be part of a tag.
pub(crate) fn lookup(entity: &Entity, names: &[Name]) -> Option<FieldIndex> {
    let index = entity.index_of_all(names)?;
    (index == ID || entity.lookups.contains(&index)).then_some(index)
}

/// A part of a tuple's text.
fn escaped(part: &str) -> String {
    // Of two parts, of which the second is empty: the first as it stands in any tuple, and a `|`.
    let mut text = key_text(&[part, ""]);
    text.pop();
    text
}
