//! What becomes an event.

use super::event::{ALL_DATABASES, Event, Kind};
use super::slots::SlotSet;
use super::{Feed, marks};
use crate::index::Scope;

/// An invalidation of more tags is told as a flush.
pub const MAX_TAGS: usize = 1_024;
/// So is one that would take more than this part of the log.
const LARGEST_PART: usize = 8;

impl<W> Feed<W> {
    /// An INVALIDATE, whether or not an entry carries one of the tags.
    pub fn invalidated<'a>(
        &mut self,
        db: u32,
        tags: impl Iterator<Item = &'a [u8]> + Clone,
        scope: Scope,
        soft: bool,
    ) {
        if !self.is_running() {
            return;
        }
        let (mut count, mut bytes) = (0, 0);
        for tag in tags.clone() {
            count += 1;
            bytes += tag.len() + 12;
            if count > MAX_TAGS || bytes > self.settings.bytes / LARGEST_PART {
                return self.flushed(Some(db));
            }
        }
        let kind = match (soft, scope) {
            (true, _) => Kind::Soft,
            (false, Scope::Auto) => Kind::Auto,
            (false, Scope::All) => Kind::Hard,
        };
        self.append(Event::tags(db, kind, tags, &self.identity.hash_key));
    }

    /// Something was stored under a key, or it was renamed, moved, shortened or deleted, by any command. `asked` when a
    /// client asked for the key to be cleared: then it is told whether or not a near cache was given it.
    pub fn key_changed(&mut self, key: &[u8], asked: bool) {
        if !self.is_running() {
            return;
        }
        self.tell_who_left();
        let cell = marks::cell(self.identity.hash_key.digest(key));
        let marked = self.marks.as_mut().is_some_and(|marks| marks.clear(cell));
        if marked || asked {
            self.append(Event::other(ALL_DATABASES, Kind::Key, [cell].into()));
        }
    }

    /// An entry leaves its key, and it is not known yet why: it is told unless [`Feed::key_left_by_itself`] or
    /// [`Feed::key_expired`] follows before anything else happens. It would have ended at `ends_ms`.
    pub fn key_left(&mut self, key: &[u8], ends_ms: u64) {
        if !self.is_running() {
            return;
        }
        self.tell_who_left();
        let digest = self.identity.hash_key.digest(key);
        let cell = marks::cell(digest);
        if self.marks.as_mut().is_some_and(|marks| marks.clear(cell)) {
            self.left = Some((digest, ends_ms));
        }
    }

    /// Redis says that the entry that left this key just now expired. Valkey 9 says so as well of a key that EXPIRE
    /// gave a moment in the past; what near caches hold of it would live on, so an entry that had not come to its own
    /// end is told.
    pub fn key_expired(&mut self, key: &[u8], now_ms: u64) {
        if self.left.is_some_and(|(_, ends_ms)| now_ms >= ends_ms) {
            self.key_left_by_itself(key);
        }
    }

    /// The entry that left this key just now expired, was evicted or reclaimed: near caches need not hear of that. The
    /// key stays marked, since they may go on holding what it had.
    pub fn key_left_by_itself(&mut self, key: &[u8]) {
        let Some((digest, _)) = self.left else {
            return;
        };
        if digest == self.identity.hash_key.digest(key) {
            self.left = None;
            if let Some(marks) = &mut self.marks {
                marks.set(marks::cell(digest));
            }
        }
    }

    /// Tells of the entry that left last. To be called before the log is looked at.
    pub(super) fn tell_who_left(&mut self) {
        if let Some((digest, _)) = self.left.take() {
            let cell = marks::cell(digest);
            self.append(Event::other(ALL_DATABASES, Kind::Key, [cell].into()));
        }
    }

    /// Everything of a database, or of all, went away or was exchanged.
    pub fn flushed(&mut self, db: Option<u32>) {
        if self.is_running() {
            let db = db.unwrap_or(ALL_DATABASES);
            self.append(Event::other(db, Kind::Flush, Box::default()));
        }
    }

    /// Everything on the server is dead.
    pub fn floor_raised(&mut self) {
        if self.is_running() {
            self.append(Event::other(ALL_DATABASES, Kind::Floor, Box::default()));
        }
    }

    /// Everything in these slots went away without a word for each key.
    pub fn slots_flushed(&mut self, slots: &SlotSet) {
        if self.is_running() && !slots.is_empty() {
            let event = match slots.ranges() {
                Some(ranges) => Event::other(ALL_DATABASES, Kind::Slots, ranges),
                None => Event::other(ALL_DATABASES, Kind::Flush, Box::default()),
            };
            self.append(event);
        }
    }

    /// The slots that this server owns, to be said before each answer in a cluster. What it lost is told; for what it
    /// gained another server may have granted leases.
    pub fn slots(&mut self, owned: &SlotSet, now_us: u64) {
        if !self.settings.on {
            return;
        }
        let Some(before) = self.slots.replace(owned.clone()) else {
            return;
        };
        if before == *owned {
            return;
        }
        self.slots_flushed(&before.without(owned));
        if !owned.without(&before).is_empty() {
            self.grants.succeed(now_us);
        }
    }

    fn append(&mut self, event: Event) {
        self.tell_who_left();
        if let Some(log) = &mut self.log {
            log.append(event);
            self.end = log.end();
            self.stats.events += 1;
            self.round.disturb();
        }
    }
}
