//! Open keys, and every key there is.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::null_mut;

use mcache_core::entry::Entry;
use mcache_core::server::corrected_deadline;
use redis_module::raw;

use super::{Ctx, Str, bytes, kind, rm};

/// How a key is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Counts as a read: statistics, LRU, lazy expiry.
    Read,
    /// A read that leaves no trace in statistics and LRU.
    Peek,
    /// May be changed; closing it tells watchers and trackers.
    Write,
    /// As `Write`, where the server hides the key because its slot has gone to another one (Redis 8.4).
    Trimmed,
    /// As `Peek`, and finds every key that there is: also one that has expired, or that is hidden (Redis 8.4).
    Any,
}

/// Redis 7.4's flag for a key that has expired, and 8.4's for one whose slot is being trimmed; the bindings are older.
const ACCESS_EXPIRED: u32 = 1 << 21;
const ACCESS_TRIMMED: u32 = 1 << 22;

impl<'a> Ctx<'a> {
    /// Opens a key. Expired keys are gone, as for any command.
    #[inline]
    pub fn open(self, name: Str, mode: Mode) -> Key<'a> {
        let bits = match mode {
            Mode::Read => raw::REDISMODULE_READ,
            Mode::Peek => raw::REDISMODULE_READ | raw::REDISMODULE_OPEN_KEY_NOTOUCH,
            Mode::Write => raw::REDISMODULE_READ | raw::REDISMODULE_WRITE,
            Mode::Trimmed => raw::REDISMODULE_READ | raw::REDISMODULE_WRITE | ACCESS_TRIMMED,
            Mode::Any => {
                let access = ACCESS_EXPIRED | ACCESS_TRIMMED;
                raw::REDISMODULE_READ | raw::REDISMODULE_OPEN_KEY_NOTOUCH | access
            }
        };
        // SAFETY: valid context, and a string that outlives the call.
        let raw = unsafe { rm!(RedisModule_OpenKey)(self.raw(), name, bits as c_int) };
        Key {
            raw,
            callback: PhantomData,
        }
    }

    /// Every key of the selected database, expired ones included.
    pub fn scan(self, mut each: impl FnMut(&[u8], Option<Entry>)) {
        let cursor = Cursor::new();
        while self.scan_on(&cursor, &mut each) {}
    }

    /// Some more keys of the selected database, expired ones included; true while there are more. A key that is there
    /// all the time is met at least once.
    pub fn scan_on(self, cursor: &Cursor, mut each: impl FnMut(&[u8], Option<Entry>)) -> bool {
        unsafe extern "C" fn visit<F: FnMut(&[u8], Option<Entry>)>(
            _: *mut raw::RedisModuleCtx,
            name: *mut raw::RedisModuleString,
            key: *mut raw::RedisModuleKey,
            data: *mut c_void,
        ) {
            // SAFETY: Redis passes back what `scan` gave it, a name, and the open key, which it closes itself.
            unsafe {
                let entry = if key.is_null() { None } else { entry_of(key) };
                (*data.cast::<F>())(bytes(name), entry);
            }
        }
        fn visitor<F: FnMut(&[u8], Option<Entry>)>(_: &F) -> raw::RedisModuleScanCB {
            Some(visit::<F>)
        }
        let callback = visitor(&each);
        // SAFETY: the cursor is alive; `each` outlives the call.
        unsafe {
            rm!(RedisModule_Scan)(self.raw(), cursor.0, callback, (&raw mut each).cast()) != 0
        }
    }
}

/// How far a scan has come.
pub struct Cursor(*mut raw::RedisModuleScanCursor);

impl Cursor {
    /// At the beginning.
    pub fn new() -> Cursor {
        // SAFETY: takes nothing; freed by `Cursor`.
        Cursor(unsafe { rm!(RedisModule_ScanCursorCreate)() })
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // SAFETY: made by `Cursor::new`, freed once.
        unsafe { rm!(RedisModule_ScanCursorDestroy)(self.0) };
    }
}

/// The entry in an open key, if it holds one.
///
/// # Safety
/// The key is open and not null.
#[inline]
unsafe fn entry_of(key: *mut raw::RedisModuleKey) -> Option<Entry> {
    // SAFETY: open by the caller's promise; a value of our type came from `Entry::as_raw` and is freed by Redis only.
    unsafe {
        if rm!(RedisModule_ModuleTypeGetType)(key) != kind::handle() {
            return None;
        }
        Entry::from_raw(rm!(RedisModule_ModuleTypeGetValue)(key))
    }
}

