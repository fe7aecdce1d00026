//! The calls that a real shop made to its cache (see `examples/data/README.md`).
//!
//! Owns the format of the recording. It must not know what the calls are replayed against.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::locate;

/// A recording: the calls of one server to its cache, in order.
pub struct Trace {
    tags: Vec<String>,
    calls: Vec<Call>,
}

/// One recorded call.
pub enum Call {
    /// A read.
    Get {
        /// The number of the key.
        key: u32,
        /// Whether it was a hit then.
        hit: bool,
    },
    /// A fill.
    Set {
        /// The number of the key.
        key: u32,
        /// The numbers of its tags.
        tags: Vec<u32>,
        /// The length of the value as JSON.
        json_bytes: usize,
        /// Its length as the recorded server stored it, compressed if large.
        stored_bytes: usize,
        /// Its time to live in seconds.
        ttl_s: u64,
    },
    /// An invalidation.
    Clear {
        /// The numbers of the tags.
        tags: Vec<u32>,
    },
}

#[derive(Deserialize)]
struct Header {
    v: u32,
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "o")]
enum Line {
    #[serde(rename = "g")]
    Get { k: u32, h: u8 },
    #[serde(rename = "s")]
    Set {
        k: u32,
        #[serde(rename = "T")]
        tags: Vec<u32>,
        b: usize,
        z: usize,
        ttl: u64,
    },
    #[serde(rename = "c")]
    Clear {
        #[serde(rename = "T")]
        tags: Vec<u32>,
    },
}

impl Trace {
    /// Where the recording is that comes with the project.
    pub fn recorded() -> PathBuf {
        locate::workspace().join("examples/data/medusa-trace.jsonl")
    }

    /// Reads a recording.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, and where.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut lines = text.lines().enumerate();
        let at =
            |number: usize, e: serde_json::Error| format!("{}:{}: {e}", path.display(), number + 1);
        let (number, first) = lines
            .next()
            .ok_or_else(|| format!("{} is empty", path.display()))?;
        let header: Header = serde_json::from_str(first).map_err(|e| at(number, e))?;
        if header.v != 1 {
            return Err(format!(
                "{} is of version {}, not 1",
                path.display(),
                header.v
            ));
        }
        let calls = lines
            .map(|(number, line)| {
                serde_json::from_str::<Line>(line)
                    .map(Call::from)
                    .map_err(|e| at(number, e))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            tags: header.tags,
            calls,
        })
    }

    /// The calls, in order.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// How many tags there are.
    pub fn tag_count(&self) -> usize {
        self.tags.len()
    }

    /// The names of tags.
    pub fn names<'a>(&'a self, tags: &'a [u32]) -> impl Iterator<Item = &'a str> {
        tags.iter().map(|&tag| self.tags[tag as usize].as_str())
    }
}

impl From<Line> for Call {
    fn from(line: Line) -> Self {
        match line {
            Line::Get { k, h } => Self::Get {
                key: k,
                hit: h == 1,
            },
            Line::Set { k, tags, b, z, ttl } => Self::Set {
                key: k,
                tags,
                json_bytes: b,
                stored_bytes: z,
                ttl_s: ttl,
            },
            Line::Clear { tags } => Self::Clear { tags },
        }
    }
}
