//! The table, as Markdown, CSV, SVG and HTML.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use storefront::BoxError;
use storefront_load::{PUBLISHED, Published};

use crate::rounds::{Outage, Row, Scenario};

fn published_of(row: &Row) -> Published {
    let found = PUBLISHED
        .iter()
        .find(|known| known.endpoint == row.endpoint);
    found.copied().unwrap_or(Published {
        endpoint: row.endpoint,
        saved_percent: 0,
        medusa_ms: (0, 0),
    })
}

impl Scenario {
    /// What it is called in the report.
    pub fn title(&self) -> String {
        let hop = if self.plan.hop {
            ", database 1 ms away"
        } else {
            ""
        };
        format!("{}{hop}", self.plan.mix.name)
    }

    /// Which rows save what is published, and which are slower with the cache than without: of the cache alone, and
    /// with a near cache.
    fn verdict(&self) -> String {
        format!(
            "Cache: {} Cache and near: {}",
            self.verdict_of(Row::saved_percent, "with the cache than without"),
            self.verdict_of(Row::near_saved_percent, "with both than without the cache")
        )
    }

    fn verdict_of(&self, saved_percent: impl Fn(&Row) -> f64, than: &str) -> String {
        let names = |rows: Vec<&Row>| -> String {
            let names = rows.iter().map(|row| {
                format!(
                    "{} ({:.0} % of {} %; cacheable {:.0} %)",
                    row.endpoint,
                    saved_percent(row),
                    published_of(row).saved_percent,
                    row.cacheable_percent()
                )
            });
            names.collect::<Vec<_>>().join(", ")
        };
        let saves =
            |row: &&Row| saved_percent(row).round() >= f64::from(published_of(row).saved_percent);
        let (reached, below): (Vec<&Row>, Vec<&Row>) = self.rows.iter().partition(saves);
        let is_slower = |row: &&Row| saved_percent(row) < 0.0;
        let slower: Vec<&Row> = below.iter().copied().filter(is_slower).collect();
        let mut text = format!(
            "{} of {} rows save at least what is published",
            reached.len(),
            self.rows.len()
        );
        if !below.is_empty() {
            let _ = write!(text, "; less: {}", names(below));
        }
        match slower.is_empty() {
            true => {
                let _ = write!(text, ". No row is slower {than}.");
            }
            false => {
                let _ = write!(text, ". **Slower {than}:** {}.", names(slower));
            }
        }
        text
    }

    /// The table of this scenario.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title());
        text += "| endpoint | n | p50 ms off -> cache -> near | p95 ms off -> cache -> near | cache saved | near saved | published | Medusa here, ms off -> on | hits | near hits | cacheable |\n";
        text += "|---|---|---|---|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let known = published_of(row);
            let (off, on) = known.medusa_ms;
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} -> {:.2} -> {:.2} | {:.2} -> {:.2} -> {:.2} | {:.0} % | {:.0} % | {} % | {off} -> {on} | {:.0} % | {:.0} % | {:.0} % |",
                row.endpoint,
                row.on.requests,
                row.off.p50_ms,
                row.on.p50_ms,
                row.near.p50_ms,
                row.off.p95_ms,
                row.on.p95_ms,
                row.near.p95_ms,
                row.saved_percent(),
                row.near_saved_percent(),
                known.saved_percent,
                row.hit_percent(),
                row.near_hit_percent(),
                row.cacheable_percent(),
            );
        }
        let found = &self.findings;
        let _ = writeln!(text, "\n{}", self.verdict());
        let _ = writeln!(
            text,
            "\n{} rounds of each kind, {} visits a round by {} visitors at a time, {} other visits before a round with the cache. Changes by the back office: {}; answers compared: {}, \
             inconclusive {}; **stale: {}**. Requests that failed: {}.\n",
            self.plan.pairs,
            self.visits,
            self.plan.visitors,
            self.plan.warm_up,
            found.changes,
            found.compared,
            found.inconclusive,
            found.stale.len(),
            self.failures,
        );
        text
    }
}

/// Writes `storefront.md`, `.csv`, `.svg` and `.html` into a directory.
///
/// # Errors
///
/// If they cannot be written.
pub fn write(
    directory: &Path,
    scenarios: &[Scenario],
    outage: &Outage,
    how: &str,
) -> Result<(), BoxError> {
    fs::create_dir_all(directory)?;
    let text = markdown(scenarios, outage, how);
    let chart = svg(scenarios);
    fs::write(directory.join("storefront.html"), html(&text, &chart))?;
    fs::write(directory.join("storefront.md"), text)?;
    fs::write(directory.join("storefront.svg"), chart)?;
    fs::write(directory.join("storefront.csv"), csv(scenarios))?;
    Ok(())
}

fn markdown(scenarios: &[Scenario], outage: &Outage, how: &str) -> String {
    let mut text = String::from(include_str!("report.md"));
    let _ = writeln!(
        text,
        "\n{how}\n\n![time saved per endpoint](storefront.svg)\n"
    );
    for scenario in scenarios {
        let _ = writeln!(text, "- **{}:** {}", scenario.title(), scenario.verdict());
    }
    text += "\n";
    for scenario in scenarios {
        text += &scenario.markdown();
    }
    let found = &outage.findings;
    let _ = writeln!(
        text,
        "## Redis killed in mid-round, and started again\n\n{} requests, of which failed: {}. Changes meanwhile: {}; answers compared: {}, \
         inconclusive {}; **stale: {}**.",
        outage.requests,
        outage.failures,
        found.changes,
        found.compared,
        found.inconclusive,
        found.stale.len()
    );
    text
}

