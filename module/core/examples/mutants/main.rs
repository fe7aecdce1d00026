//! Do the tests find a fault? Each file in `module/core/mutants` is one: a small change to the logic that must make a
//! test of this crate fail. `make mutants` runs them all, `make mutants NAME=one,other` those whose names contain one
//! of the words. `make mutants-near` does the same to the near cache's half in the client, with `client/mutants/near`
//! and its unit tests.
//!
//! The sources are copied into `target/mutants` first, so the tree is left alone; all mutants share one build
//! directory there. Of each only what finds it is compiled and run: the test that its file names, and the others only
//! if that one passes.

mod mutant;
mod tree;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use mutant::{Mutant, Outcome};
use tree::{CLIENT, CORE, Tree};

fn run() -> Outcome<bool> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = here.ancestors().nth(2).ok_or("a workspace")?;
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let subject = match words.first().is_some_and(|word| word == "--client") {
        true => {
            words.remove(0);
            CLIENT
        }
        false => CORE,
    };
    let wanted = words.pop().unwrap_or_default();
    let mut paths = mutant::all(&workspace.join(subject.mutants))?;
    let is_wanted = |name: &str| wanted.split(',').any(|word| name.contains(word));
    paths.retain(|path| is_wanted(&path.file_stem().unwrap_or_default().to_string_lossy()));
    let began = Instant::now();
    let tree = Tree::copy(workspace, subject)?;
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
