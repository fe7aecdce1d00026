//! Rules about documents: what they name exists, and tables say what the code says.

use std::collections::BTreeSet;

use crate::tree::{File, file, files, none, top};

/// Documents that are kept true. Results are written by programs.
pub fn documents() -> impl Iterator<Item = &'static File> {
    files(&[".md"]).filter(|file| {
        !file.path.contains("results/")
            && !file.path.ends_with("RESULTS.md")
            && file.path != "CHANGELOG.md"
    })
}

/// Text between backquotes, line by line, without fenced code.
fn quoted(file: &File) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (n, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(
                line.split('`')
                    .skip(1)
                    .step_by(2)
                    .map(|text| (n + 1, text.to_owned())),
            );
        }
    }
    found
}

/// `a/{b,c}.rs` is two paths.
fn spread(path: &str) -> Vec<String> {
    match (path.find('{'), path.find('}')) {
        (Some(open), Some(close)) if open < close => path[open + 1..close]
            .split(',')
            .map(|middle| format!("{}{}{}", &path[..open], middle.trim(), &path[close + 1..]))
            .collect(),
        _ => vec![path.to_owned()],
    }
}

#[test]
fn paths_in_documents_exist() {
    let folders = [
        "module/",
        "client/",
        "tests/",
        "benches/",
        "examples/",
        "docs/",
        "packaging/",
        ".ci/",
    ];
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in documents() {
        for (line, text) in quoted(document) {
            if !folders.iter().any(|folder| text.starts_with(folder))
                || text.contains(['*', '<', ' ', '$'])
            {
                continue;
            }
            for path in spread(text.split("::").next().unwrap_or(&text)) {
                seen += 1;
                let here = top()
                    .join(&document.path)
                    .parent()
                    .expect("a folder")
                    .join(&path);
                if !top().join(&path).exists() && !here.exists() {
                    wrong.push(format!("{}:{line}: {path}", document.path));
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} paths were looked at");
    none(wrong, "a path that a document names exists");
}

#[test]
fn the_index_of_examples_has_every_example() {
    let index = &file("examples/README.md").text;
    // Seen from the index; of a folder, the file that begins it.
    let seen = |path: &'static str| match path.strip_prefix("examples/") {
        Some(path) => {
            let begins =
                !path.contains('/') || path.ends_with("/main.rs") || path.ends_with("mcache.py");
            (begins && !path.contains("bench")).then(|| path.to_owned())
        }
        None => path
            .starts_with("client/examples/")
            .then(|| format!("../{path}")),
    };
    let examples: Vec<_> = files(&[".rs", ".py"])
        .filter_map(|file| seen(&file.path))
        .collect();
    assert!(examples.len() >= 10, "only {} examples", examples.len());
    let missing = examples
        .into_iter()
        .filter(|path| !index.contains(&format!("({path})")))
        .collect();
    none(missing, "examples/README.md has every example");
}

#[test]
fn every_page_says_in_short_what_is_in_it() {
    let pages = documents().filter(|page| page.path.starts_with("docs/"));
    let wrong = pages
        .filter(|page| !["docs/README.md", "docs/glossary.md"].contains(&page.path.as_str()))
        .filter(|page| {
            let mut lines = page.text.lines().skip(1).filter(|line| !line.is_empty());
            !lines
                .next()
                .is_some_and(|line| line.starts_with("> **In short.**"))
        })
        .map(|page| page.path.clone())
        .collect();
    none(
        wrong,
        "a page begins with `> **In short.**` and up to five lines",
    );
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in documents() {
        for part in document.text.split("](").skip(1) {
            let target = part.split([')', ' ', '\n']).next().unwrap_or("");
            // What has `::` in it is an item of rustdoc, which checks it.
            if target.contains("::")
                || target.contains("://")
                || target.starts_with("mailto:")
                || target.starts_with('<')
            {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let whole = if path.is_empty() {
                top().join(&document.path)
            } else {
                top()
                    .join(&document.path)
                    .parent()
                    .expect("a folder")
                    .join(path)
            };
            seen += 1;
            if !whole.exists() {
                wrong.push(format!("{}: {target}", document.path));
                continue;
            }
            if anchor.is_empty() || whole.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&whole).unwrap_or_default();
            if !text
                .lines()
                .any(|line| line.starts_with('#') && slug(line) == anchor)
            {
                wrong.push(format!("{}: {target} has no such heading", document.path));
            }
        }
    }
    assert!(seen > 50, "only {seen} links were looked at");
    none(wrong, "a link leads to a file and a heading that exist");
}

/// A heading as links spell it.
fn slug(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// Names that begin like this in a text, up to the first character that cannot be in one.
fn names(text: &str, prefix: &str) -> BTreeSet<String> {
    text.match_indices(prefix)
        .filter_map(|(at, _)| {
            let rest = &text[at + prefix.len()..];
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
                .unwrap_or(rest.len());
            (end > 0).then(|| rest[..end].trim_end_matches(['-', '_']).to_owned())
        })
        .collect()
}

#[test]
fn every_option_is_documented_and_every_documented_option_exists() {
    let config = &file("module/src/config.rs").text;
    let mut options: BTreeSet<String> = config
        .split("Number::new(")
        .skip(1)
        .filter_map(|rest| rest.split('"').nth(1))
        .map(str::to_owned)
        .collect();
    options.extend(["feed", "on-restart", "on-promote", "accept-valkey-8-1"].map(str::to_owned));
    assert!(options.len() >= 14, "{options:?}");
    let operations = &file("docs/operations.md").text;
    let mut wrong: Vec<String> = options
        .iter()
        .filter(|option| {
            !operations.contains(&format!("`mcache.{option}`"))
                && !operations.contains(&format!("`{option}`"))
        })
        .map(|option| format!("docs/operations.md does not name {option}"))
        .collect();
    for document in documents() {
        for name in names(&document.text, "mcache.") {
            let is_option = name.contains('-') && !name.contains('_');
            if is_option && !options.contains(&name) {
                wrong.push(format!("{}: mcache.{name} is no option", document.path));
            }
        }
    }
    none(wrong, "docs/operations.md names the options there are");
}

#[test]
fn every_command_is_in_the_readme_and_the_protocol() {
    let table = &file("module/src/commands/table.rs").text;
    let commands: BTreeSet<String> = names(table, "c\"mcache.")
        .iter()
        .map(|name| name.to_uppercase())
        .collect();
    assert!(commands.len() >= 15, "{commands:?}");
    // Not for users: how the server speaks to its replicas, its own file and itself.
    let own = |name: &str| {
        name.starts_with("REPL")
            || ["RECLAIM", "DEBUG", "WRITABLE"].contains(&name)
            || name.starts_with("PANIC")
    };
    let mut wrong = Vec::new();
    for document in ["README.md", "docs/protocol.md"] {
        for command in commands.iter().filter(|name| !own(name)) {
            if !file(document).text.contains(&format!("MCACHE.{command}")) {
                wrong.push(format!("{document} does not name MCACHE.{command}"));
            }
        }
    }
    // One page speaks of a command that was not built.
    for document in documents().filter(|file| file.path != "docs/keymeta.md") {
        for name in names(&document.text, "MCACHE.") {
            let known = commands.contains(&name.to_uppercase());
            if !known && name.chars().all(|c| c.is_ascii_uppercase()) {
                wrong.push(format!("{}: there is no MCACHE.{name}", document.path));
            }
        }
    }
    none(wrong, "documents name the commands there are");
}

#[test]
fn fields_of_info_that_documents_name_exist() {
    let sources: String = files(&[".rs"])
        .filter(|file| file.path.starts_with("module/src/"))
        .map(|file| file.text.as_str())
        .collect();
    let mut wrong = Vec::new();
    for document in documents().filter(|file| {
        ["docs/operations.md", "docs/near.md", "docs/consistency.md"].contains(&&*file.path)
    }) {
        for name in names(&document.text, "mcache_") {
            // The crate.
            if name.starts_with("core") {
                continue;
            }
            if !sources.contains(&format!("\"{name}\""))
                && !sources.contains(&format!("\"mcache_{name}\""))
            {
                wrong.push(format!("{}: mcache_{name}", document.path));
            }
        }
    }
    none(wrong, "a field of INFO that a document names exists");
}

#[test]
fn commands_of_make_that_documents_name_exist() {
    let makefile = &file("Makefile").text;
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter_map(|line| line.strip_prefix(".PHONY: "))
        .flat_map(str::split_whitespace)
        .collect();
    let mut wrong = Vec::new();
    for document in files(&[".md"]) {
        for (line, text) in quoted(document) {
            let Some(target) = text
                .strip_prefix("make ")
                .and_then(|rest| rest.split_whitespace().next())
            else {
                continue;
            };
            if !targets.contains(target) {
                wrong.push(format!("{}:{line}: make {target}", document.path));
            }
        }
    }
    none(wrong, "a target of make that a document names exists");
}

#[test]
fn situations_of_postgres_name_tests_that_exist() {
    let page = file("docs/postgres.md");
    let (_, situations) = page
        .text
        .split_once("## Situations and their tests")
        .expect("the page lists them");
    let mut seen = 0;
    let mut wrong = Vec::new();
    let words = situations.split('`').skip(1).step_by(2);
    for name in words.filter(|word| word.contains("::") && !word.contains("...")) {
        let (module, test) = name.rsplit_once("::").expect("it has one");
        let path = match module {
            "decode::tests" => "client/postgres/src/decode/tests.rs".to_owned(),
            module => format!("tests/suite/postgres/{module}.rs"),
        };
        seen += 1;
        let exists = files(&[".rs"])
            .any(|file| file.path == path && file.text.contains(&format!("fn {test}()")));
        if !exists {
            wrong.push(format!("{name} (in {path})"));
        }
    }
    assert!(seen > 50, "only {seen} were found");
    none(wrong, "docs/postgres.md names tests that exist");
}
