//! `docent predict`: pictures in, boxes out.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use docent_coco::{Detection, decode_file, write_results};
use docent_train::detector::Detector;

use crate::draw::{Mark, draw};

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  docent predict --checkpoint runs/shapes-seed0/distilled/checkpoints/last.safetensors \
                        --out found pictures/"
)]
pub struct Args {
    /// A detector that `docent train` wrote.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Folder for the pictures with boxes and for `detections.json` (COCO's results form).
    #[arg(long, value_name = "DIR", default_value = "predictions")]
    out: PathBuf,
    /// Draw boxes of at least this score; the JSON holds all.
    #[arg(long, default_value_t = 0.5)]
    threshold: f32,
    /// Pictures (JPEG or PNG), or folders of them.
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
}

/// Detects, draws and writes.
pub fn run(args: &Args) -> Result<()> {
    ensure!((0.0..=1.0).contains(&args.threshold), "--threshold {}: a score lies in 0..=1", args.threshold);
    let detector = Detector::load(&args.checkpoint)?;
    let files = pictures(&args.inputs)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let mut detections = Vec::new();
    let mut failed = Vec::new();
    let mut drawn = std::collections::BTreeSet::new();
    for (index, file) in files.iter().enumerate() {
        let mut image = match decode_file(file) {
            Ok(image) => image,
            Err(error) => {
                failed.push(error.to_string());
                continue;
            }
        };
        // Pictures from a folder have no ids of their own: a number in the name serves, else the position.
        let image_id = id_of(file).unwrap_or(index as u64 + 1);
        let found = detector.detect(&image)?;
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
                marks.push(Mark {
                    bbox: d.bbox,
                    class: d.label as usize - 1,
                    label: format!("{} {:.2}", category.name, d.score),
                });
            }
        }
        println!(
            "{}: id {image_id}, {} of {} boxes above {}",
            file.display(),
            marks.len(),
            found.len(),
            args.threshold
        );
        marks.reverse();
        draw(&mut image, &marks);
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = if drawn.insert(stem.clone()) { format!("{stem}.png") } else { format!("{stem}-{}.png", index + 1) };
        image.save_png(&args.out.join(name))?;
    }
    let json = args.out.join("detections.json");
    write_results(&json, &detections)?;
    println!("{} detections in {}", detections.len(), json.display());
    if !failed.is_empty() {
        bail!("{} of {} pictures could not be read:\n  {}", failed.len(), files.len(), failed.join("\n  "));
    }
    Ok(())
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

/// The number that ends a file's name, as COCO's file names do (`000000000139.jpg`).
fn id_of(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let digits = stem.len() - stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    stem[stem.len() - digits..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_names() {
        assert_eq!(id_of(Path::new("a/000000000139.jpg")), Some(139));
        assert_eq!(id_of(Path::new("BloodImage_00007.jpg")), Some(7));
        assert_eq!(id_of(Path::new("cell.png")), None);
    }
}
