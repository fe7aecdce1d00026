//! How does a change in one part of a program clear what others have cached, without naming tags there?
//!
//! `cargo run -p mcache --example bus`

use mcache::{
    Cache, Error, MemoryProvider,
    change::{BoxError, ChangeEvent, Invalidator, Operation, bus},
};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), BoxError> {
    let cache = Cache::builder_with(MemoryProvider::default())
        .caching(true)
        .build()
        .await?;
    let (bus, changes) = bus();
    // With the crate mcache-graph its `change_tags()` know the tags; here a product clears its own and every list of
    // them.
    let tags = |event: &ChangeEvent| -> Result<Vec<String>, BoxError> {
        let own = event.ids.iter().map(|id| format!("{}:{id}", event.entity));
        Ok(own.chain([format!("{}:list:*", event.entity)]).collect())
    };
    let _invalidator = Invalidator::builder(changes, tags)
        .targets(cache.invalidation_targets())
        .spawn();

    let load = || async { Ok::<_, Error>("a red shirt".to_owned()) };
    let product = || cache.key("product:42").tags(["Product:42"]);
    product().get_or_load(load).await?;
    println!("cached: {}", product().get::<String>().await?.is_some());

    let changed = ChangeEvent::new("Product", Operation::Updated, ["42"]);
    bus.publish([changed]).await?.acknowledged().await?;
    println!("cached: {}", product().get::<String>().await?.is_some());
    Ok(())
}
