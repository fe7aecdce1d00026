//! A cache that is away is never the application's problem, and an invalidation is never lost.

mod support;

use std::time::Duration;

use mcache::{Cache, Error, ErrorKind, Loaded, MemoryProvider, Settled, Source, provider::Mode};
use support::Line;
use tokio::time::{Instant, advance, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(3600);

async fn cache_on(line: &Line) -> Cache {
    Cache::builder_with(line.clone())
        .namespace("ns")
        .caching(true)
        .build()
        .await
        .expect("a cache")
}

async fn load(cache: &Cache, value: u32) -> (u32, Source) {
    let load = || async move { Ok::<_, Error>(Loaded::new(value)) };
    let served = cache.key("k").tags(["t"]).load(load).await.unwrap();
    (served.value, served.source)
}

#[tokio::test]
async fn a_cache_may_be_built_while_its_provider_is_away() {
    let line = Line::new("line");
    line.cut();
    let cache = cache_on(&line).await;
    assert_eq!(load(&cache, 1).await, (1, Source::Bypass));
    line.mend();
    assert_eq!(load(&cache, 2).await, (2, Source::Loaded));
    assert_eq!(load(&cache, 3).await, (2, Source::Hit));
}

#[tokio::test]
async fn reads_go_to_the_source_and_writes_say_that_they_did_not_arrive() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    line.cut();
    assert_eq!(load(&cache, 1).await, (1, Source::Bypass));
    assert_eq!(cache.key("k").get::<u32>().await.unwrap(), None);
    assert_eq!(
        cache.get_many::<u32>(["k", "l"]).await.unwrap(),
        [None, None]
    );
    assert!(cache.key("k").set(&1).await.unwrap_err().is_unavailable());
    assert!(cache.inspect("k").await.unwrap_err().is_unavailable());
    let filling = cache.key("k").begin().await.unwrap();
    assert!(!filling.store(&1).await.unwrap());
}

#[tokio::test]
async fn a_line_cut_between_miss_and_store_costs_nothing_but_the_entry() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    let load_and_cut = || async {
        line.cut();
        Ok::<_, Error>(Loaded::new(1))
    };
    let served = cache.key("k").load(load_and_cut).await.unwrap();
    assert_eq!((served.value, served.source), (1, Source::Loaded));
    line.mend();
    assert_eq!(cache.key("k").get::<u32>().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_that_does_not_arrive_is_retried_until_it_does() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    load(&cache, 1).await;
    line.cut();
    let invalidation = cache.invalidate(["t"]).await.unwrap();
    assert!(!invalidation.is_acknowledged());
    assert_eq!(cache.pending_invalidations(), 1);
    let settled = tokio::spawn(invalidation.settled());
    sleep(Duration::from_secs(600)).await;
    assert!(!settled.is_finished());
    line.mend();
    assert_eq!(
        timeout(PATIENCE, settled).await.unwrap().unwrap(),
        Settled::Acknowledged
    );
    assert_eq!(cache.pending_invalidations(), 0);
    assert_eq!(line.entries(), 0);
    assert!(
        line.calls()
            .iter()
            .filter(|call| **call == "invalidate")
            .count()
            > 100,
        "every two seconds or so"
    );
}

#[tokio::test(start_paused = true)]
async fn while_an_invalidation_is_pending_this_process_is_served_nothing_old() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    load(&cache, 1).await;
    line.cut();
    let invalidation = cache.invalidate(["t"]).await.unwrap();
    // The provider answers again, but has not heard of the invalidation yet.
    line.mend();
    assert_eq!(load(&cache, 2).await, (2, Source::Bypass));
    assert_eq!(cache.key("k").get::<u32>().await.unwrap(), None);
    assert_eq!(cache.get_many::<u32>(["k"]).await.unwrap(), [None]);
    invalidation.settled().await;
    assert_eq!(load(&cache, 3).await, (3, Source::Loaded));
    assert_eq!(load(&cache, 4).await, (3, Source::Hit));
}

