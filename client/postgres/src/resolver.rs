//! Graph queries over PostgreSQL: one statement per level.
//!
//! Owns connections, and the way from a fetch to rows. The statements are made in `statement.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime,
};
use futures_util::future::{OptionFuture, try_join, try_join_all};
use serde_json::Value;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Socket};

use mcache_graph::{BoxFuture, Fetch, Name, Resolver, ResolverError, Row, Rows, Select};

use super::error::PostgresError;
use super::mapping::Mapping;
use super::param::Param;
use super::statement::{Builder, Statement};
use super::value::from_text;

/// How long a fetch waits for a connection, and a connection for the server.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements a connection keeps. Shapes of queries are few unless somebody makes them up.
const STATEMENTS_MAX: usize = 512;

/// What every text the server sends must not depend on. Each statement sees what was committed before it began, which is
/// what makes a cached result trustworthy.
const SESSION_OPTIONS: &str = "-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=1 \
     -c default_transaction_isolation=read\\ committed";

/// Answers graph queries from a PostgreSQL database, as a [`Mapping`] says.
///
/// A query costs one statement per level, whatever the number of rows. Fields of type [`Text`](mcache_graph::FieldType::Text)
/// are sorted by the collation of their column.
///
/// ```no_run
/// # async fn f(schema: std::sync::Arc<mcache_graph::Schema>) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use mcache_graph::{Graph, GraphOptions, GraphQuery};
/// use mcache_postgres::{Mapping, PostgresResolver};
/// use tokio_postgres::NoTls;
///
/// let mapping = Arc::new(Mapping::builder(schema.clone()).build()?);
/// let resolver = PostgresResolver::new("host=/run/postgresql dbname=shop".parse()?, NoTls, mapping)?;
/// let graph = Graph::builder(schema, resolver).build();
/// let query = GraphQuery::new("product").fields(["title", "variants.sku"]);
/// println!("{:?}", graph.query(&query, &GraphOptions::default()).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresResolver {
    pool: Pool,
    mapping: Arc<Mapping>,
    computed: HashMap<(Name, Name), Arc<str>>,
}

