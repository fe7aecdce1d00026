//! Which rows a filter can be about: the part of it that tags can express.
//!
//! Tags are compared for equality, so only equality on lookups (and `id`) narrows a filter down.
//! Everything else is kept as "could be any row".

use std::borrow::Cow;

use serde_json::Value;

use super::filter::{Comparison, Filter};
use super::schema::{Entity, FieldIndex, ID, Schema};

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

    /// Any one condition covers the conjunction; the most selective is the best choice.
    fn of_all(schema: &Schema, entity: &Entity, all: &[Filter]) -> Self {
        let covers = all.iter().map(|filter| Self::of(schema, entity, filter));
        let best = covers.min_by_key(Self::rank);
        match best {
            None => Self {
                rows: CoverRows::All,
                exact: true,
            },
            Some(best) => Self {
                exact: best.exact && all.len() == 1,
                ..best
            },
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

    fn of_values(entity: &Entity, name: &str, values: &[Value]) -> Self {
        let Some(index) = lookup(entity, name) else {
            // An empty list finds nothing whatever the field.
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
        match texts {
            Some(texts) if texts.is_empty() => Self::nothing(),
            Some(mut values) => {
                values.sort_unstable();
                values.dedup();
                Self {
                    rows: CoverRows::AnyOf(vec![CoverSet {
                        field: index,
                        values,
                    }]),
                    exact: true,
                }
            }
            None => Self::ANYTHING,
        }
    }

    /// `collection: { id: "c" }` is about the rows whose `collection_id` is "c".
    fn of_related(schema: &Schema, entity: &Entity, name: &str, filter: &Filter) -> Self {
        let through_key = || {
            let relation = entity.get_relation(name).filter(|r| r.through.is_none())?;
            let target = schema.entity(&relation.target)?;
            let CoverRows::AnyOf(sets) = Self::of(schema, target, filter).rows else {
                return None;
            };
            let foreign = target.index_of(&relation.foreign)?;
            let [set] = &sets[..] else { return None };
            let local = lookup(entity, &relation.local)?;
            let same_text = entity.field_at(local).kind == target.field_at(foreign).kind;
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

    /// Smaller is more selective: nothing, ids, lookups in order of declaration (disjunctions by
    /// their least selective part), everything.
    fn rank(&self) -> (usize, usize) {
        match &self.rows {
            CoverRows::AnyOf(sets) => {
                let field = sets.iter().map(|set| usize::from(set.field) + 1).max();
                let values = sets.iter().map(|set| set.values.len()).sum();
                (field.unwrap_or(0), values)
            }
            CoverRows::All => (usize::MAX, 0),
        }
    }
}

/// The field, if equality on it can be part of a tag.
fn lookup(entity: &Entity, name: &str) -> Option<FieldIndex> {
    let index = entity.index_of(name)?;
    (index == ID || entity.lookups.contains(&index)).then_some(index)
}
