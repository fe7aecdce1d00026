//! Redis's module API, as far as mcache uses it, in types that cannot be held wrongly.
//!
//! Raw pointers come in only through the callbacks in this folder and are valid for the length of the callback; the
//! lifetimes below say so. The functions themselves were checked to be there when the module was loaded
//! ([`check`]), so they are called without another check on each call.

use std::ffi::{CStr, CString, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{NonNull, null_mut};

use mcache_core::command::Arguments;
use mcache_core::entry::Entry;
use mcache_core::lease::Answer;
use redis_module::raw;

use super::datatype;

/// A function of the API. Reading it is part of the `unsafe` block that calls it: sound because [`check`] refused to
/// load the module where the function is missing, and the table never changes afterwards.
macro_rules! rm {
    ($name:ident) => {
        redis_module::raw::$name.unwrap_unchecked()
    };
}
pub(crate) use rm;

macro_rules! required {
    ($($name:ident),* $(,)?) => {
        /// The first function of the API that this server lacks.
        pub fn check() -> Result<(), &'static str> {
            // SAFETY: the table was filled in by the module's initialisation and is only read here.
            unsafe { $(if (&raw const raw::$name).read().is_none() { return Err(stringify!($name)); })* }
            Ok(())
        }
    };
}

required![
    RedisModule_BlockClient,
    RedisModule_UnblockClient,
    RedisModule_SetDisconnectCallback,
    RedisModule_GetBlockedClientHandle,
    RedisModule_GetBlockedClientPrivateData,
    RedisModule_CreateTimer,
    RedisModule_StopTimer,
    RedisModule_ACLCheckKeyPermissions,
    RedisModule_Call,
    RedisModule_CloseKey,
    RedisModule_CreateCommand,
    RedisModule_CreateDataType,
    RedisModule_CreateString,
    RedisModule_DigestAddLongLong,
    RedisModule_DigestAddStringBuffer,
    RedisModule_DigestEndSequence,
    RedisModule_EmitAOF,
    RedisModule_EventLoopAdd,
    RedisModule_EventLoopDel,
    RedisModule_Free,
    RedisModule_FreeCallReply,
    RedisModule_FreeModuleUser,
    RedisModule_FreeString,
    RedisModule_GetAbsExpire,
    RedisModule_GetClientId,
    RedisModule_GetClientUserNameById,
    RedisModule_GetCommand,
    RedisModule_GetContextFlags,
    RedisModule_GetCurrentUserName,
    RedisModule_GetDbIdFromIO,
    RedisModule_GetDbIdFromOptCtx,
    RedisModule_GetDetachedThreadSafeContext,
    RedisModule_GetKeyNameFromIO,
    RedisModule_GetModuleUserFromUserName,
    RedisModule_GetRandomBytes,
    RedisModule_GetSelectedDb,
    RedisModule_GetToKeyNameFromOptCtx,
    RedisModule_IsIOError,
    RedisModule_InfoAddFieldULongLong,
    RedisModule_InfoAddSection,
    RedisModule_KeyType,
    RedisModule_LoadConfigs,
    RedisModule_LoadStringBuffer,
    RedisModule_Log,
    RedisModule_Milliseconds,
    RedisModule_ModuleTypeGetType,
    RedisModule_ModuleTypeGetValue,
    RedisModule_ModuleTypeReplaceValue,
    RedisModule_ModuleTypeSetValue,
    RedisModule_OpenKey,
    RedisModule_RegisterInfoFunc,
    RedisModule_Replicate,
    RedisModule_ReplicateVerbatim,
    RedisModule_ReplyWithArray,
    RedisModule_ReplyWithError,
    RedisModule_ReplyWithLongLong,
    RedisModule_ReplyWithMap,
    RedisModule_ReplyWithNull,
    RedisModule_ReplyWithSimpleString,
    RedisModule_ReplyWithStringBuffer,
    RedisModule_SaveStringBuffer,
    RedisModule_Scan,
    RedisModule_ScanCursorCreate,
    RedisModule_ScanCursorDestroy,
    RedisModule_SelectDb,
    RedisModule_SetAbsExpire,
    RedisModule_SetCommandInfo,
    RedisModule_SetModuleOptions,
    RedisModule_StringPtrLen,
    RedisModule_SubscribeToKeyspaceEvents,
    RedisModule_SubscribeToServerEvent,
    RedisModule_UnlinkKey,
];

