//! Dumps and RDB files, built and taken apart byte by byte, with checksums that are right.

use std::io::Write;
use std::sync::LazyLock;

use harness::{Server, Session};
use redis::Value;

/// Version and checksum at the end of a dump.
pub const FOOTER: usize = 10;

/// Redis's checksum: CRC-64/Jones, reflected.
pub fn crc64(bytes: &[u8]) -> u64 {
    static OF_BYTES: LazyLock<[u64; 256]> = LazyLock::new(|| {
        const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
        std::array::from_fn(|byte| {
            (0..8).fold(byte as u64, |crc, _| {
                (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
            })
        })
    });
    let of_bytes = &*OF_BYTES;
    let mut crc = 0u64;
    for byte in bytes {
        crc = (crc >> 8) ^ of_bytes[(crc as u8 ^ byte) as usize];
    }
    crc
}

/// A length as RDB files have it.
fn length(out: &mut Vec<u8>, length: usize) {
    match length {
        0..64 => out.push(length as u8),
        64..16_384 => out.extend([0x40 | (length >> 8) as u8, length as u8]),
        _ => {
            out.push(0x80);
            out.extend((length as u32).to_be_bytes());
        }
    }
}

/// Zeros, as Redis compresses strings (LZF): one as it is, then references to the byte before, 264 bytes each.
fn zeros(out: &mut Vec<u8>, references: usize) {
    let count = 1 + 264 * references;
    out.push(0xc3);
    length(out, 2 + 3 * references);
    length(out, count);
    out.extend([0, 0]);
    out.extend([0xe0, 0xff, 0].repeat(references));
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, bytes.len());
    out.extend(bytes);
}

/// Reads a string that [`string`] wrote, or Redis without compression; returns what follows.
fn read_string(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let (length, rest) = match bytes[0] >> 6 {
        0 => (usize::from(bytes[0]), &bytes[1..]),
        1 => (
            usize::from(bytes[0] & 0x3f) << 8 | usize::from(bytes[1]),
            &bytes[2..],
        ),
        _ => {
            assert_eq!(bytes[0], 0x80, "a plain string");
            let length = u32::from_be_bytes(bytes[1..5].try_into().expect("four"));
            (length as usize, &bytes[5..])
        }
    };
    (rest[..length].to_vec(), &rest[length..])
}

/// An entry as dumps and files have it.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The name of the type, encoded by Redis, without the ten bits of the version.
    kind: u64,
    /// The version of the encoding.
    pub version: u16,
    /// What `encode.rs` wrote.
    pub meta: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The value is compressed instead: that many references of [`zeros`].
    pub compressed: Option<usize>,
}

impl Raw {
    /// Takes a dump apart; the server must not compress.
    pub fn of(redis: &mut Session, key: &str) -> Raw {
        let dump = redis.dump(key);
        let body = &dump[..dump.len() - FOOTER];
        assert_eq!(body[..2], [7, 0x81], "a module's value");
        let id = u64::from_be_bytes(body[2..10].try_into().expect("eight"));
        assert_eq!(body[10], 5, "a string");
        let (meta, rest) = read_string(&body[11..]);
        assert_eq!(rest[0], 5, "a string");
        let (value, rest) = read_string(&rest[1..]);
        assert_eq!(rest, [0], "and no more");
        Raw {
            kind: id & !0x3ff,
            version: (id & 0x3ff) as u16,
            meta,
            value,
            compressed: None,
        }
    }

    /// The value behind the type's number.
    fn body(&self) -> Vec<u8> {
        let mut out = vec![0x81];
        out.extend((self.kind | u64::from(self.version)).to_be_bytes());
        out.push(5);
        string(&mut out, &self.meta);
        out.push(5);
        match self.compressed {
            Some(references) => zeros(&mut out, references),
            None => string(&mut out, &self.value),
        }
        out.push(0);
        out
    }

    /// For RESTORE.
    pub fn dump(&self) -> Vec<u8> {
        let mut out = vec![7];
        out.extend(self.body());
        // The version of the file format that Redis 7.0 writes; later ones read it.
        out.extend(10u16.to_le_bytes());
        let checksum = crc64(&out);
        out.extend(checksum.to_le_bytes());
        out
    }

    /// Puts a number at `at` of the metadata.
    pub fn set_number(&mut self, at: usize, number: u64) {
        self.meta[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
}

/// Where the numbers of the metadata stand.
pub const BIRTH: usize = 1;
/// See [`BIRTH`].
pub const SAVED: usize = 9;
/// See [`BIRTH`]; not in version 1.
pub const ENDS: usize = 25;

/// `RESTORE key ttl dump REPLACE`
pub fn restore(redis: &mut Session, key: &str, ttl: &str, raw: &Raw) -> Result<Value, String> {
    let (key, ttl) = (key.as_bytes(), ttl.as_bytes());
    redis.try_call(&[b"RESTORE", key, ttl, &raw.dump(), b"REPLACE"])
}

/// An RDB file that is being written.
pub struct Rdb(Vec<u8>);

impl Rdb {
    /// With nothing in it.
    pub fn new() -> Rdb {
        let mut out = b"REDIS0010".to_vec();
        // The first database.
        out.extend([0xfe, 0]);
        Rdb(out)
    }

    /// A plain string.
    pub fn string(&mut self, key: &str, value: &str) -> &mut Rdb {
        self.0.push(0);
        string(&mut self.0, key.as_bytes());
        string(&mut self.0, value.as_bytes());
        self
    }

    /// An entry, with the deadline of its key.
    pub fn entry(&mut self, key: &str, deadline_ms: Option<u64>, raw: &Raw) -> &mut Rdb {
        if let Some(deadline_ms) = deadline_ms {
            self.0.push(0xfc);
            self.0.extend(deadline_ms.to_le_bytes());
        }
        self.0.push(7);
        string(&mut self.0, key.as_bytes());
        self.0.extend(raw.body());
        self
    }

    /// The file, with its checksum, in the place of the server's.
    pub fn write(&self, server: &Server) {
        let mut out = self.0.clone();
        out.push(0xff);
        let checksum = crc64(&out);
        out.extend(checksum.to_le_bytes());
        let mut file = std::fs::File::create(server.dir().join("dump.rdb")).expect("a file");
        file.write_all(&out).expect("written");
    }
}
