//! Loads the rows of a plan: one fetch per level, levels of the same depth concurrently.
//!
//! Knows how rows belong together, not how they are shown or tagged.

mod split;

use std::borrow::Cow;
use std::collections::HashMap;

use futures_util::future::try_join_all;
use serde_json::Value;

use super::error::GraphError;
use super::plan::{Level, Parent, Plan};
use super::query::GraphQuery;
use super::resolver::{Fetch, List, Resolver, Row, Rows, Select};
use super::schema::Schema;

/// Stands for "no key": the field is null.
const NO_KEY: u32 = u32::MAX;

/// Everything that was loaded for a plan.
#[derive(Debug, Default)]
pub(crate) struct LoadedRows {
    /// In the order of the plan's levels.
    pub(crate) levels: Vec<LoadedLevel>,
    /// How many rows match, if the query is paged.
    pub(crate) count: Option<u64>,
    /// Until when this is so without a write.
    pub(crate) until: Option<tokio::time::Instant>,
}

/// The rows of a level and how they belong to those of the level above.
#[derive(Debug, Default)]
pub(crate) struct LoadedLevel {
    pub(crate) rows: Vec<Row>,
    /// The distinct values asked for; empty for the root.
    pub(crate) keys: Vec<Value>,
    /// For each row of the level above, the position of its key or `NO_KEY`.
    parent_keys: Vec<u32>,
    /// The rows of key `k` are `members[starts[k]..starts[k + 1]]`.
    starts: Vec<u32>,
    members: Vec<u32>,
}

impl LoadedLevel {
    /// The positions of the rows that belong to a row of the level above, in order.
    pub(crate) fn rows_of(&self, parent_row: usize) -> &[u32] {
        match self.parent_keys.get(parent_row) {
            None | Some(&NO_KEY) => &[],
            Some(&key) => {
                let key = key as usize;
                &self.members[self.starts[key] as usize..self.starts[key + 1] as usize]
            }
        }
    }
}

/// Loads rows through a resolver.
pub(crate) struct Loader<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) resolver: &'a dyn Resolver,
    pub(crate) plan: &'a Plan,
    pub(crate) query: &'a GraphQuery,
    pub(crate) locale: Option<&'a str>,
}

