//! Several keys loaded together.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_batch_loads_what_is_missing_in_one_call() {
    let cache = cache().await;
    cache.key("a").set(&1).await.unwrap();
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let load = |mut missing: Vec<&'static str>| {
        missing.sort_unstable();
        calls.lock().unwrap().push(missing.clone());
        async move {
            let known = missing.into_iter().filter(|key| *key != "d");
            Ok::<_, Error>(
                known
                    .map(|key| (key, Loaded::new(2).tags([key])))
                    .collect::<HashMap<_, _>>(),
            )
        }
    };
    let keys = ["a", "b", "c", "b", "d"];
    let values = cache.keys(keys).get_or_load_many(load).await.unwrap();
    assert_eq!(values, HashMap::from([("a", 1), ("b", 2), ("c", 2)]));
    assert_eq!(*calls.lock().unwrap(), [["b", "c", "d"]]);
    let again = cache.keys(keys).get_or_load_many(load).await.unwrap();
    assert_eq!(again, values);
    assert_eq!(
        calls.lock().unwrap()[1..],
        [["d"]],
        "what is not there is asked for again"
    );
    let remembering = || cache.keys(keys).negative_ttl(HOUR);
    remembering().get_or_load_many(load).await.unwrap();
    remembering().get_or_load_many(load).await.unwrap();
    assert_eq!(calls.lock().unwrap().len(), 3, "unless it is remembered");
    assert_eq!(
        cache.get_many::<u32>(keys).await.unwrap(),
        [Some(1), Some(2), Some(2), Some(2), None]
    );
    assert_eq!(cache.invalidate(["b", "c"]).await.unwrap().entries(), 2);
}

#[tokio::test(start_paused = true)]
async fn batches_that_overlap_wait_for_each_other_and_load_each_key_once() {
    let cache = cache().await;
    let loaded = Arc::new(std::sync::Mutex::new(Vec::new()));
    let batch = |keys: [&'static str; 3]| {
        let (cache, loaded) = (cache.clone(), loaded.clone());
        tokio::spawn(async move {
            let load = |missing: Vec<&'static str>| {
                loaded.lock().unwrap().extend(missing.iter().copied());
                async move {
                    sleep(Duration::from_millis(50)).await;
                    Ok::<_, Error>(
                        missing
                            .into_iter()
                            .map(|key| (key, Loaded::new(key.len())))
                            .collect(),
                    )
                }
            };
            cache.keys(keys).get_or_load_many(load).await.unwrap().len()
        })
    };
    let batches = [
        batch(["a", "b", "c"]),
        batch(["c", "b", "d"]),
        batch(["d", "a", "e"]),
    ];
    for batch in batches {
        assert_eq!(
            timeout(PATIENCE, batch).await.expect("not stuck").unwrap(),
            3
        );
    }
    let mut loaded = loaded.lock().unwrap().clone();
    loaded.sort_unstable();
    assert_eq!(loaded, ["a", "b", "c", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_loader_fails_keeps_nobody_waiting() {
    let cache = cache().await;
    let fail =
        |_: Vec<&'static str>| async { Err::<HashMap<&'static str, Loaded<u32>>, _>("down") };
    assert_eq!(
        cache.keys(["a", "b"]).get_or_load_many(fail).await,
        Err("down")
    );
    let began = Instant::now();
    assert_eq!(
        cache
            .key("a")
            .get_or_load(|| async { Ok::<_, Error>(1) })
            .await
            .unwrap(),
        1
    );
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_batch_of_warm_keys_is_one_command() {
    let line = Line::new("line");
    let cache = cache_on(line.clone()).await;
    for number in 0..100 {
        cache.key(format!("k{number}")).set(&number).await.unwrap();
    }
    line.calls();
    let keys = || (0..100).map(|number| format!("k{number}"));
    let load = |_: Vec<String>| async { unreachable!("all of them are there") };
    let values = cache
        .keys(keys())
        .get_or_load_many::<u32, Error, _, _>(load)
        .await
        .unwrap();
    assert_eq!((values.len(), values["k42"]), (100, 42));
    assert_eq!(line.calls(), ["get_many"]);
    cache.clear("k7").await.unwrap();
    line.calls();
    let load = |missing: Vec<String>| async move {
        Ok::<_, Error>(
            missing
                .into_iter()
                .map(|key| (key, Loaded::new(7_u32)))
                .collect(),
        )
    };
    let values = cache.keys(keys()).get_or_load_many(load).await.unwrap();
    assert_eq!((values.len(), values["k7"]), (100, 7));
    settle().await;
    assert_eq!(line.calls(), ["get_many", "fetch", "store"]);
}
