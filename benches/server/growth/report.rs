//! The curves, as Markdown, CSV and SVG.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

pub struct Point {
    pub x: usize,
    pub ours_ns: f64,
    pub plain_ns: f64,
}

impl Point {
    fn ratio(&self) -> f64 {
        self.ours_ns / self.plain_ns
    }
}

/// An operation, and the plain one that it is measured beside.
pub struct Curve {
    what: &'static str,
    plain: &'static str,
    points: Vec<Point>,
}

impl Curve {
    pub fn new(what: &'static str, plain: &'static str) -> Self {
        Curve {
            what,
            plain,
            points: Vec::new(),
        }
    }

    /// Adds a point and shows it.
    pub fn add(&mut self, point: Point) {
        println!(
            "  {:<52} {:>10}  {:>9.0} ns, plain {:>9.0} ns, {:.2}",
            self.what,
            point.x,
            point.ours_ns,
            point.plain_ns,
            point.ratio()
        );
        self.points.push(point);
    }

    /// How many times the first point's value the largest one is.
    fn growth(&self, value: impl Fn(&Point) -> f64) -> f64 {
        let most = self.points.iter().map(&value).fold(0.0, f64::max);
        most / self.points.first().map_or(f64::NAN, value)
    }
}

/// What grows, and the curves along it.
pub struct Axis {
    name: &'static str,
    title: String,
    curves: Vec<Curve>,
}

impl Axis {
    pub fn new(name: &'static str, title: &str, curves: impl IntoIterator<Item = Curve>) -> Self {
        Axis {
            name,
            title: title.to_owned(),
            curves: curves.into_iter().collect(),
        }
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.curves.iter().flat_map(|curve| &curve.points)
    }
}

/// # Errors
///
/// If a file cannot be written.
pub fn write(directory: &Path, axes: &[Axis], how: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("growth.md"), markdown(axes, how))?;
    fs::write(directory.join("growth.csv"), csv(axes))?;
    fs::write(directory.join("growth.svg"), svg(axes))
}

fn markdown(axes: &[Axis], how: &str) -> String {
    let mut text = include_str!("report.md").to_owned();
    let _ = writeln!(
        text,
        "\n{how}\n\n![cost of an operation by size](growth.svg)"
    );
    for axis in axes {
        let _ = write!(
            text,
            "\n## {}\n\n| nanoseconds of server CPU | beside |",
            axis.title
        );
        let sizes: Vec<usize> = match axis.curves.first() {
            Some(curve) => curve.points.iter().map(|point| point.x).collect(),
            None => continue,
        };
        for size in &sizes {
            let _ = write!(text, " {size} |");
        }
        let _ = write!(
            text,
            " grows | beside plain |\n|---|---|{}---:|---:|\n",
            "---:|".repeat(sizes.len())
        );
        for curve in &axis.curves {
            let _ = write!(text, "| {} | {} |", curve.what, curve.plain);
            for point in &curve.points {
                let _ = write!(text, " {:.0} ({:.2}) |", point.ours_ns, point.ratio());
            }
            let (all, beside) = (
                curve.growth(|point| point.ours_ns),
                curve.growth(Point::ratio),
            );
            let _ = writeln!(text, " {all:.2} | {beside:.2} |");
        }
    }
    text
}

fn csv(axes: &[Axis]) -> String {
    let mut text = String::from("axis,size,operation,plain_operation,ours_ns,plain_ns\n");
    for axis in axes {
        for curve in &axis.curves {
            for point in &curve.points {
                let _ = writeln!(
                    text,
                    "{},{},\"{}\",\"{}\",{:.0},{:.0}",
                    axis.name, point.x, curve.what, curve.plain, point.ours_ns, point.plain_ns
                );
            }
        }
    }
    text
}

const COLOURS: [&str; 5] = ["#2a78d6", "#1f9d63", "#d6762a", "#8a4fbf", "#c23b4a"];
/// A panel's drawing area, and where it begins.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 48.0;
/// From one panel to the next.
const ACROSS: f64 = 460.0;

