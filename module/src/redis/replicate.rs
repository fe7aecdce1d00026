//! What replicas and the append-only file are told, if there are any (`listeners.rs` asks, and says so here).

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

use mcache_core::command::Packed;
use mcache_core::entry::Attributes;
use mcache_core::slots::{by_slot, slot};

use super::{Ctx, OwnedStr, Str, host, rm};

/// Whether a replica or a file may be listening.
static HEARD: AtomicBool = AtomicBool::new(true);

/// Whether what is replicated may be heard.
#[inline]
pub fn is_heard() -> bool {
    HEARD.load(Ordering::Relaxed)
}

/// Says whether what is replicated may be heard.
pub fn set_heard(heard: bool) {
    HEARD.store(heard, Ordering::Relaxed);
}

impl Ctx<'_> {
    /// Replicates the command as it came.
    pub fn replicate_verbatim(self) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplicateVerbatim)(self.raw()) };
    }

    /// Whether what was decided needs to be written down for a listener. If not, Redis still counts a change, for
    /// `save`.
    #[inline]
    fn is_heard(self) -> bool {
        let heard = is_heard();
        if !heard {
            // Cheap, because nothing is copied and no listener gets it.
            self.replicate_verbatim();
        }
        heard
    }

    /// Whether there are replicas, or a backlog that one could go on from.
    pub fn has_replicas_or_backlog(self) -> bool {
        // SAFETY: valid context and C strings; the information is freed here. A field that is missing counts as "yes".
        unsafe {
            let info = rm!(RedisModule_GetServerInfo)(self.raw(), c"replication".as_ptr());
            let is_set = |field: &CStr| {
                let mut error = 0;
                let number =
                    rm!(RedisModule_ServerInfoGetFieldUnsigned)(info, field.as_ptr(), &mut error);
                error != 0 || number > 0
            };
            let found = is_set(c"connected_slaves") || is_set(c"repl_backlog_active");
            rm!(RedisModule_FreeServerInfo)(self.raw(), info);
            found
        }
    }

    /// Replicates a stored entry as it was decided; see `commands::replicated`.
    pub fn replicate_set<'t>(
        self,
        key: Str,
        value: Str,
        deadline_ms: Option<u64>,
        attributes: Attributes,
        tags: impl Iterator<Item = &'t [u8]> + Clone,
    ) {
        if !self.is_heard() {
            return;
        }
        let packed = Packed::write(deadline_ms, attributes, tags);
        // SAFETY: valid context, and arguments as the format says: s string, b bytes and their number.
        unsafe {
            rm!(RedisModule_Replicate)(
                self.raw(),
                c"mcache.replset".as_ptr(),
                c"ssb".as_ptr(),
                key,
                value,
                packed.as_ptr(),
                packed.len(),
            );
        }
    }

    /// Replicates an invalidation as it was decided; see `commands::replicated`.
    pub fn replicate_invalidate(self, epoch: u64, mode: u64, tags: &[Str]) {
        if !self.is_heard() {
            return;
        }
        // SAFETY: as above; l long long, v vector.
        unsafe {
            rm!(RedisModule_Replicate)(
                self.raw(),
                c"mcache.replinvalidate".as_ptr(),
                c"llv".as_ptr(),
                epoch as i64,
                mode as i64,
                tags.as_ptr(),
                tags.len(),
            );
        }
    }

    /// The same for the server that the slot of `key` is on its way to: what has no key does not get there.
    pub fn replicate_invalidate_along(self, key: [u8; 2], epoch: u64, mode: u64, tags: &[Str]) {
        let key = OwnedStr::new(&key);
        // SAFETY: as above; Redis keeps references of its own.
        unsafe {
            rm!(RedisModule_Replicate)(
                self.raw(),
                c"mcache.replinvalidatealong".as_ptr(),
                c"sllv".as_ptr(),
                key.as_raw(),
                epoch as i64,
                mode as i64,
                tags.as_ptr(),
                tags.len(),
            );
        }
    }

    /// Replicates that everything born before an epoch is dead; see `commands::replicated`.
    pub fn replicate_floor(self, epoch: u64) {
        if !self.is_heard() {
            return;
        }
        // SAFETY: as above.
        unsafe {
            rm!(RedisModule_Replicate)(
                self.raw(),
                c"mcache.replfloor".as_ptr(),
                c"l".as_ptr(),
                epoch as i64,
            );
        }
    }

    /// The same for the server that the slot of `key` is on its way to.
    pub fn replicate_floor_along(self, key: [u8; 2], epoch: u64) {
        let key = OwnedStr::new(&key);
        // SAFETY: as above; Redis keeps references of its own.
        unsafe {
            rm!(RedisModule_Replicate)(
                self.raw(),
                c"mcache.replflooralong".as_ptr(),
                c"sl".as_ptr(),
                key.as_raw(),
                epoch as i64,
            );
        }
    }

    /// Replicates that an entry got a shorter deadline; see `commands::replicated`.
    pub fn replicate_shorten(self, key: &OwnedStr, deadline_ms: u64) {
        if !self.is_heard() {
            return;
        }
        // SAFETY: as above.
        unsafe {
            rm!(RedisModule_Replicate)(
                self.raw(),
                c"mcache.replshorten".as_ptr(),
                c"sl".as_ptr(),
                key.as_raw(),
                deadline_ms as i64,
            );
        }
    }

    /// Replicates the deletion of keys: in a cluster one command a slot.
    pub fn replicate_unlink(self, keys: &[OwnedStr]) {
        if !self.is_heard() {
            return;
        }
        let all = keys.iter().map(OwnedStr::as_raw);
        if host::is_in_cluster() {
            let placed = keys.iter().map(|key| slot(key.bytes())).zip(all).collect();
            by_slot(placed, |group| {
                self.unlink_replicated(&group.iter().map(|(_, key)| *key).collect::<Vec<_>>());
            });
        } else {
            self.unlink_replicated(&all.collect::<Vec<_>>());
        }
    }

    fn unlink_replicated(self, keys: &[Str]) {
        // SAFETY: as above; Redis keeps references of its own.
        unsafe {
            rm!(RedisModule_Replicate)(
                self.raw(),
                c"UNLINK".as_ptr(),
                c"v".as_ptr(),
                keys.as_ptr(),
                keys.len(),
            )
        };
    }
}
