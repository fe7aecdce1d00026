//! The bytes around a stored value: which codec and schema wrote it, and whether it is compressed.
//!
//! ```text
//!    0      1       2      3        5                    9
//! +------+-------+-------+--------+--------------------+---------
//! | 0xC1 | flags | codec | schema | plain length       | payload
//! |      |       |       | u16 LE | u32 LE, compressed |
//! +------+-------+-------+--------+--only--------------+---------
//! ```
//!
//! 0xC1 begins no UTF-8 text and no MessagePack value, so bytes that another program put there are recognised.
//! Anything that cannot be opened is a miss: a cache may forget, it must not guess.
//!
//! Compression is LZ4. Measured on generated product JSON, compressed size and the time to compress and decompress:
//!
//! | JSON | LZ4 | gzip, level 1 | gzip, level 6 |
//! |---|---|---|---|
//! | 1.7 KB | 62 %, 6 + 1 µs | 50 %, 63 + 26 µs | 48 %, 99 + 25 µs |
//! | 23 KB | 36 %, 46 + 9 µs | 28 %, 190 + 100 µs | 24 %, 800 + 70 µs |
//! | 389 KB | 33 %, 1.1 + 0.24 ms | 26 %, 3.3 + 2.3 ms | 21 %, 24 + 1.2 ms |
//!
//! A hit pays the right-hand number, and gzip's is more than the round trip to the server. Below 2 KB there is too
//! little to save: hence the default threshold.

use std::borrow::Cow;

use bytes::Bytes;

/// First byte of every envelope; changes if the layout does.
const FORMAT: u8 = 0xC1;
const HEADER_BYTES: usize = 5;
const LENGTH_BYTES: usize = 4;
const CODEC_AT: usize = 2;

/// In the place of a codec: the payload is the caller's own bytes.
const RAW: u8 = 0;

const COMPRESSED: u8 = 1 << 0;
/// There is no value: the source was asked and said so.
const ABSENT: u8 = 1 << 1;
const KNOWN_FLAGS: u8 = COMPRESSED | ABSENT;

/// LZ4 cannot do better than about 1:255; a length beyond that is a lie, not a value.
const COMPRESSION_RATIO_MAX: usize = 255;

/// How this cache seals and opens values.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) codec: u8,
    pub(crate) schema: u16,
    /// Payloads of at least this size are compressed; `None`: never.
    pub(crate) compress_from_bytes: Option<usize>,
    /// Larger values are neither written nor read.
    pub(crate) value_bytes_max: usize,
}

/// What an envelope held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Payload<B> {
    Value(B),
    Absent,
}

/// Why bytes could not be opened; the text is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Format,
    Codec,
    Schema,
    Compression,
    TooLarge,
}

impl Unreadable {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Codec => "codec",
            Self::Schema => "schema",
            Self::Compression => "compression",
            Self::TooLarge => "too_large",
        }
    }
}

impl Envelope {
    /// A buffer with room for the header, to encode a value into before [`seal`](Self::seal).
    pub(crate) fn begin(&self) -> Vec<u8> {
        self.header(0, self.codec)
    }

    /// As [`begin`](Self::begin), for bytes that no codec has written.
    pub(crate) fn begin_raw(&self) -> Vec<u8> {
        self.header(0, RAW)
    }

    /// Closes a buffer from [`begin`](Self::begin); `None` if the value is larger than is kept.
    pub(crate) fn seal(&self, plain: Vec<u8>) -> Option<Bytes> {
        let payload = &plain[HEADER_BYTES..];
        if payload.len() > self.value_bytes_max {
            return None;
        }
        match self.compress_from_bytes {
            Some(threshold) if payload.len() >= threshold => {
                let length = u32::try_from(payload.len()).ok()?;
                let packed = lz4_flex::block::compress(payload);
                // Random bytes grow; then plain is smaller and faster.
                if packed.len() + LENGTH_BYTES >= payload.len() {
                    return Some(plain.into());
                }
                let mut sealed = self.header(COMPRESSED, plain[CODEC_AT]);
                sealed.reserve_exact(LENGTH_BYTES + packed.len());
                sealed.extend_from_slice(&length.to_le_bytes());
                sealed.extend_from_slice(&packed);
                Some(sealed.into())
            }
            _ => Some(plain.into()),
        }
    }

