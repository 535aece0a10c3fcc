//! `docent predict`: pictures in, boxes out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use docent_coco::{Detection, decode_file, ids_of_names, write_results};
use docent_train::detector::Detector;

use crate::draw::{Mark, draw};

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  docent predict --checkpoint runs/shapes-seed0/distilled/checkpoints/last.safetensors \
                        --out found pictures/"
)]
pub struct Args {
    /// A detector that `docent train` or `docent weights convert` wrote.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Folder for the pictures with boxes and for `detections.json` (COCO's results form).
    #[arg(long, value_name = "DIR", default_value = "predictions")]
    out: PathBuf,
    /// Draw the boxes that score at least this; the JSON holds all.
    #[arg(long, default_value_t = 0.5)]
    threshold: f32,
    /// Pictures (JPEG or PNG), or folders of them.
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
}

/// Detects, draws and writes. A picture that cannot be used does not stop the others.
pub fn run(args: &Args) -> Result<()> {
    ensure!((0.0..=1.0).contains(&args.threshold), "--threshold {}: a score lies in 0..=1", args.threshold);
    let detector = Detector::load(&args.checkpoint)?;
    let files = pictures(&args.inputs)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let mut detections = Vec::new();
    let mut failed = Vec::new();
    for ((file, image_id), name) in files.iter().zip(ids(&files)).zip(names(&files)) {
        let path = args.out.join(name);
        ensure!(!is_same(file, &path), "{} would be overwritten: choose another --out", file.display());
        match predict(args, &detector, file, image_id, &path) {
            Ok(mut found) => detections.append(&mut found),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    let json = args.out.join("detections.json");
    write_results(&json, &detections)?;
    println!("{} detections in {}", detections.len(), json.display());
    if !failed.is_empty() {
        bail!("{} of {} pictures could not be used:\n  {}", failed.len(), files.len(), failed.join("\n  "));
    }
    Ok(())
}

/// One picture's detections; the picture with its boxes goes to `path`.
fn predict(args: &Args, detector: &Detector, file: &Path, image_id: u64, path: &Path) -> Result<Vec<Detection>> {
    let mut image = decode_file(file)?;
    let found = detector.detect(&image).with_context(|| file.display().to_string())?;
    let mut detections = Vec::new();
    let mut marks = Vec::new();
    for d in &found {
        let Some(category) = detector.category(d.label) else { continue };
        let [x1, y1, x2, y2] = d.bbox.map(f64::from);
        detections.push(Detection {
            image_id,
            category_id: category.id,
            bbox: [x1, y1, x2 - x1, y2 - y1],
            score: f64::from(d.score),
        });
        if d.score >= args.threshold {
            let label = format!("{} {:.2}", category.name, d.score);
            marks.push(Mark { bbox: d.bbox, class: d.label as usize - 1, label });
        }
    }
    println!(
        "{}: id {image_id}, {} of {} boxes reach {}",
        file.display(),
        marks.len(),
        detections.len(),
        args.threshold
    );
    // The surest comes last, on top.
    marks.reverse();
    draw(&mut image, &marks);
    image.save_png(path)?;
    Ok(detections)
}

/// The files of `inputs`, folders in name order.
fn pictures(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            files.push(input.clone());
            continue;
        }
        let entries = std::fs::read_dir(input).with_context(|| format!("cannot read {}", input.display()))?;
        let mut inside = entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()?;
        inside.retain(|p| is_picture(p));
        inside.sort();
        ensure!(!inside.is_empty(), "{} holds no .jpg, .jpeg or .png", input.display());
        files.append(&mut inside);
    }
    Ok(files)
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png"))
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Image ids from the files' names.
fn ids(files: &[PathBuf]) -> Vec<u64> {
    let stem = |file: &PathBuf| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    ids_of_names(&files.iter().map(stem).collect::<Vec<_>>())
}

/// Names of the pictures with boxes: a file's own, with its number behind it where two have the same.
fn names(files: &[PathBuf]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut name = |(i, file): (usize, &PathBuf)| {
        let mut stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        while !taken.insert(stem.clone()) {
            stem = format!("{stem}-{}", i + 1);
        }
        format!("{stem}.png")
    };
    files.iter().enumerate().map(&mut name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn no_picture_is_drawn_over_another() {
        assert_eq!(names(&paths(&["a/x.png", "b/y.jpg"])), ["x.png", "y.png"]);
        assert_eq!(
            names(&paths(&["x-2.jpg", "x.png", "b/x.png", "x.jpg"])),
            ["x-2.png", "x.png", "x-3.png", "x-4.png"]
        );
        assert_eq!(
            names(&paths(&["x-2.jpg", "x.png", "x.jpg", "x-3.png"])),
            ["x-2.png", "x.png", "x-3.png", "x-3-4.png"]
        );
    }
}
