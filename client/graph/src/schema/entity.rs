//! An entity: its fields, its relations, and what else its rows depend on.

use super::{Dependency, Field, FieldType, Name, Relation};

/// Position of a field in its entity. `id` is always the first.
pub(crate) type FieldIndex = u16;

/// The field every entity has.
pub(crate) const ID: FieldIndex = 0;

/// An entity of the data model. Written by the user, checked and completed by
/// [`SchemaBuilder::build`](super::SchemaBuilder::build).
///
/// ```
/// use mcache_graph::{Entity, Field, Relation};
///
/// Entity::new("Product")
///     .id_prefix("prod_")
///     .fields(["title", "description"])
///     .field(Field::text("handle").lookup())
///     .field(Field::integer("rank"))
///     .field(Field::text("collection_id"))
///     .relation(Relation::belongs_to("collection", "ProductCollection", "collection_id"))
///     .relation(Relation::has_many("variants", "ProductVariant", "product_id").ordered_by("rank"))
///     .relation(Relation::linked_many("sales_channels", "SalesChannel", "LinkProductSalesChannel"));
/// ```
#[derive(Clone, Debug)]
pub struct Entity {
    pub(crate) name: Name,
    pub(crate) aliases: Vec<Name>,
    pub(crate) id_prefix: Option<Name>,
    pub(crate) fields: Vec<Field>,
    pub(crate) relations: Vec<Relation>,
    pub(crate) soft_delete: Option<Name>,
    pub(crate) depends: Vec<Dependency>,
    pub(crate) boundaries: Vec<Name>,
    pub(crate) link: Option<LinkEnds>,
    /// The lookups other than `id`, in order of declaration. Filled in by the schema.
    pub(crate) lookups: Vec<FieldIndex>,
}

/// The two ends of a link entity.
#[derive(Clone, Debug)]
pub(crate) struct LinkEnds {
    pub(crate) left: LinkEnd,
    pub(crate) right: LinkEnd,
}

#[derive(Clone, Debug)]
pub(crate) struct LinkEnd {
    pub(crate) key: Name,
    pub(crate) entity: Name,
}

impl Entity {
    /// An entity named in PascalCase, as in tags and events, with a text `id` and nothing else.
    /// Queries may also name it in snake_case.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            aliases: Vec::new(),
            id_prefix: None,
            fields: vec![Field::text("id")],
            relations: Vec::new(),
            soft_delete: None,
            depends: Vec::new(),
            boundaries: Vec::new(),
            link: None,
            lookups: Vec::new(),
        }
    }

    /// A link entity: each row joins a row of one entity with a row of another, by the two keys
    /// given. It cannot be queried itself; relations go [through](Relation::linked_many) it.
    ///
    /// ```
    /// use mcache_graph::Entity;
    ///
    /// Entity::link(
    ///     "LinkProductSalesChannel",
    ///     ("product_id", "Product"),
    ///     ("sales_channel_id", "SalesChannel"),
    /// );
    /// ```
    pub fn link(name: &str, left: (&str, &str), right: (&str, &str)) -> Self {
        let end = |(key, entity): (&str, &str)| LinkEnd {
            key: key.into(),
            entity: entity.into(),
        };
        let mut link = Self::new(name).fields([left.0, right.0]);
        link.link = Some(LinkEnds {
            left: end(left),
            right: end(right),
        });
        link
    }

    /// Another name queries may use, such as a plural.
    #[must_use]
    pub fn alias(mut self, alias: &str) -> Self {
        self.aliases.push(alias.into());
        self
    }

    /// What the ids of this entity begin with: lets [`Schema::entity_of_id`](super::Schema::entity_of_id)
    /// tell an operator what an id is. Tags never depend on it.
    #[must_use]
    pub fn id_prefix(mut self, prefix: &str) -> Self {
        self.id_prefix = Some(prefix.into());
        self
    }

    /// What the ids are. Default: text.
    #[must_use]
    pub fn id_type(mut self, kind: FieldType) -> Self {
        self.fields[usize::from(ID)].kind = kind;
        self
    }

    /// Adds a field. A field declared again replaces its first declaration.
    #[must_use]
    pub fn field(mut self, field: impl Into<Field>) -> Self {
        let field = field.into();
        match self
            .fields
            .iter_mut()
            .find(|known| known.name == field.name)
        {
            Some(known) => *known = field,
            None => self.fields.push(field),
        }
        self
    }

    /// Adds several fields; plain names are text.
    #[must_use]
    pub fn fields<F: Into<Field>>(self, fields: impl IntoIterator<Item = F>) -> Self {
        fields.into_iter().fold(self, Self::field)
    }

    /// Adds a relation.
    #[must_use]
    pub fn relation(mut self, relation: Relation) -> Self {
        self.relations.push(relation);
        self
    }

    /// Rows in which this (declared) field is not null count as deleted. A resolver leaves them
    /// out, and a change that sets or clears the field counts as a deletion or a creation.
    #[must_use]
    pub fn soft_delete(mut self, field: &str) -> Self {
        self.soft_delete = Some(field.into());
        self
    }

    /// Declares an entity that influences every result with rows of this one.
    #[must_use]
    pub fn depends_on(mut self, dependency: Dependency) -> Self {
        self.depends.push(dependency);
        self
    }

    /// Declares a (declared, stored) point in time at which results with rows of this entity change without a write: when a
    /// price list starts or ends. Such results are kept until the nearest one that is ahead, and no longer. The entity may
    /// be behind them as a [dependency](Dependency).
    #[must_use]
    pub fn boundary(mut self, field: &str) -> Self {
        self.boundaries.push(field.into());
        self
    }

    /// The fields declared as boundaries.
    pub fn boundaries(&self) -> &[Name] {
        &self.boundaries
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All fields, `id` first.
    pub fn all_fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field of that name.
    pub fn get_field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| &*field.name == name)
    }

    /// All relations.
    pub fn relations(&self) -> &[Relation] {
        &self.relations
    }

    /// The relation of that name.
    pub fn get_relation(&self, name: &str) -> Option<&Relation> {
        self.relations
            .iter()
            .find(|relation| &*relation.name == name)
    }

    /// The field that marks deleted rows.
    pub fn soft_delete_field(&self) -> Option<&str> {
        self.soft_delete.as_deref()
    }

    /// Whether this is a link entity.
    pub fn is_link(&self) -> bool {
        self.link.is_some()
    }

    /// The keys of the two ends, if this is a link entity.
    pub fn link_keys(&self) -> Option<[&Name; 2]> {
        let ends = self.link.as_ref()?;
        Some([&ends.left.key, &ends.right.key])
    }

    pub(crate) fn index_of(&self, name: &str) -> Option<FieldIndex> {
        let position = self.fields.iter().position(|field| &*field.name == name)?;
        FieldIndex::try_from(position).ok()
    }

    pub(crate) fn field_at(&self, index: FieldIndex) -> &Field {
        &self.fields[usize::from(index)]
    }

    /// The stored fields except `id`, which never changes.
    pub(crate) fn changeable(&self) -> impl Iterator<Item = FieldIndex> + '_ {
        (ID + 1..)
            .zip(&self.fields[usize::from(ID) + 1..])
            .filter(|(_, field)| !field.computed)
            .map(|(index, _)| index)
    }
}
