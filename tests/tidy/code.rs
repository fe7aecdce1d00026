//! Rules about source files.

use crate::tree::{file, files, none};

/// Where unsafe code may stand: the roof and the floor of the module's edge, and what owns memory in core.
const UNSAFE: [&str; 4] = [
    "module/src/callbacks/",
    "module/src/redis/",
    "module/core/src/entry.rs",
    "module/core/src/index/",
];

/// Most lines of a file.
const LINES: usize = 600;

/// Most columns of a line of a comment.
const COLUMNS: usize = 120;

fn is_code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

/// The part of a file before its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

#[test]
fn unsafe_code_stands_where_the_architecture_says() {
    let wrong = files(&[".rs"])
        .filter(|file| {
            file.path.starts_with("module/src")
                || file.path.starts_with("module/core/src")
                || file.path.starts_with("client")
        })
        .filter(|file| !UNSAFE.iter().any(|place| file.path.starts_with(place)))
        .flat_map(|file| {
            without_tests(&file.text)
                .lines()
                .enumerate()
                .filter(|(_, line)| is_code(line) && line.contains("unsafe "))
                .map(move |(n, line)| format!("{}:{}: {}", file.path, n + 1, line.trim()))
        })
        .collect();
    none(wrong, "unsafe code stands in four places only");
}

#[test]
fn decisions_are_made_in_core() {
    // What would be a decision at the edge: comparing epochs, births, deadlines or conditions.
    let signs = [
        ".birth() <",
        ".birth() >",
        "epoch <",
        "epoch >",
        "ends_ms <",
        "ends_ms >",
        "Verdict::",
        "floor <",
        "floor >",
    ];
    let wrong = files(&[".rs"])
        .filter(|file| file.path.starts_with("module/src/"))
        .flat_map(|file| {
            file.text
                .lines()
                .enumerate()
                .filter(|(_, line)| is_code(line) && signs.iter().any(|sign| line.contains(sign)))
                .map(move |(n, line)| format!("{}:{}: {}", file.path, n + 1, line.trim()))
        })
        .collect();
    none(wrong, "module/src compares no epochs, deadlines or states");
}

#[test]
fn every_source_file_says_first_what_it_is() {
    let wrong = files(&[".rs"])
        .filter(|file| !file.text.starts_with("//!") && !file.text.starts_with("#![doc = "))
        .map(|file| file.path.clone())
        .chain(
            files(&[".js", ".mjs", ".py", ".lua"])
                .filter(|file| {
                    let first = file
                        .text
                        .lines()
                        .find(|line| !line.starts_with("#!") && *line != "\"use strict\"")
                        .unwrap_or("");
                    !["//", "/*", "#", "\"\"\"", "--"]
                        .iter()
                        .any(|sign| first.starts_with(sign))
                })
                .map(|file| file.path.clone()),
        )
        .collect();
    none(wrong, "a file opens with a comment that says what it is");
}

#[test]
fn files_are_short() {
    let wrong = files(&[".rs", ".js", ".mjs", ".py"])
        .map(|file| (file, file.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .map(|(file, lines)| format!("{}: {lines} lines", file.path))
        .collect();
    none(wrong, "a file has at most 600 lines");
}

#[test]
fn comments_fit_on_a_screen() {
    // A row of a table, a line of an example and a type for JavaScript's checker cannot be broken.
    let breaks = |line: &str| {
        let line = line.trim_start();
        let text = line.trim_start_matches(['/', '!', '*', '-']).trim_start();
        ["//", "/*", "* ", "--"]
            .iter()
            .any(|sign| line.starts_with(sign))
            && !text.starts_with(['|', '#'])
            && !text.contains("@type {")
            && !text.contains("@param {")
            && !text.contains("@returns {")
    };
    let wrong = files(&[".rs", ".js", ".mjs", ".lua"])
        .flat_map(|file| {
            file.text
                .lines()
                .enumerate()
                .filter(|(_, line)| breaks(line) && line.chars().count() > COLUMNS)
                .map(move |(n, line)| {
                    format!("{}:{}: {} columns", file.path, n + 1, line.chars().count())
                })
        })
        .collect();
    none(
        wrong,
        &format!("a line of a comment has at most {COLUMNS} columns"),
    );
}

#[test]
fn each_dependency_says_why_it_is_there() {
    let mut wrong = Vec::new();
    for manifest in files(&["Cargo.toml"]).filter(|file| !file.path.contains("fuzz")) {
        let mut inside = false;
        let mut explained = false;
        for (n, line) in manifest.text.lines().enumerate() {
            if line.starts_with('[') {
                inside = line.contains("dependencies");
                explained = false;
                continue;
            }
            if !inside {
                continue;
            }
            if line.starts_with('#') {
                explained = true;
            } else if line.trim().is_empty() {
                explained = false;
            } else if line.contains(" = ") || line.contains(".workspace") {
                // One of several under a common comment, or one that the workspace's own manifest explains.
                if !explained && !line.contains("workspace") {
                    wrong.push(format!("{}:{}: {line}", manifest.path, n + 1));
                }
            }
        }
    }
    none(
        wrong,
        "a comment above each dependency says why it is there",
    );
}

#[test]
fn needed_functions_of_the_server_are_used() {
    // What `required` names in the module is called somewhere; what is not called must not be required.
    let loading = &file("module/src/redis/mod.rs").text;
    let everything: String = files(&[".rs"])
        .filter(|file| {
            file.path.starts_with("module/src/") && file.path != "module/src/redis/mod.rs"
        })
        .map(|file| file.text.as_str())
        .collect();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for name in loading
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("RedisModule_"))
    {
        seen += 1;
        let calls = everything.matches(name).count() + loading.matches(name).count() - 1;
        if calls == 0 {
            wrong.push(name.to_owned());
        }
    }
    assert!(
        seen > 0,
        "module/src/redis/mod.rs names no function of the server"
    );
    none(wrong, "a function of the server that is required is called");
}
