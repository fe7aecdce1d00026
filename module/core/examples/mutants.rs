//! Do the tests of this crate find a fault? Each file in `module/core/mutants` is one: a small change to the logic that must
//! make a test fail. `make mutants` runs them all, `make mutants NAME=...` those whose names contain it.
//!
//! A mutant is a text file:
//!
//! ```text
//! A sentence or more: what a server with this fault would do.
//! File: src/server/write.rs
//! <<<<
//! the lines as they are; they occur exactly once in the file
//! ====
//! the lines as they are to be
//! >>>>
//! ```
//! Several such blocks, with or without a `File:` line between them, make one mutant. The change must compile. The sources
//! are copied into `target/mutants` first, so the tree is left alone; all mutants share one build directory there.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Test targets that find most, quickest first; the others follow by name.
const FIRST: [&str; 4] = ["lib", "arrivals", "model", "protocol"];

struct Edit {
    file: String,
    from: String,
    to: String,
}

struct Mutant {
    name: String,
    edits: Vec<Edit>,
}

impl Mutant {
    fn read(path: &Path) -> Outcome<Mutant> {
        let name = path.file_stem().ok_or("a name")?.to_string_lossy();
        let text = fs::read_to_string(path)?;
        let (mut file, mut edits) = (String::new(), Vec::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(named) = line.strip_prefix("File: ") {
                named.trim().clone_into(&mut file);
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
                    Err(format!("{name}: no {end}").into())
                };
                let (from, to) = (until("====")?, until(">>>>")?);
                let file = file.clone();
                edits.push(Edit { file, from, to });
            }
        }
        if edits.is_empty() {
            return Err(format!("{name}: nothing to change").into());
        }
        let name = name.into_owned();
        Ok(Mutant { name, edits })
    }
}

/// A copy of the crate in a workspace of its own.
struct Copy {
    root: PathBuf,
}

impl Copy {
    fn make(workspace: &Path) -> Outcome<Copy> {
        let root = workspace.join("target/mutants/tree");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        copy_tree(&workspace.join("module/core"), &root.join("module/core"))?;
        // Tests may read the file of another folder, but no other crate: the workspace has this one member.
        let manifest = fs::read_to_string(workspace.join("Cargo.toml"))?;
        let members = manifest
            .lines()
            .map(|line| match line.starts_with("members") {
                true => "members = [\"module/core\"]",
                false => line,
            });
        fs::write(
            root.join("Cargo.toml"),
            members.collect::<Vec<_>>().join("\n"),
        )?;
        fs::copy(workspace.join("Cargo.lock"), root.join("Cargo.lock"))?;
        Ok(Copy { root })
    }

    fn cargo(&self, arguments: &[&str]) -> Outcome<(bool, String)> {
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", self.root.join("../build"))
            .args(arguments)
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    }

    /// The test that fails; `None` if none does.
    fn failing_test(&self, targets: &[String]) -> Outcome<Option<String>> {
        for target in targets {
            let arguments = match target.as_str() {
                "lib" => vec!["test", "-p", "mcache-core", "--lib"],
                test => vec!["test", "-p", "mcache-core", "--test", test],
            };
            let built = [&arguments[..], &["--no-run"]].concat();
            let (builds, said) = self.cargo(&built)?;
            if !builds {
                return Err(format!("it does not compile:\n{said}").into());
            }
            let (passes, said) = self.cargo(&arguments)?;
            if !passes {
                let failed = |line: &&str| line.ends_with("... FAILED");
                let test = said.lines().find(failed).unwrap_or("it ended early");
                let test = test
                    .trim_start_matches("test ")
                    .trim_end_matches(" ... FAILED");
                return Ok(Some(format!("{target}: {test}")));
            }
        }
        Ok(None)
    }

    fn found_by(&self, mutant: &Mutant, targets: &[String]) -> Outcome<Option<String>> {
        let mut originals = Vec::new();
        for edit in &mutant.edits {
            let path = self.root.join("module/core").join(&edit.file);
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", edit.file))?;
            let occurrences = text.matches(&edit.from).count();
            if occurrences != 1 {
                let (file, from) = (&edit.file, &edit.from);
                return Err(
                    format!("these lines occur {occurrences} times in {file}:\n{from}").into(),
                );
            }
            let mutated = text.replacen(&edit.from, &edit.to, 1);
            originals.push((path.clone(), text));
            fs::write(path, mutated)?;
        }
        let found = self.failing_test(targets);
        for (path, text) in originals.into_iter().rev() {
            fs::write(path, text)?;
        }
        found
    }
}

fn copy_tree(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                copy_tree(&entry.path(), &target)?;
            }
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Every test target of the crate, in the order in which they are tried.
fn targets(core: &Path) -> Outcome<Vec<String>> {
    let mut others = Vec::new();
    for entry in fs::read_dir(core.join("tests"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "rs") || path.join("main.rs").exists() {
            others.push(
                path.file_stem()
                    .ok_or("a name")?
                    .to_string_lossy()
                    .into_owned(),
            );
        }
    }
    others.sort();
    others.retain(|name| !FIRST.contains(&name.as_str()));
    Ok(FIRST.map(str::to_owned).into_iter().chain(others).collect())
}

fn run() -> Outcome<bool> {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = core.ancestors().nth(2).ok_or("a workspace")?;
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let mut paths = fs::read_dir(core.join("mutants"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Outcome<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|it| it == "txt"));
    paths.retain(|path| path.to_string_lossy().contains(&wanted));
    paths.sort();
    let (copy, targets) = (Copy::make(workspace)?, targets(core)?);
    if let Some(test) = copy.failing_test(&targets)? {
        return Err(format!("a test fails without any mutant: {test}").into());
    }
    let (mut found, mut trouble) = (0, Vec::new());
    for path in &paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let outcome = Mutant::read(path).and_then(|mutant| {
            let by = copy.found_by(&mutant, &targets)?;
            Ok((mutant.name, by))
        });
        match outcome {
            Ok((name, Some(test))) => {
                found += 1;
                println!("found    {name}  by {test}");
            }
            Ok((name, None)) => {
                println!("MISSED   {name}");
                trouble.push(name);
            }
            Err(why) => {
                println!("INVALID  {name}: {why}");
                trouble.push(name.into_owned());
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
