//! The invalidator in virtual time, with a source and targets that fail when told to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    BoxError, BoxFuture, ChangeEvent, ChangeSource, Changes, InvalidationTarget, Invalidator,
    InvalidatorStats, Operation, Undelivered, Unfinished, bus,
};
use crate::Tags;

/// A target that writes down what it is told, and refuses or hangs when told to.
#[derive(Default)]
struct Target {
    told: Mutex<Vec<String>>,
    refuses: AtomicBool,
    hangs: AtomicBool,
}

impl Target {
    async fn tell(&self, tags: &[&[u8]]) -> Result<(), BoxError> {
        if self.hangs.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        if self.refuses.load(Ordering::Relaxed) {
            return Err("refused".into());
        }
        let text = |tag: &&[u8]| String::from_utf8_lossy(tag).into_owned();
        self.told.lock().unwrap().extend(tags.iter().map(text));
        Ok(())
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

impl InvalidationTarget for Target {
    fn name(&self) -> &str {
        "target"
    }

    fn invalidate_auto<'a>(&'a self, tags: &'a [&'a [u8]]) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(self.tell(tags))
    }

    fn invalidate_auto_all(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async { self.tell(&[b"everything"]).await })
    }
}

/// A source of numbered changes that fails on every second call.
#[derive(Default)]
struct Unreliable {
    calls: usize,
    given: usize,
    of: usize,
    /// The number of the change that comes with "everything".
    everything_at: Option<usize>,
    acknowledged: Arc<AtomicUsize>,
}

impl ChangeSource for Unreliable {
    type Receipt = ();

    async fn next(&mut self) -> Result<Changes<()>, BoxError> {
        self.calls += 1;
        if self.calls.is_multiple_of(2) {
            return Err("the source is away".into());
        }
        if self.given == self.of {
            return std::future::pending().await;
        }
        self.given += 1;
        Ok(Changes {
            events: vec![event(self.given)],
            tags: Tags::new(),
            everything: self.everything_at == Some(self.given),
            age: Duration::from_secs(1),
            receipt: (),
        })
    }

    async fn acknowledge(&mut self, receipts: &mut Vec<()>) -> Result<(), BoxError> {
        self.calls += 1;
        if self.calls.is_multiple_of(2) {
            return Err("the source is away".into());
        }
        self.acknowledged
            .fetch_add(receipts.len(), Ordering::Relaxed);
        receipts.clear();
        Ok(())
    }
}

fn event(id: usize) -> ChangeEvent {
    ChangeEvent::new("Product", Operation::Updated, [id.to_string()])
}

fn ids(event: &ChangeEvent) -> Result<Vec<String>, BoxError> {
    match event.entity.as_str() {
        "Product" => Ok(event.ids.clone()),
        other => Err(format!("unknown entity {other}").into()),
    }
}

