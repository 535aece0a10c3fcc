//! Writes the `shapes` data set and a contact sheet with boxes, and prints what is in it:
//! `cargo run -p docent-coco --example shapes -- DIR [--sheet FILE.png] [--split train|val]`, or with `--lock` instead of `DIR` the
//! text of a new lock file.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use docent_coco::Rgb8;
use docent_coco::shapes::{Class, Lock, Object, ShapesConfig, Split, VERSION, digest, generate, render};
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

/// A colour for each class, in the order of the ids.
const COLORS: [[u8; 3]; 6] =
    [[255, 64, 64], [255, 176, 0], [255, 255, 64], [64, 255, 64], [64, 224, 255], [255, 96, 255]];
const COLUMNS: usize = 6;
const ROWS: usize = 5;
/// Enlargement of the images on the sheet.
const ZOOM: usize = 2;
/// Side of an image's place on the sheet.
const CELL: usize = 160 * ZOOM + 8;

fn main() -> Result<(), Box<dyn Error>> {
    let config = ShapesConfig::default();
    let (mut folder, mut sheet_file, mut split) = (None, None, Split::Train);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--lock" => {
                println!("{}", lock_text(&config)?);
                return Ok(());
            }
            "--sheet" => sheet_file = args.next().map(PathBuf::from),
            "--split" => {
                split = match args.next().as_deref() {
                    Some("train") => Split::Train,
                    Some("val") => Split::Val,
                    other => return Err(format!("--split {other:?}: give train or val").into()),
                }
            }
            _ => folder = Some(PathBuf::from(arg)),
        }
    }
    let folder = folder.ok_or("name a folder for the data set")?;
    let start = Instant::now();
    generate(&folder, &config)?;
    println!("{} in {:.2} s", folder.display(), start.elapsed().as_secs_f64());
    Split::ALL.iter().for_each(|&split| tell(&config, split));
    if let Some(path) = sheet_file {
        let sheet = contact_sheet(&config, split);
        image::save_buffer(
            &path,
            &sheet.data,
            sheet.width as u32,
            sheet.height as u32,
            image::ExtendedColorType::Rgb8,
        )?;
        let colors: Vec<String> =
            Class::ALL.iter().zip(COLORS).map(|(class, rgb)| format!("{} {rgb:?}", class.name())).collect();
        println!("{}: {}", path.display(), colors.join(", "));
    }
    Ok(())
}

/// The text of the lock file of this generator.
fn lock_text(config: &ShapesConfig) -> Result<String, Box<dyn Error>> {
    let lock =
        Lock { version: VERSION, seed: config.seed, train: config.train, val: config.val, sha256: digest(config, 0)? };
    Ok(serde_json::to_string_pretty(&lock)?)
}

/// Prints counts of a split.
fn tell(config: &ShapesConfig, split: Split) {
    let images = config.images(split);
    let (mut classes, mut bins, mut crowd, mut visible) = ([0; 6], [0; 3], [0; 14], [0; 4]);
    let mut sides = Vec::new();
    for index in 0..images {
        let objects = render(config, split, index).1;
        crowd[objects.len().min(13)] += 1;
        for object in objects {
            classes[object.class as usize] += 1;
            let area = object.area();
            bins[usize::from(area >= 1024.0) + usize::from(area >= 9216.0)] += 1;
            visible[((object.visible * 4.0) as usize).min(3)] += 1;
            sides.push(area.sqrt());
        }
    }
    sides.sort_by(f64::total_cmp);
    let total = sides.len().max(1);
    let quantile = |q: f64| sides.get((q * (total - 1) as f64) as usize).copied().unwrap_or(0.0);
    println!("{}: {images} images, {total} objects, {:.2} an image", split.name(), total as f64 / images as f64);
    println!("  images by number of objects 0, 1, ..: {crowd:?}");
    println!("  small, medium, large: {bins:?}; by visible quarter: {visible:?}");
    println!(
        "  square root of area at 0, 5, 25, 50, 75, 95, 100 %: {:?}",
        [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0].map(|q| (quantile(q) * 10.0).round() / 10.0)
    );
    for (class, n) in Class::ALL.iter().zip(classes) {
        println!("  {:9}{n:5}", class.name());
    }
}

/// The first images of a split, enlarged, with their boxes.
fn contact_sheet(config: &ShapesConfig, split: Split) -> Rgb8 {
    let (width, height) = (COLUMNS * CELL, ROWS * CELL);
    let mut sheet = Rgb8 { width, height, data: vec![24; 3 * width * height] };
    for index in 0..COLUMNS * ROWS {
        let (image, objects) = render(config, split, index);
        let (left, top) = (index % COLUMNS * CELL + 4, index / COLUMNS * CELL + 4);
        for y in 0..image.height * ZOOM {
            for x in 0..image.width * ZOOM {
                let from = 3 * (y / ZOOM * image.width + x / ZOOM);
                let to = 3 * ((top + y) * width + left + x);
                sheet.data[to..to + 3].copy_from_slice(&image.data[from..from + 3]);
            }
        }
        objects.iter().for_each(|object| draw_box(&mut sheet, left, top, object));
    }
    sheet
}

fn draw_box(sheet: &mut Rgb8, left: usize, top: usize, object: &Object) {
    let [x, y, w, h] = object.bbox;
    let at = |v: f64| (v * ZOOM as f64).round() as usize;
    let (x0, y0, x1, y1) = (left + at(x), top + at(y), left + at(x + w) - 1, top + at(y + h) - 1);
    let color = COLORS[object.class as usize];
    let mut dot = |x: usize, y: usize| {
        let to = 3 * (y * sheet.width + x);
        sheet.data[to..to + 3].copy_from_slice(&color);
    };
    for x in x0..=x1 {
        dot(x, y0);
        dot(x, y1);
    }
    for y in y0..=y1 {
        dot(x0, y);
        dot(x1, y);
    }
}
