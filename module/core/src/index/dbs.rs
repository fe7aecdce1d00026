//! The databases, and what is known of all of them together: Redis may be configured with tens of thousands, so nothing
//! that happens often looks at each.
//!
//! A database that is handed out to be changed counts as *touched*. Before a question about all is answered, those that
//! were touched since the last one are counted anew ([`Dbs::count`]).

use super::{Db, Sizes};
use crate::alloc::class;
use crate::bits::Bits;
use crate::epoch::Epoch;
use crate::tags::Tags;
use crate::work;

/// What is summed up.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Sums {
    /// `index_bytes` are those of the databases alone.
    pub(super) sizes: Sizes,
    /// Bytes that moving entries together would give back.
    pub(super) loose_bytes: usize,
}

impl Sums {
    fn of(db: &Db) -> Sums {
        let index_bytes = class(size_of::<Db>())
            + db.names.bytes()
            + db.soft_names.bytes()
            + db.entries.bytes()
            + db.memberships * 8
            + db.dead.bytes()
            + db.condemned.bytes();
        Sums {
            sizes: Sizes {
                entries: db.entries.len(),
                tags: db.names.len(),
                memberships: db.memberships,
                payload_bytes: db.payload_bytes,
                index_bytes,
                pending_reclaim: db.pending + db.condemned.len(),
            },
            loose_bytes: db.entries.loose_bytes(),
        }
    }

    /// With `after` in place of `before`, which is among it.
    fn exchange(&mut self, before: &Sums, after: &Sums) {
        let exchange = |sum: &mut usize, before: usize, after: usize| *sum = *sum + after - before;
        let (all, old, new) = (&mut self.sizes, &before.sizes, &after.sizes);
        exchange(&mut all.entries, old.entries, new.entries);
        exchange(&mut all.tags, old.tags, new.tags);
        exchange(&mut all.memberships, old.memberships, new.memberships);
        exchange(&mut all.payload_bytes, old.payload_bytes, new.payload_bytes);
        exchange(&mut all.index_bytes, old.index_bytes, new.index_bytes);
        exchange(
            &mut all.pending_reclaim,
            old.pending_reclaim,
            new.pending_reclaim,
        );
        exchange(&mut self.loose_bytes, before.loose_bytes, after.loose_bytes);
    }
}

/// What a database was counted with.
#[derive(Default)]
pub(super) struct Counted {
    sums: Sums,
    is_touched: bool,
}

/// All databases of a data set.
#[derive(Default)]
pub(super) struct Dbs {
    /// Those that were never used are not there.
    all: Vec<Option<Box<Db>>>,
    /// Those that are marked so, each once.
    touched: Vec<usize>,
    sums: Sums,
    /// Where something is dead, soft, condemned or to be swept.
    busy: Bits,
    /// Where something noted can be forgotten.
    untidy: Bits,
}

/// Room for touched databases that is kept.
const TOUCHED: usize = 256;

impl Dbs {
    /// One past the highest number.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    #[inline]
    pub(super) fn get(&self, db: usize) -> Option<&Db> {
        self.all.get(db)?.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, db: usize) -> Option<&mut Db> {
        let home = self.all.get_mut(db)?.as_deref_mut()?;
        if !home.counted.is_touched {
            home.counted.is_touched = true;
            self.touched.push(db);
        }
        Some(home)
    }

    /// The database, made if it is not there.
    #[inline]
    pub(super) fn grow(&mut self, db: usize) -> &mut Db {
        if !matches!(self.all.get(db), Some(Some(_))) {
            self.make(db);
        }
        self.get_mut(db).expect("it was made")
    }

    #[cold]
    fn make(&mut self, db: usize) {
        self.make_place(db);
        self.all[db] = Some(Box::default());
    }

    fn make_place(&mut self, db: usize) {
        if self.all.len() <= db {
            self.all.resize_with(db + 1, || None);
        }
    }

    /// Takes one out. What is touched was counted.
    pub(super) fn take(&mut self, db: usize) -> Option<Box<Db>> {
        let home = self.all.get_mut(db)?.take()?;
        self.sums.exchange(&home.counted.sums, &Sums::default());
        self.busy.remove(db);
        self.untidy.remove(db);
        Some(home)
    }

    /// Exchanges two. What is touched was counted.
    pub(super) fn swap(&mut self, a: usize, b: usize) {
        self.make_place(a.max(b));
        self.all.swap(a, b);
        for bits in [&mut self.busy, &mut self.untidy] {
            let (of_a, of_b) = (bits.has(a), bits.has(b));
            bits.put(a, of_b);
            bits.put(b, of_a);
        }
    }

