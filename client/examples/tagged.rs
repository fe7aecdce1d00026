//! Which tags does a list carry, when the loader alone knows what is in it?
//!
//! `cargo run -p mcache --example tagged`

use mcache::{Cache, Error, Loaded, MemoryProvider};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Error> {
    // In production: Cache::builder("redis://127.0.0.1:6379")
    let cache = Cache::builder_with(MemoryProvider::default())
        .caching(true)
        .build()
        .await?;

    let newest = || async {
        let ids = vec![42, 43];
        let tags: Vec<String> = ids.iter().map(|id| format!("Product:{id}")).collect();
        Ok::<_, Error>(Loaded::new(ids).tags(tags))
    };
    let entry = || cache.key("products:newest").tags(["Product:list:*"]);
    let served = entry().load(newest).await?;
    println!("{}: {:?}", served.source.as_str(), served.value);
    println!("{}", entry().load(newest).await?.source.as_str());

    // A change of one of the products, and a new product that may belong into the list.
    for tag in ["Product:43", "Product:list:*"] {
        let gone = cache.invalidate([tag]).await?.entries();
        println!(
            "{tag} clears {gone}, then {}",
            entry().load(newest).await?.source.as_str()
        );
    }
    Ok(())
}
