//! What a listing of tags under way must not miss.
//!
//! [`Index::scan_tags`](super::Index::scan_tags) goes through the records in the order of their ids, and a tag has up
//! to four: of both classes a live one, and one that is soft. It is listed with the lowest of them. A tag that is there
//! all the time may get a lower one than it had, behind the listing: so the last few of these are remembered, and a
//! cursor tells after how many of them it was given. One that was given before too many of them begins again, as after
//! all records moved (`compact.rs`).

use std::collections::VecDeque;

/// So many are remembered.
const REMEMBERED: usize = 256;
/// Changes before their numbers begin again: with an id of 32 bits a cursor stays below 2^52, exact in any language.
const CHANGES: u32 = 1 << 20;
/// So many records may be made after a page of a listing before that listing is given up. While none is under way,
/// nothing is looked at.
const PATIENCE: u32 = 1 << 20;

/// The changes that concern listings.
#[derive(Default)]
pub(super) struct Listed {
    changes: u32,
    /// Records with which a tag is listed now that was listed with a higher one before; the last one at the end.
    lower: VecDeque<u32>,
    patience: u32,
}

impl Listed {
    /// A listing goes on with the next page.
    pub(super) fn is_awaited(&mut self) {
        self.patience = PATIENCE;
    }

    /// Whether a listing may be under way.
    #[inline]
    pub(super) fn is_under_way(&self) -> bool {
        self.patience > 0
    }

    /// A record was made.
    pub(super) fn made(&mut self) {
        self.patience = self.patience.saturating_sub(1);
        if self.patience == 0 {
            self.moved_all();
        }
    }

    /// A tag is listed with this record now, and was with a higher one before.
    pub(super) fn lowered(&mut self, record: u32) {
        if !self.is_under_way() {
            return;
        }
        self.changes = (self.changes + 1) % CHANGES;
        self.lower.push_back(record);
        if self.lower.len() > REMEMBERED {
            self.lower.pop_front();
        }
    }

    /// Any record may have another id now, or listings are not watched any more.
    pub(super) fn moved_all(&mut self) {
        self.changes = (self.changes + 1) % CHANGES;
        self.lower = VecDeque::new();
    }

    /// The cursor that goes on at this record.
    pub(super) fn cursor(&self, record: u32) -> u64 {
        u64::from(self.changes) << 32 | u64::from(record)
    }

    /// Where a cursor goes on, and the lower records behind it that it does not know of.
    pub(super) fn from(&self, cursor: u64) -> (u32, impl Iterator<Item = u32>) {
        let known = (cursor >> 32) as u32 % CHANGES;
        let unknown = (self.changes + CHANGES - known) % CHANGES;
        let is_known = cursor >> 32 < u64::from(CHANGES) && unknown as usize <= self.lower.len();
        let (from, unknown) = match is_known {
            true => (cursor as u32, unknown as usize),
            false => (0, 0),
        };
        let lower = self.lower.range(self.lower.len() - unknown..).copied();
        (from, lower.filter(move |record| *record < from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_hears_of_what_is_behind_it_and_begins_again_if_it_was_too_much() {
        let mut listed = Listed::default();
        let unwatched = listed.cursor(50);
        listed.lowered(1);
        assert_eq!(listed.from(unwatched).1.count(), 0, "none was under way");
        listed.is_awaited();
        let cursor = listed.cursor(50);
        for record in [7, 49, 50, 51] {
            listed.lowered(record);
        }
        let (from, lower) = listed.from(cursor);
        assert_eq!((from, lower.collect::<Vec<_>>()), (50, vec![7, 49]));
        let later = listed.cursor(60);
        for record in 0..REMEMBERED as u32 {
            listed.lowered(record);
        }
        assert_eq!(listed.from(later).0, 60);
        assert_eq!(listed.from(later).1.count(), 60);
        let (from, lower) = listed.from(cursor);
        assert_eq!((from, lower.count()), (0, 0));
        let last = listed.cursor(60);
        listed.moved_all();
        assert_eq!(listed.from(last).0, 0);
        for cursor in [u64::MAX, 1 << 60, u64::from(CHANGES) << 32 | 5] {
            assert_eq!(listed.from(cursor).0, 0);
        }
    }

    #[test]
    fn numbers_of_changes_begin_again() {
        let mut listed = Listed {
            changes: CHANGES - 1,
            ..Listed::default()
        };
        listed.is_awaited();
        let cursor = listed.cursor(9);
        listed.lowered(3);
        assert_eq!(listed.changes, 0);
        let (from, lower) = listed.from(cursor);
        assert_eq!((from, lower.collect::<Vec<_>>()), (9, vec![3]));
    }

    #[test]
    fn a_listing_that_is_not_gone_on_with_is_given_up() {
        let mut listed = Listed::default();
        listed.is_awaited();
        let cursor = listed.cursor(9);
        for _ in 1..PATIENCE {
            listed.made();
        }
        assert!(listed.is_under_way());
        listed.made();
        assert!(!listed.is_under_way());
        assert_eq!(listed.from(cursor).0, 0);
    }
}