fn csv(scenarios: &[Scenario]) -> String {
    let mut text = String::from(
        "mix,hop_ms,endpoint,requests,p50_off_ms,p50_on_ms,p50_near_ms,p95_off_ms,p95_on_ms,p95_near_ms,saved_percent,near_saved_percent,published_percent,hit_percent,near_hit_percent,cacheable_percent\n",
    );
    for scenario in scenarios {
        for row in &scenario.rows {
            let _ = writeln!(
                text,
                "{},{},{},{},{:.3},{:.3},{:.3},{:.3},{:.3},{:.3},{:.1},{:.1},{},{:.1},{:.1},{:.1}",
                scenario.plan.mix.name,
                u8::from(scenario.plan.hop),
                row.endpoint,
                row.on.requests,
                row.off.p50_ms,
                row.on.p50_ms,
                row.near.p50_ms,
                row.off.p95_ms,
                row.on.p95_ms,
                row.near.p95_ms,
                row.saved_percent(),
                row.near_saved_percent(),
                published_of(row).saved_percent,
                row.hit_percent(),
                row.near_hit_percent(),
                row.cacheable_percent()
            );
        }
    }
    text
}

/// Bars: time saved beside what is published; with the database a hop away if that was measured.
fn svg(scenarios: &[Scenario]) -> String {
    const ROW: usize = 46;
    // The mix in which every endpoint is asked often.
    let shown = scenarios.iter().max_by_key(|scenario| {
        let plan = &scenario.plan;
        (plan.hop, scenario.rows.len(), plan.mix.orders_percent)
    });
    let Some(shown) = shown else {
        return "<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_owned();
    };
    let height = 60 + shown.rows.len() * ROW;
    let mut chart = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"860\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\">Time saved at the median: {}</text>\n\
         <rect x=\"12\" y=\"34\" width=\"12\" height=\"10\" fill=\"#2a78d6\"/><text x=\"30\" y=\"43\">cache</text>\n\
         <rect x=\"90\" y=\"34\" width=\"12\" height=\"10\" fill=\"#1f9d63\"/><text x=\"108\" y=\"43\">cache and near</text>\n\
         <rect x=\"210\" y=\"34\" width=\"12\" height=\"10\" fill=\"#b9b7b0\"/><text x=\"228\" y=\"43\">published</text>\n",
        shown.title()
    );
    for (at, row) in shown.rows.iter().enumerate() {
        let top = 56 + at * ROW;
        let bars = [
            (row.saved_percent(), "#2a78d6"),
            (row.near_saved_percent(), "#1f9d63"),
            (f64::from(published_of(row).saved_percent), "#b9b7b0"),
        ];
        let _ = write!(
            chart,
            "<text x=\"340\" y=\"{}\" text-anchor=\"end\">{}</text>",
            top + 22,
            row.endpoint
        );
        for (number, (percent, colour)) in bars.into_iter().enumerate() {
            let (top, length) = (top + number * 13, percent.max(0.0) * 4.5);
            let _ = write!(
                chart,
                "<rect x=\"350\" y=\"{top}\" width=\"{length:.0}\" height=\"11\" fill=\"{colour}\"/>\
                 <text x=\"{:.0}\" y=\"{}\" font-size=\"10\">{percent:.0} %</text>",
                356.0 + length,
                top + 9,
            );
        }
        chart.push('\n');
    }
    chart + "</svg>\n"
}

/// The Markdown as a page: tables, lists and paragraphs are all it has.
fn html(markdown: &str, chart: &str) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>mcache: storefront</title><style>body{font:15px/1.5 sans-serif;max-width:70rem;\
         margin:2rem auto;padding:0 1rem}table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:right;white-space:nowrap}\
         td:first-child,th:first-child{text-align:left}svg{max-width:860px}</style>\n",
    );
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace("**", "")
    };
    let mut in_table = false;
    for line in markdown.lines() {
        let is_row = line.starts_with('|');
        if is_row != in_table {
            page += if is_row { "<table>\n" } else { "</table>\n" };
            in_table = is_row;
        }
        let cells = line.trim_matches('|').split('|').map(str::trim);
        match line {
            _ if line.starts_with("|---") || line.is_empty() => {}
            _ if is_row => {
                let cells: String = cells
                    .map(|cell| format!("<td>{}</td>", escape(cell)))
                    .collect();
                let _ = writeln!(page, "<tr>{cells}</tr>");
            }
            _ if line.starts_with("![") => page += chart,
            _ if line.starts_with("- ") => {
                let _ = writeln!(page, "<li>{}</li>", escape(&line[2..]));
            }
            _ => {
                let level = line.chars().take_while(|c| *c == '#').count();
                let tag = if level == 0 {
                    "p".to_owned()
                } else {
                    format!("h{level}")
                };
                let _ = writeln!(
                    page,
                    "<{tag}>{}</{tag}>",
                    escape(line.trim_start_matches('#').trim())
                );
            }
        }
    }
    if in_table {
        page += "</table>\n";
    }
    page
}
