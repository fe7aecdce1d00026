//! The live page, as a browser shows it.

use harness::{ScratchDir, wait};

/// What a browser shows of a page a few seconds after it was opened: its document, and what its scripts complained of.
pub async fn browse(url: &str) -> (String, String) {
    let profile = ScratchDir::new("chromium");
    let opened = tokio::process::Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--enable-logging=stderr", "--virtual-time-budget=3000"])
        .args(["--dump-dom", url])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(wait::PATIENCE, opened)
        .await
        .expect("the browser is done in time")
        .expect("chromium: `.ci/setup chromium` installs it");
    assert!(output.status.success(), "chromium: {}", output.status);
    let log = String::from_utf8_lossy(&output.stderr);
    let complaints = log.lines().filter(|line| line.contains("CONSOLE"));
    let complaints = complaints.collect::<Vec<_>>().join("\n");
    (String::from_utf8(output.stdout).unwrap(), complaints)
}

/// The cells of the table on the live page, row by row.
pub fn table(document: &str) -> Vec<Vec<String>> {
    let (_, rows) = document.split_once("<tbody id=\"rows\">").unwrap();
    let (rows, _) = rows.split_once("</tbody>").unwrap();
    let cell = |cell: &str| cell.split_once("</td>").unwrap().0.to_owned();
    rows.split("<tr>")
        .skip(1)
        .map(|row| row.replace("<td class=\"bars\">", "<td>"))
        .map(|row| row.split("<td>").skip(1).map(cell).collect())
        .collect()
}

/// The number in a cell, without its unit.
pub fn figure(cell: &str) -> u64 {
    cell.trim_end_matches(" %").parse().unwrap()
}

/// How many requests all rows count together.
pub fn requests(rows: &[Vec<String>]) -> u64 {
    rows.iter().map(|row| figure(&row[1])).sum()
}