    /// What is stored for "the source has nothing here".
    pub(crate) fn absent(&self) -> Bytes {
        self.header(ABSENT, self.codec).into()
    }

    /// The payload, without a copy or an allocation unless it is compressed.
    pub(crate) fn open<'a>(&self, sealed: &'a [u8]) -> Result<Payload<Cow<'a, [u8]>>, Unreadable> {
        self.open_as(sealed, self.codec)
    }

    /// As [`open`](Self::open), for bytes that no codec has written. They share the buffer unless it is compressed.
    pub(crate) fn open_raw(&self, sealed: &Bytes) -> Result<Payload<Bytes>, Unreadable> {
        Ok(match self.open_as(sealed, RAW)? {
            Payload::Value(Cow::Borrowed(plain)) => Payload::Value(sealed.slice_ref(plain)),
            Payload::Value(Cow::Owned(plain)) => Payload::Value(plain.into()),
            Payload::Absent => Payload::Absent,
        })
    }

    fn open_as<'a>(
        &self,
        sealed: &'a [u8],
        expected: u8,
    ) -> Result<Payload<Cow<'a, [u8]>>, Unreadable> {
        let &[
            format,
            flags,
            codec,
            schema_low,
            schema_high,
            ref payload @ ..,
        ] = sealed
        else {
            return Err(Unreadable::Format);
        };
        if format != FORMAT || flags & !KNOWN_FLAGS != 0 {
            return Err(Unreadable::Format);
        }
        if codec != expected {
            return Err(Unreadable::Codec);
        }
        if u16::from_le_bytes([schema_low, schema_high]) != self.schema {
            return Err(Unreadable::Schema);
        }
        if flags & ABSENT != 0 {
            return Ok(Payload::Absent);
        }
        if flags & COMPRESSED == 0 {
            return Ok(Payload::Value(Cow::Borrowed(payload)));
        }
        let plain = self.unpack(payload)?;
        Ok(Payload::Value(Cow::Owned(plain)))
    }

    fn unpack(&self, packed: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let (length, packed) = packed
            .split_first_chunk::<LENGTH_BYTES>()
            .ok_or(Unreadable::Compression)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.value_bytes_max {
            return Err(Unreadable::TooLarge);
        }
        // The length decides how much is allocated, so it is doubted before it is used.
        if length > packed.len().saturating_mul(COMPRESSION_RATIO_MAX) {
            return Err(Unreadable::Compression);
        }
        match lz4_flex::block::decompress(packed, length) {
            Ok(plain) if plain.len() == length => Ok(plain),
            _ => Err(Unreadable::Compression),
        }
    }

    fn header(&self, flags: u8, codec: u8) -> Vec<u8> {
        let [schema_low, schema_high] = self.schema.to_le_bytes();
        vec![FORMAT, flags, codec, schema_low, schema_high]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            codec: 1,
            schema: 7,
            compress_from_bytes: Some(64),
            value_bytes_max: 10_000,
        }
    }

    fn sealed(envelope: &Envelope, payload: &[u8]) -> Bytes {
        let mut buffer = envelope.begin();
        buffer.extend_from_slice(payload);
        envelope.seal(buffer).expect("within the limit")
    }

    #[test]
    fn what_is_sealed_opens_again_compressed_or_not() {
        let envelope = envelope();
        for payload in [
            &b""[..],
            b"{}",
            &[b'x'; 63],
            &[b'x'; 64],
            &[b'x'; 10_000],
            &pseudo_random(500),
        ] {
            let bytes = sealed(&envelope, payload);
            assert_eq!(
                envelope.open(&bytes),
                Ok(Payload::Value(Cow::Borrowed(payload)))
            );
        }
    }

    #[test]
    fn compression_starts_at_the_threshold_and_only_where_it_helps() {
        let envelope = envelope();
        assert_eq!(sealed(&envelope, &[b'x'; 63]).len(), HEADER_BYTES + 63);
        assert!(sealed(&envelope, &[b'x'; 64]).len() < 40);
        assert_eq!(
            sealed(&envelope, &pseudo_random(500)).len(),
            HEADER_BYTES + 500
        );
    }

    #[test]
    fn raw_bytes_come_back_as_they_were_and_are_no_value_of_a_codec() {
        let envelope = envelope();
        for payload in [&[b'x'; 1000][..], &pseudo_random(500)] {
            let mut buffer = envelope.begin_raw();
            buffer.extend_from_slice(payload);
            let bytes = envelope.seal(buffer).expect("within the limit");
            let whole = Payload::Value(Bytes::copy_from_slice(payload));
            assert_eq!(envelope.open_raw(&bytes), Ok(whole));
            assert_eq!(envelope.open(&bytes), Err(Unreadable::Codec));
        }
        let typed = sealed(&envelope, b"{}");
        assert_eq!(envelope.open_raw(&typed), Err(Unreadable::Codec));
    }

    #[test]
    fn absence_is_a_value_of_its_own() {
        let envelope = envelope();
        assert_eq!(envelope.open(&envelope.absent()), Ok(Payload::Absent));
    }

    #[test]
    fn a_value_over_the_limit_is_not_sealed() {
        let envelope = envelope();
        let mut buffer = envelope.begin();
        buffer.resize(HEADER_BYTES + 10_001, b'x');
        assert_eq!(envelope.seal(buffer), None);
    }

    #[test]
    fn what_another_codec_or_schema_wrote_is_unreadable() {
        let bytes = sealed(&envelope(), b"{}");
        let other_codec = Envelope {
            codec: 2,
            ..envelope()
        };
        let other_schema = Envelope {
            schema: 8,
            ..envelope()
        };
        assert_eq!(other_codec.open(&bytes), Err(Unreadable::Codec));
        assert_eq!(other_schema.open(&bytes), Err(Unreadable::Schema));
    }

    #[test]
    fn any_damage_is_unreadable_or_harmless_but_never_a_panic_or_a_huge_allocation() {
        let envelope = envelope();
        let good = sealed(&envelope, &[b'x'; 200]);
        for length in 0..good.len() {
            assert!(envelope.open(&good.slice(..length)).is_err());
        }
        for index in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[index] ^= 1 << bit;
                if let Ok(Payload::Value(value)) = envelope.open(&bad) {
                    assert!(value.len() <= envelope.value_bytes_max);
                }
            }
        }
        let mut lie = envelope.header(COMPRESSED, envelope.codec);
        lie.extend_from_slice(&9_999u32.to_le_bytes());
        lie.extend_from_slice(b"ab");
        assert_eq!(envelope.open(&lie), Err(Unreadable::Compression));
        for foreign in [&b""[..], b"{}", b"plain text", &[FORMAT]] {
            assert_eq!(envelope.open(foreign), Err(Unreadable::Format));
        }
    }

    /// Bytes no compressor can shrink, the same on every run.
    fn pseudo_random(count: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect()
    }

    #[derive(serde::Deserialize)]
    struct Cases {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        codec: u8,
        schema: u16,
        sealed: String,
        outcome: String,
        payload: Option<String>,
        #[serde(default)]
        seals: bool,
    }

    fn from_hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits
            .map(|two| {
                let two = std::str::from_utf8(two).expect("ASCII");
                u8::from_str_radix(two, 16).expect("hexadecimal")
            })
            .collect()
    }

    #[test]
    fn envelopes_are_written_and_read_as_every_client_does() {
        let cases = include_str!("../vectors/envelope.json");
        let cases: Cases = serde_json::from_str(cases).expect("JSON of the known form");
        for case in cases.cases {
            let envelope = Envelope {
                codec: case.codec,
                schema: case.schema,
                compress_from_bytes: None,
                value_bytes_max: 1 << 20,
            };
            let sealed = Bytes::from(from_hex(&case.sealed));
            let payload = case.payload.as_deref().map(from_hex);
            let outcome = match envelope.open(&sealed) {
                Ok(Payload::Value(bytes)) => {
                    assert_eq!(Some(bytes.to_vec()), payload, "{}", case.name);
                    "value"
                }
                Ok(Payload::Absent) => "absent",
                Err(_) => "unreadable",
            };
            assert_eq!(outcome, case.outcome, "{}", case.name);
            if case.seals {
                let mut buffer = envelope.begin();
                buffer.extend(payload.expect("what is sealed"));
                assert_eq!(envelope.seal(buffer), Some(sealed), "{}", case.name);
            }
        }
    }
}
