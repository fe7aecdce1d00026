//! What a person gets to see.
//!
//! Owns the words and the layout, and what counts as success.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use harness::trace::{Call, Trace};

use crate::inside::{Comparison, Holdings};
use crate::shop::{Score, Times};

/// Live entries at the end of the recording: what the recorded server had left.
const LIVE_AT_END: i64 = 26;

/// One line that moves on a terminal, ten lines elsewhere.
pub struct Progress {
    calls: usize,
    steps: usize,
    rewrite: bool,
}

impl Progress {
    pub fn new(calls: usize) -> Self {
        let rewrite = std::io::stdout().is_terminal();
        Self {
            calls,
            steps: if rewrite { 100 } else { 10 },
            rewrite,
        }
    }

    /// Whether a step ends with this call.
    pub fn is_due(&self, done: usize) -> bool {
        done * self.steps / self.calls != (done - 1) * self.steps / self.calls
    }

    pub fn show(&mut self, done: usize, score: &Score, now: &Holdings) {
        let line = format!(
            "{:3} %  {} hits, {} misses, {} invalidations; {} entries, {} tags, {}",
            done * 100 / self.calls,
            score.hits,
            score.misses,
            score.clears,
            now.entries,
            now.tags,
            bytes(now.payload_bytes),
        );
        if self.rewrite {
            // To the beginning of the line, and nothing of a longer one left.
            print!("\r\x1b[K{line}");
            if done == self.calls {
                println!();
            }
            // A terminal that is gone is no reason to stop.
            let _ = std::io::stdout().flush();
        } else {
            println!("{line}");
        }
    }
}

/// Everything that is told at the end.
pub struct Report<'a> {
    pub trace: &'a Trace,
    pub score: &'a mut Score,
    pub fullest: Holdings,
    pub at_end: Holdings,
    pub comparison: Comparison,
}

impl Report<'_> {
    /// Prints it; whether everything was as it should be.
    pub fn print(self) -> bool {
        let Self {
            trace,
            score,
            fullest,
            at_end,
            comparison,
        } = self;
        let recorded = |wanted: bool| {
            let same = |call: &&Call| matches!(call, Call::Get { hit, .. } if *hit == wanted);
            trace.calls().iter().filter(same).count() as u64
        };

        println!("\nAs recorded?");
        let mut all = true;
        let mut check = |what: &str, found: String, holds: bool| {
            all &= holds;
            println!(
                "  {}  {what:<44} {found}",
                if holds { "yes" } else { "NO " }
            );
        };
        check(
            "hits",
            format!("{} (recorded: {})", score.hits, recorded(true)),
            score.hits == recorded(true),
        );
        check(
            "misses",
            format!("{} (recorded: {})", score.misses, recorded(false)),
            score.misses == recorded(false),
        );
        check(
            "each read as it was then",
            format!("{} differ", score.differing),
            score.differing == 0,
        );
        check(
            "each hit is the value stored last",
            format!("{} are not", score.wrong_values),
            score.wrong_values == 0,
        );
        check(
            "no fill refused",
            format!("{} of {}", score.refused, score.sets),
            score.refused == 0,
        );
        check(
            "live entries at the end",
            format!("{} (recorded: {LIVE_AT_END})", at_end.entries),
            at_end.entries == LIVE_AT_END,
        );
        check(
            "the index holds what the keyspace holds",
            match &comparison.self_check {
                Ok(()) => format!(
                    "{} keys, {} entries indexed; {} memberships counted, {} listed",
                    comparison.keys, comparison.entries, comparison.memberships, comparison.listed
                ),
                Err(disagreement) => disagreement.clone(),
            },
            comparison.agrees(),
        );

        println!(
            "\nLatency as the application sees it (JSON included)      p50       p90       p99       max"
        );
        for (what, times) in [
            ("get, hit", &mut score.hit_times),
            ("get, miss", &mut score.miss_times),
            ("set", &mut score.set_times),
            ("invalidate", &mut score.clear_times),
        ] {
            latency(what, times);
        }

        println!("\nIn the server                       at its fullest       at the end");
        let row = |what: &str, value: fn(&Holdings) -> String| {
            println!(
                "  {what:<30} {:>17} {:>16}",
                value(&fullest),
                value(&at_end)
            );
        };
        row("entries", |h| h.entries.to_string());
        row("tags", |h| h.tags.to_string());
        row("memberships", |h| h.memberships.to_string());
        row("JSON", |h| bytes(h.json_bytes));
        row("payload (JSON, compressed)", |h| bytes(h.payload_bytes));
        row("index", |h| bytes(h.index_bytes));
        row("index / JSON", |h| format!("{:.2}", h.index_per_json()));
        println!(
            "\n{} of JSON were stored in all; {} invalidations made {} entries dead.",
            bytes(score.json_bytes as i64),
            score.clears,
            score.entries_invalidated,
        );
        println!(
            "\n{}",
            if all {
                "Everything is as recorded."
            } else {
                "Something differs: see NO above."
            }
        );
        all
    }
}

/// What to do next, by hand.
pub fn invite(port: u16) {
    println!(
        "\nRedis is still running. Try, in another terminal:\n\n  \
         redis-cli -p {port} MCACHE.TAGS 0 MATCH '*:list:*'\n  \
         redis-cli -p {port} MCACHE.ENTRIES 'shop:Region:list:*' 0\n  \
         redis-cli -p {port} MCACHE.INVALIDATE TAGS 'shop:Region:list:*'\n  \
         redis-cli -p {port} INFO mcache\n\nCtrl-C ends it."
    );
}

fn latency(what: &str, times: &mut Times) {
    let shown: Vec<String> = [50.0, 90.0, 99.0, 100.0]
        .into_iter()
        .map(|percent| format!("{:>10}", micros(times.percentile(percent))))
        .collect();
    println!(
        "  {:<43} {}",
        format!("{what} ({})", times.count()),
        shown.concat()
    );
}

fn micros(time: Duration) -> String {
    format!("{:.0} us", time.as_secs_f64() * 1e6)
}

fn bytes(count: i64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}
