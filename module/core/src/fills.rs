//! Which fills count: the rule that keeps a value loaded before an invalidation from being stored after it.
//!
//! ```text
//!    token given out                         SET with that token
//!   ───────┼───────────────────────────────────────┼──────────▶ epochs
//!          began                                    arrives
//!                     ▲ an invalidation of one of the tags, a flush, a promotion: refused
//! ```
//! A fill begins when its token is given out. It counts if it began in this run of the server, not before the floors,
//! and not before the last invalidation of any of its tags, whether or not an entry carries them. Entries that come
//! from another server are held to the same rule.
//!
//! Pure: time and random numbers come in as arguments.

use crate::encode::Decoded;
use crate::epoch::{Clock, Epoch, Token};
use crate::hash::Key;
use crate::index::Scope;
use crate::memory::{Last, Memory};

/// How far the clocks of two servers may be apart: epochs of different servers that are closer are taken to be in the
/// worse order, and an entry that migrates is dropped in doubt.
pub const MAX_SKEW_MS: u64 = 1_000;

/// Why a fill does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its token is of another run of the server, or from before everything was flushed, exchanged or forgotten.
    Outdated,
    /// One of its tags was invalidated since it began.
    Invalidated,
    /// One of its tags may have been: the memory of invalidations no longer tells exactly.
    InDoubt,
}

/// Keys and tags share the memory; a key and a tag of the same name do not share a place in it.
const KEYS: u64 = 0x6b65_7973_6f66_656e;

/// The epochs of a server and what it remembers of invalidations.
pub struct Fills {
    key: Key,
    clock: Clock,
    /// Tells this run's tokens from those of others.
    incarnation: u64,
    /// When this run began: of invalidations before it nothing is remembered.
    began: Epoch,
    /// Last invalidation by tag, of any kind: what decides about automatic fills.
    any: Memory,
    /// Last invalidation by tag without AUTO: what decides about MANUAL fills.
    without_auto: Memory,
    /// The last invalidation of any tag: a fill that began after it needs no look at its tags.
    last: Epoch,
    /// When a key was last cleared.
    last_key: Epoch,
    /// Fills that began before it are refused, with any tags.
    floor: Epoch,
}

impl Fills {
    /// [`Fills::with_key`] with the key that is the same everywhere: for tests.
    pub fn new(incarnation: u64, now_ms: u64, tags: usize) -> Self {
        Fills::with_key(Key::default(), incarnation, now_ms, tags)
    }

    /// Nothing has happened yet. Remembers the last `tags` invalidated tags exactly (rounded up).
    pub fn with_key(key: Key, incarnation: u64, now_ms: u64, tags: usize) -> Self {
        let clock = Clock::new(now_ms);
        Fills {
            key,
            began: clock.now(),
            clock,
            incarnation,
            any: Memory::for_tags(tags),
            without_auto: Memory::for_tags(tags),
            last: Epoch::ZERO,
            last_key: Epoch::ZERO,
            floor: Epoch::ZERO,
        }
    }

    /// The key of the hash of tag names.
    pub fn key(&self) -> Key {
        self.key
    }

    /// This run of the server.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The current epoch.
    pub fn now(&self) -> Epoch {
        self.clock.now()
    }

    /// Takes note of an epoch made elsewhere: later ones are greater.
    pub fn observe(&mut self, epoch: Epoch) {
        self.clock.observe(epoch);
    }

    /// Whether this server has been at an epoch itself.
    pub fn has_reached(&self, epoch: Epoch) -> bool {
        epoch <= self.clock.now()
    }

    /// Whether an epoch made elsewhere can be true: none lies beyond the present by more than two clocks may be apart,
    /// unless this server has been there itself. A clock that followed a lie could be led to its end.
    pub fn believes(&self, epoch: Epoch, now_ms: u64) -> bool {
        self.has_reached(epoch) || epoch.unix_ms() <= now_ms.saturating_add(MAX_SKEW_MS)
    }

    /// The token for a fill that begins now.
    pub fn token(&mut self, now_ms: u64) -> Token {
        Token {
            incarnation: self.incarnation,
            epoch: self.clock.read(now_ms),
        }
    }

    /// A token that no other fill gets: it identifies the holder of a lease.
    pub fn unique_token(&mut self, now_ms: u64) -> Token {
        let epoch = self.clock.tick(now_ms);
        // Other tokens are read off the clock: it moves on, or the next one would be the same.
        self.clock.tick(now_ms);
        Token {
            incarnation: self.incarnation,
            epoch,
        }
    }

