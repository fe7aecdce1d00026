//! Groups: subscriptions of one database with equal prefixes. What concerns one concerns all of them, and they share
//! one encoded answer.

use std::collections::HashMap;
use std::sync::Arc;

use super::log::Log;
use super::prefixes::Prefixes;

/// Most events and names that one look at the log compares, so that no call takes long however far behind it is.
const MAX_COMPARED: usize = 16_384;
/// Most digests in one answer: 128 KiB.
const MAX_ITEMS: usize = 16_384;
/// Most events in one answer, also if COUNT is larger.
pub const MAX_COUNT: usize = 10_000;
/// Encoded answers kept: those who are as far as most, and those who are a little behind.
const KEPT: usize = 2;

/// A part of the log, written for a group.
#[derive(Clone, Debug)]
pub(super) struct Page {
    from: u64,
    count: usize,
    /// The log end at that time; another page is needed once it moved.
    log_end: u64,
    /// Where it goes up to.
    pub to: u64,
    pub bytes: Arc<[u8]>,
}

impl Page {
    /// Whether it ends before the log does.
    pub fn is_truncated(&self) -> bool {
        self.to < self.log_end
    }
}

pub(super) struct Group {
    pub db: u32,
    pub prefixes: Prefixes,
    members: usize,
    /// Up to here it is known what concerns it.
    examined: u64,
    /// The last event that concerns it, or a later one.
    latest: u64,
    pages: Vec<Page>,
}

impl Group {
    /// The number of the last event that concerns it, or a later one if that took too long to find out.
    pub fn latest(&mut self, log: &Log) -> u64 {
        if self.examined == log.end() {
            return self.latest;
        }
        if !log.holds(self.examined) {
            self.latest = log.end();
        } else {
            let mut compared = 0;
            for (number, event) in log.after(self.examined) {
                compared += event.weight(&self.prefixes);
                if compared > MAX_COMPARED {
                    self.latest = log.end();
                    break;
                }
                if event.concerns(self.db, &self.prefixes) {
                    self.latest = number;
                }
            }
        }
        self.examined = log.end();
        self.latest
    }

    /// What is told to those who have everything up to `from`, which the log holds.
    pub fn page(&mut self, log: &Log, from: u64, count: usize) -> Page {
        let kept = self
            .pages
            .iter()
            .find(|page| page.from == from && page.count == count && page.log_end == log.end());
        if let Some(page) = kept {
            return page.clone();
        }
        let mut bytes = Vec::new();
        let (mut events, mut items, mut compared, mut to) = (0, 0, 0, from);
        for (number, event) in log.after(from) {
            compared += event.weight(&self.prefixes);
            // The first one always fits: an event has a bounded number of tags.
            if to > from && (compared > MAX_COMPARED || items >= MAX_ITEMS || events >= count) {
                break;
            }
            let written = event.write(number, self.db, &self.prefixes, &mut bytes);
            events += usize::from(written > 0);
            items += written;
            to = number;
        }
        let page = Page {
            from,
            count,
            log_end: log.end(),
            to,
            bytes: bytes.into(),
        };
        if self.pages.len() == KEPT {
            self.pages.remove(0);
        }
        self.pages.push(page.clone());
        page
    }
}

/// All groups.
#[derive(Default)]
pub(super) struct Groups {
    groups: HashMap<u32, Group>,
    ids: HashMap<(u32, Prefixes), u32>,
    next: u32,
}

impl Groups {
    /// The group of one more subscription, which begins at this number.
    pub fn join(&mut self, db: u32, prefixes: Prefixes, number: u64) -> u32 {
        let key = (db, prefixes);
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                // There are never as many groups as numbers, so a free one is near.
                while self.groups.contains_key(&self.next) {
                    self.next = self.next.wrapping_add(1);
                }
                let id = self.next;
                self.next = self.next.wrapping_add(1);
                self.ids.insert(key.clone(), id);
                let (db, prefixes) = key;
                self.groups.insert(
                    id,
                    Group {
                        db,
                        prefixes,
                        members: 0,
                        examined: number,
                        latest: number,
                        pages: Vec::new(),
                    },
                );
                id
            }
        };
        if let Some(group) = self.groups.get_mut(&id) {
            group.members += 1;
        }
        id
    }

    /// One subscription of it ended.
    pub fn leave(&mut self, id: u32) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.members -= 1;
        if group.members == 0
            && let Some(group) = self.groups.remove(&id)
        {
            self.ids.remove(&(group.db, group.prefixes));
        }
    }

    pub fn get(&self, id: u32) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut Group> {
        self.groups.get_mut(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// Forgets what is known of a log that is no more.
    pub fn restart(&mut self, number: u64) {
        for group in self.groups.values_mut() {
            (group.examined, group.latest) = (number, number);
            group.pages.clear();
        }
    }
}