    /// All of them, to be changed. O(databases).
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Db> {
        let touched = &mut self.touched;
        let all = (0..).zip(&mut self.all);
        all.filter_map(|(db, home)| {
            let home = home.as_deref_mut()?;
            if !home.counted.is_touched {
                home.counted.is_touched = true;
                touched.push(db);
            }
            Some(home)
        })
    }

    /// All of them, with what they were counted with. O(databases).
    pub(super) fn into_iter(self) -> impl Iterator<Item = Db> {
        self.all.into_iter().flatten().map(|home| *home)
    }

    /// Counts those anew that were touched: amortized O(1).
    pub(super) fn count(&mut self, tags: &Tags, floor: Epoch) {
        for db in self.touched.drain(..) {
            work::step(1);
            let home = self.all.get_mut(db).and_then(Option::as_deref_mut);
            let Some(home) = home else { continue };
            let sums = Sums::of(home);
            self.sums.exchange(&home.counted.sums, &sums);
            home.counted = Counted {
                sums,
                is_touched: false,
            };
            self.busy.put(db, home.is_busy());
            self.untidy.put(db, home.is_untidy(tags, floor));
        }
        if self.touched.capacity() > TOUCHED {
            self.touched = Vec::new();
        }
    }

    /// The first in which there is something to do. What is touched was counted.
    pub(super) fn first_busy(&self) -> Option<usize> {
        self.busy.first()
    }

    /// The first in which something noted can be forgotten. What is touched was counted.
    pub(super) fn first_untidy(&self) -> Option<usize> {
        self.untidy.first()
    }

    /// The sums over all. O(databases touched).
    pub(super) fn sums(&self) -> Sums {
        let mut sums = self.sums;
        for db in &self.touched {
            work::step(1);
            if let Some(home) = self.get(*db) {
                sums.exchange(&home.counted.sums, &Sums::of(home));
            }
        }
        sums.sizes.index_bytes += class(self.all.capacity() * size_of::<Option<Box<Db>>>())
            + class(self.touched.capacity() * size_of::<usize>())
            + self.busy.bytes()
            + self.untidy.bytes();
        sums
    }

    /// Compares what was counted with what is there. O(databases): for tests.
    pub(super) fn verify(&mut self, tags: &Tags, floor: Epoch) -> Result<(), String> {
        // Counting may take memory for its own notes.
        let without_bytes = |sums: Sums| Sizes {
            index_bytes: 0,
            ..sums.sizes
        };
        let asked = without_bytes(self.sums());
        self.count(tags, floor);
        let counted = without_bytes(self.sums());
        if asked != counted {
            return Err(format!("{asked:?} before {counted:?} was counted"));
        }
        let mut sums = Sums::default();
        for (db, home) in (0..).zip(&self.all) {
            let home = home.as_deref();
            let of = home.map_or_else(Sums::default, Sums::of);
            sums.exchange(&Sums::default(), &of);
            let is_busy = home.is_some_and(Db::is_busy);
            let is_untidy = home.is_some_and(|home| home.is_untidy(tags, floor));
            if (self.busy.has(db), self.untidy.has(db)) != (is_busy, is_untidy) {
                return Err(format!("db {db}: what is to be done is not noted"));
            }
        }
        match sums == self.sums {
            true => Ok(()),
            false => Err(format!(
                "{sums:?} in all databases, {:?} counted",
                self.sums
            )),
        }
    }
}

impl Db {
    /// Whether anything is dead, soft, condemned or to be swept.
    fn is_busy(&self) -> bool {
        !self.dead.is_empty()
            || self.soft.len() > 0
            || self.sweep.is_some()
            || !self.condemned.is_empty()
    }

    /// Whether something that was noted can be forgotten: the first dead record has no members any more, or the entry
    /// is gone that stands last among the condemned, or where the search for those below the floor goes on.
    fn is_untidy(&self, tags: &Tags, floor: Epoch) -> bool {
        let is_gone = |id: u32| {
            let entry = self.entries.get(id);
            entry.is_none_or(|entry| entry.birth() >= floor)
        };
        let first = self.dead.front();
        first.is_some_and(|record| tags.len(record) == 0)
            || self.condemned.back().is_some_and(is_gone)
            || self.sweep.is_some_and(is_gone)
    }
}