#[tokio::test(start_paused = true)]
async fn pending_invalidations_are_sent_together_in_their_modes() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    cache.key("k").set(&1).await.unwrap();
    line.cut();
    let pending = [
        cache.invalidate(["a", "b"]).await.unwrap(),
        cache.invalidate(["b", "c"]).await.unwrap(),
        cache.invalidate_auto(["a"]).await.unwrap(),
        cache.soft_invalidate(["d"]).await.unwrap(),
        cache.clear("k").await.unwrap(),
    ];
    assert_eq!(
        cache.pending_invalidations(),
        6,
        "three hard tags, one auto, one soft, one key"
    );
    line.mend();
    for invalidation in pending {
        assert_eq!(invalidation.settled().await, Settled::Acknowledged);
    }
    let mut sent = line.invalidated();
    sent.sort_by_key(|(_, mode)| format!("{mode:?}"));
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| format!("ns:{name}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        sent,
        [
            (names(&["a"]), Mode::Auto),
            (names(&["a", "b", "c"]), Mode::Hard),
            (names(&["d"]), Mode::Soft),
        ]
    );
    assert_eq!(line.entries(), 0, "the key was cleared");
}

#[tokio::test(start_paused = true)]
async fn too_many_pending_invalidations_become_one_of_everything() {
    let line = Line::new("line");
    let cache = Cache::builder_with(line.clone())
        .namespace("ns")
        .pending_invalidations_max(100)
        .caching(true)
        .build()
        .await
        .unwrap();
    cache.key("unrelated").set(&1).await.unwrap();
    line.cut();
    let mut last = None;
    for number in 0..101 {
        last = Some(cache.invalidate_auto([format!("t{number}")]).await.unwrap());
    }
    assert_eq!(cache.pending_invalidations(), 1);
    line.mend();
    assert_eq!(last.unwrap().settled().await, Settled::Acknowledged);
    assert_eq!(line.invalidated(), [(vec!["ns:*".to_owned()], Mode::Auto)]);
    assert_eq!(line.entries(), 0);
}

#[tokio::test(start_paused = true)]
async fn retries_end_when_nothing_concerned_can_still_be_alive() {
    let line = Line::new("line");
    let cache = Cache::builder_with(line.clone())
        .retry_invalidations_min(Duration::from_secs(60))
        .caching(true)
        .build()
        .await
        .unwrap();
    cache
        .key("k")
        .ttl(Duration::from_secs(300))
        .swr(Duration::from_secs(100))
        .set(&1)
        .await
        .unwrap();
    line.cut();
    let began = Instant::now();
    let settled = cache.invalidate(["t"]).await.unwrap().settled().await;
    assert_eq!(settled, Settled::Outlived);
    let elapsed = began.elapsed().as_secs();
    assert!(
        (400..410).contains(&elapsed),
        "the longest life stored was 400 s; {elapsed} s"
    );
    assert_eq!(cache.pending_invalidations(), 0);
}

