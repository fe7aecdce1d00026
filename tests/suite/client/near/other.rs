//! Another process with a near cache, which a test can stop. It is this program, started again.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use harness::KillOnDrop;
use mcache::Source;
use rustix::process::Signal;

use super::{PATIENCE, load, near};
use crate::support::runtime::run;

/// Where its cache is, in its environment.
const URL: &str = "MCACHE_NEAR_URL";

pub struct Other {
    process: KillOnDrop,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Other {
    /// Returns when its near cache may serve.
    pub fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "client::near::other::process",
                "--ignored",
                "--nocapture",
                "--quiet",
            ])
            .env(URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let questions = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut other = Self {
            process: KillOnDrop(child),
            questions,
            answers,
        };
        other.ask("ready");
        while other.answer() != "ready" {}
        other
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn ask(&mut self, question: &str) {
        writeln!(self.questions, "{question}").expect("it listens");
    }

    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        assert!(!line.is_empty(), "it has ended");
        line.trim_end().to_owned()
    }

    /// Has it load the value and serve it from near.
    pub fn until_near(&mut self, key: &str, value: u32) {
        let began = Instant::now();
        loop {
            self.ask(&format!("load {key} {value}"));
            if self.answer() == format!("near {value}") {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "it never serves from near");
        }
    }
}

/// Not a test: the process that the tests start.
#[test]
#[ignore = "run by the tests of the near cache"]
fn process() {
    let Ok(url) = std::env::var(URL) else { return };
    run(async {
        let cache = near(&url).await;
        for line in std::io::stdin().lines() {
            let line = line.expect("text");
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["ready"] => println!("\nready"),
                ["load", key, value] => {
                    let served = load(&cache, key, value.parse().expect("a number")).await;
                    let source = match served.source {
                        Source::Near => "near",
                        _ => "far",
                    };
                    println!("{source} {}", served.value);
                }
                ["get", key] => {
                    let hits = super::stats(&cache).hits;
                    let found = cache.key(key).get::<u32>().await.expect("read");
                    let is_near = super::stats(&cache).hits > hits;
                    match found {
                        None => println!("none"),
                        Some(value) if is_near => println!("near {value}"),
                        Some(value) => println!("far {value}"),
                    }
                }
                _ => panic!("asked for {line}"),
            }
        }
    });
}
