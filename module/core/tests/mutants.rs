//! Every mutant of `module/core/mutants` and `client/mutants/near` still says lines that are there, once: else
//! `make mutants` and `make mutants-near` would find out too late.

#[allow(dead_code)]
#[path = "../examples/mutants/mutant.rs"]
mod mutant;

use std::fs;
use std::path::Path;

fn check(subject: &Path, folder: &str, least: usize) {
    let paths = mutant::all(&subject.join(folder)).expect("the folder of mutants");
    assert!(paths.len() >= least, "{} mutants", paths.len());
    for path in paths {
        let mutant =
            mutant::Mutant::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for edit in mutant.edits {
            let text = fs::read_to_string(subject.join(&edit.file)).expect("a source");
            let occurrences = text.matches(&*edit.from).count();
            let mutant::Edit { file, from, .. } = edit;
            assert_eq!(occurrences, 1, "{}: in {file}:\n{from}", path.display());
        }
    }
}

#[test]
fn each_mutant_changes_lines_that_are_there() {
    check(Path::new(env!("CARGO_MANIFEST_DIR")), "mutants", 70);
}

#[test]
fn each_mutant_of_the_client_changes_lines_that_are_there() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../client");
    check(&client, "mutants/near", 20);
}