impl Loader<'_> {
    pub(crate) async fn load(&self) -> Result<LoadedRows, GraphError> {
        let levels = &self.plan.levels;
        let mut loaded = LoadedRows::default();
        loaded
            .levels
            .resize_with(levels.len(), LoadedLevel::default);
        (loaded.levels[0], loaded.count) = self.load_root(&levels[0]).await?;

        let mut done = vec![false; levels.len()];
        done[0] = true;
        loop {
            let ready: Vec<(usize, &Parent)> = levels
                .iter()
                .enumerate()
                .filter(|(position, _)| !done[*position])
                .filter_map(|(position, level)| Some((position, level.parent.as_ref()?)))
                .filter(|(_, parent)| done[parent.level])
                .collect();
            if ready.is_empty() {
                return Ok(loaded);
            }
            let fetches = ready.iter().map(|(position, parent)| {
                let above = &loaded.levels[parent.level];
                self.load_related(&levels[*position], parent, &levels[parent.level], above)
            });
            let fetched = try_join_all(fetches).await?;
            for ((position, _), level) in ready.iter().zip(fetched) {
                loaded.levels[*position] = level;
                done[*position] = true;
            }
        }
    }

    async fn load_root(&self, level: &Level) -> Result<(LoadedLevel, Option<u64>), GraphError> {
        let plan = self.plan;
        let list = List {
            filter: &plan.filter,
            order: &plan.order,
            skip: plan.skip,
            take: plan.take,
            count: plan.paged,
        };
        let found = self.fetch(level, Select::List(list)).await?;
        let entity = self.schema.at(level.entity);
        for row in &found.rows {
            self.require_text(level, row, "id")?;
        }
        if plan.paged && found.count.is_none() {
            return Err(GraphError::Count {
                entity: entity.name().into(),
            });
        }
        let loaded = LoadedLevel {
            rows: found.rows,
            ..LoadedLevel::default()
        };
        Ok((loaded, found.count.filter(|_| plan.paged)))
    }

    async fn load_related(
        &self,
        level: &Level,
        parent: &Parent,
        above: &Level,
        rows_above: &LoadedLevel,
    ) -> Result<LoadedLevel, GraphError> {
        let entity = self.schema.at(level.entity);
        let kind = entity.field_at(parent.by_index).kind;
        let mut loaded = LoadedLevel::default();
        let mut positions: HashMap<Cow<'_, str>, u32> = HashMap::new();
        for row in &rows_above.rows {
            let key = match row.get(&*parent.local) {
                None | Some(Value::Null) => NO_KEY,
                Some(value) => {
                    let text = kind.canonical_text(value);
                    let text = text.ok_or_else(|| self.bad_row(above, &parent.local))?;
                    let next = loaded.keys.len() as u32;
                    *positions.entry(text).or_insert_with(|| {
                        loaded.keys.push(value.clone());
                        next
                    })
                }
            };
            loaded.parent_keys.push(key);
        }
        if loaded.keys.is_empty() {
            return Ok(loaded);
        }

        let select = Select::Keys {
            field: &parent.by,
            values: &loaded.keys,
            order: &level.order,
        };
        loaded.rows = self.fetch(level, select).await?.rows;
        if !entity.is_link() {
            for row in &loaded.rows {
                self.require_text(level, row, "id")?;
            }
        }
        let mut keys_of_rows = Vec::with_capacity(loaded.rows.len());
        for row in &loaded.rows {
            let text = self.require_text(level, row, &parent.by)?;
            keys_of_rows.push(positions.get(&text).copied().unwrap_or(NO_KEY));
        }
        (loaded.starts, loaded.members) = group(&keys_of_rows, loaded.keys.len());
        Ok(loaded)
    }

    async fn fetch(&self, level: &Level, select: Select<'_>) -> Result<Rows, GraphError> {
        let entity = self.schema.at(level.entity);
        let fetch = Fetch {
            schema: self.schema,
            entity,
            fields: &level.fetch,
            select,
            context: &self.query.context,
            locale: self.locale,
        };
        let found = self.resolver.fetch(fetch).await;
        found.map_err(|source| GraphError::Resolver {
            entity: entity.name().into(),
            source,
        })
    }

    /// The text of a field that rows are known or matched by.
    fn require_text<'r>(
        &self,
        level: &Level,
        row: &'r Row,
        field: &str,
    ) -> Result<Cow<'r, str>, GraphError> {
        let entity = self.schema.at(level.entity);
        let kind = entity.get_field(field).map(|field| field.kind);
        let value = row.get(field).filter(|value| !value.is_null());
        kind.zip(value)
            .and_then(|(kind, value)| kind.canonical_text(value))
            .ok_or_else(|| self.bad_row(level, field))
    }

    fn bad_row(&self, level: &Level, field: &str) -> GraphError {
        GraphError::Row {
            entity: self.schema.at(level.entity).name().into(),
            field: field.into(),
        }
    }
}

/// Positions of rows, grouped by key and otherwise in order.
fn group(keys_of_rows: &[u32], keys: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0_u32; keys + 1];
    for &key in keys_of_rows.iter().filter(|&&key| key != NO_KEY) {
        starts[key as usize + 1] += 1;
    }
    for key in 0..keys {
        starts[key + 1] += starts[key];
    }
    let mut next = starts.clone();
    let mut members = vec![0; starts[keys] as usize];
    for (row, &key) in keys_of_rows.iter().enumerate() {
        if key != NO_KEY {
            let slot = &mut next[key as usize];
            members[*slot as usize] = row as u32;
            *slot += 1;
        }
    }
    (starts, members)
}
