//! The data model a graph works over: entities, fields, relations, links, dependencies.
//!
//! Built once, checked once; what comes after (plans, tags) trusts it and indexes into it. Knows
//! nothing of queries, results or caches.

mod decimal;
mod entity;
mod field;
mod names;
mod relation;

use std::collections::HashMap;

pub use entity::Entity;
pub(crate) use entity::{FieldIndex, ID, joined};
pub use field::{Field, FieldType, Name};
pub use names::FieldNames;
pub use relation::{Dependency, Relation, Through};
use xxhash_rust::xxh3::xxh3_64;

/// Position of an entity in its schema.
pub(crate) type EntityIndex = usize;

/// A checked data model.
///
/// ```
/// use mcache_graph::{Entity, Relation, Schema};
///
/// let schema = Schema::builder()
///     .entity(
///         Entity::new("Product")
///             .field("title")
///             .relation(Relation::has_many("variants", "ProductVariant", "product_id")),
///     )
///     .entity(Entity::new("ProductVariant").fields(["sku", "product_id"]))
///     .build()?;
/// assert_eq!(schema.entity("product_variant").unwrap().name(), "ProductVariant");
/// # Ok::<(), mcache_graph::SchemaError>(())
/// ```
#[derive(Debug)]
pub struct Schema {
    entities: Vec<Entity>,
    by_name: HashMap<Name, EntityIndex>,
    fingerprint: u64,
}

impl Schema {
    /// A schema without entities, to be filled.
    pub fn builder() -> SchemaBuilder {
        SchemaBuilder::default()
    }

    /// The entity of that name (PascalCase, snake_case or an alias).
    pub fn entity(&self, name: &str) -> Option<&Entity> {
        self.index_of(name).map(|index| self.at(index))
    }

    /// All entities, in order of declaration.
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    /// The entity whose declared id prefix is the longest that `id` begins with.
    pub fn entity_of_id(&self, id: &str) -> Option<&Entity> {
        let prefix_bytes = |entity: &Entity| {
            let prefix = entity.id_prefix.as_deref()?;
            id.starts_with(prefix).then_some(prefix.len())
        };
        self.entities
            .iter()
            .filter_map(|entity| Some((prefix_bytes(entity)?, entity)))
            .max_by_key(|(bytes, _)| *bytes)
            .map(|(_, entity)| entity)
    }

    /// A hash of everything in the schema and its version. It is part of every computed key, so
    /// that entries made under another schema are never read under this one.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub(crate) fn index_of(&self, name: &str) -> Option<EntityIndex> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn at(&self, index: EntityIndex) -> &Entity {
        &self.entities[index]
    }
}

/// Collects entities; [`build`](Self::build) checks them.
///
/// ```
/// use mcache_graph::{Entity, Schema, SchemaBuilder};
///
/// let builder: SchemaBuilder = Schema::builder().entity(Entity::new("Product").field("title"));
/// let (first, second) = (Schema::builder().version("1").build()?, builder.version("2").build()?);
/// assert_ne!(first.fingerprint(), second.fingerprint());
/// # Ok::<(), mcache_graph::SchemaError>(())
/// ```
#[derive(Debug, Default)]
pub struct SchemaBuilder {
    version: String,
    entities: Vec<Entity>,
}

impl SchemaBuilder {
    /// Adds an entity.
    #[must_use]
    pub fn entity(mut self, entity: Entity) -> Self {
        self.entities.push(entity);
        self
    }