impl PostgresResolver {
    /// A resolver with a pool of up to eight connections, made when they are needed.
    ///
    /// # Errors
    ///
    /// When the pool cannot be made. The server is not asked yet: see [`check`](Self::check).
    pub fn new<T>(config: Config, tls: T, mapping: Arc<Mapping>) -> Result<Self, PostgresError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync + 'static,
        T::TlsConnect: Send + Sync,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Self::with_connections(config, tls, mapping, 8)
    }

    /// As [`new`](Self::new), with up to `connections` connections.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_connections<T>(
        mut config: Config,
        tls: T,
        mapping: Arc<Mapping>,
        connections: usize,
    ) -> Result<Self, PostgresError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync + 'static,
        T::TlsConnect: Send + Sync,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let options = match config.get_options() {
            Some(given) => format!("{given} {SESSION_OPTIONS}"),
            None => SESSION_OPTIONS.to_owned(),
        };
        config.options(options);
        if config.get_application_name().is_none() {
            config.application_name("mcache");
        }
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let pool = Pool::builder(Manager::from_config(config, tls, recycling))
            .max_size(connections)
            // The last one used has prepared what is asked most; in turn, every connection would have to.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECTION_TIMEOUT))
            .create_timeout(Some(CONNECTION_TIMEOUT))
            .build()?;
        Ok(Self {
            pool,
            mapping,
            computed: HashMap::new(),
        })
    }

    /// Says how a computed field is made: by SQL that returns two columns, the id of a row and its value as `jsonb`.
    ///
    /// It is run once per level, inside a statement that offers one row named `input` with `ids` (`text[]`), `context`
    /// (the query's, as `jsonb`) and `locale` (`text`). Rows it does not return have `null`. The SQL is part of the
    /// application: never build it from what a user sent. Declare what it reads as dependencies of the field.
    ///
    /// ```no_run
    /// # fn f(resolver: mcache_postgres::PostgresResolver) -> Result<(), Box<dyn std::error::Error>> {
    /// let resolver = resolver.compute(
    ///     "ProductVariant",
    ///     "stock",
    ///     "SELECT l.variant_id, to_jsonb(sum(l.stocked - l.reserved))
    ///      FROM input, inventory_level AS l WHERE l.variant_id = ANY (input.ids) GROUP BY 1",
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PostgresError::Unknown`] if the schema has no such computed field.
    pub fn compute(mut self, entity: &str, field: &str, sql: &str) -> Result<Self, PostgresError> {
        let unknown = || PostgresError::Unknown {
            what: format!("computed field {entity}.{field}"),
        };
        let schema = self.mapping.schema();
        let entity = schema.entity(entity).ok_or_else(unknown)?;
        let field = entity
            .get_field(field)
            .filter(|field| field.is_computed())
            .ok_or_else(unknown)?;
        let statement = format!(
            "WITH input AS (SELECT $1::text[] AS ids, $2::jsonb AS context, nullif($3::text, '') AS locale)
             SELECT made.id::text, made.value::text FROM (\n{sql}\n) AS made (id, value)"
        );
        let key = (Name::from(entity.name()), Name::from(field.name()));
        self.computed.insert(key, statement.into());
        Ok(self)
    }

    /// Asks the server whether every mapped table and column exists, and every computed field can be made.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Mismatch`] with the first that does not fit, or whatever keeps the server from answering.
    pub async fn check(&self) -> Result<(), PostgresError> {
        let client = self.pool.get().await?;
        let builder = Builder {
            mapping: &self.mapping,
            schema: self.mapping.schema(),
        };
        for (entity, _) in self.mapping.entities() {
            let names: Vec<Name> = super::mapping::stored_fields(entity)
                .map(|field| field.name().into())
                .collect();
            let fields: Vec<&Name> = names.iter().collect();
            let key = Select::Keys {
                field: fields[0],
                values: &[],
            };
            let mut statements = vec![builder.rows(entity, &fields, &key)?.sql];
            for field in entity
                .all_fields()
                .iter()
                .filter(|field| field.is_computed())
            {
                statements.push(self.computation(entity.name(), field.name())?.to_string());
            }
            for sql in statements {
                client
                    .prepare(&sql)
                    .await
                    .map_err(|error| PostgresError::Mismatch {
                        entity: entity.name().into(),
                        reason: super::error::describe(&error),
                    })?;
            }
        }
        Ok(())
    }

    fn computation(&self, entity: &str, field: &str) -> Result<&Arc<str>, PostgresError> {
        self.computed
            .get(&(entity.into(), field.into()))
            .ok_or_else(|| PostgresError::Unknown {
                what: format!("computation of {entity}.{field}"),
            })
    }

    async fn answer(&self, fetch: &Fetch<'_>) -> Result<Rows, PostgresError> {
        match self.try_answer(fetch).await {
            // The connection was closed while it lay in the pool: the server was restarted, say. A new one is made.
            Err(PostgresError::Sql { source, .. }) if source.is_closed() => {
                self.try_answer(fetch).await
            }
            outcome => outcome,
        }
    }

    async fn try_answer(&self, fetch: &Fetch<'_>) -> Result<Rows, PostgresError> {
        let is_computed = |name: &&Name| {
            let field = fetch.entity.get_field(name);
            field.is_some_and(|field| field.is_computed())
        };
        let (computed, stored): (Vec<&Name>, Vec<&Name>) =
            fetch.fields.iter().partition(is_computed);
        let builder = Builder {
            mapping: &self.mapping,
            schema: fetch.schema,
        };
        let rows = builder.rows(fetch.entity, &stored, &fetch.select)?;
        let count = match fetch.select {
            Select::List(list) if list.count => Some(builder.count(fetch.entity, list.filter)?),
            _ => None,
        };
        let client = self.pool.get().await?;
        // Sent together: both answers come in one round trip.
        let count = OptionFuture::from(count.map(|count| query_count(&client, count)));
        let (mut rows, count) = try_join(query_rows(&client, fetch, &stored, rows), async {
            count.await.transpose()
        })
        .await?;
        self.compute_fields(&client, fetch, &computed, &mut rows)
            .await?;
        Ok(Rows { rows, count })
    }

    /// Adds the values of computed fields to all rows.
    async fn compute_fields(
        &self,
        client: &Object,
        fetch: &Fetch<'_>,
        fields: &[&Name],
        rows: &mut [Row],
    ) -> Result<(), PostgresError> {
        if fields.is_empty() || rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = rows.iter().map(id_of).collect();
        let params = [
            Param::array(ids.iter().cloned()),
            Param::text(fetch.context.to_string()),
            Param::text(fetch.locale.unwrap_or_default()),
        ];
        let made = try_join_all(fields.iter().map(|field| {
            let params = &params;
            async move {
                let sql = self.computation(fetch.entity.name(), field)?;
                query_computed(client, sql, params).await
            }
        }))
        .await?;
        for (field, mut made) in fields.iter().zip(made) {
            for (row, id) in rows.iter_mut().zip(&ids) {
                row.insert(field.to_string(), made.remove(id).unwrap_or(Value::Null));
            }
        }
        Ok(())
    }
}

