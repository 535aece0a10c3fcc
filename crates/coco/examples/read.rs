//! Reads a COCO or PASCAL VOC folder: figures, faults, one image's ground truth, batches, and COCO's metrics of made-up detections.
//!
//! `cargo run -p docent-coco --example read -- DIR`; without a folder it draws one.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use std::path::PathBuf;
use std::sync::Arc;

use docent_coco::shapes::{ShapesConfig, generate};
use docent_coco::{CocoMetrics, Detection, Evaluator, Loader, LoaderConfig, OpenOptions, Resize, Stats, open_dir};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let drawn = tempfile::tempdir()?;
    let folder = match std::env::args().nth(1) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let folder = drawn.path().join("shapes");
            generate(&folder, &ShapesConfig::default().train(24).val(8).seed(0))?;
            folder
        }
    };
    let splits = open_dir(&folder, &OpenOptions::default())?;
    for (name, set) in [("training", &splits.train), ("held-out", &splits.val)] {
        let stats = Stats::of(set);
        println!(
            "{name}: {} images, {} boxes, median side {:.0} pixels, {} faults",
            stats.images,
            stats.boxes,
            stats.side.median,
            set.findings().len()
        );
    }

    // One image: pixels, boxes [x1, y1, x2, y2], labels from 1.
    let names = splits.train.class_names();
    let sample = splits.train.sample(0)?;
    println!("\nimage {} is {}x{}:", sample.image_id, sample.image.width, sample.image.height);
    for (bbox, label) in sample.boxes.iter().zip(&sample.labels) {
        println!("  {} at {bbox:.1?}", names[*label as usize - 1]);
    }

    // Batches for training, from threads: shuffled, flipped and resized, the same for one seed and any number of threads.
    let resize = Resize::default().shortest(128).longest(160);
    let config = LoaderConfig::default().resize(resize).shuffle(true).flip(0.5).batch(4).threads(2).seed(7);
    let loader = Loader::new(Arc::new(splits.train), config)?;
    if let Some(batch) = loader.epoch(0).next() {
        let sizes: Vec<String> = batch?.iter().map(|i| format!("{}x{}", i.planes.width, i.planes.height)).collect();
        println!("\nthe first batch of epoch 0: {}", sizes.join(", "));
    }

    // Detections in COCO's form: every second true box, moved by a pixel.
    let moved: Vec<Detection> = splits
        .val
        .all_annotations()
        .iter()
        .step_by(2)
        .map(|a| Detection {
            image_id: a.image_id,
            category_id: a.category_id,
            bbox: [a.bbox[0] + 1.0, a.bbox[1], a.bbox[2], a.bbox[3]],
            score: 0.9,
        })
        .collect();
    let metrics = CocoMetrics.evaluate(&splits.val, &moved)?;
    println!("\nhalf of the boxes, a pixel off: AP {:.3}, AP50 {:.3}", metrics.ap(), metrics.ap50());
    Ok(())
}
