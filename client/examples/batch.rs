//! How are many keys looked up at once, and what is missing loaded with one query?
//!
//! `cargo run -p mcache --example batch`

use std::collections::HashMap;

use mcache::{Cache, Error, Loaded, MemoryProvider};

/// `SELECT ... WHERE id = ANY($1)`
async fn query(ids: Vec<String>) -> Result<HashMap<String, Loaded<String>>, Error> {
    println!("loads {ids:?}");
    let row = |id: String| {
        let row = Loaded::new(format!("row of {id}")).tags([format!("Product:{id}")]);
        (id, row)
    };
    Ok(ids.into_iter().map(row).collect())
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Error> {
    let cache = Cache::builder_with(MemoryProvider::default())
        .caching(true)
        .build()
        .await?;
    for ids in [["1", "2"], ["2", "3"], ["1", "3"]] {
        let ids = ids.map(str::to_owned);
        let rows = cache.keys(ids).get_or_load_many(query).await?;
        println!("has {} rows", rows.len());
    }
    cache.invalidate(["Product:3"]).await?;
    cache
        .keys(["1", "3"].map(str::to_owned))
        .get_or_load_many(query)
        .await?;
    Ok(())
}
