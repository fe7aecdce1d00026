//! One near cache, told by hand what a server would tell it.

use std::sync::atomic::AtomicBool;

use mcache_core::feed::{ALL_DATABASES, HashKey, Kind, Told};

use super::*;
use crate::server::RedisOptions;

const LONG_MS: u64 = 60_000;
const CELL_BITS: u32 = 20;

fn hash_key() -> HashKey {
    HashKey::new([7; 16])
}

fn digest(name: &str) -> u64 {
    hash_key().digest(name.as_bytes())
}

fn gap() -> Option<(HashKey, u32)> {
    Some((hash_key(), CELL_BITS))
}

/// A near cache that follows one primary, which exists in name only.
struct Stage {
    near: Arc<Near>,
    origin: Arc<Origin>,
}

impl Stage {
    fn of_bytes(bytes: u64) -> Self {
        let redis = RedisProvider::new("redis://127.0.0.1:1", RedisOptions::default());
        let options = NearOptions::new().bytes(bytes);
        let near = Near::new(
            redis.expect("an address"),
            Bytes::from_static(b"t:"),
            &options,
        );
        let origin = near.add_origin(&Node::named("a"));
        Self { near, origin }
    }

    /// Subscribed, with a lease that does not end.
    fn new() -> Self {
        let stage = Self::of_bytes(64 << 20);
        stage.answered(LONG_MS, Vec::new(), gap());
        stage
    }

    fn answer(lease_ms: u64, events: Vec<Told>, gap: Option<(HashKey, u32)>) -> Answer {
        Answer {
            position: (*b"position").into(),
            lease_ms,
            more: false,
            events,
            gap,
        }
    }

    fn answered(&self, lease_ms: u64, events: Vec<Told>, gap: Option<(HashKey, u32)>) {
        let sent = self.near.call(&self.origin).expect("followed");
        let answer = Self::answer(lease_ms, events, gap);
        self.near.answered(&self.origin, &sent, answer);
    }

    fn told(&self, number: u64, kind: Kind, items: Vec<u64>) {
        self.answered(LONG_MS, vec![told(number, kind, items)], None);
    }

    fn ask(&self) -> Asking {
        self.near.ask(&self.origin.node).expect("followed")
    }

    fn put_asked(&self, asking: &Asking, key: &str, value: &str, near: NearData) {
        let bytes = Bytes::copy_from_slice(value.as_bytes());
        self.near
            .put(asking, key.as_bytes(), &bytes, near, Duration::ZERO);
    }

    fn put(&self, key: &str, value: &str, number: u64, tags: &[&str]) {
        self.put_asked(&self.ask(), key, value, data(number, tags));
    }

    fn get(&self, key: &str) -> Option<String> {
        let held = self.near.get(key.as_bytes())?;
        Some(String::from_utf8(held.bytes().to_vec()).expect("text"))
    }

    /// The index names what the store holds, and nothing else.
    fn assert_sound(&self) {
        let state = self.near.lock();
        assert_eq!(state.index.len(), self.near.store.len());
    }
}

fn data(number: u64, tags: &[&str]) -> NearData {
    NearData {
        data: Data {
            number,
            manual: false,
            digests: tags.iter().map(|tag| digest(tag)).collect(),
        },
        life_ms: None,
    }
}

fn told(number: u64, kind: Kind, items: Vec<u64>) -> Told {
    Told {
        number,
        db: ALL_DATABASES,
        kind,
        items,
    }
}

fn tags(names: &[&str]) -> Own {
    Own::Tags(names.iter().map(|name| name.as_bytes().into()).collect())
}

