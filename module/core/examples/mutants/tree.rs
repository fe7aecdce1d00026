//! A copy of the crate in a workspace of its own, its test targets, and the first test of them that fails.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mutant::{Mutant, Outcome, restore};

/// How tests are compiled. One test that fails soon takes longer to optimise than to run.
#[derive(Clone, Copy)]
enum Build {
    Quick,
    Optimised,
}

/// A crate into which faults are put.
#[derive(Clone, Copy)]
pub struct Subject {
    package: &'static str,
    /// Where it is in the workspace.
    folder: &'static str,
    /// What is copied beside it, because it is built on that.
    beside: &'static [&'static str],
    /// Where its mutants are.
    pub mutants: &'static str,
    /// Test targets that find most, quickest first; the others follow by name if they are wanted.
    first: &'static [&'static str],
    others: bool,
    /// How all of its tests are compiled.
    whole: Build,
}

/// The logic of the server, with all its tests.
pub const CORE: Subject = Subject {
    package: "mcache-core",
    folder: "module/core",
    beside: &[],
    mutants: "module/core/mutants",
    first: &["lib", "arrivals", "model", "protocol"],
    others: true,
    whole: Build::Optimised,
};

/// The client, with its unit tests.
pub const CLIENT: Subject = Subject {
    package: "mcache",
    folder: "client",
    beside: &["module/core"],
    mutants: "client/mutants/near",
    first: &["lib"],
    others: false,
    whole: Build::Quick,
};

/// It compares the mutants with the sources, which a mutant changes.
const NOT_A_FINDER: &str = "mutants";

/// The copy.
pub struct Tree {
    subject: Subject,
    root: PathBuf,
    /// Every test target of the crate, in the order in which they are tried.
    targets: Vec<String>,
}

impl Tree {
    /// Copies the crate to `target/mutants`.
    pub fn copy(workspace: &Path, subject: Subject) -> Outcome<Tree> {
        let root = workspace.join("target/mutants/tree");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let folders = subject.beside.iter().chain([&subject.folder]);
        for folder in folders.clone() {
            copy_tree(&workspace.join(folder), &root.join(folder))?;
        }
        // Tests may read the file of another folder, but no other crate: the workspace has no other members.
        let folders: Vec<_> = folders.map(|folder| format!("\"{folder}\"")).collect();
        let members = format!("members = [{}]", folders.join(", "));
        let manifest = fs::read_to_string(workspace.join("Cargo.toml"))?;
        let manifest = manifest
            .lines()
            .filter(|line| !line.starts_with("[profile.dev.package.") && *line != "opt-level = 0")
            .map(|line| match line.starts_with("members") {
                true => &*members,
                false => line,
            });
        fs::write(
            root.join("Cargo.toml"),
            manifest.collect::<Vec<_>>().join("\n"),
        )?;
        fs::copy(workspace.join("Cargo.lock"), root.join("Cargo.lock"))?;
        let targets = targets(workspace, &subject)?;
        Ok(Tree {
            subject,
            root,
            targets,
        })
    }

    /// Runs every test as the crate is.
    ///
    /// # Errors
    /// A test fails.
    pub fn try_without_any(&self) -> Outcome<()> {
        for target in &self.targets {
            let executable = self.build(target, self.subject.whole)?;
            if let Some(test) = run(&executable, None)? {
                return Err(format!("a test fails without any mutant: {target}: {test}").into());
            }
        }
        Ok(())
    }

    /// The target and the test that find a mutant; `None` if none does.
    pub fn found_by(&self, mutant: &Mutant) -> Outcome<Option<String>> {
        let originals = mutant.apply(&self.root.join(self.subject.folder))?;
        let found = self.failing_test(mutant);
        restore(originals)?;
        found
    }

    fn failing_test(&self, mutant: &Mutant) -> Outcome<Option<String>> {
        if let Some((target, test)) = &mutant.found_by {
            let executable = self.build(target, Build::Quick)?;
            if let Some(test) = run(&executable, test.as_deref())? {
                return Ok(Some(format!("{target} {test}")));
            }
        }
        // A test that was the hint once failed to find it; its target may find it still.
        for target in &self.targets {
            let executable = self.build(target, self.subject.whole)?;
            if let Some(test) = run(&executable, None)? {
                return Ok(Some(format!("{target} {test}")));
            }
        }
        Ok(None)
    }

    /// Compiles one test target; returns where the executable is.
    fn build(&self, target: &str, how: Build) -> Outcome<PathBuf> {
        let (folder, level) = match how {
            Build::Quick => ("../quick", "0"),
            Build::Optimised => ("../build", "1"),
        };
        let target = match target {
            "lib" => vec!["--lib"],
            test => vec!["--test", test],
        };
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", self.root.join(folder))
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", level)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .args(["test", "-p", self.subject.package, "--no-run"])
            .args(target)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        // "Executable tests/model.rs (<path>)"
        let mut path = said.lines().filter_map(|line| {
            let line = line.trim().strip_prefix("Executable ")?;
            line.strip_suffix(')')?.rsplit_once('(')
        });
        match path.next_back() {
            Some((_, path)) if output.status.success() => Ok(self.root.join(path)),
            _ => Err(format!("it does not compile:\n{said}").into()),
        }
    }
}

/// Runs a test executable, or one test of it, up to the first test that fails, and names that.
fn run(executable: &Path, test: Option<&str>) -> Outcome<Option<String>> {
    /// A mutant that takes so many seconds of processor time counts as one that never ends, and as found. A busy
    /// machine uses up none of it; the longest target takes fifteen.
    const PATIENCE_S: u32 = 90;
    /// What Linux sends to a process that has used up its time.
    const SIGXCPU: i32 = 24;
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -t $0 && exec \"$@\""]);
    command.arg(PATIENCE_S.to_string()).arg(executable);
    if let Some(test) = test {
        command.args(["--exact", test]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = BufReader::new(child.stdout.take().ok_or("a pipe")?);
    for line in stdout.lines() {
        let line = line?;
        let told = line.strip_prefix("test ");
        if let Some(test) = told.and_then(|it| it.strip_suffix(" ... FAILED")) {
            let _ = child.kill();
            child.wait()?;
            return Ok(Some(test.to_owned()));
        }
    }
    let status = child.wait()?;
    Ok(match (status.success(), status.signal()) {
        (true, _) => None,
        (false, Some(SIGXCPU)) => Some("does not end".to_owned()),
        (false, _) => Some("ends early".to_owned()),
    })
}

fn targets(workspace: &Path, subject: &Subject) -> Outcome<Vec<String>> {
    let first = subject.first.iter().copied().map(str::to_owned);
    if !subject.others {
        return Ok(first.collect());
    }
    let mut others = Vec::new();
    for entry in fs::read_dir(workspace.join(subject.folder).join("tests"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "rs") || path.join("main.rs").exists() {
            let name = path.file_stem().ok_or("a name")?;
            others.push(name.to_string_lossy().into_owned());
        }
    }
    others.sort();
    others.retain(|name| name != NOT_A_FINDER && !subject.first.contains(&name.as_str()));
    Ok(first.chain(others).collect())
}

fn copy_tree(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" && entry.file_name() != "node_modules" {
                copy_tree(&entry.path(), &target)?;
            }
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
