//! What a read or a SET says for a near cache.

use redis::{FromRedisValue, Value};

use super::process::{Process, near};
use super::server;

#[test]
fn reads_say_number_life_manual_and_digests() {
    let server = server();
    let mut process = Process::subscribed(&server);
    let mut redis = server.session();
    redis.run("MCACHE.INVALIDATE TAGS x");
    redis.ok("MCACHE.SET a 100 1 MANUAL TAGS t u");
    redis.ok("MCACHE.SET b 0 2");
    let line = format!("MCACHE.NEARGET {} a nothing b", process.subscription());
    let Value::Array(values) = redis.run(&line) else {
        panic!("an array")
    };
    assert_eq!(values[1], Value::Nil);
    let part = |at: usize| -> (String, Value) {
        FromRedisValue::from_redis_value(values[at].clone()).expect("two parts")
    };
    let (value, told) = part(0);
    let told = near(told).expect("near data");
    assert_eq!((value.as_str(), told.data.manual), ("1", true));
    assert!((90_000..=100_000).contains(&told.life_ms));
    let digest = |name: &str| process.view.digest(name.as_bytes()).expect("subscribed");
    let mut digests = told.data.digests.clone();
    digests.sort_unstable();
    let mut expected = vec![digest("t"), digest("u")];
    expected.sort_unstable();
    assert_eq!(digests, expected);
    assert!(told.data.number >= 1, "the invalidation was told before");
    let (value, told) = part(2);
    let told = near(told).expect("near data");
    assert_eq!((value.as_str(), told.life_ms), ("2", -1));

    let subscription = process.subscription();
    let Value::Array(fetched) = redis.run(&format!("MCACHE.FETCH a NEAR {subscription}")) else {
        panic!("an array")
    };
    assert_eq!(fetched.len(), 4);
    assert!(near(fetched[3].clone()).is_some_and(|told| told.data.manual));
    let Value::Array(fetched) = redis.run(&format!("MCACHE.FETCH c NEAR {subscription}")) else {
        panic!("an array")
    };
    assert_eq!((fetched.len(), &fetched[3]), (4, &Value::Nil), "a miss");
    let token = String::from_redis_value(fetched[2].clone()).expect("a token");
    let asked = process.asked();
    let stored = redis.run(&format!(
        "MCACHE.SET c 60 loaded TOKEN {token} NEAR {subscription} TAGS t"
    ));
    let told = near(stored).expect("near data");
    assert_eq!(told.life_ms, 60_000);
    assert!(process.keep(&asked, "c", "loaded".to_owned(), told.data));
    process.feed();
    assert_eq!(
        process.get("c"),
        Some("loaded"),
        "its own SET does not concern it"
    );

    redis.run("MCACHE.INVALIDATE TAGS t");
    let stored = redis.run(&format!(
        "MCACHE.SET c 60 late TOKEN {token} NEAR {subscription} TAGS t"
    ));
    assert_eq!(stored, Value::Nil, "refused as without NEAR");
}

#[test]
fn whoever_may_not_keep_a_value_is_told_only_the_value() {
    let server = server();
    let mut process = Process::new(&server, &["eu:"]);
    process.feed();
    let mut redis = server.session();
    let told = |redis: &mut harness::Session, subscription: &str, key: &str| {
        let reply = redis.run(&format!("MCACHE.NEARGET {subscription} {key}"));
        let mut values: Vec<(String, Value)> =
            FromRedisValue::from_redis_value(reply).expect("a value with its data");
        near(values.remove(0).1)
    };
    redis.ok("MCACHE.SET k 0 v TAGS eu:t");
    let subscription = process.subscription();
    assert!(told(&mut redis, &subscription, "k").is_some());
    redis.ok("MCACHE.SET both 0 v TAGS eu:t us:t");
    assert!(
        told(&mut redis, &subscription, "both").is_none(),
        "a tag outside"
    );
    for unknown in ["of-another-version", &"0".repeat(56)] {
        assert!(told(&mut redis, unknown, "k").is_none(), "{unknown}");
        let stored = redis.run(&format!("MCACHE.SET k 0 v NEAR {unknown}"));
        assert_eq!(stored, Value::Okay);
    }
    redis.run("SELECT 1");
    redis.ok("MCACHE.SET k 0 v TAGS eu:t");
    assert!(
        told(&mut redis, &subscription, "k").is_none(),
        "another database"
    );
    redis.run("SELECT 0");
    redis.ok("MCACHE.SET k 100 v SWR 100 TAGS eu:t");
    redis.run("MCACHE.INVALIDATE SOFT TAGS eu:t");
    let Value::Array(stale) = redis.run(&format!("MCACHE.FETCH k NEAR {subscription}")) else {
        panic!("an array")
    };
    assert_eq!(
        String::from_redis_value(stale[0].clone()).as_deref(),
        Ok("stale")
    );
    assert_eq!(stale[3], Value::Nil);
    process
        .redis
        .int(&format!("MCACHE.FEED {subscription} END"));
    redis.ok("MCACHE.SET k 0 v TAGS eu:t");
    assert!(
        told(&mut redis, &subscription, "k").is_none(),
        "it has ended"
    );
}
