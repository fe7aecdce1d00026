//! What an entry is good for at the moment: the one place that compares it with the clock.

use super::Server;
use crate::entry::{Attributes, Entry, NEVER};
use crate::epoch::Epoch;
use crate::index::{Verdict, Why};

/// What an entry is good for at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// To be served.
    Live,
    /// Past its ttl or softly invalidated, and before its end.
    Stale,
    /// Never to be served again.
    Dead,
}

/// Why an entry is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dead {
    /// By a floor or by a tag.
    Invalidated(Why),
    /// Its own end has come, and Redis has not removed its key yet.
    Over,
    /// A replica read it from its own file, and has not reached its primary since.
    Unconfirmed,
    /// No index holds it: what was read could not be believed.
    Unlinked,
    /// It is a husk, nothing but a key: it was dead when it came there, by RESTORE, COPY, RENAME or from a file.
    Husk,
}

impl Condition {
    /// The word for it in replies.
    pub fn word(self) -> &'static str {
        match self {
            Condition::Live => "live",
            Condition::Stale => "stale",
            Condition::Dead => "dead",
        }
    }
}

impl<W> Server<W> {
    /// Looks at what the index says and, only for entries with an SWR window, at the clock: others are live until Redis
    /// removes their key, which is not later than their end ([`corrected_deadline`]). An entry that no index holds is
    /// dead: no invalidation would reach it. So is one that a replica read from its own file, as long as its primary
    /// has not confirmed it.
    #[inline]
    pub fn condition(&self, entry: &mut Entry, now_ms: impl FnOnce() -> u64) -> Condition {
        if self.unconfirmed || !entry.is_linked() {
            return Condition::Dead;
        }
        match self.index.verdict(entry) {
            Verdict::Live if !entry.has_swr() => Condition::Live,
            Verdict::Dead => Condition::Dead,
            verdict => aged(entry.attributes(), verdict, now_ms()),
        }
    }

    /// Why an entry is not served; `None` if it is, live or stale.
    pub fn why_dead(&self, entry: &mut Entry, now_ms: u64) -> Option<Dead> {
        if self.condition(entry, || now_ms) != Condition::Dead {
            return None;
        }
        Some(match self.index.why_dead(entry) {
            _ if self.unconfirmed => Dead::Unconfirmed,
            _ if !entry.is_linked() => Dead::Unlinked,
            _ if entry.birth() == Epoch::ZERO => Dead::Husk,
            Some(why) => Dead::Invalidated(why),
            None => Dead::Over,
        })
    }

    /// What is left of an entry, by its tags and its birth; `None` if it is dead. A softly invalidated one counts as
    /// what it is about to become.
    pub(super) fn worth(&self, entry: &Entry) -> Option<Attributes> {
        match self.index.judge(entry) {
            Verdict::Live => Some(entry.attributes()),
            Verdict::Soft(since) => Some(Attributes {
                softened: true,
                ends_ms: softened_end_ms(entry, since),
                ..entry.attributes()
            }),
            Verdict::Dead => None,
        }
    }
}

fn aged(mut attributes: Attributes, verdict: Verdict, now_ms: u64) -> Condition {
    if let Verdict::Soft(since) = verdict {
        attributes.softened = true;
        attributes.ends_ms = softened_end(attributes, since);
    }
    if now_ms < attributes.fresh_until_ms() {
        Condition::Live
    } else if now_ms < attributes.ends_ms {
        Condition::Stale
    } else {
        Condition::Dead
    }
}

/// When an entry ends that was softly invalidated at `since`: one SWR window after that, and never later than it would
/// have. It is the same on every server and at any time: no clock is read.
pub fn softened_end_ms(entry: &Entry, since: Epoch) -> u64 {
    softened_end(entry.attributes(), since)
}

fn softened_end(attributes: Attributes, since: Epoch) -> u64 {
    let window_ms = u64::from(attributes.swr_ms);
    (attributes.ends_ms).min(since.unix_ms().saturating_add(window_ms))
}

/// How long an entry stays fresh: 0 once it is stale, `None` if it never ends.
pub fn fresh_ms(entry: &Entry, now_ms: u64) -> Option<u64> {
    let until_ms = entry.attributes().fresh_until_ms();
    (until_ms < NEVER).then(|| until_ms.saturating_sub(now_ms))
}

/// The deadline that the key is to have instead of the one it has (`None`: it has none), so that it does not outlive
/// its entry: after SET, and after EXPIRE, PERSIST, RESTORE and other commands that move the deadline of a key.
pub fn corrected_deadline(entry: &Entry, deadline_ms: Option<u64>) -> Option<u64> {
    corrected(entry.ends_ms(), deadline_ms)
}

