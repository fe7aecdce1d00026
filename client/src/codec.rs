//! How values become bytes: the [`Codec`] trait and JSON.
//!
//! A codec sees the value only. What is put around it (which codec, which schema, compressed or not) is the
//! envelope's.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, ErrorKind, Result};

/// How values become bytes and values again.
///
/// # Example: a codec of one's own
///
/// ```
/// use mcache::{Codec, Error, ErrorKind, Result};
/// use serde::{Serialize, de::DeserializeOwned};
///
/// /// JSON for people.
/// #[derive(Clone)]
/// struct Pretty;
///
/// impl Codec for Pretty {
///     const ID: u8 = 200;
///
///     fn encode<T: Serialize + ?Sized>(&self, value: &T, into: &mut Vec<u8>) -> Result<()> {
///         serde_json::to_writer_pretty(into, value)
///             .map_err(|error| Error::new(ErrorKind::Codec, error.to_string()))
///     }
///
///     fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
///         serde_json::from_slice(bytes)
///             .map_err(|error| Error::new(ErrorKind::Codec, error.to_string()))
///     }
/// }
/// ```
pub trait Codec: Clone + Send + Sync + 'static {
    /// Stored with each value; an entry written by another codec reads as a miss. Numbers below 128 are this
    /// crate's.
    const ID: u8;

    /// Appends the value's bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Codec`] if the value has no representation in this codec.
    fn encode<T: Serialize + ?Sized>(&self, value: &T, into: &mut Vec<u8>) -> Result<()>;

    /// The value these bytes were made from.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Codec`] if they are not such bytes; callers treat that as a miss.
    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T>;
}

/// JSON, the default: readable with `redis-cli`, and what a graph query's result is anyway.
///
/// ```
/// use mcache::{Codec, Json};
///
/// let mut bytes = Vec::new();
/// Json.encode(&[1, 2], &mut bytes)?;
/// assert_eq!(bytes, b"[1,2]");
/// assert_eq!(Json.decode::<Vec<u8>>(&bytes)?, [1, 2]);
/// # Ok::<(), mcache::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl Codec for Json {
    const ID: u8 = 1;

    fn encode<T: Serialize + ?Sized>(&self, value: &T, into: &mut Vec<u8>) -> Result<()> {
        serde_json::to_writer(into, value).map_err(codec_error)
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(codec_error)
    }
}

fn codec_error(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Codec, error.to_string())
}
