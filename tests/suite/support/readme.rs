//! What the README shows is what happens, literally.

use std::process::Output;

use harness::{Server, locate};

const PROMPT: &str = "127.0.0.1:6379> ";

/// One command of a session and what it printed.
#[derive(Debug, Default)]
struct Exchange {
    command: String,
    printed: Vec<String>,
}

fn readme() -> String {
    std::fs::read_to_string(locate::workspace().join("README.md"))
        .expect("the project has a README.md")
}

/// The lines of every fenced block in which `wanted` holds for some line, in order.
fn blocks(text: &str, wanted: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let mut blocks = Vec::new();
    let mut block: Option<Vec<String>> = None;
    for line in text.lines() {
        if line.starts_with("```") {
            match block.take() {
                Some(lines) => blocks.push(lines),
                None => block = Some(Vec::new()),
            }
        } else if let Some(lines) = &mut block {
            lines.push(line.to_owned());
        }
    }
    blocks.retain(|lines| lines.iter().any(|line| wanted(line)));
    blocks
}

fn exchanges(block: &[String]) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    for line in block {
        match (line.strip_prefix(PROMPT), exchanges.last_mut()) {
            (Some(command), _) => exchanges.push(Exchange {
                command: command.to_owned(),
                printed: Vec::new(),
            }),
            (None, Some(exchange)) => exchange.printed.push(line.trim_end().to_owned()),
            (None, None) => panic!("a session begins with a prompt: {line}"),
        }
    }
    exchanges
}

fn printed(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[test]
fn the_redis_cli_sessions_happen_as_they_stand_there() {
    let sessions = blocks(&readme(), |line| line.starts_with(PROMPT));
    assert!(!sessions.is_empty(), "the README shows a redis-cli session");
    for session in sessions {
        // Each session is one a reader can paste into a fresh server.
        let server = Server::start();
        for exchange in exchanges(&session) {
            let output = server.cli(&["--no-raw"], &format!("{}\n", exchange.command));
            let mut expected = exchange.printed;
            while expected.last().is_some_and(String::is_empty) {
                expected.pop();
            }
            assert_eq!(printed(&output), expected, "{PROMPT}{}", exchange.command);
        }
    }
}

#[test]
fn the_redis_benchmark_commands_run() {
    let lines: Vec<String> = blocks(&readme(), |line| line.starts_with("redis-benchmark "))
        .into_iter()
        .flatten()
        .filter(|line| line.starts_with("redis-benchmark "))
        .collect();
    assert!(
        !lines.is_empty(),
        "the README shows redis-benchmark commands"
    );
    let server = Server::start();
    for line in lines {
        // As it stands there but for the server and the number of requests: this asks whether it runs, not how fast.
        let program = locate::redis("redis-benchmark").display().to_string();
        let script = line
            .replacen(
                "redis-benchmark",
                &format!("{program} -s {}", server.socket().display()),
                1,
            )
            .replacen(" -n 1000000 ", " -n 1000 ", 1)
            .replacen(" -n 100000 ", " -n 1000 ", 1);
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("a shell");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && !text.contains("Error from server"),
            "{line}\n{text}"
        );
    }
    assert!(server.session().stat("fills") > 0, "something was filled");
}

#[test]
fn the_pages_name_every_command_every_option_with_its_default_and_every_field() {
    let page = |name: &str| {
        let path = locate::workspace().join("docs").join(name);
        std::fs::read_to_string(path).expect("a page")
    };
    let (protocol, operations) = (page("protocol.md"), page("operations.md"));
    let server = Server::builder().as_it_is().set("databases", 1).start();
    let mut redis = server.session();
    let mut missing = Vec::new();
    for command in redis.list("COMMAND LIST FILTERBY MODULE mcache") {
        // A subcommand's parts are names behind each other: `DEBUG SELFCHECK|DRAIN`.
        let name = command.to_ascii_uppercase();
        let name = name.rsplit('|').next().unwrap_or(&name).to_owned();
        // One that panics is there for tests alone.
        if !name.ends_with(".PANIC") && !protocol.contains(&name) {
            missing.push(name);
        }
    }
    for option in redis.list("CONFIG GET mcache.*").chunks(2) {
        let row = format!("| `{}` | {} |", option[0], option[1]);
        if !operations.contains(&row) {
            missing.push(row);
        }
    }
    for line in redis.typed::<String>("INFO mcache").lines() {
        if let Some((field, _)) = line.split_once(':')
            && !operations.contains(&format!("`{field}`"))
        {
            missing.push(field.to_owned());
        }
    }
    assert_eq!(missing, [""; 0]);
}
