//! COCO data sets in Rust: annotations, images, batches and COCO metrics. PASCAL VOC and YOLO folders are read into the same.
//!
//! For anybody who reads these formats, whatever they train with: the crate knows no tensors. A file's way through it:
//!
//! ```text
//! folder -> open_dir -> Splits { train, val: Dataset }
//! Dataset -> sample(i) -> Sample { image: Rgb8, boxes, labels, image_id }
//! Dataset -> Loader (augment, resize, threads) -> batches of TrainItem { planes, boxes, labels, .. }
//! Dataset + [Detection] -> CocoMetrics -> Metrics { stats: the 12 figures, per_class }
//! ```
//!
//! | file | what lives there |
//! |---|---|
//! | `dataset`, `types`, `voc`, `yolo` | one split and its records, from COCO's JSON, PASCAL VOC's XML or YOLO's text files |
//! | `stats`, `pick`, `split_file` | what a split holds, in figures and as a picture; a choice of its images; one JSON file made two |
//! | `checks`, `files`, `policy` | what is wrong with annotations and image files, and what is done about it |
//! | `open` | from a folder to its two splits |
//! | `decode`, `resize` | JPEG and PNG to RGB8; RGB8 to planes of 0..1 |
//! | `augment`, `jitter` | crops, sizes and colours of training images, by keyed draws |
//! | `loader` | batches from threads, in order, the same for any number of threads |
//! | `evaluate` | the trait `Evaluator` and COCO's box metrics |
//! | `analysis` | what stands behind them: curves, kinds of error, images and detections one by one |
//! | [`rng`] | randomness keyed by (seed, purpose, epoch, id) |
//! | [`shapes`] | a data set that is drawn, not downloaded |
//!
//! # Conventions
//! - Boxes in annotations and detections are COCO's `[x, y, width, height]` in f64; boxes to train on are `[x1, y1, x2, y2]` in
//!   f32. Both count pixels of the image that their type names, with no +1 anywhere.
//! - A *label* is a category's position in the order of ids, plus one; 0 is background. Ids may have gaps.
//! - Crowds are never training targets; in evaluation, detections inside them are neither right nor wrong, as in pycocotools.
//! - Images without boxes are kept.
//! - Boxes without area are left out of the training truth and listed in [`Dataset::findings`]; boxes over the border are clipped.
//!   Annotations that contradict themselves (duplicate ids, unlisted images, unknown categories) are an error that lists them. A
//!   [`CheckConfig`] decides otherwise, kind by kind.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use docent_coco::{
//!     Annotation, Category, CocoMetrics, Dataset, Detection, Evaluator, Image, Loader, LoaderConfig, OpenOptions, Resize, Rgb8,
//!     open_dir,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A folder in COCO's layout: images/ and annotations/instances_{train,val}.json.
//! let dir = tempfile::tempdir()?;
//! std::fs::create_dir(dir.path().join("images"))?;
//! for (split, id) in [("train", 1), ("val", 2)] {
//!     let file_name = format!("{split}.png");
//!     Rgb8::filled(64, 48, [90, 120, 30]).save_png(&dir.path().join("images").join(&file_name))?;
//!     Dataset::from_parts(
//!         split,
//!         dir.path().join("images"),
//!         vec![Image { id, file_name, width: 64, height: 48 }],
//!         vec![Annotation { id, image_id: id, category_id: 18, bbox: [8.0, 8.0, 20.0, 16.0], area: 320.0, iscrowd: false }],
//!         vec![Category { id: 18, name: "dog".into() }],
//!     )?
//!     .save(&dir.path().join(format!("annotations/instances_{split}.json")))?;
//! }
//!
//! let splits = open_dir(dir.path(), &OpenOptions::default())?;
//! let resize = Resize { shortest: 24, longest: 32, ..Resize::default() };
//! let loader = Loader::new(Arc::new(splits.train), LoaderConfig { resize, shuffle: true, flip: 0.5, ..LoaderConfig::default() })?;
//! for batch in loader.epoch(0) {
//!     for item in batch? {
//!         assert_eq!((item.planes.height, item.planes.width), (24, 32));
//!         assert_eq!(item.labels, [1]); // category 18 is the first
//!     }
//! }
//!
//! let found = [Detection { image_id: 2, category_id: 18, bbox: [8.0, 8.0, 20.0, 16.0], score: 0.8 }];
//! let metrics = CocoMetrics.evaluate(&splits.val, &found)?;
//! println!("AP {:.3}", metrics.ap());
//! # assert!((metrics.ap() - 1.0).abs() < 1e-12);
//! # Ok(())
//! # }
//! ```

mod analysis;
mod atomic;
mod augment;
mod checks;
mod dataset;
mod decode;
mod error;
mod evaluate;
mod files;
mod ids;
mod jitter;
mod loader;
mod named;
mod open;
mod parallel;
mod pick;
mod policy;
mod resample;
mod resize;
pub mod rng;
pub mod shapes;
mod split_file;
mod stats;
mod types;
mod voc;
mod yolo;

pub use analysis::{Analysis, BACKGROUND_IOU, Curve, ErrorKind, ErrorShare, Errors, ImageScore, Verdict, analyze};
pub use atomic::write_atomic;
pub use augment::{Augment, ScaleCrop};
pub use checks::{Finding, FindingKind, OUTSIDE_TOLERANCE, checks, summarize};
pub use dataset::{Dataset, Sample, Truth};
pub use decode::{
    MAX_PIXELS, MAX_SIDE, Rgb8, decode_bytes, decode_bytes_upright, decode_file, decode_file_upright, image_size,
    image_size_of_bytes,
};
pub use error::{Error, Result, way_out};
pub use evaluate::{
    ClassMetrics, CocoMetrics, Detection, Evaluator, Metrics, STAT_NAMES, parse_results, read_results, write_results,
};
pub use files::Look;
pub use ids::ids_of_names;
pub use jitter::{ColourChange, ColourJitter};
pub use loader::{Epoch, Loader, LoaderConfig, TrainItem};
pub use named::{
    ImagesByName, NamedDetection, OtherId, other_ids, read_named_results, same_file_name, write_named_results,
};
pub use open::{OpenOptions, Splits, open_dir, same_categories, split_by_id};
pub use policy::{CheckConfig, Policy};
pub use resample::Resampled;
pub use resize::{Planes, Resize, ResizeRule};
pub use split_file::{SplitConfig, SplitJson, split_json};
pub use stats::{Areas, ClassStats, SizeCount, Spread, Stats, picture};
pub use types::{Annotation, Category, Image};
pub use voc::{Difficult, VocBoxes, VocConfig, VocFile, VocObject, open_voc, parse_voc};
pub use yolo::{YoloObject, YoloOptions, open_yolo, parse_yolo};