/// An argument or another string of Redis's.
pub type Str = *mut raw::RedisModuleString;

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    // SAFETY: takes nothing, reads the clock.
    (unsafe { rm!(RedisModule_Milliseconds)() }) as u64
}

/// A random number.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: writes eight bytes into a buffer of eight.
    unsafe { rm!(RedisModule_GetRandomBytes)(bytes.as_mut_ptr(), bytes.len()) };
    u64::from_ne_bytes(bytes)
}

/// Writes a warning to the server's log.
pub fn log_warning(text: &str) {
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: Redis accepts a null context; the format takes the one C string that follows it.
    unsafe {
        rm!(RedisModule_Log)(
            null_mut(),
            c"warning".as_ptr(),
            c"%s".as_ptr(),
            text.as_ptr(),
        )
    };
}

/// The bytes of a string.
///
/// # Safety
/// The string is alive as long as the result is used, and is not changed meanwhile.
#[inline]
pub unsafe fn bytes<'a>(string: *const raw::RedisModuleString) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: alive by the caller's promise; Redis returns a pointer to `len` bytes, never null for a string.
    unsafe {
        let start = rm!(RedisModule_StringPtrLen)(string, &mut len);
        std::slice::from_raw_parts(start.cast(), len)
    }
}

/// A string of our own, freed when dropped.
pub struct OwnedStr(Str);

impl OwnedStr {
    /// Copies the bytes.
    pub fn new(bytes: &[u8]) -> Self {
        // SAFETY: pointer and length of a slice; without a context the string is ours to free.
        OwnedStr(unsafe {
            rm!(RedisModule_CreateString)(null_mut(), bytes.as_ptr().cast(), bytes.len())
        })
    }

    /// For calls that take Redis's own type.
    pub fn as_raw(&self) -> Str {
        self.0
    }
}

impl Drop for OwnedStr {
    fn drop(&mut self) {
        // SAFETY: created in `new`, freed once.
        unsafe { rm!(RedisModule_FreeString)(null_mut(), self.0) };
    }
}

/// The arguments of a command, name included.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    strings: &'a [Str],
}

impl<'a> Args<'a> {
    /// # Safety
    /// `argv` points to `argc` strings that live as long as `'a`.
    pub unsafe fn new(argv: *mut Str, argc: c_int) -> Self {
        // SAFETY: the caller's promise.
        Args {
            strings: unsafe { std::slice::from_raw_parts(argv, argc as usize) },
        }
    }

    /// An argument as Redis's own string. Panics beyond the end.
    pub fn string(&self, at: usize) -> Str {
        self.strings[at]
    }

    /// The bytes of an argument; empty beyond the end.
    #[inline]
    pub fn bytes(&self, at: usize) -> &'a [u8] {
        // SAFETY: the strings live as long as `'a`, and Redis does not change the arguments of a running command.
        self.strings.get(at).map_or(&[], |s| unsafe { bytes(*s) })
    }

    /// The arguments from `at` on.
    pub fn tail(&self, at: usize) -> &'a [Str] {
        self.strings.get(at..).unwrap_or(&[])
    }

    /// The bytes of the arguments from `at` on.
    pub fn tail_bytes(&self, at: usize) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        // SAFETY: as in `bytes`.
        self.tail(at).iter().map(|s| unsafe { bytes(*s) })
    }
}

impl Arguments for Args<'_> {
    fn len(&self) -> usize {
        self.strings.len()
    }
    fn get(&self, at: usize) -> &[u8] {
        self.bytes(at)
    }
}

/// A parked client. A number, for the pure logic to know it by; Redis frees what it stands for after [`unblock`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Blocked(pub usize);

