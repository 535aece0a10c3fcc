//! COCO data sets in Rust: annotations, images, batches and COCO metrics. PASCAL VOC, YOLO, labelme, VIA and CSV folders are read into
//! the same.
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
//! | `dataset`, `types` | one split and its records |
//! | `open`, `open_options` | from a folder to its two splits: format, files, images by name, the author's split |
//! | `coco_json`, `voc`, `yolo`, `labelme`, `via`, `table` | the formats |
//! | `found`, `settle`, `box_reading` | what a format's reader hands on; sizes, turns and the meaning of boxes; data sets |
//! | `stats`, `choose_images`, `split_file` | what a split holds, in figures and as a chart; a choice of its images; one JSON file made two |
//! | `finding`, `checks`, `files`, `policy` | what is wrong with annotations and image files, and what is done about it |
//! | `image_reader`, `header`, `decode`, `rgb8`, `resize` | image files to RGB8; RGB8 to planes of 0..1 |
//! | `augment`, `jitter` | crops, sizes and colours of training images, by keyed draws |
//! | `transform` | what was drawn for an image, its pixels and boxes after that, and the key of these pixels |
//! | `loader` | batches from threads, in order, the same for any number of threads |
//! | `results` | detections and COCO results files |
//! | `evaluate` | the trait `Evaluator` and the figures that it gives |
//! | `coco_metrics` | COCO's box metrics |
//! | `analysis` | what stands behind them: curves, kinds of error, images and detections one by one |
//! | `resample` | the AP of other choices of images, for bootstrap intervals |
//! | [`rng`] | randomness keyed by (seed, purpose, epoch, id) |
//! | [`shapes`] | a data set that is drawn, not downloaded |
//!
//! # Conventions
//! - Boxes in annotations and detections are COCO's `[x, y, width, height]` in f64; boxes to train on are `[x1, y1, x2, y2]` in
//!   f32. Both count pixels of the image that their type names, with no +1 anywhere.
//! - A *label* is a category's position in the order of ids, plus one; 0 is background. Ids may have gaps.
//! - Crowds are never training targets; in evaluation, detections inside them count neither as true nor as false positives, as in pycocotools.
//! - Images without boxes are kept.
//! - Boxes without area are left out of the ground truth for training and listed in [`Dataset::findings`]; boxes over the border are clipped.
//!   Annotations that contradict themselves (two images with one id, unlisted images, unknown categories) are an error that lists
//!   them. A [`CheckConfig`] decides otherwise, kind by kind.
//! - Nothing is guessed that could put a box in the wrong place: numbers or orientations that can mean two things are
//!   [`Error::Undecided`], whose message names the options that decide.
//!
//! # Features
//! All are on by default. Without any, the crate decodes, resizes and batches images, and reads the JSON of COCO, labelme and VIA.
//!
//! | feature | what it adds | dependency |
//! |---|---|---|
//! | `metrics` | `CocoMetrics`, `analyze`, `Resampled` | hotcoco |
//! | `plots` | `chart` | plotters |
//! | `voc` | PASCAL VOC's XML | roxmltree |
//! | `yolo` | YOLO's text and `data.yaml`; without it label files are not looked for | serde-saphyr |
//! | `csv` | CSV tables | csv |
//!
//! Without the reader of a format that is found or asked for, [`open_dir`] gives an error that names the feature.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use docent_coco::{
//!     Annotation, Category, Dataset, Detection, Image, Loader, LoaderConfig, OpenOptions, Resize, Rgb8, open_dir,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A folder in COCO's layout: images/ and annotations/instances_{train,val}.json.
//! let dir = tempfile::tempdir()?;
//! std::fs::create_dir(dir.path().join("images"))?;
//! for (split, id) in [("train", 1), ("val", 2)] {
//!     let file_name = format!("{split}.png");
//!     Rgb8::filled(64, 48, [90, 120, id as u8]).save_png(&dir.path().join("images").join(&file_name))?;
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
//! let resize = Resize::default().shortest(24).longest(32);
//! let config = LoaderConfig::default().resize(resize).shuffle(true).flip(0.5);
//! let loader = Loader::new(Arc::new(splits.train), config)?;
//! for batch in loader.epoch(0) {
//!     for item in batch? {
//!         assert_eq!((item.planes.height, item.planes.width), (24, 32));
//!         assert_eq!(item.labels, [1]); // category 18 is the first
//!     }
//! }
//!
//! let found = [Detection { image_id: 2, category_id: 18, bbox: [8.0, 8.0, 20.0, 16.0], score: 0.8 }];
//! # #[cfg(feature = "metrics")]
//! # {
//! use docent_coco::{CocoMetrics, Evaluator};
//! let metrics = CocoMetrics.evaluate(&splits.val, &found)?;
//! println!("AP {:.3}", metrics.ap());
//! # assert!((metrics.ap() - 1.0).abs() < 1e-12);
//! # }
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "metrics")]
mod analysis;
mod atomic;
mod augment;
mod box_reading;
mod checks;
mod choose_images;
mod coco_json;
#[cfg(feature = "metrics")]
mod coco_metrics;
mod dataset;
mod decode;
mod digest;
mod error;
mod evaluate;
mod files;
mod finding;
mod found;
mod header;
mod ids;
mod image_reader;
mod jitter;
mod labelme;
mod loader;
mod loose;
mod named;
mod open;
mod open_options;
mod outline;
mod parallel;
mod parts;
mod policy;
#[cfg(feature = "metrics")]
mod resample;
mod resize;
mod results;
mod rgb8;
pub mod rng;
mod setters;
mod settle;
pub mod shapes;
mod split_file;
mod stats;
#[cfg(feature = "csv")]
mod table;
mod table_header;
mod text_file;
mod transform;
mod types;
mod via;
#[cfg(feature = "voc")]
mod voc;
mod write_json;
#[cfg(feature = "yolo")]
mod yolo;

