//! The bench of growth measures every point that it names, and draws it.

use std::process::Command;

#[test]
fn growth_is_measured_along_three_axes_and_written_as_table_and_drawing() {
    let to = harness::ScratchDir::new("growth");
    let status = Command::new(env!("CARGO_BIN_EXE_server-bench"))
        .args(["--growth", "1000"])
        .arg(to.path())
        .status()
        .unwrap();
    assert!(status.success());
    let read = |name: &str| std::fs::read_to_string(to.path().join(name)).unwrap();
    let csv = read("growth.csv");
    let lines: Vec<Vec<&str>> = csv
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect())
        .collect();
    let of = |axis: &str| {
        let mut sizes: Vec<u32> = lines
            .iter()
            .filter(|line| line[0] == axis)
            .map(|line| line[1].parse().unwrap())
            .collect();
        sizes.sort_unstable();
        let all = sizes.len();
        sizes.dedup();
        (sizes, all)
    };
    assert_eq!(of("entries"), (vec![10, 100, 1_000], 3 * 5));
    assert_eq!(of("tags"), (vec![1, 10, 100, 1_000], 4 * 4));
    assert_eq!(of("entries of a tag"), (vec![1, 10, 100, 1_000], 4));
    let costs = lines.iter().flat_map(|line| &line[line.len() - 2..]);
    assert!(
        costs
            .map(|cost| cost.parse::<u64>().unwrap())
            .all(|ns| ns > 0)
    );
    // Ten curves and one beside each, as nanoseconds, and again as times of plain.
    assert_eq!(read("growth.svg").matches("<polyline").count(), 10 * 3);
    assert_eq!(
        read("growth.md")
            .lines()
            .filter(|line| line.starts_with("| "))
            .count(),
        3 + 10
    );
}
