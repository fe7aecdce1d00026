//! How rows of one entity lead to rows of another, in the result or only behind it.

use super::{FieldNames, Name};

/// A relation of an entity: from each of its rows to one or many rows of a target.
///
/// | constructor | the target's rows are those with | shape in the result |
/// |---|---|---|
/// | [`belongs_to`](Self::belongs_to) | `target.id = row.<key>` | object or `null` |
/// | [`has_one`](Self::has_one) | `target.<key> = row.id` | object or `null` |
/// | [`has_many`](Self::has_many) | `target.<key> = row.id` | array |
/// | [`linked_one`](Self::linked_one), [`linked_many`](Self::linked_many) | an entry in the link entity between them | object or `null`, array |
///
/// Where the [key](super::Entity::key) has several fields, so has what refers to it, in the same order: `["tenant_id",
/// "order_id"]`. All of them must be equal; null in one of them refers to nothing.
///
/// ```
/// use mcache_graph::{Entity, Relation, Schema};
///
/// let schema = Schema::builder()
///     .entity(
///         Entity::new("Product")
///             .relation(Relation::has_many("variants", "Variant", "product_id").ordered_by("sku")),
///     )
///     .entity(Entity::new("Variant").fields(["sku", "product_id"]))
///     .build()?;
/// let variants = schema.entity("Product").unwrap().get_relation("variants").unwrap();
/// assert!(variants.is_many() && variants.target() == "Variant");
/// # Ok::<(), mcache_graph::SchemaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Relation {
    pub(crate) name: Name,
    pub(crate) target: Name,
    pub(crate) many: bool,
    /// The fields of this entity that are matched. Empty until the schema is built: its key.
    pub(crate) local: Vec<Name>,
    /// The fields of the target that are matched, each with the one of `local` at its place. Empty as `local`.
    pub(crate) foreign: Vec<Name>,
    pub(crate) through: Option<Through>,
    pub(crate) order_by: Option<Name>,
}

/// The link entity of a relation and its two keys, seen from the entity the relation belongs to.
///
/// ```
/// use mcache_graph::{Entity, Relation, Schema};
///
/// let schema = Schema::builder()
///     .entity(Entity::new("Product").relation(Relation::linked_many("channels", "Channel", "ProductChannel")))
///     .entity(Entity::new("Channel").field("name"))
///     .entity(Entity::link("ProductChannel", ("product_id", "Product"), ("channel_id", "Channel")))
///     .build()?;
/// let channels = schema.entity("Product").unwrap().get_relation("channels").unwrap();
/// let through = channels.through().unwrap();
/// assert_eq!((&*through.near[0], &*through.far[0]), ("product_id", "channel_id"));
/// # Ok::<(), mcache_graph::SchemaError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Through {
    /// The link entity.
    pub link: Name,
    /// Its key towards the entity that has the relation, each field at the place of what it equals in
    /// [`Relation::local`]. Filled in by the schema.
    pub near: Vec<Name>,
    /// Its key towards the target, each field at the place of what it equals in [`Relation::foreign`]. Filled in by the
    /// schema.
    pub far: Vec<Name>,
}

/// The key of whichever side it is.
const KEY: FieldNames = FieldNames(Vec::new());

impl Relation {
    fn new(name: &str, target: &str, many: bool, local: FieldNames, foreign: FieldNames) -> Self {
        Self {
            name: name.into(),
            target: target.into(),
            many,
            local: local.0,
            foreign: foreign.0,
            through: None,
            order_by: None,
        }
    }

    fn linked(name: &str, target: &str, link: &str, many: bool) -> Self {
        Self {
            through: Some(Through {
                link: link.into(),
                near: Vec::new(),
                far: Vec::new(),
            }),
            ..Self::new(name, target, many, KEY, KEY)
        }
    }

    /// To one row, whose id is in `key` of this entity.
    pub fn belongs_to(name: &str, target: &str, key: impl Into<FieldNames>) -> Self {
        Self::new(name, target, false, key.into(), KEY)
    }

