//! The two plots of an ablation, as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::ablate::row::Row;

/// Pixels of the drawing's width, of a row, and of what stands above and below the rows.
const WIDTH: u32 = 900;
const ROW: u32 = 26;
const FRAME: u32 = 110;
/// Room for the cells' names.
const NAMES: u32 = 170;
/// At least so many points of AP are shown around what is drawn.
const MARGIN: f64 = 0.5;

const TEXT: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(220, 220, 220);
const MARK: RGBColor = RGBColor(31, 90, 160);
const TEACHER: RGBColor = RGBColor(190, 80, 30);

/// A drawing, or what went wrong; None where there is nothing to draw.
type Drawing = Result<Option<String>, String>;

/// Each cell's difference to its reference with its interval, in points of AP.
pub(super) fn gains(rows: &[Row<'_>]) -> Drawing {
    let lines: Vec<Mark> = rows
        .iter()
        .filter_map(|row| {
            let gain = row.gain.as_ref()?.mean;
            let range = row.interval.map(|i| (100.0 * i.low, 100.0 * i.high));
            Some(Mark { name: row.cell.name.clone(), points: Vec::new(), mean: 100.0 * gain, range })
        })
        .collect();
    draw(&lines, "difference to the student alone, points of AP (95% interval)", &[(0.0, TEXT)])
}

/// Each cell's AP, seed by seed, with its mean; a line marks the teacher.
pub(super) fn aps(rows: &[Row<'_>], teacher: Option<f64>) -> Drawing {
    let lines: Vec<Mark> = rows
        .iter()
        .filter_map(|row| {
            let points: Vec<f64> = row.aps().iter().map(|ap| 100.0 * ap).collect();
            let mean = points.iter().sum::<f64>() / points.len() as f64;
            (!points.is_empty()).then(|| Mark { name: row.cell.name.clone(), points, mean, range: None })
        })
        .collect();
    let teacher: Vec<(f64, RGBColor)> = teacher.map(|ap| (100.0 * ap, TEACHER)).into_iter().collect();
    draw(&lines, "AP of each seed, bar: mean; orange: the teacher", &teacher)
}

/// One row of a drawing.
struct Mark {
    name: String,
    points: Vec<f64>,
    mean: f64,
    range: Option<(f64, f64)>,
}

fn draw(marks: &[Mark], caption: &str, lines: &[(f64, RGBColor)]) -> Drawing {
    if marks.is_empty() {
        return Ok(None);
    }
    let mut svg = String::new();
    {
        let height = FRAME + ROW * marks.len() as u32;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        rows(&area, marks, caption, lines).map_err(|e| format!("cannot be drawn: {e}"))?;
    }
    Ok(Some(svg))
}

fn rows(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    marks: &[Mark],
    caption: &str,
    lines: &[(f64, RGBColor)],
) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let drawn = || {
        let own = |m: &Mark| {
            let ends = m.range.map_or([m.mean; 2], |(low, high)| [low, high]);
            m.points.iter().copied().chain(ends).chain([m.mean]).collect::<Vec<_>>()
        };
        marks.iter().flat_map(own).chain(lines.iter().map(|l| l.0))
    };
    let (low, high) = drawn().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let margin = MARGIN.max(0.05 * (high - low));
    let count = marks.len() as f64;
    // Row 0 is the topmost.
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16).into_font().color(&TEXT))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(low - margin..high + margin, count - 0.5..-0.5)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(9)
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .label_style(("sans-serif", 13).into_font().color(&TEXT))
        .draw()?;
    let right = Pos::new(HPos::Right, VPos::Center);
    let style = TextStyle::from(("sans-serif", 13).into_font()).color(&TEXT).pos(right);
    for (row, mark) in marks.iter().enumerate() {
        let (x, y) = chart.plotting_area().map_coordinate(&(low - margin, row as f64));
        area.draw_text(&mark.name, &style, (x - 8, y))?;
    }
    for &(x, color) in lines {
        let line = PathElement::new(vec![(x, -0.5), (x, count - 0.5)], color.stroke_width(2));
        chart.draw_series(std::iter::once(line))?;
    }
    for (row, mark) in marks.iter().enumerate() {
        let y = row as f64;
        if let Some((low, high)) = mark.range {
            let line = PathElement::new(vec![(low, y), (high, y)], MARK.stroke_width(3));
            chart.draw_series(std::iter::once(line))?;
        }
        chart.draw_series(mark.points.iter().map(|&x| Circle::new((x, y), 3, MARK.mix(0.6).filled())))?;
        if mark.points.is_empty() {
            chart.draw_series(std::iter::once(Circle::new((mark.mean, y), 4, MARK.filled())))?;
        } else {
            let bar = vec![(mark.mean, y - 0.3), (mark.mean, y + 0.3)];
            chart.draw_series(std::iter::once(PathElement::new(bar, MARK.stroke_width(2))))?;
        }
    }
    area.present()?;
    Ok(())
}
