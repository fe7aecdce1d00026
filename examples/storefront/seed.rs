//! Makes the tables and fills them, in seconds.

use tokio_postgres::Client;

use crate::BoxError;
use crate::config::Config;

const TABLES: &str = include_str!("tables.sql");
const SEED: &str = include_str!("seed.sql");

/// Where each step of the seed begins.
const STEP: &str = "\n---- ";

/// Makes the tables and fills them; `progress` is told of each step before it begins.
///
/// # Errors
///
/// If the database cannot be reached or is not empty.
pub async fn seed(config: &Config, mut progress: impl FnMut(&str)) -> Result<(), BoxError> {
    let (client, connection) =
        tokio_postgres::connect(&config.database, tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    let outcome = seed_over(&client, config, &mut progress).await;
    drop(client);
    driver.await??;
    outcome
}

async fn seed_over(
    client: &Client,
    config: &Config,
    progress: &mut impl FnMut(&str),
) -> Result<(), BoxError> {
    progress("tables");
    client.batch_execute(TABLES).await?;
    let filled = SEED
        .replace("{products}", &config.products.to_string())
        .replace("{stock}", &config.stock.to_string());
    for step in filled.split(STEP).skip(1) {
        let (name, sql) = step.split_once('\n').unwrap_or((step, ""));
        progress(name);
        client
            .batch_execute(sql)
            .await
            .map_err(|error| match error.as_db_error() {
                Some(said) => format!("seeding {name}: {said}").into(),
                None => BoxError::from(error),
            })?;
    }
    Ok(())
}