    /// When a fill counts as begun: with its token, or now if it brings none. `entries_floor` is the index's floor.
    ///
    /// O(tags), and O(1) when nothing was invalidated since it began.
    ///
    /// # Errors
    /// Why it must not be stored.
    pub fn birth<'a>(
        &mut self,
        token: Option<Token>,
        tags: impl Iterator<Item = &'a [u8]>,
        manual: bool,
        entries_floor: Epoch,
        now_ms: u64,
    ) -> Result<Epoch, Refusal> {
        let now = self.clock.read(now_ms);
        let Some(token) = token else { return Ok(now) };
        let epoch = token.epoch;
        let other_run = token.incarnation != self.incarnation || epoch > now;
        if other_run || epoch < self.floor || epoch < entries_floor {
            return Err(Refusal::Outdated);
        }
        if epoch >= self.last {
            return Ok(epoch);
        }
        let mut refusal = Ok(epoch);
        for tag in tags {
            let Last { epoch: last, exact } = self.memory(manual).last(self.key.hash(tag));
            if last > epoch {
                refusal = Err(Refusal::InDoubt);
                if exact {
                    return Err(Refusal::Invalidated);
                }
            }
        }
        refusal
    }

    fn memory(&self, manual: bool) -> &Memory {
        match manual {
            true => &self.without_auto,
            false => &self.any,
        }
    }

    /// Remembers that tags are invalidated now, and returns the epoch of it.
    pub fn note<'a>(
        &mut self,
        tags: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
        now_ms: u64,
    ) -> Epoch {
        let epoch = self.clock.tick(now_ms);
        self.note_at(tags, scope, epoch);
        epoch
    }

    /// Remembers an invalidation decided elsewhere.
    pub fn note_at<'a>(
        &mut self,
        tags: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
        epoch: Epoch,
    ) {
        self.clock.observe(epoch);
        for tag in tags {
            self.note_hashed(self.key.hash(tag), scope, epoch);
        }
    }

    /// The same of one tag whose hash is known, at an epoch that [`Fills::tick`] gave.
    #[inline]
    pub(crate) fn note_hashed(&mut self, hash: u64, scope: Scope, epoch: Epoch) {
        self.last = self.last.max(epoch);
        self.any.note(hash, epoch);
        if scope == Scope::All {
            self.without_auto.note(hash, epoch);
        }
    }

    /// An upper bound of when a tag was last invalidated; `None` if it never was in this run.
    pub fn last_invalidation(&self, tag: &[u8]) -> Option<Epoch> {
        Some(self.any.last(self.key.hash(tag)).epoch).filter(|epoch| *epoch > Epoch::ZERO)
    }

    /// Remembers that a key is cleared now: fills of it that are under way are refused, with any tags.
    pub fn note_key(&mut self, key: &[u8], now_ms: u64) {
        let epoch = self.clock.tick(now_ms);
        self.last_key = epoch;
        let hash = self.key.hash(key) ^ KEYS;
        self.any.note(hash, epoch);
        self.without_auto.note(hash, epoch);
    }

    /// Whether a key was cleared, or may have been, since the fill of this token began. O(1).
    pub fn key_cleared_since(&self, key: &[u8], token: Token) -> bool {
        token.epoch < self.last_key
            && self.without_auto.last(self.key.hash(key) ^ KEYS).epoch > token.epoch
    }

    /// Refuses every fill that began before now: the data set was flushed or exchanged.
    pub fn refuse_all(&mut self, now_ms: u64) {
        self.floor = self.clock.tick(now_ms);
    }

    /// A new epoch, later than all before.
    pub fn tick(&mut self, now_ms: u64) -> Epoch {
        self.clock.tick(now_ms)
    }

    /// A new epoch to which the index's floor is to be raised: everything stored so far is to be dead.
    pub fn new_floor(&mut self, now_ms: u64) -> Epoch {
        self.clock.tick(now_ms)
    }

    /// Another run begins: tokens given out before are worth nothing.
    pub fn new_run(&mut self, incarnation: u64, now_ms: u64) {
        self.incarnation = incarnation;
        self.began = self.clock.tick(now_ms);
    }

    /// Whether an entry that comes in by RESTORE or slot migration was, or may have been, invalidated since it was
    /// written: by what this run remembers, and this run remembers nothing from before it began. Compared with its
    /// birth, not with when it was written: in a cluster the invalidation may have been here before it was at the
    /// sender.
    pub fn may_have_missed_an_invalidation(&self, entry: &Decoded<'_>) -> bool {
        let (birth, saved) = (entry.attributes.birth, entry.saved);
        let tags = entry.tags.iter();
        if saved.incarnation == self.incarnation {
            let memory = self.memory(entry.attributes.manual);
            return tags
                .map(|tag| memory.last(self.key.hash(tag)).epoch)
                .any(|last| last > birth);
        }
        may_be_later(self.began, saved.epoch)
            || self.may_have_been_invalidated_here(birth, entry.attributes.manual, tags)
    }

    /// The same of an entry that comes with its slot, straight from a server that goes on telling what is invalidated
    /// there: only what was invalidated here counts.
    pub fn may_have_been_invalidated_here<'a>(
        &self,
        birth: Epoch,
        manual: bool,
        tags: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        let memory = self.memory(manual);
        tags.map(|tag| memory.last(self.key.hash(tag)).epoch)
            .any(|last| last > Epoch::ZERO && may_be_later(last, birth))
    }

    /// Begins to remember more or fewer tags exactly. What was remembered goes on to refuse what it refused: nothing is
    /// accepted that would not have been. [`Fills::migrate`] does it.
    pub fn resize(&mut self, tags: usize) {
        for memory in [&mut self.any, &mut self.without_auto] {
            memory.resize(tags);
        }
    }

    /// Whether a change of size is under way.
    pub fn is_migrating(&self) -> bool {
        self.any.is_migrating() || self.without_auto.is_migrating()
    }

    /// Does a bounded piece of a change of size; true while there is more.
    pub fn migrate(&mut self) -> bool {
        let more = self.any.migrate();
        self.without_auto.migrate() || more
    }

    /// How many tags are remembered exactly.
    pub fn remembered_tags(&self) -> usize {
        self.any.tags()
    }

    /// Bytes of the memory of invalidations.
    pub fn memory_bytes(&self) -> usize {
        self.any.bytes() + self.without_auto.bytes()
    }
}