/// Ends the wait of a parked client: its reply callback gets the answer. To be called exactly once for each.
pub fn unblock(blocked: Blocked, answer: Option<Answer>) {
    let data = answer.map_or(null_mut(), |answer| Box::into_raw(Box::new(answer)));
    // SAFETY: a handle from `Ctx::block` that was not unblocked before; the data is freed by `free_answer`.
    unsafe {
        rm!(RedisModule_UnblockClient)(blocked.0 as *mut raw::RedisModuleBlockedClient, data.cast())
    };
}

unsafe extern "C" fn free_answer(_: *mut raw::RedisModuleCtx, data: *mut c_void) {
    // SAFETY: made in `unblock`, freed once; Redis does not call this with null.
    drop(unsafe { Box::from_raw(data.cast::<Answer>()) });
}

/// What the server is and does at the moment.
#[derive(Clone, Copy)]
pub struct Flags(c_int);

impl Flags {
    fn has(self, flag: u32) -> bool {
        self.0 & flag as c_int != 0
    }
    /// A primary.
    pub fn is_primary(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_MASTER)
    }
    /// Reading an RDB or AOF file.
    pub fn is_loading(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_LOADING)
    }
    /// The command came from the primary.
    pub fn is_replicated(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_REPLICATED)
    }
    /// The caller cannot wait: a transaction, a script, another module.
    pub fn denies_blocking(self) -> bool {
        self.is_script()
            || self.has(raw::REDISMODULE_CTX_FLAGS_MULTI)
            || self.has(raw::REDISMODULE_CTX_FLAGS_DENY_BLOCKING)
    }
    /// A script is running.
    pub fn is_script(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_LUA)
    }
}

/// What the server is, for callbacks without a context.
pub fn server_flags() -> Flags {
    // SAFETY: Redis leaves out what concerns a client when the context is null.
    Flags(unsafe { rm!(RedisModule_GetContextFlags)(null_mut()) })
}

/// How a key is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Counts as a read: statistics, LRU, lazy expiry.
    Read,
    /// A read that leaves no trace in statistics and LRU.
    Peek,
    /// May be changed; closing it tells watchers and trackers.
    Write,
}

/// The context of a callback.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    raw: *mut raw::RedisModuleCtx,
    callback: PhantomData<&'a ()>,
}

impl<'a> Ctx<'a> {
    /// # Safety
    /// The context is valid as long as `'a`.
    pub unsafe fn new(raw: *mut raw::RedisModuleCtx) -> Self {
        Ctx {
            raw,
            callback: PhantomData,
        }
    }

    /// The selected database.
    #[inline]
    pub fn db(self) -> usize {
        // SAFETY: valid context.
        (unsafe { rm!(RedisModule_GetSelectedDb)(self.raw) }) as usize
    }

    /// Selects a database; false if the server has no such one.
    pub fn select(self, db: usize) -> bool {
        // SAFETY: valid context.
        (unsafe { rm!(RedisModule_SelectDb)(self.raw, db as c_int) })
            == raw::REDISMODULE_OK as c_int
    }

    /// What the server is and does at the moment.
    pub fn flags(self) -> Flags {
        // SAFETY: valid context.
        Flags(unsafe { rm!(RedisModule_GetContextFlags)(self.raw) })
    }

