//! How often an outbox is looked at, and whether commits must wake the process that looks.
//!
//! Owns the decisions; the source asks it and does what it says. It must not know connections, nor what time it is.
//!
//! ```text
//!             finds often                      tells commits
//!   asleep ───────────────▶ busy ─────────────────────────────▶ awake until T: no commit notifies, a look every 10 ms
//!     ▲  woken by NOTIFY      │ finds nothing for a while              │
//!     └───────────────────────┴────────────────────────────────────────┘ at T, and a grace later sleeps again
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::position::Snapshot;

/// More rows than this in a second are "much to do": about where commits that notify begin to queue up on a slow disk.
const MUCH: usize = 50;
const SECOND: Duration = Duration::from_secs(1);

/// Between two looks while commits rely on it, and while there is much to do anyway: each look costs the server about
/// as much as a commit, for each consumer.
const ALERT_PAUSE: Duration = Duration::from_millis(10);

/// More rows than this in a second are a crowd: a look that waits longer finds more of them at once, and looks of many
/// consumers take the processor from those who write.
const CROWD: usize = 500;
const CROWDED_PAUSE: Duration = Duration::from_millis(40);

/// Between two looks where commits never notify, and where they do.
const POLLED_PAUSE: Duration = Duration::from_millis(10);
const NOTIFIED_PAUSE: Duration = Duration::from_millis(500);

/// For how long commits are told that they need not notify; renewed when half of it is over.
pub(super) const AWAKE: Duration = Duration::from_secs(2);

/// How much longer to look that often: a transaction may have seen us awake, and take that long to commit.
const GRACE: Duration = Duration::from_secs(1);

/// Between two looks while one is open that takes longer.
const LINGERING_PAUSE: Duration = Duration::from_millis(50);

/// Between two acknowledgements while there is much to do: each is an update and a deletion, for each consumer. What
/// was not acknowledged when a process dies is invalidated once more.
pub(super) const STORE_PAUSE: Duration = Duration::from_millis(200);

/// The pace of one source.
#[derive(Debug)]
pub(super) struct Pace {
    /// Whether commits notify at all.
    notified: bool,
    pub(super) idle_pause: Duration,
    /// The running second and the rows found in it.
    second: Option<(Instant, usize)>,
    /// Until when there is much to do: for a second after so much was found, so that a new second does not begin idle.
    busy_until: Option<Instant>,
    /// Until when there is a crowd.
    crowded_until: Option<Instant>,
    told_until: Option<Instant>,
    alert_until: Option<Instant>,
    /// Until when a commit may have been told so, if one that was may still be to come.
    relied_until: Option<Instant>,
    /// Which transactions were open afterwards.
    relying: Option<Snapshot>,
}

impl Pace {
    pub(super) fn new(notified: bool) -> Self {
        Self {
            notified,
            idle_pause: match notified {
                true => NOTIFIED_PAUSE,
                false => POLLED_PAUSE,
            },
            second: None,
            busy_until: None,
            crowded_until: None,
            told_until: None,
            alert_until: None,
            relied_until: None,
            relying: None,
        }
    }

    /// Whether commits notify, as the database says.
    pub(super) fn notified(&mut self, notified: bool) {
        if self.notified != notified {
            let default = |notified| match notified {
                true => NOTIFIED_PAUSE,
                false => POLLED_PAUSE,
            };
            if self.idle_pause == default(self.notified) {
                self.idle_pause = default(notified);
            }
            self.notified = notified;
        }
    }

    /// A read has found so many rows.
    pub(super) fn found(&mut self, rows: usize, now: Instant) {
        self.second = match self.second {
            Some((began, before)) if now - began < SECOND => Some((began, before + rows)),
            _ => Some((now, rows)),
        };
        if self.second.is_some_and(|(_, rows)| rows > MUCH) {
            self.busy_until = Some(now + SECOND);
        }
        if self.second.is_some_and(|(_, rows)| rows > CROWD) {
            self.crowded_until = Some(now + SECOND);
        }
    }

    fn busy_pause(&self, now: Instant) -> Duration {
        let pause = match self.crowded_until.is_some_and(|until| until > now) {
            true => CROWDED_PAUSE,
            false => ALERT_PAUSE,
        };
        pause.min(self.idle_pause)
    }

