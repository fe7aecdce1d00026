//! `benches/RESULTS.md`.
//!
//! Owns its layout: one table a part, each between two marks, so that parts are renewed one by one. It must not know
//! how a figure came about.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use harness::figures::{Better, stored, worse};
use harness::{Server, locate};

/// What a figure should be.
pub enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// Nothing: shown beside others.
    None,
    /// Nothing, but the less the better.
    Low,
}

impl Goal {
    /// Which way is better, where there is a way.
    fn better(&self) -> Option<Better> {
        match self {
            Goal::AtMost(_) | Goal::Low => Some(Better::Less),
            Goal::AtLeast(_) => Some(Better::More),
            Goal::None => None,
        }
    }
}

/// How much worse than the stored one a figure may be, as a share: two runs of the same code differ.
const NOISE: f64 = 0.15;

/// Instead of being written, figures are compared with the stored ones.
static COMPARING: AtomicBool = AtomicBool::new(false);
/// Rows that became worse.
static WORSE: AtomicUsize = AtomicUsize::new(0);

/// From now on figures are compared with the stored ones, and the file stays as it is.
pub fn compare() {
    COMPARING.store(true, Ordering::Relaxed);
}

/// How many rows were found worse.
pub fn found_worse() -> usize {
    WORSE.load(Ordering::Relaxed)
}

/// One line of a table.
pub struct Row {
    pub what: String,
    /// What was measured, in words with units.
    pub measured: String,
    /// The figure that is compared with the goal.
    pub figure: f64,
    pub goal: Goal,
}

impl Row {
    fn verdict(&self) -> String {
        let (limit, met, sign) = match self.goal {
            Goal::AtMost(limit) => (limit, self.figure <= limit, "≤"),
            Goal::AtLeast(limit) => (limit, self.figure >= limit, "≥"),
            Goal::None | Goal::Low => return "–".to_owned(),
        };
        let distance = (self.figure / limit - 1.0).abs() * 100.0;
        if met {
            format!("{sign} {limit}: met")
        } else {
            format!("{sign} {limit}: **missed by {distance:.0} %**")
        }
    }
}

/// A part of the file.
pub struct Part {
    pub name: String,
    pub command: &'static str,
    /// What the figures are, in a sentence or two.
    pub about: &'static str,
    pub rows: Vec<Row>,
    noise: f64,
}

impl Part {
    pub fn new(name: impl Into<String>, command: &'static str, about: &'static str) -> Self {
        Self {
            name: name.into(),
            command,
            about,
            rows: Vec::new(),
            noise: NOISE,
        }
    }

    /// For figures that repeat better than most: how much worse they may be, as a share.
    pub fn with_noise(mut self, noise: f64) -> Self {
        self.noise = noise;
        self
    }

    /// Adds a row and shows it.
    pub fn add(
        &mut self,
        what: impl Into<String>,
        measured: impl Into<String>,
        figure: f64,
        goal: Goal,
    ) {
        let row = Row {
            what: what.into(),
            measured: measured.into(),
            figure,
            goal,
        };
        println!(
            "  {:<62} {:>9.3}  {:<22} {}",
            row.what,
            row.figure,
            row.verdict(),
            row.measured
        );
        self.rows.push(row);
    }

    /// Puts the part into the file, in place of what it was.
    pub fn write(&self, server: &Server) {
        self.write_on(&version(server));
    }

    /// The same, for a server of the named version.
    pub fn write_on(&self, version: &str) {
        let path = path();
        let file = fs::read_to_string(&path).unwrap_or_else(|_| HEADER.to_owned());
        if COMPARING.load(Ordering::Relaxed) {
            self.compare_with(&file);
            return;
        }
        let (begin, end) = (
            format!("<!-- begin {} -->\n", self.name),
            format!("<!-- end {} -->\n", self.name),
        );
        let text = format!("{begin}{}{end}", self.table(version));
        let renewed = match (file.find(&begin), file.find(&end)) {
            (Some(from), Some(to)) => format!("{}{text}{}", &file[..from], &file[to + end.len()..]),
            _ => format!("{file}\n{text}"),
        };
        fs::write(&path, renewed).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Says which rows became worse than what the file says.
    fn compare_with(&self, file: &str) {
        let percent = self.noise * 100.0;
        println!("  compared with the stored figures, of which {percent:.0} % is noise:");
        for row in &self.rows {
            let Some(better) = row.goal.better() else {
                continue;
            };
            let Some(before) = stored(file, &self.name, &row.what) else {
                println!("  new, nothing is stored: {}", row.what);
                continue;
            };
            if let Some(worse) = worse(&row.what, before, row.figure, better, self.noise) {
                WORSE.fetch_add(1, Ordering::Relaxed);
                println!("  WORSE  {worse}");
            }
        }
    }

    fn table(&self, version: &str) -> String {
        let mut text = format!(
            "## {}\n\n{}\n\n`{}`, {}, {}, {version}\n\n| what | figure | goal | measured |\n|---|---:|---|---|\n",
            self.name,
            self.about,
            self.command,
            date(),
            machine(),
        );
        for row in &self.rows {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                row.what,
                short(row.figure),
                row.verdict(),
                row.measured
            );
        }
        text
    }
}

const HEADER: &str = "# Results\n\nWhat mcache costs, beside plain Redis on the same server in the same run and beside rivals. Figures are ratios unless
they name a unit; a goal that is missed says by how much. Every part names the command that renews it.\n";

fn path() -> PathBuf {
    locate::workspace().join("benches/RESULTS.md")
}

/// The server's name and version, as people say them.
pub fn version(server: &Server) -> String {
    let mut session = server.session();
    let info = session.text("INFO server").unwrap_or_default();
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|value| value.trim().to_owned())
    };
    match field("valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", field("redis_version").unwrap_or_default()),
    }
}

/// Three digits that matter.
fn short(figure: f64) -> String {
    match figure {
        f if f >= 1000.0 => format!("{f:.0}"),
        f if f >= 10.0 => format!("{f:.1}"),
        f => format!("{f:.2}"),
    }
}

pub fn date() -> String {
    let output = Command::new("date").args(["-u", "+%F"]).output();
    output.map_or_else(
        |_| "undated".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {model}")
}
