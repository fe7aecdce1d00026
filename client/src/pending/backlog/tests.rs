//! What a backlog sends, holds back and forgets, step by step.

use std::time::Duration;

use super::*;

const NO_BOUNDS: Bounds = Bounds {
    items: usize::MAX,
    bytes: usize::MAX,
};

/// A backlog, its progress, and callers who wait.
struct Story {
    backlog: Backlog,
    progress: Progress,
    now: Instant,
}

impl Story {
    fn new(bounds: Bounds) -> Self {
        Self {
            backlog: Backlog::new(b"ns:*", bounds),
            progress: Progress::new(),
            now: Instant::now(),
        }
    }

    fn add(&mut self, mode: Mode, tags: &[&str]) -> Ticket {
        self.add_until(mode, tags, None)
    }

    fn add_until(&mut self, mode: Mode, tags: &[&str], until: Option<Instant>) -> Ticket {
        let order = Order::Invalidate(Tags::from_iter(tags), mode);
        let (number, _) = self.backlog.add(&order, self.now, until);
        self.progress.ticket(number, &order)
    }

    fn confirm(&mut self, parcel: &Parcel) {
        for item in &parcel.items {
            self.backlog.done(item, parcel);
        }
        self.progress.reached(&self.backlog);
    }

    fn outlive(&mut self, now: Instant) {
        if let Some(through) = self.backlog.drop_outlived(now) {
            self.progress.outlive(through);
        }
        self.progress.reached(&self.backlog);
    }
}

#[test]
fn what_is_added_while_a_parcel_is_on_its_way_is_not_covered_by_it() {
    let mut story = Story::new(NO_BOUNDS);
    let first = story.add(Mode::Hard, &["a", "b"]);
    let parcel = story.backlog.parcel(10);
    let second = story.add(Mode::Hard, &["b"]);
    story.confirm(&parcel);
    assert_eq!(story.progress.verdict(&first), Some(Settled::Acknowledged));
    assert_eq!(
        story.progress.verdict(&second),
        None,
        "`b` has to be sent once more"
    );
    assert_eq!(story.backlog.len(), 1);
    let parcel = story.backlog.parcel(10);
    story.confirm(&parcel);
    assert_eq!(story.progress.verdict(&second), Some(Settled::Acknowledged));
    assert!(story.backlog.is_empty());
}

#[test]
fn the_oldest_are_sent_first_and_confirmed_parcel_by_parcel() {
    let mut story = Story::new(NO_BOUNDS);
    let tickets: Vec<Ticket> = ["a", "b", "c"]
        .iter()
        .map(|tag| story.add(Mode::Hard, &[tag]))
        .collect();
    let parcel = story.backlog.parcel(2);
    story.confirm(&parcel);
    let verdicts: Vec<_> = tickets.iter().map(|t| story.progress.verdict(t)).collect();
    let done = Some(Settled::Acknowledged);
    assert_eq!(verdicts, [done, done, None]);
}

#[test]
fn only_those_who_named_what_was_refused_are_told_so() {
    let mut story = Story::new(NO_BOUNDS);
    let allowed = story.add(Mode::Hard, &["a"]);
    let forbidden = story.add(Mode::Hard, &["a", "x"]);
    let parcel = story.backlog.parcel(10);
    let refused = Item::Tag(Mode::Hard, "x".into());
    for item in &parcel.items {
        let orders = story.backlog.done(item, &parcel).expect("it was there");
        if *item == refused {
            story.progress.refuse(item, orders, false);
        }
    }
    story.progress.reached(&story.backlog);
    assert_eq!(
        story.progress.verdict(&allowed),
        Some(Settled::Acknowledged)
    );
    assert_eq!(story.progress.verdict(&forbidden), Some(Settled::Refused));
    assert!(story.backlog.is_empty(), "sending it again would not help");
}

