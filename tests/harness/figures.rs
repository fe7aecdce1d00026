//! Figures that are kept in tables of Markdown, and what became worse since.

use std::fmt;

/// Which way a figure is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// The smaller.
    Less,
    /// The larger.
    More,
}

/// A figure that became worse.
#[derive(Clone, PartialEq, Debug)]
pub struct Worse {
    /// What is measured.
    pub what: String,
    /// What was stored.
    pub before: f64,
    /// What it is now.
    pub now: f64,
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Worse { what, before, now } = self;
        let percent = (now / before - 1.0) * 100.0;
        write!(f, "{what}: {now:.3}, stored {before}, {percent:+.0} %")
    }
}

/// The figure of a row in one part of a file: between `<!-- begin part -->` and `<!-- end part -->`, the second column
/// of the row whose first says `what`.
pub fn stored(file: &str, part: &str, what: &str) -> Option<f64> {
    let (_, rest) = file.split_once(&format!("<!-- begin {part} -->\n"))?;
    let (table, _) = rest.split_once(&format!("<!-- end {part} -->"))?;
    table.lines().find_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        (cells.next()? == what).then(|| cells.next()?.parse().ok())?
    })
}

/// Whether a figure is worse than the stored one by more than `tolerance`, a share of it.
pub fn worse(what: &str, before: f64, now: f64, better: Better, tolerance: f64) -> Option<Worse> {
    let is_worse = match better {
        Better::Less => now > before * (1.0 + tolerance),
        Better::More => now < before * (1.0 - tolerance),
    };
    is_worse.then(|| Worse {
        what: what.to_owned(),
        before,
        now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
<!-- begin One -->
| what | figure | goal |
|---|---:|---|
| GET hit, -P 1 | 1.20 | – |
<!-- end One -->
<!-- begin Two -->
| GET hit, -P 1 | 3.5 | – |
| a row without a figure | many | – |
<!-- end Two -->
";

    #[test]
    fn a_row_is_found_in_its_part_only() {
        assert_eq!(stored(FILE, "One", "GET hit, -P 1"), Some(1.2));
        assert_eq!(stored(FILE, "Two", "GET hit, -P 1"), Some(3.5));
        for (part, what) in [
            ("Three", "GET hit, -P 1"),
            ("One", "GET hit"),
            ("One", "a row without a figure"),
            ("Two", "a row without a figure"),
        ] {
            assert_eq!(stored(FILE, part, what), None, "{part}: {what}");
        }
    }

    #[test]
    fn what_is_worse_by_more_than_the_tolerance_is_said_and_what_is_better_is_not() {
        let less = |now| worse("x", 2.0, now, Better::Less, 0.1);
        let more = |now| worse("x", 2.0, now, Better::More, 0.1);
        assert_eq!((less(2.19), less(0.5)), (None, None));
        assert_eq!((more(1.81), more(9.0)), (None, None));
        let said = less(2.5).expect("worse").to_string();
        assert_eq!(said, "x: 2.500, stored 2, +25 %");
        assert_eq!(
            more(1.0).expect("worse").to_string(),
            "x: 1.000, stored 2, -50 %"
        );
    }
}