    /// Whether commits should be told now that they need not notify for the time of [`AWAKE`].
    pub(super) fn should_tell(&self, now: Instant) -> bool {
        let busy = self.is_busy(now);
        let told = self.told_until.is_some_and(|until| until > now + AWAKE / 2);
        self.notified && busy && !told
    }

    fn is_busy(&self, now: Instant) -> bool {
        self.busy_until.is_some_and(|until| until > now)
    }

    /// When to look again after a look at `last` that has found something: not at once while there is much to do, so
    /// that one look finds what many commits wrote.
    pub(super) fn again(&self, last: Instant, now: Instant) -> Instant {
        match self.is_busy(now) {
            true => last + self.busy_pause(now),
            false => last,
        }
    }

    /// Whether what is acknowledged may wait, after something was stored at `stored`, to be stored with what follows.
    pub(super) fn may_owe(&self, stored: Option<Instant>, now: Instant) -> bool {
        self.is_busy(now) && stored.is_some_and(|at| now < at + STORE_PAUSE)
    }

    /// They were told so, at `now` at the latest.
    pub(super) fn told(&mut self, now: Instant) {
        self.told_until = Some(now + AWAKE);
        self.relied_on(now);
    }

    /// The outbox becomes ours: the process that had it before, on another connection, may have told them so.
    pub(super) fn taken_over(&mut self, now: Instant) {
        self.told_until = None;
        self.relied_on(now);
    }

    fn relied_on(&mut self, now: Instant) {
        self.alert_until = Some(now + AWAKE + GRACE);
        self.relied_until = Some(now + AWAKE);
        self.relying = None;
    }

    /// A look that began at `began` took this snapshot: of those who wrote while they were told so, it says who has not
    /// committed yet.
    pub(super) fn looked(&mut self, began: Instant, snapshot: &Snapshot) {
        if self.relied_until.is_none_or(|until| until > began) {
            return;
        }
        match &self.relying {
            None => self.relying = Some(snapshot.clone()),
            Some(relying) if snapshot.outlives(relying) => {
                self.relied_until = None;
                self.relying = None;
            }
            Some(_) => {}
        }
    }