/// What an open key holds.
pub enum Held {
    /// There is no such key.
    Nothing,
    /// A value of another type.
    Foreign,
    /// An entry.
    Entry(Entry),
}

/// An open key, closed when dropped.
pub struct Key<'a> {
    /// Null for a key opened to read that does not exist.
    raw: *mut raw::RedisModuleKey,
    callback: PhantomData<&'a ()>,
}

impl Key<'_> {
    /// What it holds.
    #[inline]
    pub fn held(&self) -> Held {
        if self.raw.is_null() {
            return Held::Nothing;
        }
        // SAFETY: open and not null.
        match unsafe { entry_of(self.raw) } {
            Some(entry) => Held::Entry(entry),
            // SAFETY: as above.
            None if unsafe { rm!(RedisModule_KeyType)(self.raw) }
                == raw::REDISMODULE_KEYTYPE_EMPTY as c_int =>
            {
                Held::Nothing
            }
            None => Held::Foreign,
        }
    }

    /// The database it is in; `None` for a key that does not exist. In an event this is the event's database, where the
    /// context of Valkey 9 answers that of the transaction.
    pub fn db(&self) -> Option<usize> {
        // SAFETY: open; Redis accepts null.
        usize::try_from(unsafe { rm!(RedisModule_GetDbIdFromModuleKey)(self.raw) }).ok()
    }

    /// When it expires, in milliseconds since 1970.
    #[inline]
    pub fn deadline_ms(&self) -> Option<u64> {
        // SAFETY: open; Redis accepts null here.
        u64::try_from(unsafe { rm!(RedisModule_GetAbsExpire)(self.raw) }).ok()
    }

    /// Sets or removes the expiry.
    pub fn set_deadline(&self, deadline_ms: Option<u64>) {
        let deadline = deadline_ms.map_or(i64::from(raw::REDISMODULE_NO_EXPIRE), |ms| ms as i64);
        // SAFETY: open for writing.
        unsafe { rm!(RedisModule_SetAbsExpire)(self.raw, deadline) };
    }

    /// Sees to it that the key does not outlive its entry.
    pub fn correct_deadline(&self, entry: Entry) {
        if let Some(deadline_ms) = corrected_deadline(&entry, self.deadline_ms()) {
            self.set_deadline(Some(deadline_ms));
        }
    }

    /// Puts an entry where no value is. The keyspace owns it from now on.
    pub fn put(&self, entry: Entry) {
        // SAFETY: open for writing; the value is of our type.
        unsafe { rm!(RedisModule_ModuleTypeSetValue)(self.raw, kind::handle(), entry.as_raw()) };
    }

    /// Puts an entry in the place of another one, which the index has let go of, and frees that one: no callback is
    /// made for it.
    pub fn replace(&self, entry: Entry) {
        let mut old = null_mut();
        // SAFETY: open for writing and holding a value of our type.
        let old = unsafe {
            let status = rm!(RedisModule_ModuleTypeReplaceValue)(
                self.raw,
                kind::handle(),
                entry.as_raw(),
                &raw mut old,
            );
            assert_eq!(
                status,
                raw::REDISMODULE_OK as c_int,
                "the key is open for writing and holds an entry"
            );
            Entry::from_raw(old)
        };
        if let Some(old) = old {
            assert!(
                !old.is_linked(),
                "an entry is replaced that the index holds"
            );
            // SAFETY: it is out of the keyspace by now, and in no index.
            unsafe { old.free() };
        }
    }

    /// Whether it holds this very entry.
    pub fn holds(&self, entry: Entry) -> bool {
        matches!(self.held(), Held::Entry(found) if found == entry)
    }

    /// Deletes the key; its entry goes through the `unlink` and `free` callbacks.
    pub fn unlink(&self) {
        // SAFETY: open for writing.
        unsafe { rm!(RedisModule_UnlinkKey)(self.raw) };
    }
}

impl Drop for Key<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: opened in `Ctx::open`, closed once; Redis accepts null.
        unsafe { rm!(RedisModule_CloseKey)(self.raw) };
    }
}
