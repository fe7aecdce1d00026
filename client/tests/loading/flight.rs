//! One load per key: callers who come while it is under way wait for it, and get nothing old.

use super::*;

#[tokio::test]
async fn the_second_call_is_served_what_the_first_loaded() {
    let (cache, source) = (cache().await, Database::default());
    let load = || {
        let source = source.clone();
        async move { source.load().await.map(Loaded::new) }
    };
    let first = cache.key("k").tags(["t"]).load(load).await.unwrap();
    let second = cache.key("k").tags(["t"]).load(load).await.unwrap();
    assert_eq!((first.value, first.source), (1, Source::Loaded));
    assert_eq!((second.value, second.source), (1, Source::Hit));
    assert_eq!(cache.invalidate(["t"]).await.unwrap().entries(), 1);
    let third = cache.key("k").tags(["t"]).load(load).await.unwrap();
    assert_eq!((third.value, third.source), (2, Source::Loaded));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_make_one_load() {
    let (cache, source) = (cache().await, Database::default());
    for caller in a_thousand(&cache, &source) {
        assert_eq!(caller.await.unwrap().unwrap(), 1);
    }
    assert_eq!(source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_of_a_cache_that_is_away_make_two_loads_at_most() {
    let line = Line::new("line");
    let (cache, source) = (cache_on(line.clone()).await, Database::default());
    line.cut();
    for caller in a_thousand(&cache, &source) {
        caller.await.unwrap().unwrap();
    }
    // The first was under way when the others came; without the cache it is not known whether it is recent enough for
    // them, so they share a second one.
    assert!(source.loads() <= 2, "{} loads", source.loads());
}

#[tokio::test(start_paused = true)]
async fn when_the_one_who_loads_is_dropped_the_next_one_loads() {
    let (cache, source) = (cache().await, Database::default());
    let caller = |time| {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move {
            cache
                .key("k")
                .get_or_load(|| source.load_slowly(time))
                .await
        })
    };
    let first = caller(HOUR);
    settle().await;
    let others: Vec<_> = (0..10).map(|_| caller(Duration::from_millis(10))).collect();
    settle().await;
    assert_eq!(source.loads(), 1);
    first.abort();
    for other in others {
        assert_eq!(other.await.unwrap().unwrap(), 2);
    }
    assert_eq!(source.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_process_is_not_in_line_behind_itself() {
    let line = Line::new("line");
    let cache = cache_on(line.clone()).await;
    let never = || std::future::pending::<Result<usize, Error>>();
    let answer = line.hold_next_answer();
    let mut holder = pin!(cache.key("k").get_or_load(never));
    let mut second = pin!(cache.key("k").get_or_load(never));
    // The lease is theirs, but before they know it the second one has been told that another has it, and waits.
    assert!(poll_once(&mut holder).await.is_none());
    assert!(poll_once(&mut second).await.is_none());
    assert_eq!(line.waiting(), 1);
    answer.notify_one();
    assert!(poll_once(&mut holder).await.is_none());
    assert!(poll_once(&mut second).await.is_none());
    assert_eq!(line.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn when_waiting_has_led_to_nothing_one_of_the_process_loads() {
    let (line, source) = (Line::new("line"), Database::default());
    let stopped = Cache::builder_with(line.clone())
        .caching(true)
        .loader_timeout(Duration::from_secs(600))
        .build();
    let (stopped, cache) = (stopped.await.unwrap(), cache_on(line).await);
    let never = || std::future::pending::<Result<usize, Error>>();
    let mut holder = pin!(stopped.key("k").get_or_load(never));
    assert!(poll_once(&mut holder).await.is_none());
    for caller in a_thousand(&cache, &source) {
        timeout(PATIENCE, caller).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_one_who_loads_panics_the_next_one_loads() {
    let (cache, source) = (cache().await, Database::default());
    let started = Arc::new(Notify::new());
    let (first_cache, first_started) = (cache.clone(), started.clone());
    let first = tokio::spawn(async move {
        let load = || async {
            first_started.notify_one();
            sleep(Duration::from_millis(10)).await;
            panic!("the source has a bug")
        };
        first_cache
            .key("k")
            .get_or_load::<usize, Error, _, _>(load)
            .await
    });
    started.notified().await;
    let value = timeout(PATIENCE, cache.key("k").get_or_load(|| source.load())).await;
    assert_eq!(value.expect("not stuck").unwrap(), 1);
    assert!(first.await.unwrap_err().is_panic());
}

#[tokio::test(start_paused = true)]
async fn what_was_invalidated_while_it_was_loaded_is_not_kept_and_not_shared() {
    let (cache, source) = (cache().await, Database::default());
    let caller = || {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move {
            let load = || source.load_slowly(Duration::from_millis(100));
            cache.key("k").tags(["t"]).get_or_load(load).await.unwrap()
        })
    };
    let before = caller();
    settle().await;
    cache.invalidate(["t"]).await.unwrap();
    let after = caller();
    assert_eq!(before.await.unwrap(), 1, "it asked before the change");
    assert_eq!(after.await.unwrap(), 2, "it asked after the change");
    assert_eq!(cache.key("k").get::<usize>().await.unwrap(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_overruns_gets_its_own_result_and_holds_nobody_up() {
    let line = Line::new("line");
    let cache = Cache::builder_with(line.clone())
        .caching(true)
        .loader_timeout(Duration::from_secs(1))
        .build()
        .await
        .unwrap();
    let (slow_source, source) = (Database::default(), Database::default());
    let began = Instant::now();
    let slow = tokio::spawn({
        let (cache, source) = (cache.clone(), slow_source.clone());
        async move {
            let load = || source.load_slowly(Duration::from_secs(60));
            cache.key("k").get_or_load(load).await
        }
    });
    sleep(Duration::from_millis(800)).await;
    // Has more patience than the other has time left: it looks again, and is the one who may fill.
    let load = || source.load_slowly(Duration::from_millis(10));
    let value = cache.key("k").get_or_load(load).await.unwrap();
    assert_eq!((value, source.loads()), (1, 1));
    let elapsed = began.elapsed();
    assert!(elapsed < Duration::from_millis(1100), "{elapsed:?}");
    settle().await;
    assert_eq!(
        line.count("release"),
        1,
        "the lease is released once, even if the provider took it back before"
    );
    assert_eq!(slow.await.unwrap().unwrap(), 1);
    assert_eq!(slow_source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fill_under_way_does_not_undo_a_clear() {
    let (cache, source) = (cache().await, Database::default());
    let filling = {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move {
            let load = || source.load_slowly(Duration::from_millis(100));
            cache.key("k").get_or_load(load).await
        })
    };
    settle().await;
    cache.clear("k").await.unwrap();
    assert_eq!(filling.await.unwrap().unwrap(), 1);
    settle().await;
    assert_eq!(cache.key("k").get::<usize>().await.unwrap(), None);
    let again = cache.key("k").get_or_load(|| source.load()).await.unwrap();
    assert_eq!(again, 2);
    assert_eq!(cache.key("k").get::<usize>().await.unwrap(), Some(2));
}

/// All callers have run out of patience, and the one they give a last chance gives up as well.
#[tokio::test(start_paused = true)]
async fn when_the_last_one_to_be_waited_for_gives_up_one_more_loads_and_not_all() {
    let cache = Cache::builder_with(MemoryProvider::default())
        .caching(true)
        .loader_timeout(Duration::from_secs(1))
        .build();
    let (cache, source) = (cache.await.unwrap(), Database::default());
    let call = |_| {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move {
            let load = || async move {
                match source.load().await.unwrap() {
                    1 | 2 => {
                        sleep(Duration::from_millis(950)).await;
                        Err("it fails")
                    }
                    3 => std::future::pending().await,
                    number => {
                        sleep(Duration::from_millis(10)).await;
                        Ok(Loaded::new(number))
                    }
                }
            };
            cache.key("k").load(load).await
        })
    };
    let callers: Vec<_> = (0..1000).map(call).collect();
    let mut loaded = 0;
    for caller in callers {
        // The third caller's loader never ends.
        if let Ok(served) = timeout(PATIENCE, caller).await {
            loaded += usize::from(served.unwrap().is_ok());
        }
    }
    assert_eq!((source.loads(), loaded), (4, 997));
}