#[cfg(feature = "metrics")]
pub use analysis::{
    Analysis, BACKGROUND_IOU, Curve, DetectionMatch, ErrorKind, ErrorShare, Errors, ImageScore, analyze,
};
pub use atomic::write_atomic;
pub use augment::{Augment, ScaleCrop};
pub use box_reading::BoxReading;
pub use checks::{OUTSIDE_TOLERANCE, checks, summarize};
#[cfg(feature = "metrics")]
pub use coco_metrics::CocoMetrics;
pub use dataset::{Dataset, GroundTruth, Sample};
pub use decode::{DecodeOptions, decode_bytes, decode_file};
pub use error::{Error, Result, io_hint};
pub use evaluate::{ClassMetrics, Evaluator, Metrics, STAT_NAMES};
pub use files::ImageCheck;
pub use finding::{Finding, FindingKind};
pub use header::{ImageHeader, image_header, image_header_of_bytes};
pub use ids::ids_of_names;
pub use image_reader::{IMAGE_EXTENSIONS, MAX_PIXELS, MAX_SIDE};
pub use jitter::{ColourChange, ColourJitter};
pub use labelme::{LabelmeFile, parse_labelme};
pub use loader::{Epoch, Loader, LoaderConfig, TrainItem};
pub use named::{NamedDetection, other_ids, read_named_results, write_named_results};
pub use open::{Listed, ListedImage, Splits, annotation_file, listed, open_annotations, open_dir, split_by_name};
pub use open_options::{Crowds, Difficult, Exif, Format, OpenOptions, ReadConfig, Unlabeled};
pub use policy::{CheckConfig, Policy};
#[cfg(feature = "metrics")]
pub use resample::Resampled;
pub use resize::{Planes, Resize, ResizeRule};
pub use results::{Detection, parse_results, read_results, write_results};
pub use rgb8::Rgb8;
pub use split_file::{SplitConfig, SplitJson, split_json};
#[cfg(feature = "plots")]
pub use stats::chart;
pub use stats::{Areas, ClassStats, Distribution, SizeCount, Stats};
#[cfg(feature = "csv")]
pub use table::{CsvRow, parse_csv};
pub use transform::{ImageKey, Transform};
pub use types::{Annotation, Category, Image};
pub use via::{ViaImage, parse_via};
#[cfg(feature = "voc")]
pub use voc::{VocFile, VocObject, parse_voc};
#[cfg(feature = "yolo")]
pub use yolo::{DataYaml, YoloRow, parse_data_yaml, parse_yolo, read_class_names};
