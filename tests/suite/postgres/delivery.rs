//! A committed change is invalidated, even if processes end, hang or restart in between.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{KillOnDrop, Seed, wait};
use mcache::change::{ChangeEvent, InvalidationTarget, Invalidator};
use tokio_postgres::NoTls;

use crate::postgres::shop::{Down, Recorder, Shop, connect, mapping, percentiles, tags_of};
use crate::support::runtime::runtime;

/// Rows `p<from>` to `p<to>`, each inserted by a transaction of its own.
fn insert_each(shop: &Shop, from: u32, to: u32) {
    shop.runtime.block_on(async {
        let client = connect(&shop.postgres).await;
        for i in from..=to {
            let insert = format!("INSERT INTO product (id) VALUES ('p{i}')");
            client.batch_execute(&insert).await.unwrap();
        }
    });
}

fn products(from: u32, to: u32) -> BTreeSet<String> {
    (from..=to).map(|i| format!("Product:p{i}")).collect()
}

#[test]
fn a_transaction_that_commits_late_is_not_overtaken() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    shop.runtime.block_on(async {
        // The earlier transaction, with the smaller id, writes first and commits last.
        let early = connect(&shop.postgres).await;
        early
            .batch_execute("BEGIN; INSERT INTO product (id) VALUES ('early')")
            .await
            .unwrap();
        shop.postgres
            .psql("INSERT INTO product (id) VALUES ('late')");
        recorder.wait_for(&["Product:late"]);
        wait::until("the late one is acknowledged", || shop.waiting() == 0);
        assert_eq!(recorder.count("Product:early"), 0);
        early.batch_execute("COMMIT").await.unwrap();
        recorder.wait_for(&["Product:early"]);
    });
    assert_eq!(recorder.count("Product:late"), 1, "told once");
}

#[test]
fn a_prepared_transaction_is_seen_when_it_commits() {
    let settings = [("fsync", "off"), ("max_prepared_transactions", "5")];
    let shop = Shop::open_with(&settings, |outbox| outbox.notify(false));
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    shop.postgres.psql(
        "BEGIN; INSERT INTO product (id) VALUES ('prepared'); PREPARE TRANSACTION 'two-phase'",
    );
    shop.postgres
        .psql("INSERT INTO product (id) VALUES ('after')");
    recorder.wait_for(&["Product:after"]);
    wait::until("acknowledged", || shop.waiting() == 0);
    shop.postgres.psql("COMMIT PREPARED 'two-phase'");
    recorder.wait_for(&["Product:prepared"]);
}

#[test]
fn what_commits_is_told_and_what_rolls_back_is_not() {
    let mut seed = Seed::draw("what_commits_is_told_and_what_rolls_back_is_not");
    let shop = Shop::open();
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    let mut committed = BTreeSet::new();
    let plans: Vec<Vec<(String, bool, u64, u64)>> = (0..8)
        .map(|writer| {
            let plan = |n| {
                let id = format!("w{writer}n{n}");
                let commits = seed.chance(70);
                if commits {
                    committed.insert(format!("Product:{id}"));
                }
                (id, commits, seed.u64(..3), seed.u64(..8))
            };
            (0..60).map(plan).collect()
        })
        .collect();
    shop.runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for plan in plans {
            let client = connect(&shop.postgres).await;
            writers.spawn(async move {
                for (id, commits, before_ms, inside_ms) in plan {
                    tokio::time::sleep(Duration::from_millis(before_ms)).await;
                    let insert = format!("BEGIN; INSERT INTO product (id) VALUES ('{id}')");
                    client.batch_execute(&insert).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(inside_ms)).await;
                    let end = if commits { "COMMIT" } else { "ROLLBACK" };
                    client.batch_execute(end).await.unwrap();
                }
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended.unwrap();
        }
    });
    wait::until("everything is acknowledged", || shop.waiting() == 0);
    assert_eq!(recorder.tags(), committed);
}

#[test]
fn a_burst_is_told_in_few_calls() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let invalidator = shop.invalidator(&recorder);
    recorder.set_down(Some(Down::Hangs));
    insert_each(&shop, 1, 500);
    wait::until("the burst is received", || {
        invalidator.stats().events == 500
    });
    recorder.set_down(None);
    wait::until("everything is acknowledged", || shop.waiting() == 0);
    assert_eq!(recorder.tags(), products(1, 500));
    let stats = invalidator.stats();
    // One call hung and was repeated with what it had; everything that came meanwhile went into the next.
    assert!(recorder.calls() <= 3, "{} calls", recorder.calls());
    assert_eq!(stats.events_acknowledged, 500);
    assert_eq!(stats.targets[0].tags, 500);
    wait::until("no lag is left", || {
        invalidator.stats().lag == Duration::ZERO
    });
}

