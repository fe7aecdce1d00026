//! From needs to the tags of an entry: as fine as the limits allow.

use super::super::load::LoadedRows;
use super::super::plan::Plan;
use super::super::schema::{Entity, FieldIndex, ID, Schema};
use super::name::{Aspect, Region, TagWriter};
use super::needs::{KeyValues, Need, NeedRows};
use super::{ResultTags, TagLimits};

/// How much of the needs for one entity is spelled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// Rows, and the fields that matter in each: `Entity:42#title`.
    RowsAndFields,
    /// Rows: `Entity:42`.
    Rows,
    /// Fields that matter in any row: `Entity:list:title`.
    Fields,
}

/// About as long as a tag is, to reserve room.
const TAG_BYTES: usize = 40;

/// The needs for one entity, and how they are spelled out.
struct Chosen<'n, 'a> {
    needs: &'n [Need<'a>],
    entity: &'n Entity,
    detail: Detail,
    /// How many tags that takes, or a few more.
    tags: usize,
}

pub(super) fn precise(schema: &Schema, mut needs: Vec<Need<'_>>, limits: &TagLimits) -> ResultTags {
    needs.sort_by_key(|need| need.entity);
    let of_entities = needs.chunk_by(|a, b| a.entity == b.entity);
    let mut chosen: Vec<Chosen<'_, '_>> = of_entities
        .map(|needs| Chosen::new(needs, schema.at(needs[0].entity), limits))
        .collect();
    let tags = fit(&mut chosen, limits.total_max);

    let mut result = ResultTags::default();
    result.tags.reserve(tags, tags * TAG_BYTES);
    for chosen in chosen {
        let Chosen { needs, detail, .. } = chosen;
        result.collapsed += usize::from(detail == Detail::Fields);
        let mut writer = TagWriter {
            set: &mut result.tags,
            entity: chosen.entity,
            distinct: detail != Detail::Fields && are_distinct(needs),
        };
        writer.put_entity();
        for need in needs {
            put_need(&mut writer, need, detail);
        }
    }
    result
}

impl<'n, 'a> Chosen<'n, 'a> {
    /// The finest detail within the limits for one entity.
    fn new(needs: &'n [Need<'a>], entity: &'n Entity, limits: &TagLimits) -> Self {
        let mut chosen = Self::with(needs, entity, Detail::RowsAndFields);
        if chosen.tags > limits.fields_max {
            chosen = chosen.coarser();
        }
        if chosen.detail == Detail::Rows && chosen.tags > limits.rows_max {
            chosen = chosen.coarser();
        }
        chosen
    }

    fn with(needs: &'n [Need<'a>], entity: &'n Entity, detail: Detail) -> Self {
        let matched = |need: &Need<'_>| match &need.rows {
            NeedRows::Keys { field, .. } => entity.parts_of(*field).count(),
            NeedRows::All => 0,
        };
        let tags: usize = match detail {
            Detail::RowsAndFields => needs.iter().map(fine_len).sum(),
            Detail::Rows => needs.iter().map(rows_len).sum(),
            Detail::Fields => {
                let tags = needs.iter().map(|need| aspects_len(need) + matched(need));
                tags.sum()
            }
        };
        Self {
            needs,
            entity,
            detail,
            // And the one of the entity itself.
            tags: tags + 1,
        }
    }

    fn coarser(&self) -> Self {
        match self.detail {
            Detail::RowsAndFields => Self::with(self.needs, self.entity, Detail::Rows),
            Detail::Rows | Detail::Fields => Self::with(self.needs, self.entity, Detail::Fields),
        }
    }
}

/// Makes the largest coarser until all fit together or none can be; returns how many tags there are then.
fn fit(chosen: &mut [Chosen<'_, '_>], total_max: usize) -> usize {
    loop {
        let tags = chosen.iter().map(|chosen| chosen.tags).sum();
        let shrinkable = chosen
            .iter_mut()
            .filter(|chosen| chosen.detail != Detail::Fields);
        match shrinkable.max_by_key(|chosen| chosen.tags) {
            Some(largest) if tags > total_max => *largest = largest.coarser(),
            _ => return tags,
        }
    }
}

/// Whether the needs of one entity have no tag in common: if they are about all rows or about rows
/// by different lookups, and no two by the same. (One need names each of its rows once.)
fn are_distinct(needs: &[Need<'_>]) -> bool {
    let field = |need: &Need<'_>| match &need.rows {
        NeedRows::All => None,
        NeedRows::Keys { field, .. } => Some(*field),
    };
    let mut fields: Vec<Option<FieldIndex>> = needs.iter().map(field).collect();
    fields.sort_unstable();
    fields.windows(2).all(|pair| pair[0] != pair[1])
}

