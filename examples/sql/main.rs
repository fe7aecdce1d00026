//! Tags cleared by transactions of programs that know nothing of mcache: one of sqlx, one of diesel.
//!
//! With a database in which an application has installed its outbox:
//! `DATABASE_URL=postgresql:///shop cargo run --manifest-path examples/sql/Cargo.toml`

use std::error::Error;

use diesel::sql_types::{Array, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use sqlx::Connection;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let database = std::env::var("DATABASE_URL")?;
    with_sqlx(&database).await?;
    with_diesel(&database).await
}

async fn with_sqlx(database: &str) -> Result<()> {
    let mut connection = sqlx::PgConnection::connect(database).await?;
    for commits in [false, true] {
        let mut work = connection.begin().await?;
        let banner = if commits { "sqlx" } else { "never" };
        sqlx::query("UPDATE settings SET banner = $1")
            .bind(banner)
            .execute(&mut *work)
            .await?;
        let tags = [format!("banner {banner}"), "front page".to_owned()];
        sqlx::query("SELECT mcache.invalidate($1)")
            .bind(&tags[..])
            .execute(&mut *work)
            .await?;
        if commits {
            work.commit().await?;
        } else {
            work.rollback().await?;
        }
    }
    Ok(())
}

async fn with_diesel(database: &str) -> Result<()> {
    let mut connection = AsyncPgConnection::establish(database).await?;
    for commits in [false, true] {
        let banner = if commits { "diesel" } else { "never" };
        let outcome = connection
            .transaction(async |work| {
                diesel::sql_query("UPDATE settings SET banner = $1")
                    .bind::<Text, _>(banner)
                    .execute(work)
                    .await?;
                let tags = vec![format!("banner {banner}"), "front page".to_owned()];
                diesel::sql_query("SELECT mcache.invalidate($1)")
                    .bind::<Array<Text>, _>(tags)
                    .execute(work)
                    .await?;
                match commits {
                    true => Ok(()),
                    false => Err(diesel::result::Error::RollbackTransaction),
                }
            })
            .await;
        match outcome {
            Ok(()) | Err(diesel::result::Error::RollbackTransaction) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
