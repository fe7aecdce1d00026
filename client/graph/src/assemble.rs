//! From the rows of a plan to the result the caller sees: related rows inside their parents, and
//! nothing that was fetched only to find them.

use serde_json::Value;

use super::load::{LoadedLevel, LoadedRows};
use super::plan::{Edge, Level, Plan};
use super::query::{GraphResult, Metadata};
use super::resolver::Row;

/// Makes the result. Levels are assembled from the bottom up, so each is done when its parents need it.
pub(crate) fn assemble(plan: &Plan, mut loaded: LoadedRows) -> GraphResult {
    let mut done: Vec<Vec<Value>> = Vec::new();
    done.resize_with(plan.levels.len(), Vec::new);
    for position in (0..plan.levels.len()).rev() {
        let level = &plan.levels[position];
        let rows = std::mem::take(&mut loaded.levels[position].rows);
        let mut shown: Vec<Row> = rows.into_iter().map(|row| show(row, level)).collect();
        for edge in &level.edges {
            attach(&mut shown, edge, &loaded.levels, &mut done[edge.target]);
        }
        done[position] = shown.into_iter().map(Value::Object).collect();
    }
    GraphResult {
        data: std::mem::take(&mut done[0]),
        metadata: loaded.count.map(|count| Metadata {
            count,
            skip: plan.skip,
            take: plan.take,
        }),
    }
}

/// Leaves exactly the fields asked for.
fn show(mut row: Row, level: &Level) -> Row {
    row.retain(|name, _| level.shown.iter().any(|shown| **shown == **name));
    if row.len() < level.shown.len() {
        for name in &level.shown {
            if !row.contains_key(&**name) {
                row.insert(name.to_string(), Value::Null);
            }
        }
    }
    row
}

/// Puts related rows into each row.
fn attach(rows: &mut [Row], edge: &Edge, levels: &[LoadedLevel], targets: &mut [Value]) {
    let mut found: Vec<u32> = Vec::new();
    // Then each row of the target belongs to at most one row here, which can have it without a copy.
    let is_exclusive = edge.link.is_none() && levels[edge.target].has_each_key_once();
    for (position, row) in rows.iter_mut().enumerate() {
        found.clear();
        match edge.link {
            None => found.extend_from_slice(levels[edge.target].rows_of(position)),
            Some(link) => {
                for &link_row in levels[link].rows_of(position) {
                    found.extend_from_slice(levels[edge.target].rows_of(link_row as usize));
                }
                // Rows are sorted, so their positions are their order; two links to one row show it once.
                found.sort_unstable();
                found.dedup();
            }
        }
        let mut take = |target: &u32| {
            let target = &mut targets[*target as usize];
            if is_exclusive {
                target.take()
            } else {
                target.clone()
            }
        };
        let value = if edge.many {
            Value::Array(found.iter().map(take).collect())
        } else {
            found.first().map_or(Value::Null, &mut take)
        };
        row.insert(edge.name.to_string(), value);
    }
}