#[test]
fn a_cache_that_is_down_during_a_burst_is_told_everything_when_it_is_back() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let invalidator = shop.invalidator(&recorder);
    insert_each(&shop, 1, 50);
    recorder.set_down(Some(Down::Refuses));
    insert_each(&shop, 51, 150);
    wait::until("the cache was tried in vain", || {
        invalidator.stats().targets[0].failures > 3
    });
    assert!(invalidator.stats().lag > Duration::ZERO);
    assert!(
        shop.waiting() >= 100,
        "nothing is forgotten before it is told"
    );
    recorder.set_down(None);
    wait::until("everything is acknowledged", || shop.waiting() == 0);
    assert_eq!(recorder.tags(), products(1, 150));
}

#[test]
fn one_cache_that_is_down_does_not_hold_up_another() {
    let shop = Shop::open();
    let (up, down) = (Recorder::new(), Recorder::new());
    down.set_down(Some(Down::Hangs));
    let second: Arc<dyn InvalidationTarget> = down.clone();
    let invalidator = shop.invalidator_with(shop.source(), &up, |builder| builder.target(second));
    for i in 1..=20 {
        insert_each(&shop, i, i);
        up.wait_for(&[&format!("Product:p{i}")]);
    }
    assert_eq!(
        shop.waiting(),
        20,
        "not acknowledged while one of the caches is not told"
    );
    assert_eq!(invalidator.stats().events_acknowledged, 0);
    down.set_down(None);
    wait::until("everything is acknowledged", || shop.waiting() == 0);
    assert_eq!(down.tags(), products(1, 20));
    assert_eq!(up.count("Product:p1"), 1);
}

#[test]
fn an_invalidator_killed_between_commit_and_invalidation_loses_nothing() {
    let shop = Shop::open();
    // Another process, which receives the changes, hangs in its cache, and is killed there.
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "postgres::delivery::victim",
            "--ignored",
            "--nocapture",
        ])
        .env("MCACHE_TEST_VICTIM", shop.postgres.conninfo())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = KillOnDrop(child);
    wait::until("the victim listens", || {
        shop.postgres
            .psql("SELECT count(*) FROM mcache.lease WHERE until > now()")
            == "1"
    });
    insert_each(&shop, 1, 30);
    wait::until("the victim has begun to invalidate", || {
        shop.postgres.socket_dir().join("begun").exists()
    });
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    assert_eq!(shop.waiting(), 30);

    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    wait::until("everything is acknowledged", || shop.waiting() == 0);
    assert_eq!(recorder.tags(), products(1, 30));
}

/// Not a test: the process that the test above kills.
#[test]
#[ignore = "run by an_invalidator_killed_between_commit_and_invalidation_loses_nothing"]
fn victim() {
    let Ok(conninfo) = std::env::var("MCACHE_TEST_VICTIM") else {
        return;
    };
    let runtime = runtime();
    let config: tokio_postgres::Config = conninfo.parse().unwrap();
    let tokio_postgres::config::Host::Unix(directory) = config.get_hosts()[0].clone() else {
        panic!("a server on a unix socket");
    };
    let recorder = Recorder::new();
    recorder.set_down(Some(Down::Hangs));
    let source = mcache_postgres::Outbox::new(mapping(), "test").source(config, NoTls);
    let _invalidator = {
        let _inside = runtime.enter();
        Invalidator::builder(source, |event: &ChangeEvent| Ok(tags_of(event)))
            .target(recorder.clone())
            .spawn()
    };
    wait::until("the cache is called", || recorder.calls() > 0);
    std::fs::write(directory.join("begun"), "").unwrap();
    wait::within(Duration::from_secs(600), || false);
}

#[test]
fn restarts_of_postgresql_lose_nothing() {
    let mut shop = Shop::open();
    let recorder = Recorder::new();
    let invalidator = shop.invalidator(&recorder);
    insert_each(&shop, 1, 20);
    recorder.wait_for(&["Product:p20"]);
    for (round, crash) in [false, true, true].into_iter().enumerate() {
        let first = 21 + 20 * round as u32;
        recorder.set_down(Some(Down::Refuses));
        insert_each(&shop, first, first + 9);
        if crash {
            shop.postgres.crash();
        } else {
            shop.postgres.stop();
        }
        // Acknowledgements now fail too.
        recorder.set_down(None);
        wait::until("the loss is noticed", || {
            invalidator.stats().source_failures > 0
        });
        shop.postgres.start_again();
        insert_each(&shop, first + 10, first + 19);
        wait::until("everything is acknowledged", || shop.waiting() == 0);
    }
    assert_eq!(recorder.tags(), products(1, 80));
}

