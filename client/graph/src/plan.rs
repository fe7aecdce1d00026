//! A query, checked against the schema and turned into levels: the root and every entity reached
//! by a path, links included. What to fetch, what to show, what was read.
//!
//! Knows nothing of rows: the same plan is used to load, to compute tags and to assemble.

use std::collections::{BTreeMap, BTreeSet};

use super::error::QueryError;
use super::filter::Filter;
use super::query::{Direction, GraphQuery};
use super::schema::{Dependency, Entity, EntityIndex, FieldIndex, Name, Relation, Schema};

/// Paths longer than this are refused. Real ones have three or four segments.
const PATH_MAX: usize = 12;

/// A checked query.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) filter: Filter,
    /// Ends with the key.
    pub(crate) order: Vec<(Name, Direction)>,
    pub(crate) skip: u64,
    pub(crate) take: Option<u64>,
    /// Whether the caller asked for a part of the rows and so is told how many there are.
    pub(crate) paged: bool,
    /// The root first; parents before children.
    pub(crate) levels: Vec<Level>,
}

/// One entity reached by one path.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) entity: EntityIndex,
    /// How rows are reached from those of another level; `None` for the root.
    pub(crate) parent: Option<Parent>,
    /// The fields to ask the resolver for.
    pub(crate) fetch: Vec<Name>,
    /// The fields the caller asked for.
    pub(crate) shown: Vec<Name>,
    /// The stored fields on which the result depends for each row of this level, without the key (which
    /// never changes) and without those rows are matched by (whose change is a row leaving). Sorted.
    pub(crate) reads: Vec<FieldIndex>,
    /// What related rows are sorted by.
    pub(crate) order: Vec<(Name, Direction)>,
    pub(crate) depends: Vec<LevelDependency>,
    /// The relations the caller asked for.
    pub(crate) edges: Vec<Edge>,
}

/// Rows of a level are those whose fields `by` equal the fields `local` of a row of the level `level`.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) level: usize,
    pub(crate) local: Vec<Name>,
    pub(crate) by: Vec<Name>,
    /// The field or tuple of `by`.
    pub(crate) by_index: FieldIndex,
}

/// A relation in the result.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) name: Name,
    pub(crate) many: bool,
    /// The level of the link entity in between.
    pub(crate) link: Option<usize>,
    pub(crate) target: usize,
}

/// A declared dependency, resolved.
#[derive(Debug)]
pub(crate) struct LevelDependency {
    pub(crate) entity: EntityIndex,
    /// `None`: all of them.
    pub(crate) fields: Option<Vec<FieldIndex>>,
    /// Their field or tuple, and ours that it must equal.
    pub(crate) key: Option<(FieldIndex, Vec<Name>)>,
}

/// What the caller asks of one entity: fields, and the same of related entities.
#[derive(Default)]
struct Selection {
    fields: BTreeSet<FieldIndex>,
    relations: BTreeMap<usize, Selection>,
}

impl Plan {
    /// Checks a query.
    pub(crate) fn new(schema: &Schema, query: &GraphQuery) -> Result<Self, QueryError> {
        let root = schema
            .index_of(&query.entity)
            .filter(|&index| !schema.at(index).is_link())
            .ok_or_else(|| QueryError::UnknownEntity {
                entity: query.entity.clone(),
            })?;
        let entity = schema.at(root);
        let mut selection = Selection::default();
        if query.fields.is_empty() {
            return Err(QueryError::NoFields);
        }
        for path in &query.fields {
            selection.add(schema, entity, path)?;
        }
        let filter = Filter::parse(schema, entity, &query.filters)?;
        let pagination = query.pagination.clone().unwrap_or_default();
        let order = order(entity, &pagination.order)?;

        let mut levels = Levels {
            schema,
            levels: Vec::new(),
        };
        levels.add(root, None, None, &selection);
        Ok(Self {
            filter,
            order,
            skip: pagination.skip.unwrap_or(0),
            take: pagination.take,
            paged: pagination.skip.is_some() || pagination.take.is_some(),
            levels: levels.levels,
        })
    }
}

