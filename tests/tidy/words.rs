//! Rules about words: comments and documents name what acts.

use crate::documents::documents;
use crate::tree::{File, files, none};

/// Words that hide what acts or what is meant: the caller, the command, another process, a replica.
const HIDING: [&str; 6] = [
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "whoever",
    "whatever",
];

/// Words for people: a caller is a program, so it is "it" or "they".
const PEOPLE: [&str; 6] = ["he", "him", "his", "himself", "she", "her"];

/// The text that people read: comments of code, and documents outside of code.
fn prose(file: &'static File) -> impl Iterator<Item = (usize, &'static str)> {
    let document = file.path.ends_with(".md");
    let mut fenced = false;
    file.text.lines().enumerate().filter_map(move |(n, line)| {
        let text = line.trim_start();
        if document && text.starts_with("```") {
            fenced = !fenced;
        }
        let comment = match document {
            true => (!fenced).then_some(text),
            false => text.find("//").map(|at| &text[at..]),
        };
        comment.map(|text| (n + 1, text))
    })
}

#[test]
fn prose_names_what_acts() {
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    for file in files(&[".rs", ".js", ".mjs"]).chain(documents()) {
        // Where the rule names its words.
        if ["tests/tidy/words.rs", "CONTRIBUTING.md"].contains(&&*file.path) {
            continue;
        }
        for (n, text) in prose(file) {
            looked_at += 1;
            let words = text
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .map(str::to_lowercase);
            let refused = |word: &str| HIDING.contains(&word) || PEOPLE.contains(&word);
            for word in words.filter(|word| refused(word)) {
                wrong.push(format!("{}:{n}: {word}", file.path));
            }
        }
    }
    assert!(looked_at > 10_000, "only {looked_at} lines were looked at");
    none(
        wrong,
        "comments and documents name what acts, and a caller is no person",
    );
}
