//! Do the tests of this crate find a fault? Each file in `module/core/mutants` is one: a small change to the logic that
//! must make a test fail. `make mutants` runs them all, `make mutants NAME=one,other` those whose names contain one of
//! the words.
//!
//! The sources are copied into `target/mutants` first, so the tree is left alone; all mutants share one build directory
//! there. Of each only what finds it is compiled and run: the test that its file names, and the others only if that one
//! passes.

mod mutant;
mod tree;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use mutant::{Mutant, Outcome};
use tree::Tree;

fn run() -> Outcome<bool> {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = core.ancestors().nth(2).ok_or("a workspace")?;
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let mut paths = mutant::all(core)?;
    let is_wanted = |name: &str| wanted.split(',').any(|word| name.contains(word));
    paths.retain(|path| is_wanted(&path.file_stem().unwrap_or_default().to_string_lossy()));
    let began = Instant::now();
    let tree = Tree::copy(workspace)?;
    tree.try_without_any()?;
    println!("without any: no test fails, {:.0?}", began.elapsed());
    let (mut found, mut trouble) = (0, Vec::new());
    for path in &paths {
        let began = Instant::now();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let outcome = Mutant::read(path).and_then(|mutant| tree.found_by(&mutant));
        let took = began.elapsed();
        match outcome {
            Ok(Some(test)) => {
                found += 1;
                println!("found    {name}  by {test}, {took:.0?}");
            }
            Ok(None) => {
                println!("MISSED   {name}, {took:.0?}");
                trouble.push(name);
            }
            Err(why) => {
                println!("INVALID  {name}: {why}");
                trouble.push(name);
            }
        }
    }
    println!("{found} of {} mutants found", paths.len());
    Ok(trouble.is_empty() && !paths.is_empty())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("mutants: {why}");
            ExitCode::FAILURE
        }
    }
}
