//! What changes with a Redis Cluster? The address.
//!
//! `cargo run -p mcache --example cluster -- redis+cluster://127.0.0.1:7000,127.0.0.1:7001`

use mcache::{Cache, Error};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    show(&url.unwrap_or_else(|| "redis+cluster://127.0.0.1:7000".to_owned())).await
}

pub(crate) async fn show(url: &str) -> Result<(), Error> {
    let cache = Cache::builder(url).caching(true).build().await?;
    // Keys go to the primaries that own them; an invalidation goes to all, and is acknowledged when all have answered.
    for number in 0..100 {
        let entry = cache
            .key(format!("product:{number}"))
            .tags(["Product:list:*"]);
        entry.set(&number).await?;
    }
    let invalidation = cache.invalidate(["Product:list:*"]).await?;
    println!(
        "{} entries, acknowledged: {}",
        invalidation.entries(),
        invalidation.is_acknowledged()
    );
    Ok(())
}
