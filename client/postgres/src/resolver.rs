//! Graph queries over PostgreSQL: one statement per level.
//!
//! Owns connections, and the way from a fetch to rows. The statements are made in `statement.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use futures_util::future::{OptionFuture, try_join, try_join_all};
use mcache_graph::{
    BoxFuture, Entity, Fetch, Field, FieldType, Name, Resolver, ResolverError, Row, Rows, Select,
    key_text,
};
use serde_json::Value;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Socket};

use super::error::PostgresError;
use super::mapping::Mapping;
use super::param::{Param, sql_type, storable};
use super::reader::{FieldKey, Reader};
use super::statement::{Builder, Statement};
use super::value::from_text;

/// Answers graph queries from a PostgreSQL database, as a [`Mapping`] says.
///
/// A query costs one statement per level, for any number of rows. Fields of type
/// [`Text`](mcache_graph::FieldType::Text) are sorted by the collation of their column.
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
    reader: Reader,
    mapping: Arc<Mapping>,
    computed: HashMap<FieldKey, Arc<str>>,
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
        config: Config,
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
        Ok(Self {
            reader: Reader::new(config, tls, connections)?,
            mapping,
            computed: HashMap::new(),
        })
    }

    /// A resolver over a pool that belongs to the caller. Its sessions stay as they are: every statement is a
    /// transaction of its own with settings of its own, as with [`transaction_pooled`](Self::transaction_pooled). What
    /// else its sessions are set to is not known and not part of keys: say what policies read with
    /// [`setting`](Self::setting).
    pub fn over_pool(pool: Pool, mapping: Arc<Mapping>) -> Self {
        Self {
            reader: Reader::over(pool, true),
            mapping,
            computed: HashMap::new(),
        }
    }

    /// For a pooler in transaction mode between here and PostgreSQL: nothing is kept in a session, neither settings nor
    /// prepared statements. Costs planning each statement anew. Without it such a pooler is refused at the first use.
    #[must_use]
    pub fn transaction_pooled(mut self) -> Self {
        self.reader.by_transaction();
        self
    }

    /// A setting every statement is executed under, such as the one a row-level security policy reads. It is part of
    /// every key: two resolvers with different settings never share an entry.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Identifier`] if the name cannot be one.
    pub fn setting(mut self, name: &str, value: &str) -> Result<Self, PostgresError> {
        self.reader.set(name, value)?;
        Ok(self)
    }

    /// A setting that is taken from a member of each query's context, which is part of its key: who asks. A query whose
    /// context lacks it is not answered.
    ///
    /// ```no_run
    /// # fn f(resolver: mcache_postgres::PostgresResolver) -> Result<(), Box<dyn std::error::Error>> {
    /// use mcache_graph::GraphQuery;
    /// use serde_json::json;
    ///
    /// // CREATE POLICY own ON orders USING (customer_id = current_setting('app.customer'))
    /// let resolver = resolver.setting_from_context("app.customer", "customer")?;
    /// let query = GraphQuery::new("order").fields(["total"]).context(json!({ "customer": "cus_1" }));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PostgresError::Identifier`] if the name of the setting cannot be one.
    pub fn setting_from_context(mut self, name: &str, member: &str) -> Result<Self, PostgresError> {
        self.reader.set_from_context(name, member)?;
        Ok(self)
    }

    /// What the database is called in keys, instead of its system identifier and name. Give a restored copy that serves
    /// beside its original another name: it has the same identifier and other data.
    #[must_use]
    pub fn database(mut self, name: &str) -> Self {
        self.reader.database(name);
        self
    }

    /// Says how a computed field is made: by SQL that returns two columns, the id of a row and its value as `jsonb`.
    ///
    /// It is run once per level, inside a statement that offers one row named `input` with `ids` (`text[]`), `context`
    /// (the query's, as `jsonb`) and `locale` (`text`). Rows it does not return have `null`. The SQL is part of the
    /// application: never build it from what a user sent. Declare what it reads as dependencies of the field.
    ///
    /// Where the [key](mcache_graph::Entity::key) has several fields, the statement also offers rows named `keys`, one
    /// for each wanted: the fields of the key by name, and `row_id`, which stands for the id in what is returned.
    ///
    /// ```no_run
    /// # fn f(resolver: mcache_postgres::PostgresResolver) -> Result<(), Box<dyn std::error::Error>> {
    /// let resolver = resolver.compute(
    ///     "ProductVariant",
    ///     "stock",
    ///     "SELECT l.variant_id, to_jsonb(sum(l.stocked - l.reserved))
    ///      FROM input, inventory_level AS l WHERE l.variant_id = ANY (input.ids) GROUP BY 1",
    /// )?;
    /// let resolver = resolver.compute(
    ///     "Order",
    ///     "weight",
    ///     "SELECT keys.row_id, to_jsonb(sum(l.weight))
    ///      FROM keys JOIN line AS l ON l.tenant = keys.tenant AND l.order_number = keys.number GROUP BY 1",
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
        let keys = keys_of_input(entity);
        let statement = format!(
            "WITH input AS (SELECT $1::text[] AS ids, $2::jsonb AS context, nullif($3::text, '') AS locale){keys}
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
    /// [`PostgresError::Mismatch`] with the first that does not fit, or the error that kept the server from answering.
    pub async fn check(&self) -> Result<(), PostgresError> {
        let known = self.reader.known(&self.mapping).await?;
        let client = self.reader.client().await?;
        let context = self.reader.some_context();
        let builder = Builder {
            mapping: &self.mapping,
            schema: self.mapping.schema(),
            facts: &known.facts,
        };
        for (entity, _) in self.mapping.entities() {
            let names: Vec<Name> = super::mapping::stored_fields(entity)
                .map(|field| field.name().into())
                .collect();
            let fields: Vec<&Name> = names.iter().collect();
            let key = Select::Keys {
                field: fields[0],
                values: &[],
                order: &[],
            };
            let rows = builder.rows(entity, &fields, &key)?;
            let mut statements = vec![(rows.sql, rows.params)];
            let computed = entity
                .all_fields()
                .iter()
                .filter(|field| field.is_computed());
            for field in computed {
                let sql = self.computation(entity.name(), field.name())?.to_string();
                statements.push((
                    sql,
                    computation_params(entity, &[], &[], &Value::Null, None),
                ));
            }
            for (sql, params) in statements {
                // Of no rows: executed, not only prepared, which would leave something behind in a shared session.
                match self.reader.run(&client, &sql, &params, &context).await {
                    Ok(_) => {}
                    Err(PostgresError::Sql { cause, .. }) if cause.as_db_error().is_some() => {
                        return Err(PostgresError::Mismatch {
                            entity: entity.name().into(),
                            reason: super::error::describe(&cause),
                        });
                    }
                    Err(error) => return Err(error),
                }
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
            Err(PostgresError::Sql { cause, .. }) if cause.is_closed() => {
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
        let known = self.reader.known(&self.mapping).await?;
        let builder = Builder {
            mapping: &self.mapping,
            schema: fetch.schema,
            facts: &known.facts,
        };
        let rows = builder.rows(fetch.entity, &stored, &fetch.select)?;
        let count = match fetch.select {
            Select::List(list) if list.count => Some(builder.count(fetch.entity, list.filter)?),
            _ => None,
        };
        let client = self.reader.client().await?;
        // Sent together: both answers come in one round trip.
        let count = OptionFuture::from(count.map(|count| self.query_count(&client, fetch, count)));
        let (mut rows, count) = try_join(self.query_rows(&client, fetch, &stored, rows), async {
            count.await.transpose()
        })
        .await?;
        self.compute_fields(&client, fetch, &computed, &mut rows)
            .await?;
        let rows = Rows::new(rows);
        Ok(match count {
            Some(count) => rows.counted(count),
            None => rows,
        })
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
        let entity = fetch.entity;
        let ids: Vec<String> = rows.iter().map(|row| id_of(entity, row)).collect();
        let params = computation_params(entity, rows, &ids, fetch.context, fetch.locale);
        let made = try_join_all(fields.iter().map(|field| {
            let params = &params;
            async move {
                let sql = self.computation(fetch.entity.name(), field)?;
                self.query_computed(client, fetch, sql, params).await
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

    /// How long until the nearest boundary that is ahead.
    async fn boundary(
        &self,
        entity: &Entity,
        fields: &[Name],
    ) -> Result<Option<Duration>, PostgresError> {
        let known = self.reader.known(&self.mapping).await?;
        let builder = Builder {
            mapping: &self.mapping,
            schema: self.mapping.schema(),
            facts: &known.facts,
        };
        let sql = builder.next_boundary(entity, fields)?;
        let client = self.reader.client().await?;
        // Of any row, no matter who may see it: the earlier end is the safe one.
        let found = self
            .reader
            .run(&client, &sql, &[], &self.reader.some_context())
            .await?;
        let seconds: Option<&str> = match found.first() {
            Some(row) => row
                .try_get(0)
                .map_err(PostgresError::sql("reading a boundary"))?,
            None => None,
        };
        let seconds = seconds.and_then(|text| text.parse::<f64>().ok());
        Ok(seconds
            .map(|ahead| Duration::try_from_secs_f64(ahead.max(0.0)).unwrap_or(Duration::MAX)))
    }

    async fn query_rows(
        &self,
        client: &Object,
        fetch: &Fetch<'_>,
        fields: &[&Name],
        statement: Statement,
    ) -> Result<Vec<Row>, PostgresError> {
        let found = self
            .reader
            .run(client, &statement.sql, &statement.params, fetch.context)
            .await?;
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

    async fn query_count(
        &self,
        client: &Object,
        fetch: &Fetch<'_>,
        statement: Statement,
    ) -> Result<u64, PostgresError> {
        let found = self
            .reader
            .run(client, &statement.sql, &statement.params, fetch.context)
            .await?;
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
        &self,
        client: &Object,
        fetch: &Fetch<'_>,
        sql: &str,
        params: &[Param],
    ) -> Result<HashMap<String, Value>, PostgresError> {
        let found = self.reader.run(client, sql, params, fetch.context).await?;
        let mut made = HashMap::with_capacity(found.len());
        for row in &found {
            let failed = || PostgresError::sql("reading a computed value");
            let id: Option<String> = row.try_get(0).map_err(failed())?;
            let value: Option<&str> = row.try_get(1).map_err(failed())?;
            if let Some(id) = id {
                let value = from_text(FieldType::Json, value);
                made.insert(id, value);
            }
        }
        Ok(made)
    }
}

/// What a computation is given.
fn computation_params(
    entity: &Entity,
    rows: &[Row],
    ids: &[String],
    context: &Value,
    locale: Option<&str>,
) -> Vec<Param> {
    let mut params = vec![
        Param::array(ids.iter().cloned()),
        Param::text(context.to_string()),
        Param::text(locale.unwrap_or_default()),
    ];
    if entity.key_fields().len() > 1 {
        for name in entity.key_fields() {
            let parts = rows.iter().map(|row| part_of(entity, row, name));
            params.push(Param::array(parts));
        }
    }
    params
}

/// The rows a computation is for, where one array cannot name them.
fn keys_of_input(entity: &Entity) -> String {
    let names = entity.key_fields();
    if names.len() == 1 {
        return String::new();
    }
    // Names of a schema are identifiers.
    let columns: String = names.iter().map(|name| format!(", \"{name}\"")).collect();
    let kinds = names.iter().filter_map(|name| entity.get_field(name));
    let arrays: String = kinds
        .zip(4..)
        .map(|(field, number)| format!(", ${number}::{}[]", sql_type(field.kind())))
        .collect();
    format!(", keys AS (SELECT * FROM unnest($1::text[]{arrays}) AS k (row_id{columns}))")
}

impl Resolver for PostgresResolver {
    fn fetch<'a>(&'a self, fetch: Fetch<'a>) -> BoxFuture<'a, Result<Rows, ResolverError>> {
        Box::pin(async move { Ok(self.answer(&fetch).await?) })
    }

    fn origin(&self) -> BoxFuture<'_, Result<String, ResolverError>> {
        Box::pin(async move { Ok(self.reader.origin(&self.mapping).await?) })
    }

    fn next_boundary<'a>(
        &'a self,
        entity: &'a Entity,
        fields: &'a [Name],
    ) -> BoxFuture<'a, Result<Option<Duration>, ResolverError>> {
        Box::pin(async move { Ok(self.boundary(entity, fields).await?) })
    }
}

impl std::fmt::Debug for PostgresResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresResolver")
            .field("connections", &self.reader.size())
            .finish_non_exhaustive()
    }
}

/// The id a computation knows a row by.
fn id_of(entity: &Entity, row: &Row) -> String {
    let parts = entity.key_fields().iter();
    let parts: Vec<String> = parts.map(|name| part_of(entity, row, name)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    key_text(&parts)
}

/// A part of the key of a row that was read, as text.
fn part_of(entity: &Entity, row: &Row, name: &str) -> String {
    let kind = entity.get_field(name).map(Field::kind);
    let value = row.get(name).unwrap_or(&Value::Null);
    match (value, kind.and_then(|kind| storable(kind, value))) {
        (Value::String(id), _) => id.clone(),
        (_, Some(text)) => text,
        (other, None) => other.to_string(),
    }
}
