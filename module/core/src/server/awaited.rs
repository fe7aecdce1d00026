//! The entry that was made for Redis and waits to be announced.
//!
//! Redis asks for the value of a key that it loads or copies, and announces the key afterwards. Or it frees the value
//! without a word: a key in a file that has expired, a RESTORE whose time is over. The event of another key of the same
//! name must then not lead to freed memory. So the code that frees an entry says so here, on any thread: it clears one
//! pointer, if that is the entry's, and touches nothing else.

use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::entry::Entry;

/// At most one entry, of one server. Shared with the thread that frees. Two servers that share it, in tests that run
/// beside each other, would each end the other's wait.
#[derive(Debug, Default)]
pub struct Awaited(AtomicPtr<std::ffi::c_void>);

impl Awaited {
    /// None waits.
    pub const fn new() -> Self {
        Awaited(AtomicPtr::new(null_mut()))
    }

    /// One of its own for each server of a test. It is never given back, and named here so that it is no leak.
    pub fn kept() -> &'static Self {
        static KEPT: Mutex<Vec<&Awaited>> = Mutex::new(Vec::new());
        let awaited: &Awaited = Box::leak(Box::default());
        let mut kept = KEPT.lock().unwrap_or_else(|kept| kept.into_inner());
        kept.push(awaited);
        awaited
    }

    /// To be called for every entry before it is freed, from any thread.
    #[inline]
    pub fn is_freed(&self, entry: Entry) {
        let entry = entry.as_raw();
        // Mostly none waits, and a load is cheaper than an exchange.
        if self.0.load(Ordering::Acquire) == entry {
            let _ = self
                .0
                .compare_exchange(entry, null_mut(), Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// This one waits from now on; the one before it, if it was never announced, is not to be linked any more.
    pub(super) fn begin(&self, entry: Entry) {
        self.0.store(entry.as_raw(), Ordering::Release);
    }

    /// Ends the wait; true if it was for this entry, and it was not freed.
    pub(super) fn end(&self, entry: Entry) -> bool {
        self.0.swap(null_mut(), Ordering::AcqRel) == entry.as_raw()
    }
}