    /// The id of the client that sent the command.
    pub fn client(self) -> u64 {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_GetClientId)(self.raw) }
    }

    // ---- waiting ----

    /// Parks the client. `reply` is called with what [`unblock`] is given, `timeout` when somebody else ends the wait
    /// (or after `most_ms`), `gone` when the client disconnects; the last two must call [`unblock`] as well.
    pub fn block(
        self,
        reply: raw::RedisModuleCmdFunc,
        timeout: raw::RedisModuleCmdFunc,
        gone: raw::RedisModuleDisconnectFunc,
        most_ms: u64,
    ) -> Blocked {
        // SAFETY: valid context, and functions that live as long as the module.
        unsafe {
            let blocked = rm!(RedisModule_BlockClient)(
                self.raw,
                reply,
                timeout,
                Some(free_answer),
                most_ms as i64,
            );
            rm!(RedisModule_SetDisconnectCallback)(blocked, gone);
            Blocked(blocked as usize)
        }
    }

    /// In `reply`: what [`unblock`] was given.
    pub fn answer(self) -> Option<Answer> {
        // SAFETY: valid context of a reply callback; the data came from `unblock`.
        unsafe {
            rm!(RedisModule_GetBlockedClientPrivateData)(self.raw)
                .cast::<Answer>()
                .as_ref()
                .copied()
        }
    }

    /// In `timeout`: who it is about.
    pub fn blocked(self) -> Blocked {
        // SAFETY: valid context of a timeout callback.
        Blocked(unsafe { rm!(RedisModule_GetBlockedClientHandle)(self.raw) } as usize)
    }

    /// Calls a function after a number of milliseconds.
    pub fn start_timer(self, after_ms: u64, function: raw::RedisModuleTimerProc) -> u64 {
        // SAFETY: valid context, and a function that lives as long as the module.
        unsafe { rm!(RedisModule_CreateTimer)(self.raw, after_ms as i64, function, null_mut()) }
    }

    /// Takes a timer back.
    pub fn stop_timer(self, timer: u64) {
        // SAFETY: valid context; an id that is not running any more is an error without effect.
        unsafe { rm!(RedisModule_StopTimer)(self.raw, timer, null_mut()) };
    }

    // ---- keys ----

    /// Opens a key. Expired keys are gone, as for any command.
    #[inline]
    pub fn open(self, name: Str, mode: Mode) -> Key<'a> {
        let bits = match mode {
            Mode::Read => raw::REDISMODULE_READ,
            Mode::Peek => raw::REDISMODULE_READ | raw::REDISMODULE_OPEN_KEY_NOTOUCH,
            Mode::Write => raw::REDISMODULE_READ | raw::REDISMODULE_WRITE,
        };
        // SAFETY: valid context, and a string that outlives the call.
        Key {
            raw: unsafe { rm!(RedisModule_OpenKey)(self.raw, name, bits as c_int) },
            callback: PhantomData,
        }
    }

    /// Every key of the selected database, expired ones included.
    pub fn scan(self, mut each: impl FnMut(&[u8], Option<Entry>)) {
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
        // SAFETY: the cursor is created, used and destroyed here; `each` outlives the scan.
        unsafe {
            let cursor = rm!(RedisModule_ScanCursorCreate)();
            while rm!(RedisModule_Scan)(self.raw, cursor, callback, (&raw mut each).cast()) != 0 {}
            rm!(RedisModule_ScanCursorDestroy)(cursor);
        }
    }

    // ---- permissions ----

    /// Whose permissions count for this command; `None` if nobody's do (another module's internal call).
    pub fn user(self) -> Option<User> {
        // SAFETY: valid context; the strings and the user made here are freed here or by `User`.
        unsafe {
            let name = if self.flags().is_script() {
                // A script's client is not in the table of clients, but it has the caller's user, unless a module
                // called by the script calls us: then it has none, and asking for its name would crash. A call "as
                // the user" of a command that does not exist runs nothing and says which it is.
                let reply = rm!(RedisModule_Call)(self.raw, c"mcache.".as_ptr(), c"C".as_ptr());
                if !reply.is_null() {
                    rm!(RedisModule_FreeCallReply)(reply);
                } else if std::io::Error::last_os_error().raw_os_error() == Some(ENOTSUP) {
                    return None;
                }
                rm!(RedisModule_GetCurrentUserName)(self.raw)
            } else {
                rm!(RedisModule_GetClientUserNameById)(
                    self.raw,
                    rm!(RedisModule_GetClientId)(self.raw),
                )
            };
            if name.is_null() {
                return None;
            }
            let user = rm!(RedisModule_GetModuleUserFromUserName)(name);
            rm!(RedisModule_FreeString)(self.raw, name);
            NonNull::new(user).map(User)
        }
    }

    // ---- replies ----

    /// `+OK` and the like.
    pub fn reply_status(self, text: &CStr) {
        // SAFETY: valid context and a C string.
        unsafe { rm!(RedisModule_ReplyWithSimpleString)(self.raw, text.as_ptr()) };
    }

    /// A null.
    #[inline]
    pub fn reply_null(self) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplyWithNull)(self.raw) };
    }

    /// A bulk string.
    #[inline]
    pub fn reply_bytes(self, bytes: &[u8]) {
        // SAFETY: valid context; Redis copies the bytes.
        unsafe {
            rm!(RedisModule_ReplyWithStringBuffer)(self.raw, bytes.as_ptr().cast(), bytes.len())
        };
    }

    /// An integer.
    pub fn reply_integer(self, number: i64) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplyWithLongLong)(self.raw, number) };
    }

    /// An array; its elements follow.
    pub fn reply_array(self, len: usize) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplyWithArray)(self.raw, len as _) };
    }

    /// A map (a flat array in RESP2); its keys and values follow.
    pub fn reply_map(self, len: usize) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplyWithMap)(self.raw, len as _) };
    }

    /// An error, code word first.
    pub fn reply_error(self, text: &str) {
        let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
        // SAFETY: valid context; Redis copies the text.
        unsafe { rm!(RedisModule_ReplyWithError)(self.raw, text.as_ptr()) };
    }

    // ---- replication ----

    /// Replicates the command as it came.
    pub fn replicate_verbatim(self) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplicateVerbatim)(self.raw) };
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
                self.raw,
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
                self.raw,
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
                self.raw,
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
                self.raw,
                c"UNLINK".as_ptr(),
                c"v".as_ptr(),
                keys.as_ptr(),
                keys.len(),
            )
        };
    }
}

