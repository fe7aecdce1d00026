//! Digests: how the feed names tags and keys without telling their names.
//!
//! A digest is SipHash-2-4 under a key of 128 random bits. The key is made with the server's incarnation and handed out
//! to subscribers; it is never the hash key of the index, so a subscriber learns nothing that helps to make the index's
//! hashes collide. SipHash, because every language has it: clients compute digests of the names they know themselves.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// The key under which names become digests; 16 bytes on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u8; 16]);

impl HashKey {
    /// From 128 random bits.
    pub fn new(random: [u8; 16]) -> Self {
        HashKey(random)
    }

    /// As subscribers get it.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The digest of a tag or of a key.
    pub fn digest(&self, name: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(name);
        hasher.finish()
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of the SipHash paper: a client in another language can check itself against it.
    #[test]
    fn a_digest_is_siphash_2_4_of_the_name() {
        let key = HashKey::new(std::array::from_fn(|n| n as u8));
        let name: Vec<u8> = (0..15).collect();
        assert_eq!(key.digest(&name), 0xa129_ca61_49be_45e5);
        assert_eq!(format!("{key:?}"), "HashKey(..)", "not for logs");
    }
}
