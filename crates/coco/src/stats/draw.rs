//! The distribution of a data set as one SVG: classes, boxes an image, sizes and shapes of boxes, each split in its colour.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Stats;
use crate::error::{Error, Result};

const SIZE: (u32, u32) = (1120, 760);
const TITLE: u32 = 44;
const TEXT: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
/// One colour a split.
const COLOURS: [RGBColor; 3] = [RGBColor(31, 90, 160), RGBColor(230, 145, 20), RGBColor(0, 158, 115)];
/// Rows of the classes' panel at most; the rest is one row.
const CLASSES: usize = 20;
/// Bars of a histogram at most.
const BARS: usize = 24;

type Drawn<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws splits beside each other, each with the name that the chart calls it. Bars are shares of a split's boxes (or images), so
/// that splits of different size can be compared.
///
/// # Errors
/// No split, or more than three; a chart that cannot be drawn.
pub fn chart(splits: &[(&str, &Stats)]) -> Result<String> {
    if splits.is_empty() || splits.len() > COLOURS.len() {
        return Err(Error::Config(format!("{} splits; 1 to {} are drawn", splits.len(), COLOURS.len())));
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        sheet(&area, splits).map_err(|e| Error::Config(format!("the distribution cannot be drawn: {e}")))?;
    }
    Ok(svg)
}

fn sheet(area: &Area<'_>, splits: &[(&str, &Stats)]) -> Drawn<()> {
    area.fill(&WHITE)?;
    let (title, rest) = area.split_vertically(TITLE);
    let mut x = 20;
    for ((name, stats), colour) in splits.iter().zip(COLOURS) {
        title.draw(&Rectangle::new([(x, 16), (x + 16, 32)], colour.filled()))?;
        let text = format!("{name}: {} images, {} boxes", stats.images, stats.boxes);
        title.draw_text(&text, &style(17, HPos::Left), (x + 24, 24))?;
        x += 44 + 9 * text.chars().count() as i32;
    }
    let panels = rest.split_evenly((2, 2));
    let [classes, counts, sides, aspects] = &panels[..] else { return Ok(()) };
    class_panel(classes, splits)?;
    let most = splits.iter().map(|(_, s)| s.boxes_an_image.most).fold(0.0, f64::max);
    let step = ((most + 1.0) / BARS as f64).ceil().max(1.0);
    let edges: Vec<f64> = (0..=((most / step) as usize + 1)).map(|i| i as f64 * step).collect();
    let label = |i: usize| if step == 1.0 { format!("{i}") } else { format!("{}", i as f64 * step) };
    let of = splits.iter().map(|(_, s)| shares(&s.values.boxes_an_image, &edges)).collect();
    histogram(counts, "boxes an image (share of images)", &bars(&edges, label), of)?;

    let (low, high) = splits.iter().fold((f64::INFINITY, 0f64), |(l, h), (_, s)| {
        (if s.boxes > 0 { l.min(s.side.least) } else { l }, h.max(s.side.most))
    });
    // Half octaves, from the one of the smallest box to that of the largest.
    let (first, last) = if high > 0.0 { (half_octave(low), half_octave(high)) } else { (8, 12) };
    let first = first.max(last - BARS as i32 + 1);
    let edges: Vec<f64> = (first..=last + 1).map(|k| 2f64.powf(f64::from(k) / 2.0)).collect();
    let label = |i: usize| {
        let k = first + i as i32;
        if k % 2 == 0 { format!("{}", 2f64.powi(k / 2)) } else { String::new() }
    };
    let of = splits.iter().map(|(_, s)| shares(&s.values.side, &edges)).collect();
    histogram(
        sides,
        "side of a box: root of its area, pixels; small below 32, large from 96",
        &bars(&edges, label),
        of,
    )?;

    let edges: Vec<f64> = (-8..=8).map(|k| 2f64.powf(f64::from(k) / 4.0)).collect();
    let label = |i: usize| match i as i32 - 8 {
        -8 => "1:4".to_owned(),
        -4 => "1:2".to_owned(),
        0 => "1:1".to_owned(),
        4 => "2:1".to_owned(),
        8 => "4:1".to_owned(),
        _ => String::new(),
    };
    let of = splits.iter().map(|(_, s)| shares(&s.values.aspect, &edges)).collect();
    histogram(aspects, "shape of a box: width to height", &bars(&edges, label), of)?;
    area.present()?;
    Ok(())
}

/// The half octave that a side lies in.
fn half_octave(side: f64) -> i32 {
    (2.0 * side.max(0.25).log2()).floor() as i32
}

/// Labels of the edges between bars.
fn bars(edges: &[f64], label: impl Fn(usize) -> String) -> Vec<String> {
    (0..edges.len()).map(label).collect()
}

/// The share of the values between each two edges; what lies outside counts in the first and last bar.
fn shares(values: &[f64], edges: &[f64]) -> Vec<f64> {
    let mut counts = vec![0.0; edges.len() - 1];
    for value in values {
        let bar = edges.partition_point(|edge| edge <= value).clamp(1, counts.len()) - 1;
        counts[bar] += 1.0 / values.len() as f64;
    }
    counts
}

