//! Strings of Redis's, and the arguments of a command.

use std::ffi::c_int;
use std::ptr::null_mut;

use mcache_core::command::Arguments;
use redis_module::raw;

use super::rm;

/// An argument or another string of Redis's.
pub type Str = *mut raw::RedisModuleString;

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

    /// What it says.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: created in `new`, alive as long as this, and not changed.
        unsafe { bytes(self.0) }
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
        let strings = unsafe { std::slice::from_raw_parts(argv, argc as usize) };
        Args { strings }
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
