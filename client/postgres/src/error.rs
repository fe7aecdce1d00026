//! What can go wrong between this crate and PostgreSQL.

use std::sync::Arc;

use mcache_graph::Name;
use tokio_postgres::error::SqlState;

use super::patience::is_locked_out;

/// Why something about PostgreSQL did not succeed.
///
/// Cheap to clone. Its text says everything there is to say, what the server said included; it has no
/// [source](std::error::Error::source), so that a chain of errors does not print it twice.
///
/// ```
/// use std::sync::Arc;
/// use mcache_graph::{Entity, Schema};
/// use mcache_postgres::{Mapping, PostgresError, Table};
///
/// let schema = Arc::new(Schema::builder().entity(Entity::new("Product")).build()?);
/// let error = Mapping::builder(schema).table("Prodcut", Table::named("product")).build().unwrap_err();
/// assert!(matches!(error, PostgresError::Unknown { .. }));
/// assert_eq!(error.to_string(), "mapping: the schema has no entity Prodcut");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The mapping names something the schema does not have.
    #[error("mapping: the schema has no {what}")]
    Unknown {
        /// `entity Product` or `stored field Product.title`.
        what: String,
    },
    /// A name that cannot be an identifier: empty, too long, or with a NUL in it.
    #[error("mapping: {name:?} cannot be the name of a schema, table or column")]
    Identifier {
        /// The name.
        name: String,
    },
    /// A table or column is missing, or of a type that its field cannot be read from.
    #[error("{entity}: the mapping does not fit the database: {reason}")]
    Mismatch {
        /// The entity.
        entity: Name,
        /// What PostgreSQL said.
        reason: String,
    },
    /// The server is too old for what capturing changes needs.
    #[error("PostgreSQL 14 or newer is needed; the server is {version}")]
    TooOld {
        /// What the server calls itself.
        version: String,
    },
    /// The outbox was made by a newer version of this crate.
    #[error("the outbox has layout {found}, newer than the {known} of this version")]
    Newer {
        /// The layout that was found.
        found: i32,
        /// The newest layout this version knows.
        known: i32,
    },
    /// A statement failed.
    #[error("{doing}: {}", describe(.cause))]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        cause: Arc<tokio_postgres::Error>,
    },
    /// Sessions are shared by a pooler where one of our own is needed.
    #[error("{what} needs a session of its own, and a pooler shares them: {advice}")]
    Pooler {
        /// What was to be done.
        what: &'static str,
        /// What to change.
        advice: &'static str,
    },
    /// A session is not set to what it was set to: a pooler in between forgets it.
    #[error(
        "the session does not hold the setting {name}: it was set to {asked:?} and is {found:?}; connect directly, or to a pooler that does not share or reset sessions"
    )]
    Setting {
        /// The setting.
        name: String,
        /// What it was set to.
        asked: String,
        /// What it is.
        found: String,
    },
    /// A query's context does not name what a setting of the session is taken from.
    #[error("the query's context has no {member:?}, from which {setting} is set")]
    Context {
        /// The member that is missing, or neither a string nor a number.
        member: String,
        /// The setting.
        setting: String,
    },
    /// A filter compares a field with a value that its type does not have, in a way that has no answer.
    #[error("{field} cannot be compared with a value that its column cannot hold")]
    Value {
        /// Entity and field.
        field: String,
    },
    /// The schema of the outbox is not its alone, so it can be neither made there nor taken away.
    #[error(
        "schema {schema} holds {found}, which is not of an outbox: give the outbox a schema of its own, by Outbox::schema"
    )]
    Shared {
        /// The schema.
        schema: String,
        /// Something in it that is not ours.
        found: String,
    },
    /// No connection could be had from the pool.
    #[error("no connection: {0}")]
    Pool(Arc<deadpool_postgres::PoolError>),
    /// The pool of connections could not be made.
    #[error("no pool of connections: {0}")]
    Build(Arc<deadpool_postgres::BuildError>),
    /// The server did not answer in time.
    #[error("{doing}: no answer in time")]
    Timeout {
        /// What was being done.
        doing: &'static str,
    },
}

impl PostgresError {
    /// Whether the database does not have a table, column, function or schema that was named.
    pub(super) fn is_undefined(&self) -> bool {
        self.is_one_of(&[
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::UNDEFINED_FUNCTION,
            SqlState::INVALID_SCHEMA_NAME,
        ])
    }

    /// Whether the server gave up waiting for a lock that another transaction holds.
    pub(super) fn is_locked_out(&self) -> bool {
        matches!(self, Self::Sql { cause, .. } if is_locked_out(cause))
    }

    /// Whether a text has no spelling in the encoding that we read: databases may hold bytes of any meaning.
    pub(super) fn is_unreadable(&self) -> bool {
        self.is_one_of(&[
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            SqlState::UNTRANSLATABLE_CHARACTER,
        ])
    }

    fn is_one_of(&self, codes: &[SqlState]) -> bool {
        let Self::Sql { cause, .. } = self else {
            return false;
        };
        cause.code().is_some_and(|code| codes.contains(code))
    }

    /// For `map_err`: what was being done when a statement failed.
    pub(super) fn sql(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |cause| Self::Sql {
            doing,
            cause: Arc::new(cause),
        }
    }
}

impl From<deadpool_postgres::PoolError> for PostgresError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        Self::Pool(Arc::new(error))
    }
}

impl From<deadpool_postgres::BuildError> for PostgresError {
    fn from(error: deadpool_postgres::BuildError) -> Self {
        Self::Build(Arc::new(error))
    }
}

/// What the server said, or the client's own words.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => {
            let mut words = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                words = format!("{words}: {error}");
                cause = error.source();
            }
            words
        }
    }
}
