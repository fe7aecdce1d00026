//! The files of the project, read once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A text file: its path from the top of the tree, and what is in it.
pub struct File {
    pub path: String,
    pub text: String,
}

/// Folders that hold what is built, fetched or recorded.
const SKIPPED: [&str; 5] = ["target", ".git", "node_modules", "corpus", "data"];

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let mut files = Vec::new();
    collect(&top(), &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 300, "only {} files found", files.len());
    files
});

/// The top of the tree.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is a folder of the tree")
        .to_owned()
}

/// All files whose name ends with one of these.
pub fn files(endings: &[&str]) -> impl Iterator<Item = &'static File> {
    FILES
        .iter()
        .filter(move |file| endings.iter().any(|ending| file.path.ends_with(ending)))
}

/// One file.
pub fn file(path: &str) -> &'static File {
    FILES
        .iter()
        .find(|file| file.path == path)
        .unwrap_or_else(|| panic!("there is no {path}"))
}

/// Says everything that is wrong.
pub fn none(wrong: Vec<String>, rule: &str) {
    assert!(
        wrong.is_empty(),
        "{rule}; {} places break it:\n  {}",
        wrong.len(),
        wrong.join("\n  ")
    );
}

fn collect(folder: &Path, files: &mut Vec<File>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry of a folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if SKIPPED.contains(&&*name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(top()).expect("below the top");
            files.push(File {
                path: path.to_string_lossy().into_owned(),
                text,
            });
        }
    }
}
