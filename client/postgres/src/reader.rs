//! Connections that queries are read over, and what their sessions are set to.
//!
//! Owns the pool, the settings, and what is found out about the server before the first query. It must not know how a
//! query is written.
//!
//! Two ways to have a setting hold for a statement:
//!
//! - *sessions of our own*: set once when a connection is made. The first use finds out whether a pooler shares them.
//! - *transactions*: each statement is one, with its settings local to it. Three messages sent together, so one round
//!   trip. This works over any pooler and over a pool that belongs to the caller, whose sessions stay as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime,
};
use futures_util::future::join3;
use mcache_graph::Name;
use serde_json::Value;
use tokio::sync::{Notify, OnceCell};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row, SimpleQueryMessage, Socket};

use super::error::PostgresError;
use super::facts::Facts;
use super::mapping::Mapping;
use super::param::Param;
use super::pooler::shares_sessions;
use super::session::{Connect, connector};
use super::settings::{Settings, of_options, search_path};
use super::timing::in_time;

/// More connections than any server takes; the pool makes room for as many as it is told.
const CONNECTIONS_MAX: usize = 65_536;

/// How long a fetch waits for a connection, and a connection for the server.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements a connection keeps. Shapes of queries are few unless a program makes them up.
const STATEMENTS_MAX: usize = 512;

/// Reads rows.
#[derive(Clone)]
pub(super) struct Reader {
    pool: Pool,
    /// Connects beside the pool; none to a pool of the caller's.
    connect: Option<Connect>,
    /// Whether settings belong to transactions. Said after the pool is made, whose new connections ask for it.
    by_transaction: Arc<AtomicBool>,
    /// What sessions are set to, or transactions if settings belong to them.
    session: Settings,
    /// What the connection's own options set: a policy may show other rows by them.
    options: Vec<(String, String)>,
    /// What every statement finds set, beside that.
    settings: Vec<(String, String)>,
    /// Settings taken from a member of the query's context.
    from_context: Vec<(String, String)>,
    /// What the database is called in keys, if not what it says itself.
    database: Option<String>,
    known: Arc<OnceCell<Known>>,
}

/// What was found out before the first query.
pub(super) struct Known {
    pub(super) facts: Facts,
    /// Which database this is, and who reads it.
    identity: String,
    /// What names without a schema mean, in a computed field's SQL: the same in every session.
    search_path: String,
}