#[test]
fn of_several_invalidators_one_works_and_another_takes_over() {
    let shop = Shop::open();
    let (first, second) = (Recorder::new(), Recorder::new());
    let working = shop.invalidator(&first);
    insert_each(&shop, 1, 1);
    first.wait_for(&["Product:p1"]);
    let _standing_by = shop.invalidator(&second);
    insert_each(&shop, 2, 40);
    wait::until("everything is acknowledged", || shop.waiting() == 0);
    assert_eq!(first.tags(), products(1, 40));
    assert_eq!(second.calls(), 0, "the other stands by");

    // It is not the end of its lease that the other waits for.
    shop.postgres
        .psql("UPDATE mcache.lease SET until = until + interval '1 hour'");
    drop(working);
    insert_each(&shop, 41, 60);
    second.wait_for(&["Product:p60"]);
    wait::until("everything is acknowledged", || shop.waiting() == 0);
    assert_eq!(second.tags(), products(41, 60));
}

#[test]
fn an_invalidator_that_is_stuck_is_relieved() {
    let shop = Shop::open();
    let (stuck, other) = (Recorder::new(), Recorder::new());
    stuck.set_down(Some(Down::Hangs));
    // Received and never acknowledged; and nothing more is received, so the lease is not renewed.
    let _first = shop.invalidator_with(shop.source(), &stuck, |builder| {
        builder.events_outstanding_max(1)
    });
    insert_each(&shop, 1, 1);
    wait::until("the first is stuck", || stuck.calls() > 0);
    let _second = shop.invalidator(&other);
    insert_each(&shop, 2, 10);
    wait::until("everything is acknowledged", || shop.waiting() == 0);
    assert_eq!(other.tags(), products(1, 10));
}

#[test]
fn a_large_backlog_is_invalidated_as_a_whole() {
    let shop = Shop::open();
    shop.postgres.psql(
        "DO $$ BEGIN FOR i IN 1..300 LOOP INSERT INTO sales_channel (id) VALUES (i); END LOOP; END $$",
    );
    assert_eq!(shop.waiting(), 300);
    // In flight while the backlog is looked at, committed afterwards.
    let writer = shop.runtime.block_on(connect(&shop.postgres));
    shop.runtime
        .block_on(writer.batch_execute("BEGIN; INSERT INTO product (id) VALUES ('later')"))
        .unwrap();
    let recorder = Recorder::new();
    let invalidator = shop.invalidator_with(shop.source().backlog_max(100), &recorder, |b| b);
    wait::until("the backlog is acknowledged", || shop.waiting() == 0);
    // Not only all entities: tags named in SQL may have waited, too.
    assert_eq!(recorder.tags().into_iter().collect::<Vec<_>>(), ["*"]);
    shop.runtime
        .block_on(writer.batch_execute("COMMIT"))
        .unwrap();
    recorder.wait_for(&["Product:later"]);
    assert_eq!(invalidator.stats().events, 6);
}

#[test]
fn a_second_invalidation_follows_and_only_then_is_the_change_forgotten() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let delay = Duration::from_secs(2);
    let _invalidator = shop.invalidator_with(shop.source(), &recorder, |builder| {
        builder.again_after(delay)
    });
    let before = Instant::now();
    insert_each(&shop, 1, 1);
    recorder.wait_for(&["Product:p1"]);
    let waiting = shop.waiting();
    // Others are not held up by it.
    insert_each(&shop, 2, 2);
    recorder.wait_for(&["Product:p2"]);
    let told = recorder.count("Product:p1");
    // A busy machine may take longer than the delay, which tells nothing.
    if before.elapsed() < delay {
        assert_eq!((waiting, told), (1, 1));
    }
    wait::until("everything is acknowledged", || shop.waiting() == 0);
    assert!(before.elapsed() >= delay);
    assert_eq!(
        (recorder.count("Product:p1"), recorder.count("Product:p2")),
        (2, 2)
    );
}