/// Lets virtual time pass until `condition` holds.
async fn until(invalidator: &Invalidator, condition: impl Fn(&InvalidatorStats) -> bool) {
    for _ in 0..100_000 {
        if condition(&invalidator.stats()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain: {:?}", invalidator.stats());
}

#[tokio::test(start_paused = true)]
async fn a_publisher_learns_when_its_change_is_invalidated() {
    let target = Arc::new(Target::default());
    let (bus, source) = bus();
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .spawn();
    target.refuses.store(true, Ordering::Relaxed);
    let delivery = bus.publish([event(1)]).await.unwrap();
    until(&invalidator, |stats| stats.targets[0].failures > 3).await;
    target.refuses.store(false, Ordering::Relaxed);
    delivery.acknowledged().await.unwrap();
    assert_eq!(target.told(), ["1"]);
    // Nothing published is nothing to wait for.
    bus.publish([]).await.unwrap().acknowledged().await.unwrap();

    target.refuses.store(true, Ordering::Relaxed);
    let delivery = bus.publish([event(2)]).await.unwrap();
    drop(invalidator);
    assert_eq!(delivery.acknowledged().await, Err(Undelivered));
    assert_eq!(bus.publish([event(3)]).await.err(), Some(Undelivered));
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_coalesced_while_a_call_is_under_way() {
    let target = Arc::new(Target::default());
    let (bus, source) = bus();
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .spawn();
    target.refuses.store(true, Ordering::Relaxed);
    for n in 0..500 {
        bus.publish([event(n % 50)]).await.unwrap().forget();
    }
    until(&invalidator, |stats| stats.events == 500).await;
    target.refuses.store(false, Ordering::Relaxed);
    until(&invalidator, |stats| stats.events_acknowledged == 500).await;
    let stats = invalidator.stats();
    assert!(stats.targets[0].calls <= 2, "{stats:?}");
    assert!(
        stats.targets[0].tags <= 100,
        "each tag once a call: {stats:?}"
    );
    assert_eq!(stats.lag, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_ends_is_given_up_and_repeated() {
    let target = Arc::new(Target::default());
    target.hangs.store(true, Ordering::Relaxed);
    let (bus, source) = bus();
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .spawn();
    let delivery = bus.publish([event(1)]).await.unwrap();
    until(&invalidator, |stats| stats.targets[0].failures == 2).await;
    target.hangs.store(false, Ordering::Relaxed);
    delivery.acknowledged().await.unwrap();
    assert!(invalidator.stats().max_latency >= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_asked_again_for_ever() {
    let target = Arc::new(Target::default());
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let source = Unreliable {
        of: 200,
        acknowledged: acknowledged.clone(),
        ..Unreliable::default()
    };
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .spawn();
    until(&invalidator, |_| {
        acknowledged.load(Ordering::Relaxed) == 200
    })
    .await;
    assert_eq!(target.told().len(), 200);
    let stats = invalidator.stats();
    assert!(stats.source_failures >= 200, "{stats:?}");
    assert!(
        stats.last_latency >= Duration::from_secs(1),
        "the age counts: {stats:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_without_meaning_is_counted_and_forgotten() {
    let target = Arc::new(Target::default());
    let (bus, source) = bus();
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .spawn();
    let unknown = ChangeEvent::everything("Nothing");
    bus.publish([unknown, event(1)])
        .await
        .unwrap()
        .acknowledged()
        .await
        .unwrap();
    assert_eq!(target.told(), ["1"]);
    assert_eq!(invalidator.stats().events_rejected, 1);
}

#[tokio::test(start_paused = true)]
async fn when_too_many_tags_wait_everything_is_invalidated() {
    let target = Arc::new(Target::default());
    target.refuses.store(true, Ordering::Relaxed);
    let (bus, source) = bus();
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .pending_tags_max(100)
        .spawn();
    bus.publish([event(0)]).await.unwrap().forget();
    until(&invalidator, |stats| stats.targets[0].failures > 0).await;
    for n in 1..=101 {
        bus.publish([event(n)]).await.unwrap().forget();
    }
    until(&invalidator, |stats| stats.events == 102).await;
    assert_eq!(invalidator.stats().targets[0].pending_tags, 0);
    target.refuses.store(false, Ordering::Relaxed);
    until(&invalidator, |stats| stats.events_acknowledged == 102).await;
    assert_eq!(target.told(), ["0", "everything"]);
    assert_eq!(invalidator.stats().targets[0].collapsed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_say_what_it_missed_has_everything_invalidated() {
    let target = Arc::new(Target::default());
    let source = Unreliable {
        of: 3,
        everything_at: Some(2),
        ..Unreliable::default()
    };
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .again_after(Duration::from_secs(30))
        .spawn();
    until(&invalidator, |stats| stats.events_acknowledged == 3).await;
    let told = target.told();
    assert_eq!(told[0], "1", "{told:?}");
    let everything = |told: &&String| *told == "everything";
    assert_eq!(
        told.iter().filter(everything).count(),
        2,
        "and again: {told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_target_nothing_is_acknowledged() {
    let (bus, source) = bus();
    let invalidator = Invalidator::builder(source, ids).spawn();
    let delivery = bus.publish([event(1)]).await.unwrap();
    until(&invalidator, |stats| stats.events == 1).await;
    let waited = tokio::time::timeout(Duration::from_secs(3600), delivery.acknowledged()).await;
    assert!(waited.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_source_is_left_alone_while_too_much_is_unacknowledged() {
    let target = Arc::new(Target::default());
    target.refuses.store(true, Ordering::Relaxed);
    let source = Unreliable {
        of: 100,
        ..Unreliable::default()
    };
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .events_outstanding_max(10)
        .spawn();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(invalidator.stats().events, 10);
    assert!(invalidator.stats().lag >= Duration::from_secs(50));
    target.refuses.store(false, Ordering::Relaxed);
    until(&invalidator, |stats| stats.events_acknowledged == 100).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_round_follows_the_first_and_ends_the_batch() {
    let target = Arc::new(Target::default());
    let (bus, source) = bus();
    let _invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .again_after(Duration::from_secs(30))
        .spawn();
    let begun = tokio::time::Instant::now();
    let delivery = bus.publish([event(1)]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(target.told(), ["1"]);
    delivery.acknowledged().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(30));
    assert_eq!(target.told(), ["1", "1"]);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_waits_as_long_as_it_may() {
    let target = Arc::new(Target::default());
    let (bus, source) = bus();
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .spawn();
    target.refuses.store(true, Ordering::Relaxed);
    bus.publish([event(1)]).await.unwrap().forget();
    until(&invalidator, |stats| stats.events == 1).await;
    let unfinished = invalidator.shutdown(Duration::from_secs(5)).await;
    assert_eq!(unfinished, Err(Unfinished { batches: 1 }));

    let (bus, source) = super::bus();
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .spawn();
    bus.publish([event(2)]).await.unwrap().forget();
    until(&invalidator, |stats| stats.targets[0].failures > 0).await;
    let later = target.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        later.refuses.store(false, Ordering::Relaxed);
    });
    invalidator.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(target.told(), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn no_duration_or_count_given_to_an_invalidator_panics_or_stops_it() {
    for end in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        for count in [0, 1, usize::MAX] {
            let target = Arc::new(Target::default());
            let (bus, source) = bus();
            let mut builder = Invalidator::builder(source, ids)
                .target(target.clone())
                .pending_tags_max(count)
                .events_outstanding_max(count);
            if end < Duration::MAX {
                // Acknowledged after the second round: never, if that is at the end of time.
                builder = builder.again_after(end);
            }
            let invalidator = builder.spawn();
            let delivery = bus.publish([event(1)]).await.unwrap();
            delivery.acknowledged().await.unwrap();
            assert!(!target.told().is_empty(), "{end:?} {count}");
            drop(bus);
            invalidator.shutdown(Duration::MAX).await.unwrap();
        }
    }
    let (bus, source) = bus();
    let target = Arc::new(Target::default());
    let invalidator = Invalidator::builder(source, ids)
        .target(target.clone())
        .again_after(Duration::MAX)
        .spawn();
    bus.publish([event(1)]).await.unwrap().forget();
    until(&invalidator, |_| !target.told().is_empty()).await;
    let left = invalidator.shutdown(Duration::ZERO).await;
    assert_eq!(left, Err(Unfinished { batches: 1 }));
}