impl Resolver for PostgresResolver {
    fn fetch<'a>(&'a self, fetch: Fetch<'a>) -> BoxFuture<'a, Result<Rows, ResolverError>> {
        Box::pin(async move { Ok(self.answer(&fetch).await?) })
    }
}

impl std::fmt::Debug for PostgresResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresResolver")
            .field("connections", &self.pool.status().size)
            .finish_non_exhaustive()
    }
}

/// The id a computation knows a row by.
fn id_of(row: &Row) -> String {
    match row.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Prepares a statement, once per connection.
async fn prepared(client: &Object, sql: &str) -> Result<tokio_postgres::Statement, PostgresError> {
    if client.statement_cache.size() > STATEMENTS_MAX {
        client.statement_cache.clear();
    }
    client
        .prepare_cached(sql)
        .await
        .map_err(PostgresError::sql("preparing a query"))
}

async fn run(
    client: &Object,
    sql: &str,
    params: &[Param],
) -> Result<Vec<tokio_postgres::Row>, PostgresError> {
    let statement = prepared(client, sql).await?;
    let params: Vec<&(dyn ToSql + Sync)> = params
        .iter()
        .map(|param| param as &(dyn ToSql + Sync))
        .collect();
    client
        .query(&statement, &params)
        .await
        .map_err(PostgresError::sql("reading rows"))
}

async fn query_rows(
    client: &Object,
    fetch: &Fetch<'_>,
    fields: &[&Name],
    statement: Statement,
) -> Result<Vec<Row>, PostgresError> {
    let found = run(client, &statement.sql, &statement.params).await?;
    let mut rows = Vec::with_capacity(found.len());
    for found in &found {
        let mut row = Row::new();
        for (position, name) in fields.iter().enumerate() {
            let text: Option<&str> = found
                .try_get(position)
                .map_err(PostgresError::sql("reading a value"))?;
            if let Some(field) = fetch.entity.get_field(name) {
                row.insert(name.to_string(), from_text(field.kind(), text));
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

async fn query_count(client: &Object, statement: Statement) -> Result<u64, PostgresError> {
    let found = run(client, &statement.sql, &statement.params).await?;
    let count: i64 = match found.first() {
        Some(row) => row
            .try_get(0)
            .map_err(PostgresError::sql("reading a count"))?,
        None => 0,
    };
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The values of a computed field by id.
async fn query_computed(
    client: &Object,
    sql: &str,
    params: &[Param],
) -> Result<HashMap<String, Value>, PostgresError> {
    let found = run(client, sql, params).await?;
    let mut made = HashMap::with_capacity(found.len());
    for row in &found {
        let failed = || PostgresError::sql("reading a computed value");
        let id: Option<String> = row.try_get(0).map_err(failed())?;
        let value: Option<&str> = row.try_get(1).map_err(failed())?;
        if let Some(id) = id {
            let value = from_text(mcache_graph::FieldType::Json, value);
            made.insert(id, value);
        }
    }
    Ok(made)
}