impl Reader {
    /// Over connections of its own.
    pub(super) fn new<T>(
        mut config: Config,
        tls: T,
        connections: usize,
    ) -> Result<Self, PostgresError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync + 'static,
        T::TlsConnect: Send + Sync,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        if config.get_application_name().is_none() {
            config.application_name("mcache");
        }
        let connect = connector(config.clone(), tls.clone());
        let options = of_options(config.get_options().unwrap_or_default());
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        // Not as options of the connection, which poolers refuse or drop. Each statement sees what was committed before
        // it began, which is what makes a cached result trustworthy.
        let session = Settings::of_connection(config.get_options())
            .with("default_transaction_isolation", "read committed");
        let known: Arc<OnceCell<Known>> = Arc::default();
        let by_transaction = Arc::new(AtomicBool::new(false));
        let (known_to_hook, wanted) = (known.clone(), session.clone());
        let leaves_alone = by_transaction.clone();
        let set = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            // A session that is shared is another program's as well.
            let leaves_alone = leaves_alone.load(Ordering::Relaxed);
            let mut wanted = wanted.clone();
            if let Some(known) = known_to_hook.get() {
                wanted.set("search_path", &known.search_path);
            }
            Box::pin(async move {
                if leaves_alone {
                    return Ok(());
                }
                let held = wanted.hold(client).await;
                held.map_err(|error| HookError::message(error.to_string()))
            })
        });
        let pool = Pool::builder(Manager::from_config(config, tls, recycling))
            .max_size(connections.clamp(1, CONNECTIONS_MAX))
            // The last one used has prepared what is asked most; in turn, every connection would have to.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECTION_TIMEOUT))
            .create_timeout(Some(CONNECTION_TIMEOUT))
            .post_create(set)
            .build()?;
        Ok(Self {
            connect: Some(connect),
            by_transaction,
            session,
            options,
            known,
            ..Self::over(pool, false)
        })
    }

    /// Over a pool, whose sessions are left as they are.
    pub(super) fn over(pool: Pool, by_transaction: bool) -> Self {
        Self {
            pool,
            connect: None,
            by_transaction: Arc::new(AtomicBool::new(by_transaction)),
            session: Settings::of_connection(None),
            options: Vec::new(),
            settings: Vec::new(),
            from_context: Vec::new(),
            database: None,
            known: Arc::default(),
        }
    }

    pub(super) fn by_transaction(&mut self) {
        self.by_transaction.store(true, Ordering::Relaxed);
    }

    fn is_by_transaction(&self) -> bool {
        self.by_transaction.load(Ordering::Relaxed)
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), PostgresError> {
        self.settings.push((setting_name(name)?, value.to_owned()));
        self.by_transaction();
        Ok(())
    }

    pub(super) fn set_from_context(
        &mut self,
        name: &str,
        member: &str,
    ) -> Result<(), PostgresError> {
        self.from_context
            .push((setting_name(name)?, member.to_owned()));
        self.by_transaction();
        Ok(())
    }

    pub(super) fn database(&mut self, name: &str) {
        self.database = Some(name.to_owned());
    }

    /// A context that has every member needed, for what is asked on behalf of no query.
    pub(super) fn some_context(&self) -> Value {
        let member =
            |(_, member): &(String, String)| (member.clone(), Value::String(String::new()));
        Value::Object(self.from_context.iter().map(member).collect())
    }

    pub(super) fn size(&self) -> usize {
        self.pool.status().size
    }

    /// Finds out what must be known, once.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Pooler`] if sessions are shared and settings belong to sessions, [`PostgresError::Mismatch`] if
    /// a key or lookup of the mapping cannot be one.
    pub(super) async fn known(&self, mapping: &Mapping) -> Result<&Known, PostgresError> {
        self.known.get_or_try_init(|| self.find_out(mapping)).await
    }

    async fn find_out(&self, mapping: &Mapping) -> Result<Known, PostgresError> {
        if let Some(connect) = &self.connect
            && !self.is_by_transaction()
        {
            let ours = connect(Arc::new(Notify::new())).await?;
            let second = connect(Arc::new(Notify::new())).await?;
            if shares_sessions(&ours.client, &second.client).await? {
                return Err(PostgresError::Pooler {
                    what: "a resolver",
                    advice: "call `transaction_pooled()` on it, or connect it to a pool with pool_mode = session",
                });
            }
        }
        let client = self.pool.get().await?;
        let facts = Facts::load(&client, mapping).await?;
        facts.check(mapping)?;
        let database = match &self.database {
            Some(name) => name.clone(),
            None => one_text(
                &client,
                "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()) || '/' || current_database()",
            )
            .await?,
        };
        // A session begins with the settings of the role that logged in, also if it acts as another afterwards.
        let reader = one_text(
            &client,
            "SELECT concat_ws('/', quote_ident(session_user), quote_ident(current_user))",
        )
        .await?;
        let search_path = match self.is_by_transaction() {
            true => self.session.hold_in_transaction(&client).await?,
            // Verified when the connection was made.
            false => search_path(&client).await?,
        };
        Ok(Known {
            facts,
            identity: format!("{database}\0{reader}\0{search_path}"),
            search_path,
        })
    }

    /// What a result depends on beside the query and the rows: part of its key.
    pub(super) async fn origin(&self, mapping: &Mapping) -> Result<String, PostgresError> {
        let known = self.known(mapping).await?;
        let mut origin = format!("{}\0{:016x}", known.identity, mapping.fingerprint());
        let set = self.options.iter().chain(&self.settings);
        for (name, value) in set.chain(&self.from_context) {
            origin.extend(["\0", name, "\0", value]);
        }
        Ok(origin)
    }

    /// The settings of one statement in one context.
    fn local_settings(&self, context: &Value) -> Result<String, PostgresError> {
        let mut all = self.session.clone();
        if let Some(known) = self.known.get() {
            all.set("search_path", &known.search_path);
        }
        for (name, value) in &self.settings {
            all.set(name, value);
        }
        for (name, member) in &self.from_context {
            let value = match context.get(member) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                _ => {
                    return Err(PostgresError::Context {
                        member: member.clone(),
                        setting: name.clone(),
                    });
                }
            };
            all.set(name, &value);
        }
        Ok(all.statement(true))
    }

    pub(super) async fn client(&self) -> Result<Object, PostgresError> {
        Ok(self.pool.get().await?)
    }

    /// Executes one statement.
    pub(super) async fn run(
        &self,
        client: &Object,
        sql: &str,
        params: &[Param],
        context: &Value,
    ) -> Result<Vec<Row>, PostgresError> {
        if !self.is_by_transaction() {
            let statement = prepared(client, sql).await?;
            let params: Vec<&(dyn ToSql + Sync)> = params
                .iter()
                .map(|param| param as &(dyn ToSql + Sync))
                .collect();
            let rows = client.query(&statement, &params).await;
            return rows.map_err(PostgresError::sql("reading rows"));
        }
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {}",
            self.local_settings(context)?
        );
        // Of unknown type: the server takes them for what the statement says.
        let params: Vec<(&(dyn ToSql + Sync), Type)> = params
            .iter()
            .map(|param| (param as &(dyn ToSql + Sync), Type::UNKNOWN))
            .collect();
        // Sent in this order, before the first answer is awaited. The transaction ends even if one of them fails.
        let (begun, rows, ended) = join3(
            client.batch_execute(&begin),
            client.query_typed(sql, &params),
            client.batch_execute("COMMIT"),
        )
        .await;
        begun.map_err(PostgresError::sql("beginning to read"))?;
        let rows = rows.map_err(PostgresError::sql("reading rows"))?;
        ended.map_err(PostgresError::sql("ending to read"))?;
        Ok(rows)
    }
}

/// The name of a setting, which cannot be bound and must not be anything else.
fn setting_name(name: &str) -> Result<String, PostgresError> {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match name.split('.').all(is_word) {
        true => Ok(name.to_owned()),
        false => Err(PostgresError::Identifier {
            name: name.to_owned(),
        }),
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

async fn one_text(client: &Object, sql: &str) -> Result<String, PostgresError> {
    let answer = in_time("asking which database this is", client.simple_query(sql)).await?;
    let text = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(text.unwrap_or_default())
}

/// A field of an entity, as computations are known.
pub(super) type FieldKey = (Name, Name);