#[tokio::test(start_paused = true)]
async fn retries_never_end_where_entries_do_not_expire() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    cache.key("k").ttl(Duration::ZERO).set(&1).await.unwrap();
    line.cut();
    let invalidation = cache.invalidate(["t"]).await.unwrap();
    advance(Duration::from_secs(10 * 365 * 24 * 3600)).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(cache.pending_invalidations(), 1);
    line.mend();
    assert_eq!(invalidation.settled().await, Settled::Acknowledged);
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_is_carried_out_although_its_caller_is_gone() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    load(&cache, 1).await;
    line.cut();
    {
        let mut invalidation = Box::pin(cache.invalidate(["t"]));
        let first = std::future::poll_fn(|context| {
            std::task::Poll::Ready(invalidation.as_mut().poll(context))
        });
        assert!(first.await.is_pending());
    }
    line.mend();
    let began = Instant::now();
    while line.entries() > 0 {
        assert!(began.elapsed() < PATIENCE, "the invalidation was lost");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_refused_for_good_is_an_error_at_once() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    line.forbid("ns:t");
    let error = cache.invalidate(["t"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().ends_with("NOPERM"), "{error}");
    assert_eq!(cache.pending_invalidations(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_provider_that_is_away_does_not_keep_the_others_from_being_told() {
    let (near, far) = (
        Line::new("near"),
        MemoryProvider::builder().id("far").build(),
    );
    let cache = Cache::builder_with(near.clone())
        .provider(far.clone())
        .caching(true)
        .build()
        .await
        .unwrap();
    cache.key("k").tags(["t"]).set(&1).await.unwrap();
    near.cut();
    let invalidation = cache.invalidate(["t"]).await.unwrap();
    assert_eq!(
        (invalidation.is_acknowledged(), invalidation.entries()),
        (false, 1)
    );
    assert!(far.is_empty());
    near.mend();
    assert_eq!(invalidation.settled().await, Settled::Acknowledged);
    assert_eq!(near.entries(), 0);
}

#[tokio::test]
async fn no_tags_are_nothing_to_do() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    line.calls();
    let invalidation = cache.invalidate(Vec::<String>::new()).await.unwrap();
    assert_eq!(
        (invalidation.is_acknowledged(), invalidation.entries()),
        (true, 0)
    );
    assert_eq!(line.calls(), Vec::<&str>::new());
}

#[tokio::test]
async fn what_cannot_be_encoded_or_is_too_large_is_served_but_not_kept() {
    let line = Line::new("line");
    let cache = Cache::builder_with(line.clone())
        .value_bytes_max(10)
        .caching(true)
        .build()
        .await
        .unwrap();
    let load = || async { Ok::<_, Error>("longer than ten bytes".to_owned()) };
    assert_eq!(
        cache.key("k").get_or_load(load).await.unwrap(),
        "longer than ten bytes"
    );
    assert!(!cache.key("k").set("longer than ten bytes").await.unwrap());

    // JSON has no maps whose keys are lists.
    let odd = std::collections::HashMap::from([(vec![1], 1)]);
    assert!(cache.key("k").set(&odd).await.unwrap_err().is_codec());
    let load = || async { Ok::<_, Error>(odd.clone()) };
    assert_eq!(cache.key("k").get_or_load(load).await.unwrap(), odd);
    assert_eq!(line.entries(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_after_an_outage_does_not_hold_up_the_rest() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    line.cut();
    let allowed = cache.invalidate(["a"]).await.unwrap();
    let forbidden = cache.invalidate(["b", "forbidden"]).await.unwrap();
    line.forbid("ns:forbidden");
    line.mend();
    assert_eq!(allowed.settled().await, Settled::Acknowledged);
    assert_eq!(forbidden.settled().await, Settled::Refused);
    assert_eq!(cache.pending_invalidations(), 0);
    let mut told: Vec<String> = line
        .invalidated()
        .into_iter()
        .flat_map(|(tags, _)| tags)
        .collect();
    told.sort();
    assert_eq!(told, ["ns:a", "ns:b"]);
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_only_the_first_invalidation_waits_for_a_deadline() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    line.hang();
    let began = Instant::now();
    assert!(!cache.invalidate(["first"]).await.unwrap().is_acknowledged());
    let deadline = began.elapsed();
    for number in 0..1000 {
        assert!(
            !cache
                .invalidate([format!("t{number}")])
                .await
                .unwrap()
                .is_acknowledged()
        );
    }
    assert_eq!(began.elapsed(), deadline);
}

/// Invalidates as often as this, on and on, without waiting for answers.
fn invalidate_at(cache: &Cache, per_millisecond: usize) -> tokio::task::JoinHandle<()> {
    let cache = cache.clone();
    tokio::spawn(async move {
        for moment in 0_u64.. {
            for number in 0..per_millisecond {
                let cache = cache.clone();
                let tag = format!("t{moment}:{number}");
                tokio::spawn(async move { cache.invalidate([tag]).await });
            }
            sleep(Duration::from_millis(1)).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn after_a_hiccup_the_cache_is_used_again_at_once_whatever_the_rate_of_invalidations() {
    for per_millisecond in [2, 4, 20] {
        let line = Line::new("line");
        let cache = cache_on(&line).await;
        load(&cache, 1).await;
        line.delay(Duration::from_millis(2));
        let writers = invalidate_at(&cache, per_millisecond);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(load(&cache, 2).await.1, Source::Hit, "before the hiccup");
        line.hang();
        sleep(Duration::from_millis(700)).await;
        assert_eq!(load(&cache, 2).await.1, Source::Bypass, "during it");
        line.answer();
        let began = Instant::now();
        while load(&cache, 2).await.1 != Source::Hit {
            sleep(Duration::from_millis(1)).await;
            // The calls under way when it began to hang time out for half a second more; the pause is a tenth of one.
            let elapsed = began.elapsed();
            assert!(
                elapsed < Duration::from_millis(750),
                "{per_millisecond} a ms: {elapsed:?}"
            );
        }
        sleep(Duration::from_millis(100)).await;
        assert_eq!(cache.pending_invalidations(), 0);
        assert_eq!(load(&cache, 2).await.1, Source::Hit, "and it stays so");
        writers.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_clear_holds_back_only_the_readers_of_its_key() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    for key in ["a", "b"] {
        cache.key(key).set(&1).await.unwrap();
    }
    line.cut();
    let cleared = cache.clear("a").await.unwrap();
    line.mend();
    let both = cache.get_many::<u32>(["a", "b"]).await.unwrap();
    assert_eq!(both, [None, Some(1)]);
    assert_eq!(cache.key("a").get::<u32>().await.unwrap(), None);
    assert_eq!(cache.key("b").get::<u32>().await.unwrap(), Some(1));
    assert_eq!(cleared.settled().await, Settled::Acknowledged);
}

#[tokio::test(start_paused = true)]
async fn callers_who_wait_for_a_dead_server_cost_the_cache_no_more_than_its_bound() {
    let line = Line::new("line");
    let cache = Cache::builder_with(line.clone())
        .pending_invalidations_max(usize::MAX)
        .pending_invalidations_bytes_max(100_000)
        .caching(true)
        .build()
        .await
        .unwrap();
    line.cut();
    let mut waiting = Vec::new();
    for number in 0..20_000 {
        let invalidation = cache.invalidate([format!("t{number}")]).await.unwrap();
        waiting.push(tokio::spawn(invalidation.settled()));
        assert!(
            cache.pending_invalidations() < 500,
            "each takes 200 bytes and more"
        );
    }
    line.mend();
    for settled in waiting {
        assert_eq!(settled.await.unwrap(), Settled::Acknowledged);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_is_pending_and_says_what_was_left() {
    let line = Line::new("line");
    let cache = cache_on(&line).await;
    assert!(cache.shutdown(Duration::ZERO).await.is_nothing());
    line.cut();
    let _ = cache.invalidate(["a", "b"]).await.unwrap();
    let began = Instant::now();
    let left = cache.shutdown(Duration::from_secs(5)).await;
    assert_eq!((left.invalidations, left.tasks), (2, 0));
    assert_eq!(
        began.elapsed(),
        Duration::from_secs(5),
        "that was the patience"
    );
    line.mend();
    let left = cache.shutdown(Duration::MAX).await;
    assert!(left.is_nothing(), "{left}");
    assert_eq!(line.invalidated().len(), 1);
}

/// As after SIGSTOP or in a machine that was suspended: the calls that were under way are over their deadline when the
/// process goes on, while the server was well all the time.
#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_looks_again_before_it_loads_without_the_cache() {
    let line = Line::new("line");
    let timeout = Duration::from_millis(400);
    let stopped = Cache::builder_with(line.clone())
        .namespace("ns")
        .caching(true);
    let stopped = stopped.loader_timeout(timeout).build().await.unwrap();
    let other = cache_on(&line).await;
    line.hang();
    let waiting = tokio::spawn(async move { load(&stopped, 1).await });
    sleep(Duration::from_millis(100)).await;
    line.answer();
    assert_eq!(load(&other, 2).await, (2, Source::Loaded));
    assert_eq!(waiting.await.unwrap(), (2, Source::Hit));
}
