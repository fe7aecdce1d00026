//! Values past or near their time: one caller refreshes, the others are served.

use super::*;

#[tokio::test(start_paused = true)]
async fn past_its_time_one_caller_refreshes_while_the_others_are_served_stale() {
    let (cache, source) = (cache().await, Database::default());
    let load = |time| {
        let (cache, source) = (cache.clone(), source.clone());
        async move {
            let load = || async move { source.load_slowly(time).await.map(Loaded::new) };
            let entry = cache.key("k").ttl(Duration::from_secs(10)).swr(HOUR);
            let served = entry.load(load).await.unwrap();
            (served.value, served.source)
        }
    };
    assert_eq!(load(Duration::ZERO).await, (1, Source::Loaded));
    advance(Duration::from_secs(11)).await;
    let refresher = tokio::spawn(load(Duration::from_millis(100)));
    settle().await;
    assert_eq!(load(Duration::ZERO).await, (1, Source::Stale));
    assert_eq!(refresher.await.unwrap(), (2, Source::Loaded));
    assert_eq!(load(Duration::ZERO).await, (2, Source::Hit));
}

#[tokio::test(start_paused = true)]
async fn near_its_end_one_refreshes_early_and_whoever_fails_has_the_live_value() {
    let cache = Cache::builder_with(MemoryProvider::default())
        .failure_pause(Duration::ZERO)
        .caching(true)
        .build()
        .await
        .unwrap();
    // As if a load took ten times as long as the entry has to live: it is due with a chance of 90 %.
    let entry = || {
        cache
            .key("k")
            .ttl(Duration::from_secs(60))
            .early_refresh(Duration::from_secs(600))
    };
    entry().set(&1).await.unwrap();
    let fail = || async { Err::<Loaded<u32>, _>("the database is down") };
    for _ in 0..50 {
        let served = entry().load(fail).await.unwrap();
        assert_eq!((served.value, served.source), (1, Source::Hit));
        settle().await;
    }
    let mut hits = 0;
    let served = loop {
        let load = || async { Ok::<_, &str>(Loaded::new(2)) };
        let served = entry().load(load).await.unwrap();
        if served.source == Source::Loaded {
            break served;
        }
        hits += 1;
        assert!(hits < 100, "no caller refreshes");
    };
    assert_eq!(served.value, 2);
    settle().await;
    assert_eq!(cache.key("k").get::<u32>().await.unwrap(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_patience_gets_the_stale_value_and_the_refresh_is_finished() {
    let (cache, source) = (cache().await, Database::default());
    let ten = Duration::from_secs(10);
    let entry = || cache.key("k").ttl(ten).swr(HOUR);
    let slowly = || {
        let source = source.clone();
        move || async move {
            source
                .load_slowly(Duration::from_secs(5))
                .await
                .map(Loaded::new)
        }
    };
    // A miss: the caller gives up, the load does not.
    let given_up = timeout(Duration::from_millis(50), entry().load_detached(slowly())).await;
    assert!(given_up.is_err());
    assert!(
        cache.shutdown(HOUR).await.is_nothing(),
        "which waits for it"
    );
    assert_eq!(entry().get::<usize>().await.unwrap(), Some(1));
    // Stale: no caller waits.
    advance(Duration::from_secs(11)).await;
    let began = Instant::now();
    let served = entry().load_detached(slowly()).await.unwrap();
    assert_eq!((served.value, served.source), (1, Source::Stale));
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(entry().get::<usize>().await.unwrap(), Some(2));
    assert_eq!(source.loads(), 2);
}