    /// How long to wait for a notification before looking without one.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        if self.alert_until.is_some_and(|until| until > now) {
            return self.busy_pause(now);
        }
        match &self.relying {
            Some(_) => LINGERING_PAUSE.min(self.idle_pause),
            None => self.idle_pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn commits_notify_until_there_is_much_to_do_and_again_afterwards() {
        let mut pace = Pace::new(true);
        let mut now = Instant::now();
        for _ in 0..1_000 {
            now += 25 * MILLISECOND;
            pace.found(1, now);
            assert!(!pace.should_tell(now), "forty a second are not much");
            assert_eq!(pace.pause(now), NOTIFIED_PAUSE);
        }
        now += SECOND;
        pace.found(MUCH, now);
        assert!(!pace.should_tell(now));
        pace.found(1, now + MILLISECOND);
        assert!(pace.should_tell(now + MILLISECOND));
        assert!(!pace.should_tell(now + 2 * SECOND), "long ago");

        pace.told(now);
        let (before, after) = (now + AWAKE / 2 - MILLISECOND, now + AWAKE / 2);
        pace.found(10 * MUCH, before);
        assert!(!pace.should_tell(before), "told already");
        pace.found(10 * MUCH, after);
        assert!(pace.should_tell(after));
        // A commit may rely on it until the very end, and commit a little later.
        assert_eq!(pace.pause(now + AWAKE + GRACE - MILLISECOND), ALERT_PAUSE);
        assert_eq!(pace.pause(now + AWAKE + GRACE), NOTIFIED_PAUSE);
    }

    #[test]
    fn a_transaction_that_was_told_not_to_notify_is_looked_for_until_it_has_ended() {
        let mut pace = Pace::new(true);
        let now = Instant::now();
        let at = |text: &str| Snapshot::parse(text).unwrap();
        pace.told(now);
        pace.looked(now + AWAKE - MILLISECOND, &at("10:20:10"));
        let over = now + AWAKE + GRACE;
        assert_eq!(pace.pause(over), NOTIFIED_PAUSE, "no look since");
        pace.looked(now + AWAKE, &at("10:20:10,15"));
        assert_eq!(pace.pause(over), LINGERING_PAUSE);
        pace.looked(over, &at("10:30:10,25"));
        assert_eq!(pace.pause(over), LINGERING_PAUSE, "10 is open");
        pace.looked(over, &at("25:30:25"));
        assert_eq!(pace.pause(over), NOTIFIED_PAUSE, "25 began afterwards");
        // Told again: what is open then counts.
        pace.told(over);
        pace.looked(over + AWAKE, &at("25:40:25"));
        assert_eq!(pace.pause(over + AWAKE + GRACE), LINGERING_PAUSE);
    }

    #[test]
    fn in_a_crowd_looks_wait_for_more() {
        let mut pace = Pace::new(true);
        let now = Instant::now();
        pace.found(CROWD, now);
        assert_eq!(pace.again(now, now), now + ALERT_PAUSE);
        pace.found(1, now + MILLISECOND);
        assert_eq!(pace.again(now, now + MILLISECOND), now + CROWDED_PAUSE);
        pace.told(now);
        assert_eq!(pace.pause(now + MILLISECOND), CROWDED_PAUSE);
        assert_eq!(
            pace.pause(now + MILLISECOND + SECOND),
            ALERT_PAUSE,
            "that is over"
        );
        pace.idle_pause = MILLISECOND;
        assert_eq!(pace.again(now, now + MILLISECOND), now + MILLISECOND);
    }

    #[test]
    fn looks_that_find_something_keep_a_distance_only_while_there_is_much_to_do() {
        let mut pace = Pace::new(true);
        let now = Instant::now();
        pace.found(MUCH, now);
        assert_eq!(pace.again(now, now), now);
        pace.found(1, now + MILLISECOND);
        assert_eq!(pace.again(now, now + MILLISECOND), now + ALERT_PAUSE);
        assert_eq!(pace.again(now, now + 2 * SECOND), now, "that is over");
        // A source with a shorter idle pause looks again after that pause.
        pace.idle_pause = MILLISECOND;
        assert_eq!(pace.again(now, now + MILLISECOND), now + MILLISECOND);
    }

    #[test]
    fn acknowledgements_wait_for_others_only_while_there_is_much_to_do() {
        let mut pace = Pace::new(true);
        let now = Instant::now();
        pace.found(MUCH, now);
        assert!(!pace.may_owe(Some(now), now), "a few are stored at once");
        pace.found(1, now);
        assert!(!pace.may_owe(None, now), "nothing was stored yet");
        assert!(pace.may_owe(Some(now), now + STORE_PAUSE - MILLISECOND));
        assert!(!pace.may_owe(Some(now), now + STORE_PAUSE));
        let later = now + 2 * SECOND;
        assert!(!pace.may_owe(Some(later), later), "that is over");
    }

    #[test]
    fn a_second_that_begins_in_a_busy_time_is_busy() {
        let mut pace = Pace::new(true);
        let began = Instant::now();
        pace.found(MUCH + 1, began);
        for tenth in 0..50 {
            let now = began + tenth * 100 * MILLISECOND;
            assert!(pace.is_busy(now), "after {tenth} tenths of a second");
            pace.found(MUCH / 5, now);
        }
        let end = began + 5 * SECOND;
        for tenth in 0..20 {
            pace.found(1, end + tenth * 100 * MILLISECOND);
        }
        assert!(!pace.is_busy(end + 2 * SECOND), "ten a second are not much");
    }

    #[test]
    fn a_source_that_takes_over_looks_often_at_first() {
        let mut pace = Pace::new(true);
        let now = Instant::now();
        pace.taken_over(now);
        assert_eq!(pace.pause(now + AWAKE), ALERT_PAUSE);
        assert_eq!(pace.pause(now + AWAKE + GRACE), pace.idle_pause);
    }

    #[test]
    fn where_commits_never_notify_there_is_nothing_to_tell() {
        let mut pace = Pace::new(false);
        let now = Instant::now();
        pace.found(10 * MUCH, now);
        assert!(!pace.should_tell(now));
        assert_eq!(pace.pause(now), POLLED_PAUSE);
    }
}