#[test]
fn shutting_down_finishes_what_was_received() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    recorder.set_down(Some(Down::Hangs));
    let invalidator = shop.invalidator(&recorder);
    insert_each(&shop, 1, 10);
    wait::until("received", || invalidator.stats().events == 10);
    let told = recorder.clone();
    shop.runtime.spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        told.set_down(None);
    });
    shop.runtime
        .block_on(invalidator.shutdown(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(recorder.tags(), products(1, 10));
    assert_eq!(shop.waiting(), 0);

    recorder.set_down(Some(Down::Hangs));
    let invalidator = shop.invalidator(&recorder);
    insert_each(&shop, 11, 11);
    wait::until("received", || invalidator.stats().events == 1);
    let unfinished = shop
        .runtime
        .block_on(invalidator.shutdown(Duration::from_millis(100)))
        .unwrap_err();
    assert_eq!(unfinished.batches, 1);
    assert_eq!(shop.waiting(), 1, "for the next to find");
}

/// It looks once an hour by itself.
#[test]
fn a_change_is_told_as_soon_as_it_is_committed() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let source = shop.source().poll_interval(Duration::from_secs(3_600));
    let _invalidator = shop.invalidator_with(source, &recorder, |builder| builder);
    insert_each(&shop, 1, 1);
    recorder.wait_for(&["Product:p1"]);
    let client = shop.runtime.block_on(connect(&shop.postgres));
    let mut number = 0;
    percentiles("from commit to invalidation", || {
        number += 1;
        let insert = format!("INSERT INTO sales_channel (id) VALUES ('{number}')");
        shop.runtime
            .block_on(client.batch_execute(&insert))
            .unwrap();
        let committed = Instant::now();
        recorder.wait_for(&[&format!("SalesChannel:{number}")]);
        committed.elapsed()
    });
}

/// How often is a matter of its pace, which has tests of its own.
#[test]
fn an_outbox_without_notifications_is_looked_at_again_and_again() {
    let shop = Shop::open_with(&[("fsync", "off")], |outbox| outbox.notify(false));
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    let mut number = 0;
    percentiles("from commit to a look", || {
        number += 1;
        insert_each(&shop, number, number);
        let committed = Instant::now();
        recorder.wait_for(&[&format!("Product:p{number}")]);
        committed.elapsed()
    });
}

#[test]
fn lost_notifications_delay_and_lose_nothing() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    insert_each(&shop, 1, 1);
    recorder.wait_for(&["Product:p1"]);
    // As behind a pooler that shares sessions, or when a commit took longer than the invalidator stayed awake.
    shop.postgres.psql(
        "CREATE OR REPLACE FUNCTION mcache.wake(of_relation text) RETURNS void LANGUAGE sql AS ''",
    );
    insert_each(&shop, 2, 2);
    recorder.wait_for(&["Product:p2"]);
}

#[test]
fn while_there_is_much_to_do_commits_need_not_notify() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    let heard = Arc::new(AtomicUsize::new(0));
    let listener = {
        let (config, heard) = (shop.config(), heard.clone());
        shop.runtime.block_on(async move {
            let (client, mut connection) = config.connect(NoTls).await.unwrap();
            tokio::spawn(async move {
                while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                    if matches!(message, Ok(tokio_postgres::AsyncMessage::Notification(_))) {
                        heard.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            client.batch_execute("LISTEN mcache_1").await.unwrap();
            client
        })
    };
    insert_each(&shop, 1, 1_000);
    wait::until("everything is acknowledged", || shop.waiting() == 0);
    assert_eq!(recorder.tags(), products(1, 1_000));
    let notified = heard.load(Ordering::Relaxed);
    assert!(notified < 500, "{notified} of 1,000 commits notified");
    // Alone again, the next one does.
    wait::until("the invalidator has gone to sleep", || {
        shop.postgres
            .psql("SELECT awake_until < now() FROM mcache.lease")
            == "t"
    });
    insert_each(&shop, 1_001, 1_001);
    wait::until("it is notified", || {
        heard.load(Ordering::Relaxed) > notified
    });
    recorder.wait_for(&["Product:p1001"]);
    drop(listener);
}

/// All the time there is, and none; no rows, and as many as can be said.
#[test]
fn a_source_whose_options_are_at_either_end_delivers() {
    for (duration, count) in [(Duration::MAX, u32::MAX), (Duration::ZERO, 0)] {
        let shop = Shop::open_with(&[("fsync", "off")], |outbox| {
            let outbox = outbox.rows_max(count).bytes_max(count);
            match duration {
                // A consumer that is held for no time at all is expired by the first look.
                Duration::ZERO => outbox,
                hold => outbox.hold(hold),
            }
        });
        let recorder = Recorder::new();
        let source = shop
            .source()
            .poll_interval(duration)
            .look_interval(duration)
            .backlog_max(count);
        let _invalidator = shop.invalidator_with(source, &recorder, |builder| builder);
        for round in 0..3 {
            let before = recorder.calls();
            shop.postgres.psql(&format!(
                "INSERT INTO product (id, title) VALUES ('p1', '{round}')
                 ON CONFLICT (id) DO UPDATE SET title = excluded.title"
            ));
            wait::until("a change is told", || recorder.calls() > before);
        }
        wait::until("acknowledged", || shop.waiting() == 0);
    }
}
