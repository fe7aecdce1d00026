//! A value that belongs to the main thread.

use std::cell::RefCell;

/// One value, reached from the thread that Redis calls modules on and from no other.
pub struct MainThread<T>(RefCell<Option<T>>);

// SAFETY: Redis calls modules on its main thread, or on others only while they hold its global lock. The one callback
// that runs outside of it, `free` of the data type, reaches no such value.
unsafe impl<T> Sync for MainThread<T> {}

impl<T> MainThread<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        MainThread(RefCell::new(None))
    }

    /// Puts the value there, once.
    pub fn set(&self, value: T) {
        *self.0.borrow_mut() = Some(value);
    }

    /// Runs `body` with the value.
    ///
    /// # Panics
    /// When nested, instead of handing out two `&mut`; and before [`MainThread::set`].
    #[inline]
    pub fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.0.borrow_mut();
        body(value.as_mut().expect("set when the module was loaded"))
    }
}