/// Tags if rows and fields are spelled out.
fn fine_len(need: &Need<'_>) -> usize {
    aspects_len(need) * rows_len(need)
}

/// Tags for each row.
fn aspects_len(need: &Need<'_>) -> usize {
    match &need.fields {
        Some(fields) => usize::from(need.members) + fields.len(),
        None => 1,
    }
}

/// Tags if only rows are spelled out: one for each value, and one for "an unknown value"; "any row" stays
/// as it is.
fn rows_len(need: &Need<'_>) -> usize {
    match &need.rows {
        NeedRows::All => 1,
        NeedRows::Keys { values, .. } if values.len() == 0 => 0,
        NeedRows::Keys { field, values } => values.len() + usize::from(*field != ID),
    }
}

fn put_need(writer: &mut TagWriter<'_>, need: &Need<'_>, detail: Detail) {
    match &need.rows {
        NeedRows::Keys { field, values } if detail != Detail::Fields => {
            put_keys(writer, need, *field, values, detail);
        }
        NeedRows::Keys { field, .. } if *field != ID => {
            put_all(writer, need);
            // Of all rows, one whose lookup changes is not one that comes or goes.
            if need.fields.is_some() {
                let entity = writer.entity;
                for part in entity.parts_of(*field) {
                    // One whose key changes is one that goes.
                    if !entity.is_key_part(part) {
                        writer.put(Region::All, Aspect::Field(part));
                    }
                }
            }
        }
        NeedRows::Keys { .. } | NeedRows::All => put_all(writer, need),
    }
}

fn put_all(writer: &mut TagWriter<'_>, need: &Need<'_>) {
    each_aspect(need, Detail::RowsAndFields, |aspect| {
        writer.put(Region::All, aspect)
    });
}

fn put_keys(
    writer: &mut TagWriter<'_>,
    need: &Need<'_>,
    field: FieldIndex,
    values: &KeyValues<'_>,
    detail: Detail,
) {
    if values.len() == 0 {
        return;
    }
    values.each(|value| {
        each_aspect(need, detail, |aspect| {
            writer.put(Region::Value(field, value), aspect)
        });
    });
    // A change always knows which id it is about, but not always which value a lookup had.
    if field != ID {
        each_aspect(need, detail, |aspect| {
            writer.put(Region::Unknown(field), aspect)
        });
    }
}

fn each_aspect(need: &Need<'_>, detail: Detail, mut put: impl FnMut(Aspect)) {
    match (&need.fields, detail) {
        (Some(fields), Detail::RowsAndFields) => {
            if need.members {
                put(Aspect::Member);
            }
            fields.iter().for_each(|&field| put(Aspect::Field(field)));
        }
        _ => put(Aspect::Any),
    }
}

/// Medusa's tags, for everything the plan and the needs name: also where the result is empty.
pub(super) fn compatible(
    schema: &Schema,
    plan: &Plan,
    loaded: &LoadedRows,
    needs: &[Need<'_>],
    limits: &TagLimits,
) -> ResultTags {
    let mut result = ResultTags::default();
    let read = plan.levels.iter().map(|level| level.entity);
    for entity in read.chain(needs.iter().map(|need| need.entity)) {
        let mut writer = TagWriter {
            set: &mut result.tags,
            entity: schema.at(entity),
            distinct: false,
        };
        writer.put(Region::All, Aspect::Any);
    }
    let mut left = limits.total_max;
    for (level, loaded) in plan.levels.iter().zip(&loaded.levels) {
        let entity = schema.at(level.entity);
        if entity.is_link() {
            continue;
        }
        if loaded.rows.len() > limits.rows_max.min(left) {
            // Nothing is lost: every change of the entity clears `Entity:list:*` as well.
            result.collapsed += 1;
            continue;
        }
        left -= loaded.rows.len();
        result
            .tags
            .reserve(loaded.rows.len(), loaded.rows.len() * TAG_BYTES);
        let levels = plan
            .levels
            .iter()
            .filter(|other| other.entity == level.entity);
        let mut writer = TagWriter {
            set: &mut result.tags,
            entity,
            distinct: levels.count() == 1,
        };
        let ids = KeyValues::Ids(entity, &loaded.rows);
        ids.each(|id| writer.put(Region::Value(ID, id), Aspect::Any));
    }
    result
}