/// Whether an epoch of one server may be later than one of another.
fn may_be_later(a: Epoch, b: Epoch) -> bool {
    a.unix_ms() + MAX_SKEW_MS >= b.unix_ms()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Attributes;

    const NO_FLOOR: Epoch = Epoch(1);

    fn fills() -> Fills {
        Fills::new(7, 1_000, 1_024)
    }

    fn birth(
        fills: &mut Fills,
        token: Token,
        tags: &[&str],
        manual: bool,
    ) -> Result<Epoch, Refusal> {
        let tags = tags.iter().map(|tag| tag.as_bytes());
        fills.birth(Some(token), tags, manual, NO_FLOOR, 2_000)
    }

    #[test]
    fn no_other_fill_gets_a_holders_token() {
        let mut fills = Fills::new(7, 1_000, 64);
        let before = fills.token(1_000);
        let unique = fills.unique_token(1_000);
        let after = fills.token(1_000);
        let next = fills.unique_token(1_000);
        let tokens = [before, unique, after, next].map(|token| token.epoch);
        assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    }

    fn note(fills: &mut Fills, tag: &str, scope: Scope) -> Epoch {
        fills.note([tag.as_bytes()].into_iter(), scope, 1_500)
    }

    #[test]
    fn a_fill_that_began_before_one_of_its_tags_was_invalidated_is_refused() {
        let mut fills = fills();
        let before = fills.token(1_000);
        note(&mut fills, "t", Scope::All);
        let after = fills.token(1_500);
        assert_eq!(
            birth(&mut fills, before, &["u", "t"], false),
            Err(Refusal::Invalidated)
        );
        assert_eq!(birth(&mut fills, before, &["u"], false), Ok(before.epoch));
        assert_eq!(
            birth(&mut fills, after, &["u", "t"], false),
            Ok(after.epoch)
        );
        let now = fills.birth(None, [&b"t"[..]].into_iter(), false, NO_FLOOR, 2_000);
        assert_eq!(
            now.map(Epoch::unix_ms),
            Ok(2_000),
            "without a token it begins now"
        );
    }

    #[test]
    fn an_automatic_invalidation_refuses_automatic_fills_only() {
        let mut fills = fills();
        let before = fills.token(1_000);
        note(&mut fills, "t", Scope::Auto);
        assert_eq!(birth(&mut fills, before, &["t"], true), Ok(before.epoch));
        assert!(birth(&mut fills, before, &["t"], false).is_err());
        note(&mut fills, "t", Scope::All);
        assert!(birth(&mut fills, before, &["t"], true).is_err());
    }

    #[test]
    fn tokens_of_other_runs_from_the_future_and_from_before_a_floor_are_refused() {
        let mut fills = fills();
        let token = fills.token(1_000);
        let outdated = Err(Refusal::Outdated);
        let of_another = Token {
            incarnation: 8,
            ..token
        };
        assert_eq!(birth(&mut fills, of_another, &[], false), outdated);
        let from_the_future = Token {
            epoch: Epoch(3_000 << 16),
            ..token
        };
        assert_eq!(birth(&mut fills, from_the_future, &[], false), outdated);
        let floor = fills.new_floor(1_100);
        assert_eq!(
            fills.birth(Some(token), std::iter::empty(), false, floor, 1_100),
            outdated
        );
        assert_eq!(birth(&mut fills, token, &[], false), Ok(token.epoch));
        fills.refuse_all(1_200);
        assert_eq!(birth(&mut fills, token, &[], false), outdated);
        let token = fills.token(1_300);
        fills.new_run(9, 1_400);
        assert_eq!(birth(&mut fills, token, &[], false), outdated);
    }

    #[test]
    fn an_invalidation_decided_elsewhere_counts_as_one_of_our_own() {
        let mut fills = fills();
        let before = fills.token(1_000);
        let later = Epoch(5_000 << 16);
        fills.note_at([&b"t"[..]].into_iter(), Scope::All, later);
        assert!(birth(&mut fills, before, &["t"], false).is_err());
        assert_eq!(fills.last_invalidation(b"t"), Some(later));
        assert_eq!(fills.last_invalidation(b"u"), None);
        assert!(
            fills.unique_token(1_000).epoch > later,
            "epochs go on from there"
        );
    }

    #[test]
    fn an_epoch_from_beyond_the_skew_is_not_believed_unless_the_clock_was_there() {
        let mut fills = fills();
        let at = |ms: u64| Epoch(ms << 16);
        assert!(fills.believes(at(2_000 + MAX_SKEW_MS), 2_000));
        assert!(fills.believes(Epoch(at(2_001 + MAX_SKEW_MS).0 - 1), 2_000));
        assert!(!fills.believes(at(2_001 + MAX_SKEW_MS), 2_000));
        assert!(!fills.believes(Epoch(Epoch::END.0 - 1), 2_000));
        // The wall clock was put back by a day: what was made before is no lie.
        fills.observe(at(86_400_000));
        assert!(fills.believes(at(86_400_000), 2_000));
        assert!(!fills.believes(Epoch(at(86_400_000).0 + 1), 2_000));
    }

    fn foreign(birth_ms: u64, saved_ms: u64, incarnation: u64) -> Decoded<'static> {
        Decoded {
            attributes: Attributes {
                birth: Epoch(birth_ms << 16),
                manual: false,
                swr_ms: 0,
                softened: false,
                ends_ms: crate::entry::NEVER,
            },
            says_its_end: true,
            saved: Token {
                incarnation,
                epoch: Epoch(saved_ms << 16),
            },
            tags: [&b"t"[..]].into_iter().collect(),
        }
    }

    #[test]
    fn an_entry_of_another_server_must_be_younger_than_the_last_invalidation_by_more_than_the_skew()
    {
        let mut fills = fills();
        assert!(
            fills.may_have_missed_an_invalidation(&foreign(2_500, 1_900, 1)),
            "written before we began"
        );
        assert!(!fills.may_have_missed_an_invalidation(&foreign(500, 2_100, 1)));
        note(&mut fills, "t", Scope::All);
        assert!(fills.may_have_missed_an_invalidation(&foreign(2_500, 2_600, 1)));
        assert!(!fills.may_have_missed_an_invalidation(&foreign(2_501, 2_600, 1)));
        assert!(
            fills.may_have_missed_an_invalidation(&foreign(1_400, 1_450, 7)),
            "our own"
        );
        assert!(
            !fills.may_have_missed_an_invalidation(&foreign(1_600, 1_650, 7)),
            "our own is compared exactly"
        );
    }
}
