//! `make bench`: what mcache costs, beside plain Redis and beside rivals done well.
//!
//! Each part measures on servers of its own and renews its part of `benches/RESULTS.md`. Without arguments all parts
//! run but the counted instructions, which need valgrind (`--instructions`), limits and growth, which need memory
//! (`--limits <entries>`, `--growth <entries> [<directory>]`), and the rows of one server version (`--this-server`);
//! `--only <part>` picks one. With `--compare` nothing is written: what became worse than the stored figures is said,
//! and the program fails if anything did.

mod against_plain;
mod client;
mod cpu;
mod growth;
mod instructions;
mod large_tags;
mod limits;
mod load;
mod many_tasks;
mod memory;
mod plain;
mod results;
mod shop;
mod this_year;

use std::process::ExitCode;

/// What can be picked, in the order of running.
const PARTS: [(&str, fn()); 6] = [
    ("plain", against_plain::run),
    ("large", large_tags::run),
    ("memory", memory::run),
    ("client", client::run),
    ("without-module", plain::run),
    ("tasks", many_tasks::run),
];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = arguments.len();
    arguments.retain(|argument| argument != "--compare");
    if arguments.len() < all {
        results::compare();
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => PARTS.iter().for_each(|(_, run)| run()),
        ["--this-server"] => this_year::run(),
        ["--instructions"] => instructions::run(),
        ["--limits", entries] => match entries.parse() {
            Ok(entries) => limits::run(entries),
            Err(_) => return usage(),
        },
        ["--growth", entries, ref to @ ..] if to.len() < 2 => match entries.parse() {
            Ok(entries) => growth::run(entries, to.first().copied()),
            Err(_) => return usage(),
        },
        ["--only", name] => match PARTS.iter().find(|(part, _)| *part == name) {
            Some((_, run)) => run(),
            None => return usage(),
        },
        _ => return usage(),
    }
    match results::found_worse() {
        0 => ExitCode::SUCCESS,
        rows => {
            println!("{rows} rows became worse");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    let names = PARTS.map(|(name, _)| name).join("|");
    eprintln!(
        "usage: server-bench [--compare] [--instructions | --this-server | --limits <entries> | --growth <entries> [<directory>] | --only {names}]"
    );
    ExitCode::from(2)
}
