//! A mutant: a small fault, written as a text file in `module/core/mutants`.
//!
//! ```text
//! A sentence or more: what a server with this fault would do.
//! Found by: model the_index_agrees_with_a_naive_model
//! File: src/server/write.rs
//! <<<<
//! the lines as they are; they occur exactly once in the file
//! ====
//! the lines as they are to be
//! >>>>
//! ```
//! Several such blocks, with or without a `File:` line between them, make one mutant. The change must compile.
//! `Found by:` is a hint, a test target (`lib`, or a name in `tests/`) and perhaps a test in it: that is run first, and
//! the others only if it passes.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Some lines of a file, and what takes their place.
#[derive(Clone)]
pub struct Edit {
    pub file: String,
    pub from: String,
    pub to: String,
}

/// A fault.
pub struct Mutant {
    /// The test target, and the test in it, that are expected to find it.
    pub found_by: Option<(String, Option<String>)>,
    pub edits: Vec<Edit>,
}

impl Mutant {
    /// Reads one file.
    pub fn read(path: &Path) -> Outcome<Mutant> {
        let text = fs::read_to_string(path)?;
        let (mut file, mut found_by, mut edits) = (String::new(), None, Vec::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(named) = line.strip_prefix("File: ") {
                named.trim().clone_into(&mut file);
            } else if let Some(hint) = line.strip_prefix("Found by: ") {
                let mut words = hint.split_whitespace().map(str::to_owned);
                found_by = Some((words.next().ok_or("a target")?, words.next()));
            } else if line == "<<<<" {
                let mut until = |end: &str| -> Outcome<String> {
                    let mut block = String::new();
                    for line in lines.by_ref() {
                        if line == end {
                            return Ok(block);
                        }
                        block += line;
                        block.push('\n');
                    }
                    Err(format!("no {end}").into())
                };
                let (from, to) = (until("====")?, until(">>>>")?);
                let file = file.clone();
                edits.push(Edit { file, from, to });
            }
        }
        if edits.is_empty() {
            return Err("nothing to change".into());
        }
        Ok(Mutant { found_by, edits })
    }

    /// Makes the change in a copy of the crate; returns the files as they were.
    pub fn apply(&self, core: &Path) -> Outcome<Vec<(PathBuf, String)>> {
        let mut originals = Vec::new();
        for Edit { file, from, to } in &self.edits {
            let path = core.join(file);
            let text = fs::read_to_string(&path).map_err(|e| format!("{file}: {e}"))?;
            let occurrences = text.matches(&**from).count();
            if occurrences != 1 {
                restore(originals)?;
                return Err(
                    format!("these lines occur {occurrences} times in {file}:\n{from}").into(),
                );
            }
            fs::write(&path, text.replacen(&**from, to, 1))?;
            originals.push((path, text));
        }
        Ok(originals)
    }
}

/// Undoes [`Mutant::apply`].
pub fn restore(originals: Vec<(PathBuf, String)>) -> Outcome<()> {
    for (path, text) in originals.into_iter().rev() {
        fs::write(path, text)?;
    }
    Ok(())
}

/// The files of all mutants, by name.
pub fn all(core: &Path) -> Outcome<Vec<PathBuf>> {
    let mut paths = fs::read_dir(core.join("mutants"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Outcome<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|it| it == "txt"));
    paths.sort();
    Ok(paths)
}
