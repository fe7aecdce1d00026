//! Do these tests find a fault in the script? Each file in `client/mutants/plain` is one: a small change to what a Lua
//! file says. The script reaches the server with that change, on a line that makes it; a test must fail then.
//! `make mutants-plain` shows which test found which.

#[path = "../../../module/core/examples/mutants/mutant.rs"]
#[allow(dead_code)]
mod mutant;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use mutant::{Edit, Mutant};

use super::{bare, conforms, faulty, machine, provider, survival};

/// A test of the server at an address; it panics where that does something else.
type Finder = fn(&str, harness::Session);

/// The tests that may find one, by the name that stands in its file.
const FINDERS: [(&str, Finder); 4] = [
    ("machine", |url, session| {
        machine::compare(url, session, 4_000)
    }),
    ("conformance", |url, _| conforms::conforms(provider(url))),
    ("moments", conforms::moments),
    ("survival", survival::put_back),
];

/// How often a finder is run before the fault counts as missed.
const ATTEMPTS: usize = 10;

fn paths() -> (PathBuf, Vec<PathBuf>) {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client");
    let files = fs::read_dir(client.join("mutants/plain")).expect("the folder of mutants");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    (client, paths)
}

/// Whether the named test fails where each script is changed like this, and with which words.
fn found_by(name: &str, edits: &[Edit]) -> Option<String> {
    let (_, finder) = FINDERS
        .iter()
        .find(|(finder, _)| *finder == name)
        .unwrap_or_else(|| panic!("no test is named {name}"));
    let server = bare().tcp().start();
    let edits = edits.to_vec();
    let url = faulty::line(server.port(), move |text| {
        edits.iter().fold(text.to_owned(), |text, edit| {
            assert_eq!(text.matches(&edit.from).count(), 1, "{}", edit.from);
            text.replacen(&edit.from, &edit.to, 1)
        })
    });
    let outcome = catch_unwind(AssertUnwindSafe(|| finder(&url, server.session())));
    let why = outcome.err()?;
    let text = why.downcast_ref::<&str>().map(|why| (*why).to_owned());
    text.or_else(|| why.downcast_ref::<String>().cloned())
        .or_else(|| Some("a panic".to_owned()))
}

#[test]
fn without_a_fault_the_tests_that_find_them_pass() {
    for (name, _) in FINDERS {
        assert_eq!(found_by(name, &[]), None, "{name}");
    }
}

#[test]
fn each_fault_of_the_script_makes_a_test_fail() {
    let (client, paths) = paths();
    assert!(paths.len() >= 33, "{} mutants", paths.len());
    let mut missed = Vec::new();
    for path in paths {
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let mutant = Mutant::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        for edit in &mutant.edits {
            let text = fs::read_to_string(client.join(&edit.file)).expect("a source");
            assert_eq!(
                text.matches(&*edit.from).count(),
                1,
                "{name}: {}",
                edit.from
            );
        }
        let (finder, _) = mutant.found_by.expect("it says which test finds it");
        // A finder that draws its histories meets a fault in most of them, not in each.
        match (0..ATTEMPTS).find_map(|_| found_by(&finder, &mutant.edits)) {
            Some(why) => {
                let why = why.lines().next().unwrap_or_default();
                println!("found    {name}  by {finder}: {why}");
            }
            None => {
                println!("MISSED   {name}");
                missed.push(name);
            }
        }
    }
    assert!(missed.is_empty(), "no test finds {missed:?}");
}
