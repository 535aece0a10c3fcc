//! Arguments that say how a data folder is read: policies for faults, and what PASCAL VOC's annotations mean.

use std::path::PathBuf;

use anyhow::{Context, Result};
use docent_coco::{CheckConfig, Difficult, OpenOptions, VocBoxes, VocConfig};

#[derive(clap::Args)]
pub struct ReadArgs {
    /// Image folder, when its name is not one of the usual ones.
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// What is done about a kind of fault, as `missing_image=drop`. May be repeated.
    #[arg(long = "policy", value_name = "KEY=POLICY", value_parser = policy)]
    policies: Vec<(String, String)>,
    /// VOC's boxes: `pixels` (first and last pixel, from 1) or `edges` (taken as they stand).
    #[arg(long, default_value = "pixels", value_parser = parsed::<VocBoxes>)]
    boxes: VocBoxes,
    /// VOC's difficult objects: `ignore` (crowds), `keep` or `drop`.
    #[arg(long, default_value = "ignore", value_parser = parsed::<Difficult>)]
    difficult: Difficult,
    /// VOC's classes in the order of their ids; default: those that occur, in byte order.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    classes: Vec<String>,
}

impl ReadArgs {
    /// As the library takes it.
    pub fn options(&self) -> Result<OpenOptions> {
        Ok(OpenOptions {
            train_images: self.images.clone(),
            checks: policies(&self.policies)?,
            voc: VocConfig { boxes: self.boxes, difficult: self.difficult, classes: self.classes.clone() },
            ..OpenOptions::default()
        })
    }
}

/// A value as recipes spell it.
fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

/// `KEY=POLICY`, if that means something.
pub fn policy(text: &str) -> Result<(String, String)> {
    let (key, policy) = text.split_once('=').context("write it as KEY=POLICY")?;
    let pair = (key.to_owned(), policy.to_owned());
    policies(std::slice::from_ref(&pair))?;
    Ok(pair)
}

/// The default policies with those of the command line.
pub fn policies(given: &[(String, String)]) -> Result<CheckConfig> {
    let values: serde_json::Map<_, _> =
        given.iter().map(|(key, policy)| (key.clone(), policy.as_str().into())).collect();
    let config: CheckConfig = serde_json::from_value(values.into())?;
    config.validate()?;
    Ok(config)
}