/// ENOTSUP of Linux: the one number of errno that is asked for.
const ENOTSUP: i32 = 95;

/// The entry in an open key, if it holds one.
///
/// # Safety
/// The key is open and not null.
#[inline]
unsafe fn entry_of(key: *mut raw::RedisModuleKey) -> Option<Entry> {
    // SAFETY: open by the caller's promise; a value of our type came from `Entry::as_raw` and is freed by Redis only.
    unsafe {
        if rm!(RedisModule_ModuleTypeGetType)(key) != datatype::raw_type() {
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

    /// Puts an entry where no value is. The keyspace owns it from now on.
    pub fn put(&self, entry: Entry) {
        // SAFETY: open for writing; the value is of our type.
        unsafe {
            rm!(RedisModule_ModuleTypeSetValue)(self.raw, datatype::raw_type(), entry.as_raw())
        };
    }

    /// Puts an entry in the place of another one, which is the caller's to free: no callback is made for it.
    pub fn replace(&self, entry: Entry) {
        // SAFETY: open for writing and holding a value of our type.
        unsafe {
            rm!(RedisModule_ModuleTypeReplaceValue)(
                self.raw,
                datatype::raw_type(),
                entry.as_raw(),
                null_mut(),
            );
        }
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

/// A user of the ACL.
pub struct User(NonNull<raw::RedisModuleUser>);

/// What is done with a tag.
#[derive(Clone, Copy)]
pub enum Access {
    /// Looked at.
    Read,
    /// Stored under or invalidated.
    Write,
}

impl User {
    /// Whether the user's key patterns cover a name.
    pub fn may(&self, access: Access, name: Str) -> bool {
        let flags = match access {
            Access::Read => raw::REDISMODULE_CMD_KEY_ACCESS,
            Access::Write => raw::REDISMODULE_CMD_KEY_UPDATE,
        };
        // SAFETY: a valid user and a valid string.
        let status = unsafe {
            rm!(RedisModule_ACLCheckKeyPermissions)(self.0.as_ptr(), name, flags as c_int)
        };
        status == raw::REDISMODULE_OK as c_int
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // SAFETY: made by `Ctx::user`, freed once.
        unsafe { rm!(RedisModule_FreeModuleUser)(self.0.as_ptr()) };
    }
}
