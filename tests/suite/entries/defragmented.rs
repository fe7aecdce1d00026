//! Active defragmentation moves entries in memory; index, tags and values are as before.

use harness::{Server, host, wait};

#[test]
fn entries_that_are_moved_in_memory_are_found_read_and_invalidated_as_before() {
    const ENTRIES: usize = 60_000;
    let server = Server::start();
    let mut redis = server.session();
    if redis.try_run("CONFIG SET activedefrag yes").is_err() {
        return host::skip("it is built without active defragmentation");
    }
    redis.ok("CONFIG SET activedefrag no");
    let value = "v".repeat(200);
    redis.run_all((0..ENTRIES).map(|number| {
        let (key, tenth) = (format!("k{number:06}"), number % 10);
        format!("MCACHE.SET {key} 0 {key}:{value} TAGS all own:{key} tenth:{tenth}")
    }));
    // Holes between those that stay.
    for tenth in [1, 2, 4, 5, 7, 8, 9] {
        redis.int(&format!("MCACHE.INVALIDATE TAGS tenth:{tenth}"));
    }
    redis.drain();
    for line in [
        "CONFIG SET active-defrag-ignore-bytes 100kb",
        "CONFIG SET active-defrag-threshold-lower 2",
        "CONFIG SET active-defrag-cycle-min 50",
        "CONFIG SET active-defrag-cycle-max 75",
        "CONFIG SET activedefrag yes",
    ] {
        redis.ok(line);
    }
    wait::until("thousands of entries have moved", || {
        redis.info("stats", "active_defrag_hits") > 5_000
    });
    // It goes on while entries come and go.
    for number in (0..ENTRIES).step_by(30) {
        redis.ok(&format!("MCACHE.SET k{number:06} 0 new TAGS all fresh"));
    }
    redis.ok("MCACHE.DEBUG SELFCHECK");
    for number in (3..ENTRIES).step_by(500) {
        let key = format!("k{number:06}");
        let value = redis
            .text(&format!("MCACHE.GET {key}"))
            .expect("it is live");
        assert!(value.starts_with(&key), "{key} holds {value}");
        assert_eq!(redis.entries(&format!("own:{key}")), [key]);
    }
    let fresh = (ENTRIES / 30) as i64;
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS fresh"), fresh);
    let tenth = (ENTRIES / 10) as i64;
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS tenth:3"), tenth);
    redis.drain();
    redis.ok("MCACHE.DEBUG SELFCHECK");
    assert_eq!(redis.stat("panics"), 0);
    println!("{} moved", redis.info("stats", "active_defrag_hits"));
}
