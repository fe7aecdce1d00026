//! What is promised to threads: public types can be sent and shared, and futures can be spawned. Compiling is the test.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use mcache::{
    Batch, Builder, Cache, Entry, Error, ErrorKind, Filling, Invalidation, Json, Loaded,
    MemoryProvider, NearDrops, NearOptions, NearPrimary, NearStats, PlainRedisProvider, Policy,
    RedisProvider, Served, Settled, ShutdownReport, Source, Tags, Target,
    change::{
        Backoff, Bus, BusReceipt, BusSource, ChangeEvent, ChangeSource, Changes, Contact, Delivery,
        EventError, EventTags, InvalidationTarget, Invalidator, InvalidatorBuilder,
        InvalidatorStats, Operation, TargetStats, Undelivered, Unfinished, bus,
    },
    memory::MemoryBuilder,
    provider::{EntryState, FetchOptions, Inspection, Lookup, Mode, Provider, Store, Token},
    server::{PlainBuilder, RedisOptions},
};

const SECOND: Duration = Duration::from_secs(1);

/// Owned, shared between threads, shown in a log.
fn is_shared<T: Send + Sync + Debug + 'static>() {}

/// Sent to another thread and shown in a log.
fn is_sent<T: Send + Debug>() {}

fn is_shared_in_place<T: Send + Sync + Debug>() {}

fn is_object<T: Send + Sync + 'static + ?Sized>() {}

/// A future that may be polled by any thread.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

/// A future that can be spawned.
fn spawnable<F: Future + Send + 'static>(future: F) -> F {
    future
}

#[test]
fn types_can_be_shared_and_shown() {
    is_shared::<(Cache, Builder, Policy, Target, Tags, Json)>();
    is_shared::<(Loaded<u8>, Served<u8>, Source)>();
    is_shared::<(Error, ErrorKind, Settled, ShutdownReport, Invalidation)>();
    is_shared::<(RedisProvider, RedisOptions, MemoryProvider, MemoryBuilder)>();
    is_shared::<(PlainRedisProvider, PlainBuilder, NearOptions)>();
    is_shared::<(NearStats, NearDrops, NearPrimary)>();
    is_shared::<(EntryState, FetchOptions, Inspection, Lookup, Mode, Token)>();
    is_shared::<(Bus, Delivery, Undelivered, Contact, Backoff, Operation)>();
    is_shared::<(ChangeEvent, EventError, Changes<u8>, Invalidator)>();
    is_shared::<(InvalidatorStats, TargetStats, Unfinished)>();
    is_sent::<(BusSource, BusReceipt, InvalidatorBuilder<BusSource>)>();
    is_shared_in_place::<(Entry<'_>, Filling<'_>, Batch<'_, u8>, Store<'_>)>();
    is_shared_in_place::<mcache::TagsIter<'_>>();
    is_object::<dyn Provider>();
    is_object::<dyn EventTags>();
    is_object::<dyn InvalidationTarget>();
}

async fn value() -> Result<Loaded<u8>, Error> {
    Ok(Loaded::new(1))
}

async fn values(keys: Vec<&'static str>) -> Result<HashMap<&'static str, Loaded<u8>>, Error> {
    Ok(keys.into_iter().map(|key| (key, Loaded::new(1))).collect())
}

#[tokio::test]
async fn futures_can_be_polled_by_any_thread() {
    let cache = Cache::builder_with(MemoryProvider::default()).caching(true);
    let cache = sendable(cache.build()).await.unwrap();
    let entry = || cache.key("k");
    let plain = || async { value().await.map(|loaded| loaded.value) };
    let bytes = || async { Ok::<_, Error>(mcache::Bytes::new()) };
    let optional = || async { Ok::<_, Error>(Loaded::new(Some(1_u8)).value) };
    drop(sendable(entry().get::<u8>()));
    drop(sendable(entry().get_bytes()));
    drop(sendable(entry().set(&1)));
    drop(sendable(entry().set_bytes("")));
    drop(sendable(entry().get_or_load(plain)));
    drop(sendable(entry().get_or_load_tagged(value)));
    drop(sendable(entry().get_or_load_optional(optional)));
    drop(sendable(entry().get_or_load_bytes(bytes)));
    drop(sendable(entry().get_arc::<u8>()));
    drop(sendable(entry().get_or_load_arc(plain)));
    drop(sendable(entry().get_or_load_shared(plain)));
    drop(sendable(entry().get_or_load_detached(plain)));
    drop(sendable(entry().load(value)));
    drop(sendable(entry().load_shared(value)));
    drop(sendable(entry().load_detached(value)));
    let filling = sendable(entry().begin()).await.unwrap();
    drop(sendable(filling.store(&1)));
    let batch = || cache.keys(["a", "b"]);
    drop(sendable(batch().get_many::<u8>()));
    drop(sendable(batch().get_or_load_many(values)));
    drop(sendable(batch().load_many(values)));
    drop(sendable(batch().get_or_load_many_detached(values)));
    drop(sendable(batch().load_many_detached(values)));
    drop(sendable(cache.get_many::<u8>(["a"])));
    drop(sendable(cache.clear("k")));
    drop(sendable(cache.clear_all()));
    drop(sendable(cache.inspect("k")));
    drop(sendable(cache.invalidate(["t"])));
    drop(sendable(cache.invalidate_auto(["t"])));
    drop(sendable(cache.soft_invalidate(["t"])));
    drop(sendable(cache.invalidate_with(["t"], Mode::Hard)));
    drop(sendable(cache.shutdown(SECOND)));
    drop(spawnable(cache.invalidate(["t"]).await.unwrap().settled()));
}

#[tokio::test]
async fn what_a_service_does_can_be_spawned() {
    let cache = Cache::builder_with(MemoryProvider::default()).caching(true);
    let cache = cache.build().await.unwrap();
    let (bus, mut source) = bus();
    let of_service = cache.clone();
    tokio::spawn(spawnable(async move {
        let cache = of_service;
        cache.key("k").load_detached(value).await?;
        cache.key("k").load(value).await?;
        cache.keys(["a", "b"]).load_many_detached(values).await?;
        cache.keys(["a", "b"]).load_many(values).await?;
        cache.invalidate(["t"]).await?.settled().await;
        cache.shutdown(SECOND).await;
        Ok::<_, Error>(())
    }))
    .await
    .unwrap()
    .unwrap();
    drop(spawnable(async move {
        source.next().await?;
        source.acknowledge(&mut Vec::new()).await
    }));
    drop(spawnable(async move {
        let event = ChangeEvent::new("Product", Operation::Updated, ["p1"]);
        bus.publish([event]).await?.acknowledged().await
    }));
}