/// Until this clock has gone on by so much.
fn pass_ms(ms: u64) {
    let until_ms = clock::now_ms() + ms;
    while clock::now_ms() <= until_ms {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nothing_is_served_out_of_its_lease() {
    let stage = Stage::of_bytes(1 << 20);
    stage.answered(0, Vec::new(), gap());
    stage.put("k", "v", 1, &["t"]);
    assert_eq!(stage.get("k"), None);
    stage.answered(LONG_MS, Vec::new(), None);
    assert_eq!(stage.get("k").as_deref(), Some("v"), "its values are kept");
}

#[test]
fn a_lease_counts_from_before_the_call_was_sent() {
    let stage = Stage::of_bytes(1 << 20);
    stage.answered(0, Vec::new(), gap());
    stage.put("k", "v", 1, &["t"]);
    let sent = stage.near.call(&stage.origin).expect("followed");
    pass_ms(20);
    stage
        .near
        .answered(&stage.origin, &sent, Stage::answer(20, Vec::new(), None));
    assert_eq!(stage.get("k"), None);
    assert!(!stage.near.stats("").is_serving());
}

#[test]
fn an_entry_serves_no_longer_than_it_lives_from_when_it_was_asked_for() {
    let stage = Stage::new();
    let asking = stage.ask();
    pass_ms(20);
    let near = NearData {
        life_ms: Some(20),
        ..data(1, &["t"])
    };
    stage.put_asked(&asking, "k", "v", near);
    assert_eq!(stage.get("k"), None);
    stage.put("l", "w", 1, &["t"]);
    assert_eq!(stage.get("l").as_deref(), Some("w"));
}

#[test]
fn each_kind_of_event_makes_what_it_concerns_go() {
    let cell = digest("k") & ((1 << CELL_BITS) - 1);
    let slot = slot_of(b"k") as u64;
    for (kind, items) in [
        (Kind::Hard, vec![digest("t")]),
        (Kind::Auto, vec![digest("t")]),
        (Kind::Soft, vec![digest("u")]),
        (Kind::Key, vec![cell]),
        (Kind::Slots, vec![slot << 32 | slot]),
        (Kind::Flush, vec![]),
        (Kind::Floor, vec![]),
    ] {
        let stage = Stage::new();
        stage.put("k", "v", 1, &["t", "u"]);
        assert_eq!(stage.get("k").as_deref(), Some("v"), "{kind:?}");
        stage.told(2, kind, items);
        assert_eq!(stage.get("k"), None, "{kind:?}");
        assert_eq!(stage.near.stats("").entries, 0, "{kind:?}");
        stage.assert_sound();
    }
}

#[test]
fn a_gap_makes_everything_go() {
    let stage = Stage::new();
    stage.put("k", "v", 1, &["t"]);
    stage.answered(LONG_MS, Vec::new(), gap());
    assert_eq!(stage.get("k"), None);
    assert_eq!(stage.near.stats("").drops.gaps, 1);
    stage.assert_sound();
}

#[test]
fn a_value_that_an_event_concerns_is_not_put_away() {
    let stage = Stage::new();
    let asking = stage.ask();
    stage.told(2, Kind::Hard, vec![digest("t")]);
    stage.put_asked(&asking, "k", "v", data(1, &["t"]));
    assert_eq!(stage.get("k"), None);
    stage.put_asked(&asking, "k", "w", data(2, &["t"]));
    assert_eq!(stage.get("k").as_deref(), Some("w"), "read after the event");
    let asking = stage.ask();
    stage.answered(LONG_MS, Vec::new(), gap());
    stage.put_asked(&asking, "k", "x", data(9, &["t"]));
    assert_eq!(stage.get("k"), None, "asked for before the gap");
    let stats = stage.near.stats("");
    assert_eq!((stats.kept, stats.not_kept), (1, 2));
}

/// One thread puts away what another one's event concerns. In both orders it is not there afterwards.
#[test]
fn the_check_and_the_putting_away_are_one_step() {
    let stage = Stage::new();
    for number in 1..2_000 {
        let asking = stage.ask();
        std::thread::scope(|scope| {
            scope.spawn(|| stage.told(number + 1, Kind::Hard, vec![digest("t")]));
            stage.put_asked(&asking, "k", "v", data(number, &["t"]));
        });
        assert_eq!(stage.get("k"), None, "at event {number}");
    }
    stage.assert_sound();
}

/// The lease has ended; with the answer that renews it comes what concerns the entry.
#[test]
fn events_are_applied_before_the_lease_that_comes_with_them_counts() {
    for number in 1..200 {
        let stage = Stage::of_bytes(1 << 20);
        stage.answered(0, Vec::new(), gap());
        stage.put("k", "v", number, &["t"]);
        let (over, served) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Acquire) {
                    served.fetch_or(stage.get("k").is_some(), Relaxed);
                }
            });
            stage.told(number + 1, Kind::Hard, vec![digest("t")]);
            over.store(true, Release);
        });
        assert!(!served.into_inner(), "in turn {number}");
    }
}

#[test]
fn a_read_that_took_long_does_not_take_the_place_of_a_later_one() {
    let stage = Stage::new();
    let asking = stage.ask();
    stage.put("k", "new", 5, &["t"]);
    stage.put_asked(&asking, "k", "old", data(4, &["t"]));
    assert_eq!(stage.get("k").as_deref(), Some("new"));
    stage.put("k", "newer", 6, &["u"]);
    assert_eq!(stage.get("k").as_deref(), Some("newer"));
    stage.assert_sound();
    stage.told(7, Kind::Hard, vec![digest("t")]);
    assert_eq!(
        stage.get("k").as_deref(),
        Some("newer"),
        "not its tag any more"
    );
}

#[test]
fn an_own_change_takes_effect_before_it_is_sent_and_until_it_is_acknowledged() {
    let stage = Stage::new();
    stage.put("k", "v", 1, &["t"]);
    stage.put("l", "w", 1, &["u"]);
    let before = stage.ask();
    let own = stage.near.begin(tags(&["t"]));
    assert_eq!(stage.get("k"), None, "before it is sent");
    assert_eq!(stage.get("l").as_deref(), Some("w"));
    let under_way = stage.ask();
    stage.put_asked(&under_way, "k", "v", data(9, &["t"]));
    assert_eq!(stage.get("k"), None, "not acknowledged");
    drop(own);
    for asking in [before, under_way] {
        stage.put_asked(&asking, "k", "v", data(9, &["t"]));
        assert_eq!(stage.get("k"), None, "asked for before it was acknowledged");
    }
    stage.put("k", "new", 9, &["t"]);
    assert_eq!(stage.get("k").as_deref(), Some("new"));
    let own = stage.near.begin(Own::Keys(vec![(*b"k").into()]));
    assert_eq!(stage.get("k"), None);
    drop(own);
    let _own = stage.near.begin(Own::Everything);
    assert_eq!(stage.get("l"), None);
    assert_eq!(stage.near.stats("").drops.own, 3);
}

