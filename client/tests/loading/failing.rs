//! A loader that fails or panics: who gets the error, and how often the source is asked again.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_loaders_error_is_the_callers_own_and_is_not_cached() {
    #[derive(Debug, PartialEq)]
    struct Own(&'static str);

    let line = Line::new("line");
    let cache = cache_on(line.clone()).await;
    let failing = |cache: Cache| async move {
        let load = || async {
            sleep(Duration::from_millis(10)).await;
            Err::<usize, _>(Own("no such product"))
        };
        cache.key("k").get_or_load(load).await
    };
    let both = tokio::join!(failing(cache.clone()), failing(cache.clone()));
    assert_eq!(
        both,
        (Err(Own("no such product")), Err(Own("no such product")))
    );
    settle().await;
    assert_eq!(line.entries(), 0);
    assert_eq!(
        line.count("release"),
        2,
        "the next one in another process need not wait"
    );
    let value = cache
        .key("k")
        .get_or_load(|| async { Ok::<_, Own>(1) })
        .await;
    assert_eq!(value, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_served_instead_of_an_error_only_if_asked_for() {
    let cache = cache().await;
    let entry = || cache.key("k").ttl(Duration::from_secs(10)).swr(HOUR);
    entry().set(&1).await.unwrap();
    advance(Duration::from_secs(11)).await;
    let fail = || async { Err::<Loaded<u32>, _>("the database is down") };
    assert_eq!(entry().load(fail).await, Err("the database is down"));
    settle().await;
    let served = entry().stale_if_error(true).load(fail).await.unwrap();
    assert_eq!((served.value, served.source), (1, Source::Stale));
    settle().await;
    let hang = || std::future::pending::<Result<Loaded<u32>, &str>>();
    let served = entry().stale_if_error(true).load(hang).await.unwrap();
    assert_eq!((served.value, served.source), (1, Source::Stale));
}

/// A source that fails, and how many are in it at once at most.
#[derive(Clone, Default)]
struct Failing {
    calls: Arc<AtomicUsize>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Failing {
    async fn load(&self) -> Result<usize, &'static str> {
        self.calls.fetch_add(1, SeqCst);
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        sleep(Duration::from_millis(10)).await;
        self.now.fetch_sub(1, SeqCst);
        Err("the database is down")
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_asked_by_one_caller_at_a_time() {
    let away = Line::new("away");
    away.cut();
    for provider in [Line::new("there"), away] {
        let (cache, source) = (cache_on(provider).await, Failing::default());
        let call = |_| {
            let (cache, source) = (cache.clone(), source.clone());
            tokio::spawn(async move { cache.key("k").get_or_load(|| source.load()).await })
        };
        let callers: Vec<_> = (0..1000).map(call).collect();
        for caller in callers {
            let answer = timeout(PATIENCE, caller).await.unwrap().unwrap();
            assert_eq!(answer, Err("the database is down"));
        }
        assert_eq!(source.most.load(SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn callers_who_waited_get_the_error_of_the_one_who_loaded() {
    let (cache, source) = (cache().await, Failing::default());
    let call = |_| {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move { cache.key("k").get_or_load_shared(|| source.load()).await })
    };
    let callers: Vec<_> = (0..1000).map(call).collect();
    for caller in callers {
        let answer = timeout(PATIENCE, caller).await.unwrap().unwrap();
        assert_eq!(answer, Err("the database is down"));
    }
    assert_eq!(source.calls(), 1);
    let next = cache
        .key("k")
        .get_or_load_shared(|| async { Ok::<_, &str>(1) });
    assert_eq!(next.await, Ok(1), "an error is not kept");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_another_type_is_not_shared() {
    let cache = cache().await;
    let text = async {
        let load = || async {
            sleep(Duration::from_millis(10)).await;
            Err::<u32, _>("text")
        };
        cache.key("k").get_or_load_shared(load).await
    };
    let number = async {
        cache
            .key("k")
            .get_or_load_shared(|| async { Err::<u32, _>(7) })
            .await
    };
    assert_eq!(tokio::join!(text, number), (Err("text"), Err(7)));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_failed_is_left_alone_for_a_while_where_a_stale_value_is_at_hand() {
    let line = Line::new("line");
    let cache = cache_on(line.clone()).await;
    let other_process = cache_on(line.clone()).await;
    let source = Failing::default();
    let ten = Duration::from_secs(10);
    cache
        .key("k")
        .ttl(ten)
        .swr(HOUR)
        .set(&1_usize)
        .await
        .unwrap();
    advance(Duration::from_secs(11)).await;
    for round in 1..=3 {
        for number in 0..100 {
            let cache = [&cache, &other_process][number % 2];
            let entry = cache.key("k").ttl(ten).swr(HOUR).stale_if_error(true);
            let served = entry.load(|| async { source.load().await.map(Loaded::new) });
            let served = served.await.unwrap();
            assert_eq!((served.value, served.source), (1, Source::Stale));
        }
        assert_eq!(
            source.calls(),
            round,
            "one try in each pause, in all processes"
        );
        sleep(Duration::from_millis(1100)).await;
    }
    // One that hangs is left alone as well.
    let hang = || std::future::pending::<Result<Loaded<usize>, &str>>();
    let entry = || cache.key("k").ttl(ten).swr(HOUR).stale_if_error(true);
    assert_eq!(entry().load(hang).await.unwrap().value, 1);
    let began = Instant::now();
    assert_eq!(entry().load(hang).await.unwrap().value, 1);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_detached_load_tells_its_caller_errors_and_panics() {
    let cache = cache().await;
    let failed = cache
        .key("k")
        .get_or_load_detached(|| async { Err::<u32, _>("no") });
    assert_eq!(failed.await, Err("no"));
    let panics = tokio::spawn(async move {
        let load = || async { panic!("the source has a bug") };
        cache
            .key("k")
            .get_or_load_detached::<u32, Error, _, _>(load)
            .await
    });
    assert!(panics.await.unwrap_err().is_panic());
}