fn corrected(ends_ms: u64, deadline_ms: Option<u64>) -> Option<u64> {
    (ends_ms < NEVER && deadline_ms.is_none_or(|at_ms| at_ms > ends_ms)).then_some(ends_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fills::Fills;
    use crate::index::Scope;
    use crate::server::{Awaited, Store, Stored};

    const ATTRIBUTES: Attributes = Attributes {
        birth: Epoch(1 << 16),
        manual: false,
        swr_ms: 100,
        softened: false,
        ends_ms: 1_000,
    };

    fn soft(since_ms: u64) -> Verdict {
        Verdict::Soft(Epoch(since_ms << 16))
    }

    #[test]
    fn fresh_then_stale_then_over_by_its_own_end() {
        use Condition::{Dead, Live, Stale};
        let at = |now_ms| aged(ATTRIBUTES, Verdict::Live, now_ms);
        assert_eq!(
            [at(0), at(899), at(900), at(999)],
            [Live, Live, Stale, Stale]
        );
        assert_eq!([at(1_000), at(u64::MAX)], [Dead, Dead]);
        let softened = Attributes {
            softened: true,
            ..ATTRIBUTES
        };
        let at = |now_ms| aged(softened, Verdict::Live, now_ms);
        assert_eq!([at(0), at(999), at(1_000)], [Stale, Stale, Dead]);
    }

    #[test]
    fn softly_invalidated_it_is_stale_for_one_window_and_not_beyond_its_end() {
        use Condition::{Dead, Stale};
        let at = |now_ms| aged(ATTRIBUTES, soft(300), now_ms);
        assert_eq!([at(300), at(399), at(400)], [Stale, Stale, Dead]);
        let late = |now_ms| aged(ATTRIBUTES, soft(950), now_ms);
        assert_eq!([late(999), late(1_000)], [Stale, Dead]);
    }

    #[test]
    fn an_epoch_ahead_of_the_wall_clock_does_not_lengthen_the_window() {
        let endless = Attributes {
            ends_ms: NEVER,
            ..ATTRIBUTES
        };
        let since = Epoch(3_600_000 << 16).not_after(5_000);
        assert_eq!(softened_end(endless, since), 5_100);
        assert_eq!(aged(endless, Verdict::Soft(since), 5_000), Condition::Stale);
    }

    #[test]
    fn a_key_never_outlives_its_entry_and_may_go_before() {
        for (deadline_ms, expected) in [
            (None, Some(1_000)),
            (Some(1_001), Some(1_000)),
            (Some(1_000), None),
            (Some(5), None),
        ] {
            assert_eq!(corrected(1_000, deadline_ms), expected);
        }
        for deadline_ms in [None, Some(5), Some(u64::MAX)] {
            assert_eq!(corrected(NEVER, deadline_ms), None);
        }
    }

    #[test]
    fn a_dead_entry_has_a_reason_and_one_that_is_served_has_none() {
        let mut server: Server<u32> = Server::new(Fills::new(7, 1, 64), Awaited::kept());
        fn put(server: &mut Server<u32>, key: &[u8]) -> Entry {
            let stored = server.store(Store {
                db: 0,
                key,
                value: b"",
                tags: std::iter::once(key),
                attributes: ATTRIBUTES,
                present: None,
            });
            let Stored::New(entry) = stored else {
                panic!("there was none");
            };
            entry
        }
        let (mut one, mut other) = (put(&mut server, b"one"), put(&mut server, b"other"));
        let mut husk = Entry::new(b"husk", b"", Attributes::HUSK, &[]);
        server.index.adopt(0, husk, std::iter::empty(), false);
        assert_eq!(server.why_dead(&mut husk, 0), Some(Dead::Husk));
        server.left(0, husk);
        for now_ms in [0, 950] {
            assert_eq!(server.why_dead(&mut one, now_ms), None, "{now_ms}");
        }
        assert_eq!(server.why_dead(&mut one, 1_000), Some(Dead::Over));
        let _ = server.invalidate(0, std::iter::once(&b"one"[..]), Scope::All, false, 0, 10);
        let why = server.why_dead(&mut one, 20);
        let by_its_tag = |why| matches!(why, Some(Dead::Invalidated(Why::Tag(_))));
        assert!(by_its_tag(why), "{why:?}");
        server.unconfirmed = true;
        assert_eq!(server.why_dead(&mut other, 20), Some(Dead::Unconfirmed));
        server.linked();
        assert_eq!(server.why_dead(&mut other, 20), None);
        server.left(0, other);
        assert_eq!(server.why_dead(&mut other, 20), Some(Dead::Unlinked));
        server.left(0, one);
        Entry::free_all([one, other, husk]);
    }
}
