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
use super::schema::{Entity, Name, Schema, joined};

/// Stands for "no key": the field is null.
const NO_KEY: u32 = u32::MAX;

/// Which value something is among those that it is compared with, and the value itself.
type Compared<'r> = (Cow<'r, str>, Cow<'r, Value>);

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
    /// The distinct values asked for, arrays if they are of several fields; empty for the root.
    pub(crate) keys: Vec<Value>,
    /// For each row of the level above, the position of its key or `NO_KEY`.
    parent_keys: Vec<u32>,
    /// The rows of key `k` are `members[starts[k]..starts[k + 1]]`.
    starts: Vec<u32>,
    members: Vec<u32>,
}

impl LoadedLevel {
    /// Whether no two rows of the level above have the same key.
    pub(crate) fn has_each_key_once(&self) -> bool {
        let with_key = self.parent_keys.iter().filter(|&&key| key != NO_KEY);
        with_key.count() == self.keys.len()
    }

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
            self.require(level, row, &entity.key)?;
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
        let mut loaded = LoadedLevel::default();
        let mut positions: HashMap<Cow<'_, str>, u32> = HashMap::new();
        for row in &rows_above.rows {
            let key = match self.key_of(entity, parent, above, row)? {
                None => NO_KEY,
                Some((identity, value)) => {
                    let next = loaded.keys.len() as u32;
                    *positions.entry(identity).or_insert_with(|| {
                        loaded.keys.push(value.into_owned());
                        next
                    })
                }
            };
            loaded.parent_keys.push(key);
        }
        if loaded.keys.is_empty() {
            return Ok(loaded);
        }

        let (values, order) = (&loaded.keys[..], &level.order[..]);
        let select = match &parent.by[..] {
            [field] => Select::Keys {
                field,
                values,
                order,
            },
            fields => Select::Tuples {
                fields,
                values,
                order,
            },
        };
        loaded.rows = self.fetch(level, select).await?.rows;
        if !entity.is_link() {
            for row in &loaded.rows {
                self.require(level, row, &entity.key)?;
            }
        }
        let mut keys_of_rows = Vec::with_capacity(loaded.rows.len());
        for row in &loaded.rows {
            let identity = self.require(level, row, &parent.by)?;
            keys_of_rows.push(positions.get(&identity).copied().unwrap_or(NO_KEY));
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
        found.map_err(|source| GraphError::resolver(entity, source))
    }

    /// What a row refers to: which value it is among those of the fields it is compared with, and the value itself.
    /// `None` if a part of it is null.
    fn key_of<'r>(
        &self,
        entity: &Entity,
        parent: &Parent,
        above: &Level,
        row: &'r Row,
    ) -> Result<Option<Compared<'r>>, GraphError> {
        let part = |local: &Name, by: &Name| {
            let value = match row.get(&**local) {
                None | Some(Value::Null) => return Ok(None),
                Some(value) => value,
            };
            let kind = entity.get_field(by).map(|field| field.kind);
            let identity = kind.and_then(|kind| kind.identity(value));
            match identity {
                Some(identity) => Ok(Some((identity, value))),
                None => Err(self.bad_row(above, local)),
            }
        };
        if let ([local], [by]) = (&parent.local[..], &parent.by[..]) {
            let found = part(local, by)?;
            return Ok(found.map(|(identity, value)| (identity, Cow::Borrowed(value))));
        }
        let mut identities = Vec::with_capacity(parent.by.len());
        let mut values = Vec::with_capacity(parent.by.len());
        for (local, by) in parent.local.iter().zip(&parent.by) {
            let Some((identity, value)) = part(local, by)? else {
                return Ok(None);
            };
            identities.push(Some(identity));
            values.push(value.clone());
        }
        let identity = joined(identities.into_iter());
        Ok(identity.map(|identity| (identity, Cow::Owned(Value::Array(values)))))
    }

    /// Which values a row has in the fields it is known or matched by.
    fn require<'r>(
        &self,
        level: &Level,
        row: &'r Row,
        fields: &[Name],
    ) -> Result<Cow<'r, str>, GraphError> {
        let entity = self.schema.at(level.entity);
        entity.identity_in(fields, row).ok_or_else(|| {
            let is_missing = |name: &&Name| {
                let itself = std::slice::from_ref(*name);
                entity.identity_in(itself, row).is_none()
            };
            let missing = fields.iter().find(is_missing).or(fields.first());
            self.bad_row(level, missing.map_or("", |name| name))
        })
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
