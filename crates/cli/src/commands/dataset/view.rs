//! `docent dataset view`: some images with their boxes on one sheet.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use docent_coco::{Dataset, Resize, ResizeRule, Rgb8, Splits, open_dir};

use crate::draw::{Mark, draw};
use crate::output::{say, tell};
use crate::reading::ReadArgs;

/// Pixels between images.
const GAP: usize = 8;
/// Height of the line with the classes' colours.
const LEGEND: usize = 34;
const GROUND: [u8; 3] = [255, 255, 255];

#[derive(clap::Args)]
pub struct Args {
    /// The data folder, or one annotation file; docs/data.md lists what opens as it stands.
    dir: PathBuf,
    /// The sheet to write, a PNG file.
    #[arg(long, value_name = "FILE.png", default_value = "sheet.png")]
    out: PathBuf,
    /// Which split: `train` or `val`.
    #[arg(long, default_value = "train", value_parser = ["train", "val"])]
    split: String,
    /// How many images; fewer where the split has fewer.
    #[arg(long, value_name = "N", default_value_t = 12)]
    count: usize,
    /// Images that hold an object of this class, by its name.
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// Seed of the choice.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longer side of each image, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 400, value_parser = clap::value_parser!(u32).range(32..=2048))]
    size: u32,
    /// Draw boxes without their classes' names; the colours tell.
    #[arg(long)]
    no_names: bool,
    #[command(flatten)]
    read: ReadArgs,
}

/// Draws and writes.
pub fn run(args: &Args) -> Result<()> {
    ensure!((1..=400).contains(&args.count), "--count {}: give 1 to 400", args.count);
    ensure!(
        args.out.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")),
        "--out {}: the sheet is a PNG file; name one that ends in .png",
        args.out.display()
    );
    let Splits { train, val, notes, .. } = open_dir(&args.dir, &args.read.options()?)?;
    for note in &notes {
        tell!("{note}");
    }
    let dataset = if args.split == "train" { train } else { val };
    let class = match &args.class {
        None => None,
        Some(name) => match dataset.categories().iter().find(|c| c.name == *name) {
            Some(category) => Some(category.id),
            None => bail!("--class {name}: the classes are {}", dataset.class_names().join(", ")),
        },
    };
    let chosen = dataset.choose_images(args.count, args.seed, class);
    ensure!(!chosen.is_empty(), "no image of the split holds such an object: name another --class or --split");
    let tiles = chosen.iter().map(|&i| tile(&dataset, i, args)).collect::<Result<Vec<_>>>()?;
    let sheet = compose(&tiles, &dataset.class_names());
    sheet.save_png(&args.out)?;
    say!("{}: {} of {} images", args.out.display(), tiles.len(), dataset.len());
    for (&i, tile) in chosen.iter().zip(&tiles) {
        say!("  {} (id {}): {} boxes", dataset.image_path(i).display(), dataset.image(i).id, tile.boxes);
    }
    Ok(())
}

struct Tile {
    image: Rgb8,
    boxes: usize,
}

/// One image at its size on the sheet, with its boxes.
fn tile(dataset: &Dataset, i: usize, args: &Args) -> Result<Tile> {
    let sample = dataset.sample(i)?;
    let resize = Resize::default().shortest(args.size).longest(args.size).rule(ResizeRule::Antialias);
    let planes = resize.apply(&sample.image)?;
    let (height, width) = (planes.height, planes.width);
    let byte = |v: f32| (v * 255.0).round().clamp(0.0, 255.0) as u8;
    let pixel = |at: usize| [0, 1, 2].map(|c| byte(planes.data[c * height * width + at]));
    let mut image = Rgb8 { width, height, data: (0..height * width).flat_map(pixel).collect() };
    let (sx, sy) = (width as f32 / sample.image.width as f32, height as f32 / sample.image.height as f32);
    let names = dataset.class_names();
    let mark = |(b, label): (&[f32; 4], &u32)| {
        let class = *label as usize - 1;
        let label = if args.no_names { String::new() } else { names[class].clone() };
        Mark { bbox: [b[0] * sx, b[1] * sy, b[2] * sx, b[3] * sy], class, label }
    };
    let marks: Vec<Mark> = sample.boxes.iter().zip(&sample.labels).map(mark).collect();
    draw(&mut image, &marks);
    Ok(Tile { image, boxes: marks.len() })
}

/// The tiles in rows, under a line with the classes' colours.
fn compose(tiles: &[Tile], classes: &[String]) -> Rgb8 {
    let side = |pick: fn(&Rgb8) -> usize| tiles.iter().map(|t| pick(&t.image)).max().unwrap_or(1);
    let (width, height) = (side(|i| i.width), side(|i| i.height));
    let columns = (1..=tiles.len()).find(|c| c * width * 3 >= tiles.len().div_ceil(*c) * height * 4).unwrap_or(1);
    let rows = tiles.len().div_ceil(columns);
    let mut sheet = Rgb8::filled(columns * (width + GAP) + GAP, LEGEND + rows * (height + GAP) + GAP, GROUND);
    for (at, tile) in tiles.iter().enumerate() {
        let (x, y) = (GAP + at % columns * (width + GAP), LEGEND + GAP + at / columns * (height + GAP));
        for (row, line) in tile.image.data.chunks_exact(tile.image.width * 3).enumerate() {
            let start = ((y + row) * sheet.width + x) * 3;
            sheet.data[start..start + line.len()].copy_from_slice(line);
        }
    }
    legend(&mut sheet, classes);
    sheet
}

/// Each class's name on its colour, as far as there is room: the same letters as in the images.
fn legend(sheet: &mut Rgb8, classes: &[String]) {
    let mut line = Rgb8::filled(sheet.width, LEGEND, GROUND);
    let mut marks = Vec::new();
    let mut x = GAP;
    for (class, name) in classes.iter().enumerate() {
        let width = name.chars().count() * 10 + 16;
        if x + width > sheet.width {
            break;
        }
        // A label stands on its box, which is so low here that it is a line of the colour.
        let bbox = [x as f32, (LEGEND - 10) as f32, (x + width - 12) as f32, (LEGEND - 7) as f32];
        marks.push(Mark { bbox, class, label: name.clone() });
        x += width + GAP;
    }
    draw(&mut line, &marks);
    sheet.data[..line.data.len()].copy_from_slice(&line.data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_holds_every_tile() {
        let tile = |v: u8, width, height| Tile { image: Rgb8::filled(width, height, [v; 3]), boxes: 0 };
        let tiles: Vec<Tile> = (1..=7).map(|i| tile(10 * i as u8, 40, if i == 3 { 20 } else { 30 })).collect();
        let sheet = compose(&tiles, &["cat".to_owned()]);
        let columns = (sheet.width - GAP) / (40 + GAP);
        assert_eq!((sheet.height - LEGEND - GAP) / (30 + GAP), 7usize.div_ceil(columns));
        for i in 0..7 {
            let (x, y) = (GAP + i % columns * (40 + GAP), LEGEND + GAP + i / columns * (30 + GAP));
            assert_eq!(sheet.pixel(x + 1, y + 1), [10 * (i as u8 + 1); 3], "tile {i}");
        }
        assert_eq!(compose(&tiles[..1], &[]).width, 40 + 2 * GAP);
    }
}
