//! What a read makes the server do, counted in commands of the script: it does not grow with the tags of the entry.

use harness::Session;
use mcache::Tags;
use mcache::provider::{Mode, Provider, Store};

use super::{bare, provider};
use crate::support::runtime::run;

/// Calls of GETRANGE and of HMGET since the last count.
fn counted(redis: &mut Session) -> [u64; 2] {
    let calls = redis.calls(["getrange", "hmget"]);
    redis.ok("CONFIG RESETSTAT");
    calls
}

#[test]
fn a_read_of_an_entry_with_six_hundred_tags_makes_no_six_hundred_look_ups() {
    let server = bare().start();
    let mut redis = server.session();
    let provider = provider(&server.url());
    let tags: Tags = (0..600).map(|number| format!("t{number}")).collect();
    let others = |count: usize| -> Tags { (0..count).map(|n| format!("other{n}")).collect() };
    run(async {
        let entry = Store::new(b"k", "v", &tags);
        assert!(provider.store(entry).await.expect("store"));
        // Every group was used: nothing can be left out for that reason.
        let told = provider.invalidate(&others(5_000), Mode::Hard).await;
        told.expect("invalidate");
        let mut read = async || {
            counted(&mut redis);
            let found = provider.get(b"k").await.expect("get");
            assert!(found.is_some());
            counted(&mut redis)
        };
        // More than the ring has: each group of its tags once, at most 256, and then never again.
        let [ranges, groups] = read().await;
        assert!(
            ranges <= 4 && (200..=256).contains(&groups),
            "{groups} groups"
        );
        assert_eq!(read().await, [2, 0], "nothing was invalidated since");
        for count in [1, 15, 500] {
            let told = provider.invalidate(&others(count), Mode::Hard).await;
            told.expect("invalidate");
            let [ranges, groups] = read().await;
            assert!(ranges <= 7, "{count}: {ranges} ranges");
            assert_eq!(groups, 0, "{count}: by the ring");
        }
        // One of its own: found in the ring, and asked of that tag's group.
        let own = Tags::from_iter(["t7"]);
        let told = provider.invalidate(&own, Mode::Soft).await;
        told.expect("invalidate");
        counted(&mut redis);
        assert_eq!(provider.get(b"k").await.expect("get"), None);
        assert_eq!(counted(&mut redis)[1], 1);
    });
}