fn order(
    entity: &Entity,
    given: &[(String, Direction)],
) -> Result<Vec<(Name, Direction)>, QueryError> {
    let mut order = Vec::with_capacity(given.len() + 1);
    for (name, direction) in given {
        match entity.get_field(name) {
            Some(field) if !field.computed && field.kind.is_ordered() => {
                order.push((field.name.clone(), *direction));
            }
            Some(_) => {
                return Err(QueryError::Order {
                    entity: entity.name().into(),
                    field: name.clone(),
                });
            }
            None => {
                return Err(QueryError::UnknownField {
                    entity: entity.name().into(),
                    field: name.clone(),
                });
            }
        }
    }
    order.extend(key_order(entity));
    Ok(order)
}

/// What rows are sorted by when nothing else tells them apart.
fn key_order(entity: &Entity) -> impl Iterator<Item = (Name, Direction)> + '_ {
    let key = entity.key.iter().cloned();
    key.map(|name| (name, Direction::Asc))
}

impl Selection {
    /// Adds what one path asks for.
    fn add(&mut self, schema: &Schema, root: &Entity, path: &str) -> Result<(), QueryError> {
        let segments: Vec<&str> = path.split('.').collect();
        if segments.len() > PATH_MAX {
            return Err(QueryError::PathTooLong {
                path: path.into(),
                max: PATH_MAX,
            });
        }
        let (last, relations) = segments.split_last().ok_or(QueryError::NoFields)?;
        let mut at = self;
        let mut entity = root;
        let mut followed: Vec<(&str, &str)> = Vec::with_capacity(relations.len());
        for &name in relations {
            let position = entity.relations.iter().position(|r| &*r.name == name);
            let position = position.ok_or_else(|| QueryError::UnknownRelation {
                entity: entity.name().into(),
                relation: name.into(),
                path: path.into(),
            })?;
            let relation = &entity.relations[position];
            let Some(target) = schema.entity(&relation.target) else {
                break; // The schema has checked that it exists.
            };
            // A tree (a category's parent's parent) goes on legitimately; its depth is what is bounded.
            let is_tree = target.name() == entity.name();
            if !is_tree && followed.contains(&(entity.name(), name)) {
                return Err(QueryError::Cycle {
                    path: path.into(),
                    relation: name.into(),
                });
            }
            followed.push((entity.name(), name));
            at = at.relations.entry(position).or_default();
            entity = target;
        }
        at.add_fields(entity, last, path)
    }

    fn add_fields(&mut self, entity: &Entity, name: &str, path: &str) -> Result<(), QueryError> {
        if name == "*" {
            self.fields.extend(entity.stored());
            return Ok(());
        }
        if let Some(index) = entity.index_of(name) {
            self.fields.insert(index);
            return Ok(());
        }
        if entity.get_relation(name).is_some() {
            return Err(QueryError::RelationWithoutFields { path: path.into() });
        }
        Err(QueryError::UnknownField {
            entity: entity.name().into(),
            field: name.into(),
        })
    }
}

/// Collects levels, parents before children.
struct Levels<'s> {
    schema: &'s Schema,
    levels: Vec<Level>,
}

