//! Handles of one connection that no call uses at the moment.
//!
//! A handle is cloned and dropped by counting in memory that all threads share, and the connection itself is behind a
//! lock: of all that a call does, threads would wait for each other most there. So a call takes a handle that an
//! earlier one of the same thread has put back.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
};

/// Threads are spread over so many lists.
const SHELVES: usize = 16;
/// How many handles a list keeps: of so many calls that one thread has under way, each finds one.
const HANDLES_MAX: usize = 256;
/// The generation of no connection.
const NONE: u64 = u64::MAX;

/// See the module.
pub(super) struct Idle<H> {
    /// The connection whose handles are kept.
    generation: AtomicU64,
    shelves: [Shelf<H>; SHELVES],
}

/// On cache lines of its own, or threads would wait for each other after all.
#[repr(align(128))]
struct Shelf<H>(Mutex<Vec<H>>);

/// What leads to a connection.
pub(super) trait Handle {
    /// Tells connections apart.
    fn generation(&self) -> u64;
}

impl<H: Handle> Idle<H> {
    pub(super) fn new() -> Self {
        Self {
            generation: AtomicU64::new(NONE),
            shelves: std::array::from_fn(|_| Shelf(Mutex::new(Vec::new()))),
        }
    }

    /// From now on handles of this connection are kept.
    pub(super) fn begin(&self, generation: u64) {
        self.generation.store(generation, SeqCst);
    }

    /// No handle is kept any more, nor one that is in use when it comes back: the connection can end.
    pub(super) fn end(&self) {
        self.generation.store(NONE, SeqCst);
        for shelf in &self.shelves {
            let handles = std::mem::take(&mut *shelf.lock());
            drop(handles);
        }
    }

    /// One that was put back.
    pub(super) fn take(&self) -> Option<H> {
        self.shelf().lock().pop()
    }

    /// It is of use to the next call.
    pub(super) fn put(&self, handle: H) {
        let mut shelf = self.shelf().lock();
        // Asked under the lock: once `end` has been to this list, nothing that it ended is put there.
        if self.generation.load(SeqCst) == handle.generation() && shelf.len() < HANDLES_MAX {
            shelf.push(handle);
        }
    }

    fn shelf(&self) -> &Shelf<H> {
        &self.shelves[number_of_this_thread() % SHELVES]
    }
}

impl<H> Shelf<H> {
    /// Never held across an await; a poisoned list is still a list.
    fn lock(&self) -> MutexGuard<'_, Vec<H>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads are numbered in the order in which they first ask.
fn number_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, SeqCst);
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Counted {
        generation: u64,
        _alive: Arc<()>,
    }

    impl Handle for Counted {
        fn generation(&self) -> u64 {
            self.generation
        }
    }

    #[test]
    fn a_handle_is_kept_as_long_as_its_connection_is_the_one_of_now() {
        let (idle, alive) = (Idle::new(), Arc::new(()));
        let handle = |generation| Counted {
            generation,
            _alive: alive.clone(),
        };
        idle.put(handle(1));
        assert!(idle.take().is_none(), "no connection has begun");

        idle.begin(1);
        idle.put(handle(1));
        let taken = idle.take().expect("it was put back");
        assert!(idle.take().is_none(), "there was one");
        idle.put(handle(1));
        idle.end();
        assert!(idle.take().is_none());
        idle.begin(2);
        idle.put(taken);
        assert!(idle.take().is_none(), "it came back too late");
        assert_eq!(Arc::strong_count(&alive), 1, "none is kept");
    }

    #[test]
    fn no_more_handles_are_kept_than_are_of_use() {
        let (idle, alive) = (Idle::new(), Arc::new(()));
        idle.begin(1);
        for _ in 0..2 * HANDLES_MAX {
            idle.put(Counted {
                generation: 1,
                _alive: alive.clone(),
            });
        }
        assert_eq!(Arc::strong_count(&alive), 1 + HANDLES_MAX);
    }

    #[test]
    fn nothing_is_kept_of_a_connection_that_ends_while_handles_come_back() {
        for generation in 0..200 {
            let (idle, alive) = (Idle::new(), Arc::new(()));
            idle.begin(generation);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..20 {
                            idle.put(Counted {
                                generation,
                                _alive: alive.clone(),
                            });
                        }
                    });
                }
                idle.end();
            });
            assert_eq!(Arc::strong_count(&alive), 1, "connection {generation}");
        }
    }
}
