//! How rows of one entity lead to rows of another, in the result or only behind it.

use super::Name;

/// A relation of an entity: from each of its rows to one or many rows of a target.
///
/// | constructor | the target's rows are those with | shape in the result |
/// |---|---|---|
/// | [`belongs_to`](Self::belongs_to) | `target.id = row.<key>` | object or `null` |
/// | [`has_one`](Self::has_one) | `target.<key> = row.id` | object or `null` |
/// | [`has_many`](Self::has_many) | `target.<key> = row.id` | array |
/// | [`linked_one`](Self::linked_one), [`linked_many`](Self::linked_many) | an entry in the link entity between them | object or `null`, array |
#[derive(Clone, Debug)]
pub struct Relation {
    pub(crate) name: Name,
    pub(crate) target: Name,
    pub(crate) many: bool,
    /// The field of this entity that is matched; `id` unless the key is on this side.
    pub(crate) local: Name,
    /// The field of the target that is matched; `id` unless the key is on that side.
    pub(crate) foreign: Name,
    pub(crate) through: Option<Through>,
    pub(crate) order_by: Option<Name>,
}

/// The link entity of a relation and its two keys, seen from the entity the relation belongs to.
#[derive(Clone, Debug)]
pub struct Through {
    /// The link entity.
    pub link: Name,
    /// Its key towards the entity that has the relation. Filled in by the schema.
    pub near: Name,
    /// Its key towards the target. Filled in by the schema.
    pub far: Name,
}

impl Relation {
    fn new(name: &str, target: &str, many: bool, local: &str, foreign: &str) -> Self {
        Self {
            name: name.into(),
            target: target.into(),
            many,
            local: local.into(),
            foreign: foreign.into(),
            through: None,
            order_by: None,
        }
    }

    fn linked(name: &str, target: &str, link: &str, many: bool) -> Self {
        let unknown: Name = "".into();
        Self {
            through: Some(Through {
                link: link.into(),
                near: unknown.clone(),
                far: unknown,
            }),
            ..Self::new(name, target, many, "id", "id")
        }
    }

    /// To one row, whose id is in `key` of this entity.
    pub fn belongs_to(name: &str, target: &str, key: &str) -> Self {
        Self::new(name, target, false, key, "id")
    }

    /// To the one row whose `key` is this row's id. Should there be more, the one with the
    /// smallest id (or first in [`ordered_by`](Self::ordered_by)) is taken.
    pub fn has_one(name: &str, target: &str, key: &str) -> Self {
        Self::new(name, target, false, "id", key)
    }

    /// To all rows whose `key` is this row's id.
    pub fn has_many(name: &str, target: &str, key: &str) -> Self {
        Self::new(name, target, true, "id", key)
    }

    /// To the one row a link entity joins with this one.
    pub fn linked_one(name: &str, target: &str, link: &str) -> Self {
        Self::linked(name, target, link, false)
    }

    /// To all rows a link entity joins with this one.
    pub fn linked_many(name: &str, target: &str, link: &str) -> Self {
        Self::linked(name, target, link, true)
    }

    /// Matches this field of the entity instead of its default.
    #[must_use]
    pub fn local_key(mut self, field: &str) -> Self {
        self.local = field.into();
        self
    }

    /// Matches this field of the target instead of its default.
    #[must_use]
    pub fn foreign_key(mut self, field: &str) -> Self {
        self.foreign = field.into();
        self
    }

    /// For a link entity that joins an entity with itself: which of its two keys is on this side.
    /// Default: the first.
    #[must_use]
    pub fn near_key(mut self, field: &str) -> Self {
        if let Some(through) = &mut self.through {
            through.near = field.into();
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

    /// The field of the owning entity that is matched.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The field of the target that is matched.
    pub fn foreign(&self) -> &str {
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
    pub(crate) theirs: Name,
    pub(crate) ours: Name,
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

    /// Only on rows whose field `theirs` equals `ours` of the row that depends on them.
    #[must_use]
    pub fn keyed(mut self, theirs: &str, ours: &str) -> Self {
        self.key = Some(DependencyKey {
            theirs: theirs.into(),
            ours: ours.into(),
        });
        self
    }
}
