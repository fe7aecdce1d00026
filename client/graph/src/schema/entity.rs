//! An entity: its fields, its relations, and what else its rows depend on.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{Dependency, Field, FieldNames, FieldType, Name, Relation};
use mcache::change::{key_parts, key_text};

/// Position of a field, or of a tuple of fields, in its entity. The key is always the first.
pub(crate) type FieldIndex = u16;

/// The key: the field that is it, or the tuple of those that make it.
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
///
/// Rows are named by their *key*: the field `id`, or what [`key`](Self::key) says.
#[derive(Clone, Debug)]
pub struct Entity {
    pub(crate) name: Name,
    pub(crate) aliases: Vec<Name>,
    pub(crate) id_prefix: Option<Name>,
    /// Once the schema is built: first the key, a field or a tuple; then the other fields; then the tuples that rows
    /// are matched by.
    pub(crate) fields: Vec<Field>,
    pub(crate) key: Vec<Name>,
    /// Whether `id` is there only because nothing else was said.
    implicit_id: bool,
    pub(crate) relations: Vec<Relation>,
    pub(crate) soft_delete: Option<Name>,
    pub(crate) depends: Vec<Dependency>,
    pub(crate) boundaries: Vec<Name>,
    pub(crate) link: Option<LinkEnds>,
    /// The lookups other than the key, in order of declaration, then tuples. Filled in by the schema.
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
    pub(crate) key: Vec<Name>,
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
            key: vec!["id".into()],
            implicit_id: true,
            relations: Vec::new(),
            soft_delete: None,
            depends: Vec::new(),
            boundaries: Vec::new(),
            link: None,
            lookups: Vec::new(),
        }
    }

    /// A link entity: each row joins a row of one entity with a row of another, by the two keys
    /// given, which together are its own key. It cannot be queried itself; relations go
    /// [through](Relation::linked_many) it.
    ///
    /// ```
    /// use mcache_graph::Entity;
    ///
    /// Entity::link(
    ///     "LinkProductSalesChannel",
    ///     ("product_id", "Product"),
    ///     ("sales_channel_id", "SalesChannel"),
    /// );
    /// // Between entities whose keys have several fields; the two sides may share some.
    /// Entity::link(
    ///     "LinkOrderTag",
    ///     (["tenant_id", "order_id"], "Order"),
    ///     (["tenant_id", "tag_id"], "Tag"),
    /// );
    /// ```
    pub fn link<L: Into<FieldNames>, R: Into<FieldNames>>(
        name: &str,
        left: (L, &str),
        right: (R, &str),
    ) -> Self {
        let left = LinkEnd {
            key: left.0.into().0,
            entity: left.1.into(),
        };
        let right = LinkEnd {
            key: right.0.into().0,
            entity: right.1.into(),
        };
        let mut both: Vec<Name> = Vec::with_capacity(left.key.len() + right.key.len());
        for name in left.key.iter().chain(&right.key) {
            if !both.contains(name) {
                both.push(name.clone());
            }
        }
        let mut link = Self::new(name).key(both);
        link.link = Some(LinkEnds { left, right });
        link
    }

    /// Declares what names a row: one field, or several together, in this order. Fields that are not declared otherwise
    /// are text. Default: `id`. An entity with a key that does not contain `id` has no `id`.
    ///
    /// ```
    /// use mcache_graph::{Entity, Field, Relation, Schema};
    ///
    /// let schema = Schema::builder()
    ///     .entity(
    ///         Entity::new("Order")
    ///             .key(["tenant_id", "id"])
    ///             .field(Field::integer("id"))
    ///             .relation(Relation::has_many("lines", "OrderLine", ["tenant_id", "order_id"])),
    ///     )
    ///     .entity(
    ///         Entity::new("OrderLine")
    ///             .key(["tenant_id", "order_id", "position"])
    ///             .fields([Field::integer("order_id"), Field::integer("position")])
    ///             .relation(Relation::belongs_to("order", "Order", ["tenant_id", "order_id"])),
    ///     )
    ///     .build()?;
    /// assert_eq!(schema.entity("Order").unwrap().key_fields().len(), 2);
    /// # Ok::<(), mcache_graph::SchemaError>(())
    /// ```
    ///
    /// A query names a row by all fields of its key: `{ "tenant_id": "a", "id": 7 }`; several rows by `$or` of these,
    /// or with [`Graph::query_each`](crate::Graph::query_each). Their tags contain the key as
    /// [`key_text`](crate::key_text) writes it: `Order:a|7`. Events name rows the same way. A row with another key is
    /// another row: where a field of a key changes, the row named before went and the one named now came.
    #[must_use]
    pub fn key(mut self, fields: impl Into<FieldNames>) -> Self {
        self.key = fields.into().0;
        let of_key = |name: &str| self.key.iter().any(|key| &**key == name);
        if self.implicit_id && !of_key("id") {
            self.fields.retain(|field| &*field.name != "id");
        }
        for name in &self.key {
            if !self.fields.iter().any(|field| field.name == *name) {
                self.fields.push(Field::text(name));
            }
        }
        self
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

    /// What the values of `id` are. Default: text.
    #[must_use]
    pub fn id_type(self, kind: FieldType) -> Self {
        self.field(Field::new("id", kind))
    }

    /// Adds a field. A field declared again replaces its first declaration.
    #[must_use]
    pub fn field(mut self, field: impl Into<Field>) -> Self {
        let field = field.into();
        self.implicit_id &= &*field.name != "id";
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

    /// Declares a (declared, stored) point in time at which results with rows of this entity change without a write:
    /// when a price list starts or ends. Such results are kept until the nearest one that is ahead, and no longer. The
    /// entity may be behind them as a [dependency](Dependency).
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

    /// All fields.
    pub fn all_fields(&self) -> &[Field] {
        let is_tuple = |field: &Field| !field.parts.is_empty();
        let begin = usize::from(self.fields.first().is_some_and(is_tuple));
        let fields = &self.fields[begin..];
        let count = fields.iter().position(is_tuple).unwrap_or(fields.len());
        &fields[..count]
    }

    /// The field of that name.
    pub fn get_field(&self, name: &str) -> Option<&Field> {
        self.all_fields().iter().find(|field| &*field.name == name)
    }

    /// The names of the fields that make the [key](Self::key), in order.
    pub fn key_fields(&self) -> &[Name] {
        &self.key
    }

    /// Whether values of the field become part of tags: it belongs to the key, is a [lookup](Field::lookup), or rows
    /// are matched by it, alone or with others. Equal values of it must have one spelling.
    pub fn is_matched_by(&self, field: &str) -> bool {
        let tuples = self.lookups.iter().map(|&lookup| self.field_at(lookup));
        let mut parts = tuples.flat_map(|tuple| &tuple.parts);
        self.key.iter().any(|name| &**name == field)
            || self.get_field(field).is_some_and(|field| field.lookup)
            || parts.any(|&part| &*self.field_at(part).name == field)
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

    pub(crate) fn index_of(&self, name: &str) -> Option<FieldIndex> {
        let is_it = |field: &Field| field.parts.is_empty() && &*field.name == name;
        let position = self.fields.iter().position(is_it)?;
        FieldIndex::try_from(position).ok()
    }

    /// The field of that name, or the tuple of those names in that order, if there is one: the key, or what rows are
    /// matched by.
    pub(crate) fn index_of_all(&self, names: &[Name]) -> Option<FieldIndex> {
        if let [name] = names {
            return self.index_of(name);
        }
        let is_it = |field: &Field| {
            let parts = field.parts.iter().map(|&part| &self.field_at(part).name);
            !field.parts.is_empty() && parts.eq(names)
        };
        let position = self.fields.iter().position(is_it)?;
        FieldIndex::try_from(position).ok()
    }

    pub(crate) fn field_at(&self, index: FieldIndex) -> &Field {
        &self.fields[usize::from(index)]
    }

    /// The fields of a tuple, or the field itself.
    pub(crate) fn parts_of(&self, index: FieldIndex) -> impl Iterator<Item = FieldIndex> + '_ {
        let parts = &self.field_at(index).parts;
        let itself = parts.is_empty().then_some(index);
        itself.into_iter().chain(parts.iter().copied())
    }

    /// The key, if it is one, and what rows are matched by that is several fields.
    pub(crate) fn tuples(&self) -> impl Iterator<Item = FieldIndex> + '_ {
        let all = (ID..).zip(&self.fields);
        all.filter(|(_, field)| !field.parts.is_empty())
            .map(|(index, _)| index)
    }

    /// The fields of the key.
    pub(crate) fn key_parts(&self) -> impl Iterator<Item = FieldIndex> + '_ {
        self.parts_of(ID)
    }

    pub(crate) fn is_key_part(&self, field: FieldIndex) -> bool {
        self.key_parts().any(|part| part == field)
    }

    /// The stored fields.
    pub(crate) fn stored(&self) -> impl Iterator<Item = FieldIndex> + '_ {
        (ID..)
            .zip(&self.fields)
            .filter(|(_, field)| !field.computed && field.parts.is_empty())
            .map(|(index, _)| index)
    }

    /// The stored fields except those of the key, which never changes: a row with another is another row.
    pub(crate) fn changeable(&self) -> impl Iterator<Item = FieldIndex> + '_ {
        self.stored().filter(|&field| !self.is_key_part(field))
    }

    /// The canonical text of a value of a field, or of the values (an array) of a tuple, for tags: equal values have
    /// one text. `None` if that is not known.
    pub(crate) fn text_of<'v>(&self, index: FieldIndex, value: &'v Value) -> Option<Cow<'v, str>> {
        let field = self.field_at(index);
        match (&field.parts[..], value) {
            ([], value) => field.kind.canonical_text(value),
            (parts, Value::Array(values)) if values.len() == parts.len() => {
                let texts = parts.iter().zip(values);
                joined(texts.map(|(&part, value)| self.field_at(part).kind.canonical_text(value)))
            }
            _ => None,
        }
    }

    /// As [`text_of`](Self::text_of), of what a row has. A value the row does not have is not known.
    pub(crate) fn text_in<'r>(
        &self,
        index: FieldIndex,
        row: &'r Map<String, Value>,
    ) -> Option<Cow<'r, str>> {
        let text = |part: FieldIndex| {
            let field = self.field_at(part);
            field.kind.canonical_text(row.get(&*field.name)?)
        };
        match &self.field_at(index).parts[..] {
            [] => text(index),
            parts => joined(parts.iter().map(|&part| text(part))),
        }
    }

    /// The canonical texts of the parts of a key that is written as one text; `None` if it is not a key of this entity.
    pub(crate) fn parts_of_key(&self, text: &str) -> Option<Vec<String>> {
        let parts = key_parts(text, self.key.len())?;
        let fields = self.key_parts().map(|part| self.field_at(part));
        let canonical = fields.zip(parts).map(|(field, part)| {
            let canonical = field.kind.canonical_str(&part);
            // What is not of the type names no row, and names it in one way.
            canonical.map_or_else(|| part.clone(), Cow::into_owned)
        });
        Some(canonical.collect())
    }

    /// Which value a field, or a tuple, has in a row: the same text if and only if the values are equal. `None` if one
    /// of them is null, which equals nothing, or not of its type.
    pub(crate) fn identity_in<'r>(
        &self,
        fields: &[Name],
        row: &'r Map<String, Value>,
    ) -> Option<Cow<'r, str>> {
        let identity = |name: &Name| {
            let kind = self.get_field(name)?.kind;
            kind.identity(row.get(&**name)?)
        };
        match fields {
            [name] => identity(name),
            names => joined(names.iter().map(identity)),
        }
    }
}

/// The text of a tuple, of the texts of its parts.
pub(crate) fn joined<'v>(
    texts: impl Iterator<Item = Option<Cow<'v, str>>>,
) -> Option<Cow<'v, str>> {
    let texts: Vec<Cow<'v, str>> = texts.collect::<Option<_>>()?;
    let parts: Vec<&str> = texts.iter().map(|text| &**text).collect();
    Some(Cow::Owned(key_text(&parts)))
}
