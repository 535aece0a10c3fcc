//! Line plots as SVG that takes its colours from the page, so that they fit light and dark.

use std::fmt::Write as _;

use super::html::escape;

/// The drawing's size and its frame, in its own units: about pixels on a desktop.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 428.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 212.0;

/// Lines with at most so many points show these.
const DOTS: usize = 40;

/// One line.
pub(super) struct Line {
    pub(super) name: String,
    /// The style sheet's colour of it, `c0`, `c1`, ... for terms, `r0`, `r1`, ... for runs.
    pub(super) class: String,
    pub(super) points: Vec<(f64, f64)>,
    /// What stands beside its name: the last value, where this is none.
    pub(super) figure: Option<String>,
}

/// A plot.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// What stands at the axes, with units.
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    /// Bounds of the y axis; else those of the values, with 0.
    pub(super) bounds: Option<(f64, f64)>,
    /// Powers of ten at even distances, where all values are positive.
    pub(super) log: bool,
    pub(super) lines: Vec<Line>,
}

impl Plot<'_> {
    /// The figure; empty where there is no point.
    pub(super) fn html(&self) -> String {
        let points = || self.lines.iter().flat_map(|l| &l.points);
        if points().next().is_none() {
            return String::new();
        }
        let log = self.log && points().all(|p| p.1 > 0.0);
        let x = Axis::new(points().map(|p| p.0).chain([0.0]), None, false, (LEFT, RIGHT));
        let values = points().map(|p| p.1).chain((!log && self.bounds.is_none()).then_some(0.0));
        let y = Axis::new(values, self.bounds, log, (BOTTOM, TOP));
        let mut svg = String::new();
        for tick in x.ticks() {
            let at = x.place(tick);
            let _ =
                write!(svg, r#"<line class="tick" x1="{at:.1}" y1="{BOTTOM}" x2="{at:.1}" y2="{}"/>"#, BOTTOM + 4.0);
            let _ =
                write!(svg, r#"<text x="{at:.1}" y="{}" text-anchor="middle">{}</text>"#, BOTTOM + 17.0, number(tick));
        }
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = write!(svg, r#"<line class="grid" x1="{LEFT}" y1="{at:.1}" x2="{RIGHT}" y2="{at:.1}"/>"#);
            let (left, below) = (LEFT - 6.0, at + 4.0);
            let _ = write!(svg, r#"<text x="{left}" y="{below:.1}" text-anchor="end">{}</text>"#, number(tick));
        }
        let _ = write!(svg, r#"<line class="axis" x1="{LEFT}" y1="{BOTTOM}" x2="{RIGHT}" y2="{BOTTOM}"/>"#);
        let middle = (LEFT + RIGHT) / 2.0;
        let _ =
            write!(svg, r#"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"#, HEIGHT - 4.0, escape(self.x));
        for line in &self.lines {
            let places: Vec<String> =
                line.points.iter().map(|p| format!("{:.1},{:.1}", x.place(p.0), y.place(p.1))).collect();
            let class = &line.class;
            let _ = write!(svg, r#"<polyline class="line {class}" points="{}"/>"#, places.join(" "));
            if line.points.len() <= DOTS {
                for place in &places {
                    if let Some((px, py)) = place.split_once(',') {
                        let _ = write!(svg, r#"<circle class="dot {class}" cx="{px}" cy="{py}" r="2.5"/>"#);
                    }
                }
            }
        }
        let mut legend = String::new();
        for line in &self.lines {
            let last = || line.points.last().map_or_else(|| "-".to_owned(), |p| number(p.1));
            let last = line.figure.clone().unwrap_or_else(last);
            let (class, name) = (&line.class, escape(&line.name));
            let _ = write!(legend, r#"<li><span class="key {class}"></span>{name} <output>{last}</output></li>"#);
        }
        let (title, unit) = (escape(self.title), escape(self.y));
        let scale = if log { " · logarithmic" } else { "" };
        let map = |a: &Axis| format!("{},{},{},{},{}", a.low, a.high, a.from, a.to, u8::from(a.log));
        let head = format!(r#"<figcaption><b>{title}</b> <span>{unit}{scale}</span></figcaption>"#);
        let (x, y) = (map(&x), map(&y));
        let open = format!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{title}" data-x="{x}" data-y="{y}">"#
        );
        let cursor = format!(r#"<line class="cursor" y1="{TOP}" y2="{BOTTOM}"/>"#);
        let legend = format!(r#"<ul class="legend"><li class="at"></li>{legend}</ul>"#);
        format!(r#"<figure class="plot">{head}{open}{svg}{cursor}</svg>{legend}</figure>"#)
    }
}

/// From values to places.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, bounds: Option<(f64, f64)>, log: bool, (from, to): (f64, f64)) -> Self {
        let found = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = bounds.unwrap_or(found);
        let (low, high) = match (log, high > low) {
            // At least one power of ten.
            (true, _) => {
                let (low, high) = (low.log10().floor(), high.log10().ceil());
                (10f64.powf(low), 10f64.powf(if high > low { high } else { low + 1.0 }))
            }
            (false, true) => (low, high),
            (false, false) => (low - 0.5, high + 0.5),
        };
        Self { low, high, from, to, log }
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    /// Four to seven round values (1, 2 or 5 times a power of ten), or the powers of ten.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let (low, high) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
            let every = ((high - low) / 6 + 1).max(1) as usize;
            return (low..=high).step_by(every).map(|p| 10f64.powi(p)).collect();
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(rough);
        let first = (self.low / step - 1e-9).ceil();
        let count = ((self.high / step + 1e-9).floor() - first).max(0.0) as usize;
        (0..=count).map(|i| (first + i as f64) * step).collect()
    }
}

/// A value in few letters.
fn number(value: f64) -> String {
    let size = value.abs();
    let digits = |decimals: usize| {
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match size {
        0.0 => "0".to_owned(),
        s if s >= 1e6 => format!("{}M", number(value / 1e6)),
        s if s >= 1e4 => format!("{}k", number(value / 1e3)),
        s if s >= 100.0 => digits(0),
        s if s >= 10.0 => digits(1),
        s if s >= 0.1 => digits(3),
        s if s >= 0.001 => digits(5),
        _ => format!("{value:.1e}").replace(".0e", "e"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1600.0, "1600"),
            (90_000.0, "90k"),
            (2_500_000.0, "2.5M"),
            (0.25, "0.25"),
            (-4.56789, "-4.568"),
            (0.04, "0.04"),
            (12.34, "12.3"),
            (1e-5, "1e-5"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |low, high, log| Axis::new([low, high].into_iter(), None, log, (0.0, 1.0)).ticks();
        assert_eq!(ticks(0.0, 1.0, false), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(1.0, 10.0, false), [2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.003, 20.0, true), [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]);
        // One value alone has a scale too.
        assert!(!ticks(3.0, 3.0, false).is_empty() && ticks(1.0, 1.0, true).len() == 2);
    }

    #[test]
    fn a_plot_shows_its_lines_axes_and_names() {
        let line = |name: &str, points| Line { name: name.to_owned(), class: "c0".to_owned(), points, figure: None };
        let plot = |log, lines| Plot { title: "a <b>", x: "step", y: "loss", bounds: None, log, lines };
        assert_eq!(plot(false, vec![line("none", Vec::new())]).html(), "");
        let html = plot(false, vec![line("x & y", vec![(1.0, 2.0), (3.0, 1.0)])]).html();
        // Both axes begin at 0: (1, 2) lies at the top, a third to the right, (3, 1) half-way down at the right.
        assert!(html.contains(r#"points="176.0,14.0 428.0,113.0""#), "{html}");
        assert!(html.contains("a &lt;b&gt;") && html.contains("x &amp; y <output>1</output>"), "{html}");
        assert!(html.contains("step</text>") && html.contains("<span>loss</span>"), "{html}");
        let html = plot(true, vec![line("l", vec![(0.0, 0.1), (1.0, 10.0)])]).html();
        assert!(html.contains("logarithmic") && html.contains(r#"points="50.0,212.0 428.0,14.0""#), "{html}");
        // What is not positive has no logarithm.
        assert!(!plot(true, vec![line("l", vec![(0.0, 0.0), (1.0, 10.0)])]).html().contains("logarithmic"));
    }
}
