//! From needs to the tags of an entry: as fine as the limits allow.

use super::super::load::Loaded;
use super::super::plan::Plan;
use super::super::schema::{FieldIndex, ID, Schema};
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

pub(super) fn precise(schema: &Schema, mut needs: Vec<Need<'_>>, limits: &TagLimits) -> ResultTags {
    needs.sort_by_key(|need| need.entity);
    let of_entities = needs.chunk_by(|a, b| a.entity == b.entity);
    let chosen: Vec<(&[Need<'_>], Detail, usize)> = of_entities
        .map(|needs| {
            let (detail, tags) = choose_detail(needs, limits);
            (needs, detail, tags)
        })
        .collect();

    let mut result = ResultTags::default();
    let tags: usize = chosen.iter().map(|(_, _, tags)| tags + 1).sum();
    result.tags.reserve(tags, tags * TAG_BYTES);
    for (needs, detail, _) in chosen {
        result.collapsed += usize::from(detail == Detail::Fields);
        let mut writer = TagWriter {
            set: &mut result.tags,
            entity: schema.at(needs[0].entity),
            distinct: detail != Detail::Fields && are_distinct(needs),
        };
        writer.put_entity();
        for need in needs {
            put_need(&mut writer, need, detail);
        }
    }
    result
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

/// The finest detail within the limits for the needs of one entity, and about how many tags it takes.
fn choose_detail(needs: &[Need<'_>], limits: &TagLimits) -> (Detail, usize) {
    let fine = needs.iter().map(fine_len).sum();
    if fine <= limits.fields_max {
        return (Detail::RowsAndFields, fine);
    }
    let rows = needs.iter().map(rows_len).sum();
    if rows <= limits.rows_max {
        return (Detail::Rows, rows);
    }
    (Detail::Fields, needs.len() * 4)
}

/// Tags if rows and fields are spelled out.
fn fine_len(need: &Need<'_>) -> usize {
    let aspects = match &need.fields {
        Some(fields) => usize::from(need.members) + fields.len(),
        None => 1,
    };
    match &need.rows {
        NeedRows::All => aspects,
        NeedRows::Keys { values, .. } => aspects * values.len(),
    }
}

/// Tags if only rows are spelled out.
fn rows_len(need: &Need<'_>) -> usize {
    match &need.rows {
        NeedRows::All => fine_len(need),
        NeedRows::Keys { values, .. } => values.len(),
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
                writer.put(Region::All, Aspect::Field(*field));
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
    loaded: &Loaded,
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
    let rows: usize = loaded.levels.iter().map(|level| level.rows.len()).sum();
    result.tags.reserve(rows, rows * TAG_BYTES);
    for (level, loaded) in plan.levels.iter().zip(&loaded.levels) {
        let entity = schema.at(level.entity);
        if entity.is_link() {
            continue;
        }
        if loaded.rows.len() > limits.rows_max {
            // Nothing is lost: every change of the entity clears `Entity:list:*` as well.
            result.collapsed += 1;
            continue;
        }
        let levels = plan
            .levels
            .iter()
            .filter(|other| other.entity == level.entity);
        let mut writer = TagWriter {
            set: &mut result.tags,
            entity,
            distinct: levels.count() == 1,
        };
        let ids = KeyValues::Ids(entity.field_at(ID).kind, &loaded.rows);
        ids.each(|id| writer.put(Region::Value(ID, id), Aspect::Any));
    }
    result
}