#[test]
fn an_own_change_concerns_a_primary_that_is_met_while_it_is_under_way() {
    let stage = Stage::new();
    let own = stage.near.begin(tags(&["t"]));
    let another = Stage {
        near: stage.near.clone(),
        origin: stage.near.add_origin(&Node::named("b")),
    };
    another.answered(LONG_MS, Vec::new(), gap());
    another.put("k", "v", 9, &["t"]);
    assert_eq!(another.get("k"), None);
    drop(own);
    another.put("k", "v", 9, &["t"]);
    assert_eq!(another.get("k").as_deref(), Some("v"));
}

#[test]
fn a_primary_that_is_left_takes_what_came_from_it_along() {
    let stage = Stage::new();
    let another = Stage {
        near: stage.near.clone(),
        origin: stage.near.add_origin(&Node::named("b")),
    };
    another.answered(LONG_MS, Vec::new(), gap());
    stage.put("k", "v", 1, &["t"]);
    another.put("l", "w", 1, &["t"]);
    stage.near.drop_origin(&stage.origin);
    assert_eq!(stage.get("k"), None);
    assert_eq!(stage.get("l").as_deref(), Some("w"), "from the other one");
    assert!(stage.near.ask(&stage.origin.node).is_none());
    stage.assert_sound();
    // Left, but for its answers: what came from it is not served under any lease.
    another.near.forget(&another.origin);
    assert_eq!(stage.get("l"), None);
}

#[test]
fn what_is_stored_elsewhere_under_the_key_is_forgotten() {
    let stage = Stage::new();
    stage.put("k", "v", 1, &["t"]);
    stage.near.forget_key(b"k");
    assert_eq!(stage.get("k"), None);
    assert_eq!(stage.near.stats("").drops.replaced, 1);
    stage.assert_sound();
}

#[test]
fn it_holds_no_more_than_its_bytes_and_what_makes_way_leaves_the_index() {
    let stage = Stage::of_bytes(1 << 20);
    stage.answered(LONG_MS, Vec::new(), gap());
    let value = "v".repeat(1_000);
    for number in 0..3_000 {
        stage.put(
            &format!("k{number}"),
            &value,
            1,
            &["t", &format!("u{number}")],
        );
    }
    let stats = stage.near.stats("");
    assert!(stats.bytes <= 1 << 20, "{stats:?}");
    // Key, value twice, memberships: an entry is no cheaper.
    assert!(stats.entries * 2_000 <= 1 << 20, "{stats:?}");
    assert!(stats.entries > 100, "{stats:?}");
    assert_eq!(stats.drops.evicted + stats.entries, 3_000);
    stage.assert_sound();
    stage.told(2, Kind::Hard, vec![digest("t")]);
    let stats = stage.near.stats("");
    assert_eq!((stats.entries, stats.bytes), (0, 0));
    stage.assert_sound();
}

#[test]
fn a_decoded_value_is_shared_by_those_who_ask_for_its_type() {
    let stage = Stage::new();
    stage.put("k", "7", 1, &["t"]);
    let held = stage.near.get(b"k").expect("near");
    let number = |bytes: &Bytes| std::str::from_utf8(bytes).ok()?.parse::<u32>().ok();
    let text = |bytes: &Bytes| Some(format!("a text of {}", bytes.len()));
    let first: Arc<u32> = held.shared(number).expect("a number");
    assert_eq!(*first, 7);
    let other: Arc<String> = held.shared(text).expect("a text");
    assert_eq!(*other, "a text of 1");
    let second: Arc<u32> = held.shared(|_| None).expect("decoded already");
    assert!(Arc::ptr_eq(&first, &second));
    stage.put("k", "8", 2, &["t"]);
    let held = stage.near.get(b"k").expect("near");
    assert_eq!(*held.shared(number).expect("a number"), 8, "another value");
}

#[test]
fn reads_are_counted_and_refusals_are_news_once() {
    let stage = Stage::new();
    stage.put("k", "v", 1, &["t"]);
    assert!(stage.get("k").is_some() && stage.get("k").is_some() && stage.get("l").is_none());
    assert_eq!(stage.near.stats("").hits, 2);
    assert!(stage.near.refused(&stage.origin, Some("NONEAR why")));
    assert!(!stage.near.refused(&stage.origin, Some("NONEAR why")));
    let refusal = |stage: &Stage| stage.near.stats("").primaries.remove(0).refusal;
    assert_eq!(refusal(&stage).as_deref(), Some("NONEAR why"));
    stage.answered(LONG_MS, Vec::new(), None);
    assert_eq!(refusal(&stage), None);
}
