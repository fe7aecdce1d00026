//! Where rows come from: the one trait a graph needs implemented.
//!
//! A graph turns a query into one [`Fetch`] per level (entity reached by a path), each for all
//! rows of that level at once, so a query costs as many round trips as it has levels: their
//! number does not grow with the rows. Levels of the same depth are fetched concurrently.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::{Map, Value};

use super::error::ResolverError;
use super::filter::Filter;
use super::query::Direction;
use super::schema::{Entity, Name, Schema};

/// A boxed future, so that resolvers are objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One row: stored (and computed) fields by name.
pub type Row = Map<String, Value>;

/// Reads rows from wherever they are.
///
/// What the graph relies on, and what makes a cached result trustworthy:
///
/// - A fetch sees every change committed before it was called. Reading from a lagging replica, or
///   inside a transaction with an older snapshot, breaks that; see `docs/graph.md`.
/// - The answer depends on nothing but the fetch and the rows of the entity (and, for relation
///   filters and computed fields, on the entities these name or [depend on](super::Dependency)).
/// - Every row has every field asked for. The key and the fields rows are matched by must be present and fit their
///   type; others may be left out, which counts as `null`.
///
/// # Cancel safety
///
/// The future may be dropped at any point, when no caller waits for the result any more.
///
/// # Example
///
/// [`MemoryResolver`](super::MemoryResolver) is a complete implementation.
pub trait Resolver: Send + Sync {
    /// Reads the rows of one level.
    ///
    /// # Errors
    ///
    /// What went wrong. The query fails with it and nothing is cached.
    fn fetch<'a>(&'a self, fetch: Fetch<'a>) -> BoxFuture<'a, Result<Rows, ResolverError>>;

    /// Where the rows come from, and on whose behalf they are read: part of every key, so that two resolvers share
    /// entries only if they would give the same answers. Asked once. Default: empty, which is right where a cache and a
    /// schema belong to one source.
    ///
    /// # Errors
    ///
    /// What keeps it from knowing. The query fails with it, for without a key there is nothing to look for.
    fn origin(&self) -> BoxFuture<'_, Result<String, ResolverError>> {
        Box::pin(std::future::ready(Ok(String::new())))
    }

    /// How long until one of these [boundaries](Entity::boundary) of any row is passed, by the clock of where the rows
    /// are; `None` if there is none ahead. A result that reads rows of the entity is kept no longer. Asked before the
    /// rows are fetched, and only where the schema declares boundaries.
    ///
    /// # Errors
    ///
    /// What went wrong. The default cannot know, and says so.
    fn next_boundary<'a>(
        &'a self,
        entity: &'a Entity,
        _fields: &'a [Name],
    ) -> BoxFuture<'a, Result<Option<Duration>, ResolverError>> {
        let error = format!("{}: this resolver cannot tell boundaries", entity.name());
        Box::pin(std::future::ready(Err(error.into())))
    }
}

/// Shared resolvers are resolvers.
impl<R: Resolver + ?Sized> Resolver for std::sync::Arc<R> {
    fn fetch<'a>(&'a self, fetch: Fetch<'a>) -> BoxFuture<'a, Result<Rows, ResolverError>> {
        (**self).fetch(fetch)
    }

    fn origin(&self) -> BoxFuture<'_, Result<String, ResolverError>> {
        (**self).origin()
    }

    fn next_boundary<'a>(
        &'a self,
        entity: &'a Entity,
        fields: &'a [Name],
    ) -> BoxFuture<'a, Result<Option<Duration>, ResolverError>> {
        (**self).next_boundary(entity, fields)
    }
}

/// A request for rows of one entity.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Fetch<'a> {
    /// The schema everything here was checked against.
    pub schema: &'a Schema,
    /// The entity. Rows that its [soft-delete field](Entity::soft_delete) marks as deleted do not exist.
    pub entity: &'a Entity,
    /// The fields wanted, without repetition: those the caller asked for and those the graph needs to
    /// find related rows. The [key](Entity::key_fields) is among them, except for link entities.
    pub fields: &'a [Name],
    /// Which rows.
    pub select: Select<'a>,
    /// The query's context, `null` if it has none.
    pub context: &'a Value,
    /// The query's locale.
    pub locale: Option<&'a str>,
}

/// Which rows a fetch is for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Select<'a> {
    /// The rows of the query itself.
    List(List<'a>),
    /// The rows whose `field` equals one of `values`, in the order asked for: the related rows of a whole
    /// level of parents. The values are not null and have no repetition; rows with other values are ignored.
    Keys {
        /// The field to match. It is among the fields wanted.
        field: &'a Name,
        /// The values to match.
        values: &'a [Value],
        /// What to sort by, the most significant first; nulls are last when ascending. Empty if the order does not
        /// matter.
        order: &'a [(Name, Direction)],
    },
    /// As [`Keys`](Self::Keys), of rows that several fields together match. Only where the schema has keys of several
    /// fields.
    Tuples {
        /// The fields to match, two or more. They are among the fields wanted.
        fields: &'a [Name],
        /// What to match: arrays of as many values.
        values: &'a [Value],
        /// What to sort by, as for [`Keys`](Self::Keys).
        order: &'a [(Name, Direction)],
    },
}

/// The rows of a query's first level.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct List<'a> {
    /// What a row must meet.
    pub filter: &'a Filter,
    /// What to sort by, the most significant first. It always ends with the key, so that pages do not
    /// overlap. Nulls are last when ascending and first when descending.
    pub order: &'a [(Name, Direction)],
    /// How many rows to leave out.
    pub skip: u64,
    /// How many rows to return at most; all if absent.
    pub take: Option<u64>,
    /// Whether to report how many rows meet the filter, regardless of `skip` and `take`.
    pub count: bool,
}

/// What a fetch found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Rows {
    /// The rows.
    pub rows: Vec<Row>,
    /// How many rows meet the filter, if [`List::count`] asked for it.
    pub count: Option<u64>,
}

impl Rows {
    /// These rows, without a count.
    pub fn new(rows: Vec<Row>) -> Self {
        Self { rows, count: None }
    }

    /// The same, and how many rows meet the filter.
    #[must_use]
    pub fn counted(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }
}