impl Levels<'_> {
    /// Adds the level of a selection and those below it; returns its position.
    fn add(
        &mut self,
        index: EntityIndex,
        parent: Option<Parent>,
        order_by: Option<&Name>,
        selection: &Selection,
    ) -> usize {
        let schema = self.schema;
        let entity = schema.at(index);
        let depends = self.dependencies(entity, selection);

        let mut needs = selection.fields.clone();
        needs.extend(entity.key_parts());
        let locals = selection
            .relations
            .keys()
            .flat_map(|&r| &entity.relations[r].local);
        let ours = depends
            .iter()
            .filter_map(|d| d.key.as_ref().map(|(_, ours)| ours));
        let by = parent.iter().flat_map(|parent| &parent.by);
        for name in locals.chain(ours.flatten()).chain(by).chain(order_by) {
            needs.extend(entity.index_of(name));
        }
        let by: Vec<FieldIndex> = parent
            .iter()
            .flat_map(|parent| entity.parts_of(parent.by_index))
            .collect();
        let order = order_by.map(|name| (name.clone(), Direction::Asc));
        let order = order.into_iter().chain(key_order(entity));
        let name = |&field: &FieldIndex| entity.field_at(field).name.clone();
        let position = self.levels.len();
        self.levels.push(Level {
            entity: index,
            fetch: needs.iter().map(name).collect(),
            shown: selection.fields.iter().map(name).collect(),
            reads: needs
                .iter()
                .copied()
                .filter(|field| !entity.is_key_part(*field) && !by.contains(field))
                .filter(|&field| !entity.field_at(field).computed)
                .collect(),
            // The root has the order of the query.
            order: match &parent {
                Some(_) => order.collect(),
                None => Vec::new(),
            },
            parent,
            depends,
            edges: Vec::new(),
        });
        for (&relation, below) in &selection.relations {
            if let Some(edge) = self.add_relation(position, &entity.relations[relation], below) {
                self.levels[position].edges.push(edge);
            }
        }
        position
    }

    /// Adds the level a relation leads to, and the one of its link entity.
    fn add_relation(
        &mut self,
        from: usize,
        relation: &Relation,
        below: &Selection,
    ) -> Option<Edge> {
        let target = self.schema.index_of(&relation.target)?;
        let mut level = from;
        let mut local = &relation.local;
        let mut link = None;
        if let Some(through) = &relation.through {
            let entity = self.schema.index_of(&through.link)?;
            level = self.add_link(from, entity, local, &through.near, &through.far)?;
            local = &through.far;
            link = Some(level);
        }
        let parent = self.parent(level, local, target, &relation.foreign)?;
        Some(Edge {
            name: relation.name.clone(),
            many: relation.many,
            link,
            target: self.add(target, Some(parent), relation.order_by.as_ref(), below),
        })
    }

    /// Adds the level of a link entity: its rows are read, never shown, and need no key.
    fn add_link(
        &mut self,
        from: usize,
        index: EntityIndex,
        local: &[Name],
        near: &[Name],
        far: &[Name],
    ) -> Option<usize> {
        let position = self.levels.len();
        let entity = self.schema.at(index);
        let mut fetch = near.to_vec();
        fetch.extend(far.iter().filter(|name| !near.contains(name)).cloned());
        let reads = far.iter().filter(|name| !near.contains(name));
        let reads = reads.filter_map(|name| entity.index_of(name));
        let mut reads: Vec<FieldIndex> =
            reads.filter(|&field| !entity.is_key_part(field)).collect();
        reads.sort_unstable();
        self.levels.push(Level {
            entity: index,
            parent: Some(self.parent(from, local, index, near)?),
            fetch,
            shown: Vec::new(),
            reads,
            order: Vec::new(),
            depends: self.dependencies(entity, &Selection::default()),
            edges: Vec::new(),
        });
        Some(position)
    }

    fn parent(
        &self,
        level: usize,
        local: &[Name],
        entity: EntityIndex,
        by: &[Name],
    ) -> Option<Parent> {
        Some(Parent {
            level,
            local: local.to_vec(),
            by: by.to_vec(),
            by_index: self.schema.at(entity).index_of_all(by)?,
        })
    }

    /// What was declared for the entity and for the fields selected.
    fn dependencies(&self, entity: &Entity, selection: &Selection) -> Vec<LevelDependency> {
        let of_fields = selection
            .fields
            .iter()
            .flat_map(|&field| &entity.field_at(field).depends);
        entity
            .depends
            .iter()
            .chain(of_fields)
            .filter_map(|dependency| LevelDependency::new(self.schema, dependency))
            .collect()
    }
}

impl LevelDependency {
    /// `None` cannot happen: the schema has checked every name.
    pub(crate) fn new(schema: &Schema, dependency: &Dependency) -> Option<Self> {
        let index = schema.index_of(&dependency.entity)?;
        let theirs = schema.at(index);
        let fields = dependency.fields.as_ref().map(|fields| {
            let indices = fields.iter().filter_map(|name| theirs.index_of(name));
            indices
                .filter(|&field| !theirs.is_key_part(field))
                .collect()
        });
        let key = match &dependency.key {
            Some(key) => Some((theirs.index_of_all(&key.theirs)?, key.ours.clone())),
            None => None,
        };
        Some(Self {
            entity: index,
            fields,
            key,
        })
    }
}
