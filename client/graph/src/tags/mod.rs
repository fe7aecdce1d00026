//! Tags: what an entry carries, and what a change clears.
//!
//! The server knows nothing but "this entry carries that tag; clear that tag", so all precision comes
//! from which tags the two sides choose. `docs/graph.md` says what each tag means and why the choice
//! is sound; the oracle in `tests/suite` tries to prove it wrong.

mod change;
mod entry;
mod name;
mod needs;

use std::sync::Arc;

use name::TagSink;
use needs::Walk;

use super::load::LoadedRows;
use super::plan::Plan;
use super::schema::Schema;
use super::tagset::TagSet;
use mcache::Tags;
use mcache::change::{BoxError, ChangeEvent, EventTags};

/// How much the tags of a result say about it.
///
/// ```
/// use mcache_graph::Precision;
///
/// assert_eq!(Precision::default(), Precision::Precise);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// As Medusa: `Entity:id` for each row and `Entity:list:*` for each entity. Any change of an entity
    /// clears every result made from it.
    Compatible,
    /// A change clears only results it can have changed. The default.
    #[default]
    Precise,
}

/// How many tags an entry may carry before they are made coarser. Beyond a limit tags stay correct and
/// clear more.
///
/// ```
/// use mcache_graph::TagLimits;
///
/// let limits = TagLimits::default().fields_max(256).total_max(2_000);
/// assert_eq!((limits.fields_max, limits.rows_max), (256, 1_024));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagLimits {
    /// Above this many of one entity, rows are named without the fields that matter in them. Default 512.
    pub fields_max: usize,
    /// Above this many of one entity even so, the fields that matter are named without the rows.
    /// Default 1,024.
    pub rows_max: usize,
    /// Above this many of all entities together, the entities with the most tags get coarser ones. Default
    /// 4,000: the server's `mcache.max-tags`, less what others add.
    pub total_max: usize,
    /// A change of more rows than this counts as a change of the whole entity. Default 1,000.
    pub changed_rows_max: usize,
}

impl Default for TagLimits {
    fn default() -> Self {
        Self {
            fields_max: 512,
            rows_max: 1_024,
            total_max: 4_000,
            changed_rows_max: 1_000,
        }
    }
}

impl TagLimits {
    /// Sets [`fields_max`](Self::fields_max).
    #[must_use]
    pub fn fields_max(mut self, tags: usize) -> Self {
        self.fields_max = tags;
        self
    }

    /// Sets [`rows_max`](Self::rows_max).
    #[must_use]
    pub fn rows_max(mut self, tags: usize) -> Self {
        self.rows_max = tags;
        self
    }

    /// Sets [`total_max`](Self::total_max).
    #[must_use]
    pub fn total_max(mut self, tags: usize) -> Self {
        self.total_max = tags;
        self
    }

    /// Sets [`changed_rows_max`](Self::changed_rows_max).
    #[must_use]
    pub fn changed_rows_max(mut self, rows: usize) -> Self {
        self.changed_rows_max = rows;
        self
    }
}

/// The tags of a result: see [`Answer::tags`](crate::Answer::tags).
///
/// ```
/// use mcache_graph::ResultTags;
///
/// let none = ResultTags::default();
/// assert!(none.tags.is_empty() && none.collapsed == 0);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ResultTags {
    /// The tags.
    pub tags: TagSet,
    /// How many entities had too many tags and carry coarser ones instead.
    pub collapsed: usize,
}

/// Turns changes into the tags they clear.
///
/// The tags of both [levels of precision](Precision) are among them, so entries of processes that
/// use different levels, and entries tagged by hand with Medusa's convention, live side by side.
///
/// Every process that changes data must know the lookups and relations of the processes that read it: during
/// a deployment with a new schema, run one tagger for each of the two.
///
/// ```
/// use std::sync::Arc;
/// use mcache::change::{ChangeEvent, Operation};
/// use mcache_graph::{ChangeTags, Entity, Schema};
///
/// let schema = Schema::builder().entity(Entity::new("Product").field("title")).build()?;
/// let tags = ChangeTags::new(Arc::new(schema));
/// let event = ChangeEvent::new("Product", Operation::Updated, ["p1"]).with_changed(["title"]);
/// let tags = tags.of(&event).unwrap();
/// assert!(tags.contains("Product:p1") && tags.contains("Product:list:*"));
/// assert!(tags.contains("Product:p1#title") && tags.contains("Product:list:title"));
/// # Ok::<(), mcache_graph::SchemaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChangeTags {
    schema: Arc<Schema>,
    limits: TagLimits,
}

impl ChangeTags {
    /// Tags of changes of the entities of a schema.
    pub fn new(schema: Arc<Schema>) -> Self {
        Self {
            schema,
            limits: TagLimits::default(),
        }
    }

    /// Sets the limits. Default: [`TagLimits::default`].
    #[must_use]
    pub fn limits(mut self, limits: TagLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The tags a change clears.
    ///
    /// # Errors
    ///
    /// [`UnknownEntity`] if the schema does not have the entity: no graph query can have read it. Entries
    /// tagged by hand can; [`compatible_tags`] says which tags these carry.
    pub fn of(&self, event: &ChangeEvent) -> Result<TagSet, UnknownEntity> {
        let mut tags = TagSet::new();
        change::tags_of(&self.schema, event, &self.limits, &mut tags)?;
        Ok(tags)
    }
}

impl EventTags for ChangeTags {
    /// As [`ChangeTags::of`]. An entity the schema does not have is one of another release: everything that release can
    /// have made from it is cleared, and what is tagged by hand ([`compatible_tags`]).
    fn tags(&self, event: &ChangeEvent, tags: &mut Tags) -> Result<(), BoxError> {
        if let Err(UnknownEntity { entity }) =
            change::tags_of(&self.schema, event, &self.limits, tags)
        {
            put_compatible(event, tags);
            tags.push_parts(&[&entity, ":*"]);
        }
        Ok(())
    }
}

/// The tags Medusa's convention has for a change, of any entity: `Entity:id` and `Entity:list:*`.
pub fn compatible_tags(event: &ChangeEvent) -> TagSet {
    let mut tags = TagSet::new();
    put_compatible(event, &mut tags);
    tags
}

fn put_compatible(event: &ChangeEvent, tags: &mut impl TagSink) {
    for id in &event.ids {
        tags.insert_parts(&[&event.entity, ":", id]);
    }
    tags.insert_parts(&[&event.entity, ":list:*"]);
}

/// The schema does not have the entity of a change.
///
/// ```
/// use std::sync::Arc;
/// use mcache::change::{ChangeEvent, Operation};
/// use mcache_graph::{ChangeTags, Schema};
///
/// let tags = ChangeTags::new(Arc::new(Schema::builder().build()?));
/// let change = ChangeEvent::new("Order", Operation::Created, ["o1"]);
/// assert_eq!(tags.of(&change).unwrap_err().entity, "Order");
/// # Ok::<(), mcache_graph::SchemaError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("change of {entity:?}, which the schema does not have")]
#[non_exhaustive]
pub struct UnknownEntity {
    /// The entity as the event names it.
    pub entity: String,
}

/// The tags of what was loaded for a plan.
pub(crate) fn tags_of_result(
    schema: &Schema,
    plan: &Plan,
    loaded: &LoadedRows,
    precision: Precision,
    limits: &TagLimits,
) -> ResultTags {
    let walk = Walk {
        schema,
        plan,
        loaded,
    };
    let needs = walk.needs();
    match precision {
        Precision::Precise => entry::precise(schema, needs, limits),
        Precision::Compatible => entry::compatible(schema, plan, loaded, &needs, limits),
    }
}