    /// A version of what the schema cannot see: change it when a resolver begins to answer the
    /// same query differently. Default: empty.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.into();
        self
    }

    /// Checks every name the entities use, completes what can be inferred and makes the schema.
    ///
    /// # Errors
    ///
    /// [`SchemaError`]: a name that is not an identifier or is declared twice, a relation or
    /// dependency that names something undeclared, a key whose values have no canonical text.
    pub fn build(mut self) -> Result<Schema, SchemaError> {
        let by_name = self.index_names()?;
        for entity in &mut self.entities {
            place_key(entity)?;
            check_entity(entity)?;
        }
        for index in 0..self.entities.len() {
            self.resolve_keys(index, &by_name);
            self.resolve_links(index, &by_name)?;
        }
        self.mark_keys(&by_name)?;
        for entity in &mut self.entities {
            let is_lookup = |&field: &FieldIndex| {
                let it = entity.field_at(field);
                field != ID && (it.lookup || !it.parts.is_empty())
            };
            let all = ID..FieldIndex::try_from(entity.fields.len()).unwrap_or(FieldIndex::MAX);
            entity.lookups = all.filter(is_lookup).collect();
        }
        // Debug output names every field of every definition, in order of declaration.
        let described = format!("{:?}{:?}", self.version, self.entities);
        Ok(Schema {
            fingerprint: xxh3_64(described.as_bytes()),
            entities: self.entities,
            by_name,
        })
    }

    fn index_names(&self) -> Result<HashMap<Name, EntityIndex>, SchemaError> {
        let mut by_name = HashMap::new();
        for (index, entity) in self.entities.iter().enumerate() {
            let snake: Name = snake_case(&entity.name).into();
            for name in [&entity.name, &snake].into_iter().chain(&entity.aliases) {
                check_identifier(&entity.name, name)?;
                match by_name.insert(name.clone(), index) {
                    Some(other) if other != index => {
                        return Err(SchemaError::Duplicate {
                            entity: entity.name.to_string(),
                            name: name.to_string(),
                        });
                    }
                    _ => {}
                }
            }
        }
        Ok(by_name)
    }

    /// Has each relation that does not say otherwise match the keys of its two sides.
    fn resolve_keys(&mut self, index: EntityIndex, by_name: &HashMap<Name, EntityIndex>) {
        for position in 0..self.entities[index].relations.len() {
            let target = &self.entities[index].relations[position].target;
            let theirs = by_name
                .get(target)
                .map(|&target| self.entities[target].key.clone());
            let entity = &mut self.entities[index];
            let relation = &mut entity.relations[position];
            if relation.local.is_empty() {
                relation.local.clone_from(&entity.key);
            }
            // A target that is not there is an error later.
            if let (true, Some(theirs)) = (relation.foreign.is_empty(), theirs) {
                relation.foreign = theirs;
            }
        }
    }

    /// Finds out which key of its link entity each relation begins and ends with.
    fn resolve_links(
        &mut self,
        index: EntityIndex,
        by_name: &HashMap<Name, EntityIndex>,
    ) -> Result<(), SchemaError> {
        for position in 0..self.entities[index].relations.len() {
            let entity = &self.entities[index];
            let relation = &entity.relations[position];
            let Some(through) = &relation.through else {
                continue;
            };
            let wrong = || SchemaError::Link {
                entity: entity.name.to_string(),
                relation: relation.name.to_string(),
                link: through.link.to_string(),
            };
            let link = by_name.get(&through.link).ok_or_else(wrong)?;
            let ends = self.entities[*link].link.as_ref().ok_or_else(wrong)?;
            let target = by_name
                .get(&relation.target)
                .map(|&i| &self.entities[i].name);
            let forward = (&ends.left, &ends.right);
            let backward = (&ends.right, &ends.left);
            let (near, far) = [forward, backward]
                .into_iter()
                .find(|(near, far)| {
                    (through.near.is_empty() || near.key == through.near)
                        && near.entity == entity.name
                        && Some(&far.entity) == target
                })
                .ok_or_else(wrong)?;
            let (near, far) = (near.key.clone(), far.key.clone());
            let resolved = Through {
                link: through.link.clone(),
                near,
                far,
            };
            self.entities[index].relations[position].through = Some(resolved);
        }
        Ok(())
    }

    /// Checks the fields that relations and dependencies match by, and makes lookups of those on
    /// the far side: that is where "the children of this parent" becomes a tag.
    fn mark_keys(&mut self, by_name: &HashMap<Name, EntityIndex>) -> Result<(), SchemaError> {
        let mut keys: Vec<(EntityIndex, Vec<Name>)> = Vec::new();
        for entity in &self.entities {
            let find = |owner: &str, target: &Name| {
                by_name
                    .get(target)
                    .copied()
                    .ok_or_else(|| SchemaError::Unknown {
                        entity: entity.name.to_string(),
                        owner: owner.to_string(),
                        name: target.to_string(),
                    })
            };
            for relation in &entity.relations {
                let owner = &*relation.name;
                let target = find(owner, &relation.target)?;
                require_key(entity, entity, owner, &relation.local)?;
                require_key(entity, &self.entities[target], owner, &relation.foreign)?;
                let (from, to) = match &relation.through {
                    Some(through) => (&through.near, &through.far),
                    None => (&relation.foreign, &relation.local),
                };
                require_as_many(entity, owner, &relation.local, from)?;
                require_as_many(entity, owner, &relation.foreign, to)?;
                keys.push((target, relation.foreign.clone()));
                if let Some(order_by) = &relation.order_by {
                    require_stored(entity, &self.entities[target], owner, order_by)?;
                }
                if let Some(through) = &relation.through {
                    let link = find(owner, &through.link)?;
                    for key in [&through.near, &through.far] {
                        require_key(entity, &self.entities[link], owner, key)?;
                        keys.push((link, key.clone()));
                    }
                }
            }
            let of_fields = entity.fields.iter().flat_map(|field| {
                field
                    .depends
                    .iter()
                    .map(|dependency| (&*field.name, dependency))
            });
            let of_entity = entity
                .depends
                .iter()
                .map(|dependency| ("depends_on", dependency));
            for (owner, dependency) in of_fields.chain(of_entity) {
                let target = find(owner, &dependency.entity)?;
                for field in dependency.fields.iter().flatten() {
                    require_stored(entity, &self.entities[target], owner, field)?;
                }
                if let Some(key) = &dependency.key {
                    require_key(entity, entity, owner, &key.ours)?;
                    require_key(entity, &self.entities[target], owner, &key.theirs)?;
                    require_as_many(entity, owner, &key.ours, &key.theirs)?;
                    keys.push((target, key.theirs.clone()));
                }
            }
        }
        for (entity, key) in keys {
            let entity = &mut self.entities[entity];
            match &key[..] {
                [name] => {
                    let mut fields = entity.fields.iter_mut();
                    if let Some(field) = fields.find(|field| field.name == *name) {
                        field.lookup = true;
                    }
                }
                names if entity.index_of_all(names).is_none() => {
                    let parts = names.iter().filter_map(|name| entity.index_of(name));
                    let tuple = Field::tuple(names, parts.collect());
                    entity.fields.push(tuple);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Puts the key first: a field, or a tuple of those that make it.
fn place_key(entity: &mut Entity) -> Result<(), SchemaError> {
    let key = entity.key.clone();
    if key.is_empty() {
        return Err(SchemaError::NoKey {
            entity: entity.name.to_string(),
        });
    }
    let repeated = (1..key.len()).find(|&at| key[..at].contains(&key[at]));
    if let Some(at) = repeated {
        return Err(SchemaError::Duplicate {
            entity: entity.name.to_string(),
            name: key[at].to_string(),
        });
    }
    let positions = key
        .iter()
        .filter_map(|name| entity.fields.iter().position(|field| field.name == *name));
    match positions.collect::<Vec<usize>>()[..] {
        [position] => entity.fields[..=position].rotate_right(1),
        ref positions => {
            // Behind the tuple, each is one further on.
            let parts = positions
                .iter()
                .filter_map(|&position| FieldIndex::try_from(position + 1).ok());
            let tuple = Field::tuple(&key, parts.collect());
            entity.fields.insert(0, tuple);
        }
    }
    Ok(())
}

/// What concerns one entity alone: names, the key, lookups, the soft-delete field.
fn check_entity(entity: &Entity) -> Result<(), SchemaError> {
    let names = entity.all_fields().iter().map(|field| &field.name);
    let mut seen: Vec<&Name> = Vec::new();
    for name in names.chain(entity.relations.iter().map(|relation| &relation.name)) {
        check_identifier(&entity.name, name)?;
        if seen.contains(&name) {
            return Err(SchemaError::Duplicate {
                entity: entity.name.to_string(),
                name: name.to_string(),
            });
        }
        seen.push(name);
    }
    for field in entity.fields.iter().filter(|field| field.lookup) {
        require_key(entity, entity, "lookup", std::slice::from_ref(&field.name))?;
    }
    require_key(entity, entity, "key", &entity.key)?;
    if let Some(field) = &entity.soft_delete {
        require_stored(entity, entity, "soft_delete", field)?;
    }
    for field in &entity.boundaries {
        require_stored(entity, entity, "boundary", field)?;
    }
    Ok(())
}

fn require_stored(of: &Entity, on: &Entity, owner: &str, name: &str) -> Result<(), SchemaError> {
    match on.get_field(name) {
        Some(field) if !field.computed => Ok(()),
        _ => Err(SchemaError::Unknown {
            entity: of.name.to_string(),
            owner: owner.to_string(),
            name: format!("{}.{name}", on.name),
        }),
    }
}

/// Requires that rows can be matched by these fields.
fn require_key(of: &Entity, on: &Entity, owner: &str, names: &[Name]) -> Result<(), SchemaError> {
    for name in names {
        require_stored(of, on, owner, name)?;
        if !on
            .get_field(name)
            .is_some_and(|field| field.kind.has_canonical_text())
        {
            return Err(SchemaError::Key {
                entity: of.name.to_string(),
                owner: owner.to_string(),
                field: format!("{}.{name}", on.name),
            });
        }
    }
    Ok(())
}

/// Requires that each field has one to be equal to.
fn require_as_many(
    of: &Entity,
    owner: &str,
    ours: &[Name],
    theirs: &[Name],
) -> Result<(), SchemaError> {
    if ours.len() == theirs.len() {
        return Ok(());
    }
    Err(SchemaError::Fields {
        entity: of.name.to_string(),
        owner: owner.to_string(),
        ours: ours.join(", "),
        theirs: theirs.join(", "),
    })
}

/// Names end up in tags and in the SQL of resolvers: plain identifiers only.
fn check_identifier(entity: &str, name: &str) -> Result<(), SchemaError> {
    let mut bytes = name.bytes();
    let starts = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if starts && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    Err(SchemaError::Identifier {
        entity: entity.to_string(),
        name: name.to_string(),
    })
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for (position, c) in name.char_indices() {
        if c.is_ascii_uppercase() && position > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// Why a schema could not be built.
///
/// ```
/// use mcache_graph::{Entity, Relation, Schema, SchemaError};
///
/// let product = Entity::new("Product").relation(Relation::has_many("variants", "Variant", "product_id"));
/// let error = Schema::builder().entity(product).build().unwrap_err();
/// assert!(matches!(error, SchemaError::Unknown { ref name, .. } if name == "Variant"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A name that is not made of ASCII letters, digits and `_`.
    #[error("schema: {entity}: {name:?} is not an identifier (ASCII letters, digits and _)")]
    Identifier {
        /// The entity it belongs to.
        entity: String,
        /// The name.
        name: String,
    },
    /// A name that is taken.
    #[error("schema: {entity}: the name {name:?} is declared twice")]
    Duplicate {
        /// The entity it belongs to.
        entity: String,
        /// The name.
        name: String,
    },
    /// A relation, dependency or soft-delete names an entity or stored field that is not declared.
    #[error("schema: {entity}.{owner} names {name}, which is not declared (or not stored)")]
    Unknown {
        /// The entity whose definition is wrong.
        entity: String,
        /// The relation, field or setting that names it.
        owner: String,
        /// What is missing.
        name: String,
    },
    /// An entity whose key has no fields.
    #[error("schema: {entity}: a key has at least one field")]
    NoKey {
        /// The entity.
        entity: String,
    },
    /// Fields that must equal each other are not as many: a key of several fields is referred to by as many.
    #[error("schema: {entity}.{owner} matches ({ours}) with ({theirs}), which are not as many")]
    Fields {
        /// The entity whose definition is wrong.
        entity: String,
        /// The relation or dependency.
        owner: String,
        /// The fields of the one side.
        ours: String,
        /// The fields of the other.
        theirs: String,
    },
    /// A relation goes through something that is not a link entity between its two ends.
    #[error("schema: {entity}.{relation}: {link} is not a link entity between the two ends")]
    Link {
        /// The entity that has the relation.
        entity: String,
        /// The relation.
        relation: String,
        /// What it goes through.
        link: String,
    },
    /// Rows are matched by a field whose equal values may be spelled differently.
    #[error(
        "schema: {entity}.{owner}: {field} cannot be matched by: its values have no canonical text"
    )]
    Key {
        /// The entity whose definition is wrong.
        entity: String,
        /// The relation, lookup or dependency.
        owner: String,
        /// The field.
        field: String,
    },
}