#[test]
fn a_full_set_becomes_the_namespace_as_hard_as_the_hardest() {
    let mut story = Story::new(Bounds {
        items: 2,
        ..NO_BOUNDS
    });
    let soon = story.now;
    story.add_until(Mode::AutoSoft, &["a"], Some(soon));
    story.add_until(Mode::Auto, &["b"], None);
    story.add_until(Mode::AutoSoft, &["c"], None);
    assert_eq!(
        story.backlog.parcel(10).items,
        [Item::Tag(Mode::Auto, "ns:*".into())]
    );
    story.outlive(soon);
    assert_eq!(
        story.backlog.len(),
        1,
        "one of the three must never be given up"
    );
}

#[test]
fn a_million_orders_for_a_dead_server_take_no_more_than_the_bound_in_bytes() {
    let bounds = Bounds {
        items: usize::MAX,
        bytes: 100_000,
    };
    let mut story = Story::new(bounds);
    let mut most = 0;
    let mut last = None;
    for number in 0..1_000_000 {
        last = Some(story.add(Mode::Hard, &[&format!("t{number}")]));
        most = most.max(story.backlog.bytes());
    }
    assert!(most <= bounds.bytes, "{most}");
    let parcel = story.backlog.parcel(10_000);
    assert!(parcel.items.len() < 1000);
    story.confirm(&parcel);
    let last = last.expect("a million were added");
    assert_eq!(story.progress.verdict(&last), Some(Settled::Acknowledged));
    assert_eq!(story.backlog.bytes(), 0);
}

#[test]
fn one_order_that_names_more_than_may_be_kept_becomes_everything() {
    let mut story = Story::new(Bounds {
        items: 10,
        ..NO_BOUNDS
    });
    let tags: Vec<String> = (0..1000).map(|number| format!("t{number}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    story.add(Mode::Hard, &tags);
    assert!(story.backlog.len() <= 11, "{}", story.backlog.len());
    let everything = Item::Tag(Mode::Hard, "ns:*".into());
    assert!(story.backlog.parcel(20).items.contains(&everything));
}

#[test]
fn what_is_outlived_is_dropped_alone() {
    let mut story = Story::new(NO_BOUNDS);
    let soon = story.now + Duration::from_secs(60);
    let early = story.add_until(Mode::Hard, &["a", "b"], Some(soon));
    story.now += Duration::from_secs(1);
    let late = story.add_until(Mode::Hard, &["b"], Some(soon + Duration::from_secs(1)));
    story.outlive(soon);
    assert_eq!(story.progress.verdict(&early), Some(Settled::Outlived));
    assert_eq!(story.progress.verdict(&late), None);
    assert_eq!(story.backlog.len(), 1, "`b` is still of concern");
    let parcel = story.backlog.parcel(10);
    story.confirm(&parcel);
    assert_eq!(story.progress.verdict(&late), Some(Settled::Acknowledged));
    assert_eq!(story.progress.verdict(&early), Some(Settled::Outlived));
}

#[test]
fn what_was_acknowledged_is_not_called_outlived_later() {
    let mut story = Story::new(NO_BOUNDS);
    let end = story.now + Duration::from_secs(60);
    let first = story.add_until(Mode::Hard, &["a"], Some(end));
    let parcel = story.backlog.parcel(10);
    story.confirm(&parcel);
    story.outlive(end);
    assert_eq!(story.progress.verdict(&first), Some(Settled::Acknowledged));
}

#[test]
fn moments_and_refusals_are_bounded_over_any_time() {
    let mut story = Story::new(NO_BOUNDS);
    let life = Duration::from_secs(24 * 3600);
    for _ in 0..10_000 {
        story.now += Duration::from_secs(30);
        let until = story.now + life;
        story.add_until(Mode::Hard, &["a"], Some(until));
        story.outlive(story.now);
        story
            .progress
            .refuse(&Item::Key(Bytes::new()), (1, 1), false);
    }
    assert!(story.backlog.moments.len() <= MOMENTS_MAX as usize + 1);
    assert!(story.progress.refused.len() <= REFUSALS_MAX);
    assert!(story.progress.outlived.len() <= STRETCHES_MAX);
}
