//! Arguments that say how a data folder is read: which files, what is done about faults, and what the annotations mean.

use std::path::PathBuf;

use anyhow::{Context, Result};
use docent_coco::{BoxReading, CheckConfig, Crowds, Difficult, Exif, Format, OpenOptions, Unlabeled};

#[derive(clap::Args)]
#[command(next_help_heading = "Reading the data")]
pub struct ReadArgs {
    /// Training annotations, where the folder's layout does not tell: a JSON or CSV file, a list of images, or a folder of XML or text
    /// files.
    #[arg(long, value_name = "PATH")]
    train_annotations: Option<PathBuf>,
    /// Held-out annotations, likewise.
    #[arg(long, value_name = "PATH")]
    val_annotations: Option<PathBuf>,
    /// Folder of the images, where it lies elsewhere.
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Format of the annotations, where the folder holds several: coco, voc, yolo, labelme, via or csv.
    #[arg(long, value_name = "FORMAT", value_parser = parsed::<Format>)]
    format: Option<Format>,
    /// What the four numbers of a box are: pixels (corners, counted from 1: VOC's), edges (corners), xywh (COCO's), centers,
    /// center_shares (YOLO's), xywh_shares or edge_shares. Default: the format's own.
    #[arg(long, value_name = "READING", value_parser = parsed::<BoxReading>)]
    boxes: Option<BoxReading>,
    /// Images with an EXIF orientation: apply (turn them) or ignore. Default: as the annotated sizes tell.
    #[arg(long, value_name = "WHAT", value_parser = parsed::<Exif>)]
    exif: Option<Exif>,
    /// VOC's difficult objects: ignore (crowds; the default), keep or drop.
    #[arg(long, value_name = "WHAT", value_parser = parsed::<Difficult>)]
    difficult: Option<Difficult>,
    /// COCO's crowds: ignore (no training targets; the default) or keep (objects like others).
    #[arg(long, value_name = "WHAT", value_parser = parsed::<Crowds>)]
    crowds: Option<Crowds>,
    /// Images without annotations, in VOC's, labelme's, VIA's and CSV folders: skip (the default) or as-negatives (images without objects).
    #[arg(long, value_name = "WHAT", value_parser = parsed::<Unlabeled>)]
    unlabeled: Option<Unlabeled>,
    /// The classes in the order of their ids, or a file that names them (YOLO's data.yaml, or one name a line).
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    classes: Vec<String>,
    /// Encoding of XML and text files that do not declare one: windows-1252, gbk, shift_jis, ... Default: UTF-8.
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// What is done about a kind of fault, as `missing_image=drop`. May be repeated.
    #[arg(long = "policy", value_name = "KEY=POLICY", value_parser = policy)]
    policies: Vec<(String, String)>,
}

impl ReadArgs {
    /// As the library takes it.
    pub fn options(&self) -> Result<OpenOptions> {
        self.over(OpenOptions::default())
    }

    /// What is given here over what is said elsewhere, in a recipe.
    pub fn over(&self, mut said: OpenOptions) -> Result<OpenOptions> {
        said.train_annotations = self.train_annotations.clone().or(said.train_annotations);
        said.val_annotations = self.val_annotations.clone().or(said.val_annotations);
        said.images = self.images.clone().or(said.images);
        said.checks = with_policies(said.checks, &self.policies)?;
        let read = &mut said.read;
        read.format = self.format.or(read.format);
        read.boxes = self.boxes.or(read.boxes);
        read.exif = self.exif.or(read.exif);
        if !self.classes.is_empty() {
            read.classes = class_names(&self.classes)?;
        }
        read.difficult = self.difficult.unwrap_or(read.difficult);
        read.crowds = self.crowds.unwrap_or(read.crowds);
        read.unlabeled = self.unlabeled.unwrap_or(read.unlabeled);
        read.encoding = self.encoding.clone().or(read.encoding.take());
        Ok(said)
    }

    /// What has to be said again when COCO's JSON is read that was written under these arguments: turns are no part of it.
    pub fn words(&self) -> Vec<String> {
        let exif = match self.exif {
            None => return Vec::new(),
            Some(Exif::Apply) => "apply",
            Some(Exif::Ignore) => "ignore",
        };
        vec!["--exif".to_owned(), exif.to_owned()]
    }
}

/// Class names as given, or those of the one file that is named.
fn class_names(given: &[String]) -> Result<Vec<String>> {
    if let [file] = given {
        let path = std::path::Path::new(file);
        if path.is_file() {
            return Ok(docent_coco::read_class_names(path)?);
        }
    }
    Ok(given.to_vec())
}

/// A value as recipes spell it.
fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

/// An EXIF rule as recipes spell it.
pub fn exif(text: &str) -> Result<Exif, String> {
    parsed(text)
}

/// `KEY=POLICY`, if that means something.
pub fn policy(text: &str) -> Result<(String, String)> {
    let (key, policy) = text.split_once('=').context("write it as KEY=POLICY")?;
    let pair = (key.to_owned(), policy.to_owned());
    with_policies(CheckConfig::default(), std::slice::from_ref(&pair))?;
    Ok(pair)
}

/// Policies with those of the command line over them.
fn with_policies(said: CheckConfig, given: &[(String, String)]) -> Result<CheckConfig> {
    let serde_json::Value::Object(mut values) = serde_json::to_value(said)? else { return Ok(CheckConfig::default()) };
    values.extend(given.iter().map(|(key, policy)| (key.clone(), policy.as_str().into())));
    let config: CheckConfig = serde_json::from_value(values.into())?;
    config.validate()?;
    Ok(config)
}