/// Two panels an axis: nanoseconds, and times of plain. Sizes are drawn by their logarithm.
fn svg(axes: &[Axis]) -> String {
    let heights: Vec<f64> = axes
        .iter()
        .map(|axis| TOP + HEIGHT + 60.0 + 18.0 * axis.curves.len() as f64)
        .collect();
    let height: f64 = heights.iter().sum();
    let mut chart = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 940 {height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"940\" height=\"{height:.0}\" fill=\"#fff\"/>\n"
    );
    let mut top = 0.0;
    for (axis, tall) in axes.iter().zip(heights) {
        let _ = writeln!(
            chart,
            "<g transform=\"translate(0 {top:.0})\"><text x=\"{LEFT}\" y=\"16\" font-size=\"14\">{}</text>",
            axis.title
        );
        panel(
            &mut chart,
            axis,
            0.0,
            "nanoseconds (plain: dashed)",
            |point| [point.ours_ns, point.plain_ns],
        );
        panel(&mut chart, axis, ACROSS, "times of plain", |point| {
            [point.ratio(), f64::NAN]
        });
        for (n, curve) in axis.curves.iter().enumerate() {
            let y = TOP + HEIGHT + 46.0 + 18.0 * n as f64;
            let _ = writeln!(
                chart,
                "<rect x=\"{LEFT}\" y=\"{:.0}\" width=\"14\" height=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"{y:.0}\">{}, beside {}</text>",
                y - 6.0,
                COLOURS[n % COLOURS.len()],
                LEFT + 20.0,
                curve.what,
                curve.plain
            );
        }
        chart += "</g>\n";
        top += tall;
    }
    chart + "</svg>\n"
}

fn panel(
    chart: &mut String,
    axis: &Axis,
    left: f64,
    unit: &str,
    values: impl Fn(&Point) -> [f64; 2],
) {
    let most = axis.points().flat_map(&values).fold(0.0, f64::max);
    let round = rounded_up(most);
    let decades = |x: usize| (x as f64).log10();
    let ends = axis.points().map(|point| decades(point.x));
    let (first, last) = ends.fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(x), b.max(x)));
    let x_of = |x: usize| left + LEFT + (decades(x) - first) / (last - first).max(1.0) * WIDTH;
    let y_of = |value: f64| TOP + HEIGHT - value / round * HEIGHT;
    let _ = writeln!(
        chart,
        "<text x=\"{}\" y=\"34\" font-size=\"12\" fill=\"#555\">{unit}</text>",
        left + LEFT
    );
    for step in 0..=4 {
        let value = round * f64::from(step) / 4.0;
        let y = y_of(value);
        let _ = writeln!(
            chart,
            "<path d=\"M{} {y:.0}h{WIDTH}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{value}</text>",
            left + LEFT,
            left + LEFT - 6.0,
            y + 4.0
        );
    }
    if let Some(curve) = axis.curves.first() {
        for point in &curve.points {
            let _ = writeln!(
                chart,
                "<text x=\"{:.0}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                x_of(point.x),
                TOP + HEIGHT + 18.0,
                point.x
            );
        }
    }
    for (n, curve) in axis.curves.iter().enumerate() {
        for (side, dashes) in ["", " stroke-dasharray=\"3 4\" opacity=\"0.6\""]
            .iter()
            .enumerate()
        {
            let drawn = curve
                .points
                .iter()
                .filter(|point| values(point)[side].is_finite());
            let line: Vec<String> = drawn
                .map(|point| format!("{:.0},{:.0}", x_of(point.x), y_of(values(point)[side])))
                .collect();
            if !line.is_empty() {
                let _ = writeln!(
                    chart,
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{dashes}/>",
                    line.join(" "),
                    COLOURS[n % COLOURS.len()]
                );
            }
        }
    }
}

/// The next of 1, 2, 4, 8 times a power of ten.
fn rounded_up(value: f64) -> f64 {
    let decade = 10f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0]
        .map(|n| n * decade)
        .into_iter()
        .find(|n| *n >= value)
        .unwrap_or(value)
}