    /// To the one row whose `key` is this row's id. Should there be more, the one with the
    /// smallest id (or first in [`ordered_by`](Self::ordered_by)) is taken.
    pub fn has_one(name: &str, target: &str, key: impl Into<FieldNames>) -> Self {
        Self::new(name, target, false, KEY, key.into())
    }

    /// To all rows whose `key` is this row's id.
    pub fn has_many(name: &str, target: &str, key: impl Into<FieldNames>) -> Self {
        Self::new(name, target, true, KEY, key.into())
    }

    /// To the one row a link entity joins with this one.
    pub fn linked_one(name: &str, target: &str, link: &str) -> Self {
        Self::linked(name, target, link, false)
    }

    /// To all rows a link entity joins with this one.
    pub fn linked_many(name: &str, target: &str, link: &str) -> Self {
        Self::linked(name, target, link, true)
    }

    /// Matches this field (or these) of the entity instead of its default.
    #[must_use]
    pub fn local_key(mut self, fields: impl Into<FieldNames>) -> Self {
        self.local = fields.into().0;
        self
    }

    /// Matches this field (or these) of the target instead of its default.
    #[must_use]
    pub fn foreign_key(mut self, fields: impl Into<FieldNames>) -> Self {
        self.foreign = fields.into().0;
        self
    }

    /// For a link entity that joins an entity with itself: which of its two keys is on this side.
    /// Default: the first.
    #[must_use]
    pub fn near_key(mut self, fields: impl Into<FieldNames>) -> Self {
        if let Some(through) = &mut self.through {
            through.near = fields.into().0;
        }
        self
    }

    /// Sorts related rows by this field of the target, ascending, then by id. Default: by id.
    #[must_use]
    pub fn ordered_by(mut self, field: &str) -> Self {
        self.order_by = Some(field.into());
        self
    }

    /// The name, as it appears in field paths and results.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The entity it leads to.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether the result is an array.
    pub fn is_many(&self) -> bool {
        self.many
    }

    /// The fields of the owning entity that are matched: one, or those of a key of several.
    pub fn local(&self) -> &[Name] {
        &self.local
    }

    /// The fields of the target that are matched, each with the one of [`local`](Self::local) at its place.
    pub fn foreign(&self) -> &[Name] {
        &self.foreign
    }

    /// The link entity in between, if there is one.
    pub fn through(&self) -> Option<&Through> {
        self.through.as_ref()
    }
}

/// An entity that influences a result without appearing in it: reservations behind a stock figure,
/// price rules behind a calculated price.
///
/// ```
/// use mcache_graph::Dependency;
///
/// // Any change of any reservation.
/// Dependency::on("ReservationItem");
/// // Reservations of the row's own inventory item, when they come, go or change their quantity.
/// Dependency::on("ReservationItem").keyed("inventory_item_id", "id").fields(["quantity"]);
/// ```
#[derive(Clone, Debug)]
pub struct Dependency {
    pub(crate) entity: Name,
    pub(crate) fields: Option<Vec<Name>>,
    pub(crate) key: Option<DependencyKey>,
}

/// Which rows of a dependency matter: those whose `theirs` equals the dependent row's `ours`.
#[derive(Clone, Debug)]
pub(crate) struct DependencyKey {
    pub(crate) theirs: Vec<Name>,
    pub(crate) ours: Vec<Name>,
}

impl Dependency {
    /// On any change of any row of the entity.
    pub fn on(entity: &str) -> Self {
        Self {
            entity: entity.into(),
            fields: None,
            key: None,
        }
    }

    /// Only on rows coming and going, and on changes of these fields.
    #[must_use]
    pub fn fields<'a>(mut self, fields: impl IntoIterator<Item = &'a str>) -> Self {
        self.fields = Some(fields.into_iter().map(Name::from).collect());
        self
    }

    /// Only on rows whose field `theirs` (or fields, in order) equals `ours` of the row that depends on them.
    #[must_use]
    pub fn keyed(mut self, theirs: impl Into<FieldNames>, ours: impl Into<FieldNames>) -> Self {
        self.key = Some(DependencyKey {
            theirs: theirs.into().0,
            ours: ours.into().0,
        });
        self
    }
}
