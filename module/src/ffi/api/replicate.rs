//! What replicas and the append-only file are told.

use super::{Ctx, OwnedStr, Str, rm};

impl Ctx<'_> {
    /// Replicates the command as it came.
    pub fn replicate_verbatim(self) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplicateVerbatim)(self.raw()) };
    }

    /// Replicates a stored entry as it was decided; see `commands::replicated`.
    pub fn replicate_set(
        self,
        key: Str,
        deadline_ms: i64,
        birth: u64,
        attributes: u64,
        value: Str,
        tags: &[Str],
    ) {
        // SAFETY: valid context, and arguments as the format says: s string, l long long, v vector.
        unsafe {
            rm!(RedisModule_Replicate)(
                self.raw(),
                c"mcache.replset".as_ptr(),
                c"slllsv".as_ptr(),
                key,
                deadline_ms,
                birth as i64,
                attributes as i64,
                value,
                tags.as_ptr(),
                tags.len(),
            );
        }
    }

    /// Replicates an invalidation as it was decided; see `commands::replicated`.
    pub fn replicate_invalidate(self, epoch: u64, mode: u64, tags: &[Str]) {
        // SAFETY: as above.
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

    /// Replicates that an entry got a shorter deadline; see `commands::replicated`.
    pub fn replicate_shorten(self, key: &OwnedStr, deadline_ms: u64) {
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

    /// Replicates the deletion of keys.
    pub fn replicate_unlink(self, keys: &[OwnedStr]) {
        let keys: Vec<Str> = keys.iter().map(OwnedStr::as_raw).collect();
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
