//! Every mutant of `module/core/mutants` still says lines that are there, once: else `make mutants` would find out too
//! late.

#[allow(dead_code)]
#[path = "../examples/mutants/mutant.rs"]
mod mutant;

use std::fs;
use std::path::Path;

#[test]
fn each_mutant_changes_lines_that_are_there() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let paths = mutant::all(core).expect("the folder of mutants");
    assert!(paths.len() >= 70, "{} mutants", paths.len());
    for path in paths {
        let mutant =
            mutant::Mutant::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for edit in mutant.edits {
            let text = fs::read_to_string(core.join(&edit.file)).expect("a source");
            let occurrences = text.matches(&*edit.from).count();
            let mutant::Edit { file, from, .. } = edit;
            assert_eq!(occurrences, 1, "{}: in {file}:\n{from}", path.display());
        }
    }
}
