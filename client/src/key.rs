//! The key of one operation: kept without an allocation as long as no server has to be asked.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::tags::Namespace;

/// A key with its namespace. Most are short: they are kept here, and what needs an owned copy makes one.
pub(crate) struct FullKey {
    short: [u8; SHORT_KEY],
    length: u8,
    owned: OnceLock<Bytes>,
}

/// The longest key that is kept without an allocation.
const SHORT_KEY: usize = 79;

impl FullKey {
    #[inline]
    pub(crate) fn new(namespace: &Namespace, key: &[u8]) -> Self {
        let mut short = [0; SHORT_KEY];
        let (length, owned) = match namespace.qualify_into(key, &mut short) {
            Some(length) => (length as u8, OnceLock::new()),
            None => (0, OnceLock::from(namespace.qualify(key))),
        };
        Self {
            short,
            length,
            owned,
        }
    }

    /// Of a key that has its namespace.
    pub(crate) fn of(full: Bytes) -> Self {
        Self {
            short: [0; SHORT_KEY],
            length: 0,
            owned: OnceLock::from(full),
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self.owned.get() {
            Some(owned) => owned,
            None => &self.short[..usize::from(self.length)],
        }
    }

    /// An owned copy, made when it is first asked for.
    pub(crate) fn bytes(&self) -> &Bytes {
        let short = || Bytes::copy_from_slice(&self.short[..usize::from(self.length)]);
        self.owned.get_or_init(short)
    }
}