fn style(size: u32, side: HPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).color(&TEXT).pos(Pos::new(side, VPos::Center))
}

/// One group of bars between each two edges, one bar a split.
fn histogram(area: &Area<'_>, caption: &str, labels: &[String], splits: Vec<Vec<f64>>) -> Drawn<()> {
    let bars = labels.len() - 1;
    let top = splits.iter().flatten().copied().fold(0.01, f64::max) * 1.08;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 15).into_font().color(&TEXT))
        .margin(14)
        .x_label_area_size(26)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..bars as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(5)
        .y_label_formatter(&|share| format!("{:.0}%", 100.0 * share))
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .label_style(("sans-serif", 12).into_font().color(&TEXT))
        .draw()?;
    let each = 0.84 / splits.len() as f64;
    for (s, shares) in splits.iter().enumerate() {
        let bar = |(i, share): (usize, &f64)| {
            let left = i as f64 + 0.08 + s as f64 * each;
            Rectangle::new([(left, 0.0), (left + each, *share)], COLOURS[s].filled())
        };
        chart.draw_series(shares.iter().enumerate().filter(|(_, share)| **share > 0.0).map(bar))?;
    }
    // As many labels as there is room for.
    let every = labels.iter().filter(|l| !l.is_empty()).count().div_ceil(13).max(1);
    for (i, label) in labels.iter().enumerate().filter(|(_, l)| !l.is_empty()).step_by(every) {
        let (x, y) = chart.plotting_area().map_coordinate(&(i as f64, 0.0));
        // The plot's own coordinates count from the corner of the whole chart.
        let corner = area.get_base_pixel();
        area.draw_text(label, &style(12, HPos::Center), (x - corner.0, y - corner.1 + 12))?;
    }
    Ok(())
}

/// Classes as rows, the most frequent first.
fn class_panel(area: &Area<'_>, splits: &[(&str, &Stats)]) -> Drawn<()> {
    let classes = splits[0].1.classes.len();
    let share = |s: usize, class: usize| {
        let stats = splits[s].1;
        stats.classes.get(class).map_or(0.0, |c| c.boxes as f64 / stats.boxes.max(1) as f64)
    };
    let all =
        |class: usize| (0..splits.len()).map(|s| splits[s].1.classes.get(class).map_or(0, |c| c.boxes)).sum::<usize>();
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(all(class)));
    let shown = if classes > CLASSES { CLASSES - 1 } else { classes };
    let mut rows: Vec<(String, Vec<f64>)> = order[..shown]
        .iter()
        .map(|&class| {
            let name = shortened(&splits[0].1.classes[class].name);
            (name, (0..splits.len()).map(|s| share(s, class)).collect())
        })
        .collect();
    if shown < classes {
        let rest = |s: usize| order[shown..].iter().map(|&class| share(s, class)).sum();
        rows.push((format!("{} others", classes - shown), (0..splits.len()).map(rest).collect()));
    }
    let count = rows.len().max(1) as f64;
    let right = rows.iter().flat_map(|(_, shares)| shares).copied().fold(0.01, f64::max) * 1.14;
    let mut chart = ChartBuilder::on(area)
        .caption("classes (share of boxes)", ("sans-serif", 15).into_font().color(&TEXT))
        .margin(14)
        .x_label_area_size(26)
        .y_label_area_size(120)
        .build_cartesian_2d(0.0..right, count..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(6)
        .x_label_formatter(&|share| format!("{:.0}%", 100.0 * share))
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .label_style(("sans-serif", 12).into_font().color(&TEXT))
        .draw()?;
    let corner = area.get_base_pixel();
    let each = 0.8 / splits.len() as f64;
    for (row, (name, shares)) in rows.iter().enumerate() {
        let top = row as f64 + 0.1;
        let (x, y) = chart.plotting_area().map_coordinate(&(0.0, row as f64 + 0.5));
        area.draw_text(name, &style(13, HPos::Right), (x - corner.0 - 8, y - corner.1))?;
        for (s, share) in shares.iter().enumerate() {
            let above = top + s as f64 * each;
            let bar = Rectangle::new([(0.0, above), (*share, above + each)], COLOURS[s].filled());
            chart.draw_series(std::iter::once(bar))?;
        }
    }
    Ok(())
}

/// A name that fits beside its row.
fn shortened(name: &str) -> String {
    const MOST: usize = 16;
    if name.chars().count() <= MOST {
        return name.to_owned();
    }
    name.chars().take(MOST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_hold_every_value_once() {
        let edges = [1.0, 2.0, 4.0];
        assert_eq!(shares(&[0.5, 1.0, 1.9, 2.0, 3.0, 4.0, 100.0, 2.5], &edges), [0.375, 0.625]);
        assert_eq!(shares(&[], &edges), [0.0, 0.0]);
        assert_eq!((half_octave(32.0), half_octave(45.3), half_octave(44.0)), (10, 11, 10));
        assert_eq!(half_octave(0.0), -4);
    }
}
