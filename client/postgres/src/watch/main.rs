//! `mcache-watch`: changes of a PostgreSQL database, by any program, become invalidations for clients in any language.
//!
//! ```text
//!   watch.toml ──▶ File ──with the tables' columns──▶ Plan ──▶ Outbox ──install──▶ triggers
//!                                                       └────▶ Rules: a change ──▶ tags ──▶ MCACHE.INVALIDATE AUTO
//! ```
//!
//! docs/watch.md is for operators.

mod database;
mod file;
mod plan;
mod run;
mod target;

use std::process::ExitCode;

use file::File;
use run::{Watch, WatchError};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
usage: mcache-watch [--check | --install] FILE

Clears what is cached from rows that change in PostgreSQL, no matter which program changes them.
FILE is in TOML; docs/watch.md says what is in it, medusa.toml is one for Medusa.

  --check     look whether database, tables, cache and file fit, say what would be watched, change nothing
  --install   make the triggers and end, for a role that owns the tables
  --version   say which version this is

DATABASE_URL and CACHE_REDIS_URL are used where the file names no address. MCACHE_LOG sets how much is logged: error, warn,
info (the default), debug. SIGTERM and SIGINT end it; what it has not done waits in the database.

exit codes: 0 stopped as told, or everything fits; 1 it cannot go on, and why is the last line; 2 wrong usage or file
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Watch(String),
    Check(String),
    Install(String),
    Say(String),
}

fn main() -> ExitCode {
    let task = match task(std::env::args().skip(1)) {
        Ok(task) => task,
        Err(reason) => return refused(&format!("{reason}\n\n{USAGE}")),
    };
    let (Task::Watch(path) | Task::Check(path) | Task::Install(path)) = &task else {
        if let Task::Say(text) = task {
            print!("{text}");
        }
        return ExitCode::SUCCESS;
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return refused(&format!("{path}: {error}")),
    };
    let file = match File::parse(&text, |name| std::env::var(name).ok()) {
        Ok(file) => file,
        Err(error) => return refused(&format!("{path}: {error}")),
    };
    if let Err(level) = log() {
        return refused(&format!(
            "MCACHE_LOG={level} is none of error, warn, info, debug, trace"
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    match runtime.block_on(carry_out(&task, file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

async fn carry_out(task: &Task, file: File) -> Result<(), WatchError> {
    let watch = Watch::new(file)?;
    match task {
        Task::Check(path) => {
            for line in watch.check().await? {
                println!("{line}");
            }
            println!("{path} fits");
        }
        Task::Install(_) => println!("{} tables are captured", watch.install().await?),
        _ => watch.run(told_to_stop()).await?,
    }
    Ok(())
}

/// Ends at a signal, and says which.
async fn told_to_stop() -> &'static str {
    let of = |kind| signal(kind).ok();
    let (terminate, interrupt) = (of(SignalKind::terminate()), of(SignalKind::interrupt()));
    let wait = |signal: Option<tokio::signal::unix::Signal>| async {
        match signal {
            Some(mut signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(terminate) => "SIGTERM",
        () = wait(interrupt) => "SIGINT",
    }
}

fn task(arguments: impl Iterator<Item = String>) -> Result<Task, String> {
    let mut what: Option<fn(String) -> Task> = None;
    let mut path = None;
    for argument in arguments {
        let chosen: fn(String) -> Task = match argument.as_str() {
            "--help" | "-h" => return Ok(Task::Say(USAGE.to_owned())),
            "--version" | "-V" => {
                return Ok(Task::Say(format!(
                    "mcache-watch {}\n",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            "--check" => Task::Check,
            "--install" => Task::Install,
            option if option.starts_with('-') => {
                return Err(format!("there is no option {option}"));
            }
            _ if path.is_some() => {
                return Err(format!(
                    "one file is watched, and {argument} would be a second"
                ));
            }
            _ => {
                path = Some(argument);
                continue;
            }
        };
        if what.replace(chosen).is_some() {
            return Err("one of --check and --install at a time".to_owned());
        }
    }
    let path = path.ok_or("no file is named")?;
    Ok(what.unwrap_or(Task::Watch)(path))
}

/// Lines on standard error; an unknown level comes back.
fn log() -> Result<(), String> {
    let level = std::env::var("MCACHE_LOG").unwrap_or_else(|_| "info".to_owned());
    let most: tracing::Level = level.parse().map_err(|_| level)?;
    tracing_subscriber::fmt()
        .with_max_level(most)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    Ok(())
}

fn refused(reason: &str) -> ExitCode {
    eprintln!("mcache-watch: {}", reason.trim_end());
    ExitCode::from(2)
}

fn failed(reason: &str) -> ExitCode {
    eprintln!("mcache-watch: {reason}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Result<Task, String> {
        task(arguments.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn arguments_say_what_to_do() {
        assert_eq!(of(&["a.toml"]), Ok(Task::Watch("a.toml".to_owned())));
        assert_eq!(
            of(&["--check", "a.toml"]),
            Ok(Task::Check("a.toml".to_owned()))
        );
        assert_eq!(
            of(&["a.toml", "--install"]),
            Ok(Task::Install("a.toml".to_owned()))
        );
        assert!(
            matches!(of(&["--version"]), Ok(Task::Say(text)) if text.starts_with("mcache-watch "))
        );
        for (arguments, words) in [
            (&[][..], "no file"),
            (&["--chek", "a.toml"], "no option --chek"),
            (&["a.toml", "b.toml"], "one file"),
            (&["--check", "--install", "a.toml"], "at a time"),
        ] {
            let said = of(arguments).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }
}
