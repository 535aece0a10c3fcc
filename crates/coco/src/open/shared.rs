//! One image on both sides of a split, and copies of images: files are compared byte by byte where their fingerprints are equal.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::policy::Policy;

/// What tells files apart: length and a hash of the first bytes.
pub(super) type Fingerprints = HashMap<PathBuf, (u64, u64)>;

/// Refuses, or takes out of the training split, images that are in both splits; counts copies within the splits. Where the split is not
/// the author's, a copy of a held-out image is left out of training in any case: nothing is lost, and no image changes sides.
///
/// # Errors
/// Such images in a split of the author's, where their policy is `error`.
pub(super) fn separate(
    train: Dataset,
    val: &Dataset,
    fingerprints: &Fingerprints,
    by_author: bool,
    notes: &mut Vec<String>,
) -> Result<Dataset> {
    let mut held_out: HashMap<(u64, u64), Vec<PathBuf>> = HashMap::new();
    for i in 0..val.len() {
        let path = val.image_path(i);
        if let Some(print) = fingerprints.get(&path) {
            held_out.entry(*print).or_default().push(path);
        }
    }
    let mut findings = Vec::new();
    for i in 0..train.len() {
        let path = train.image_path(i);
        let candidates = fingerprints.get(&path).and_then(|print| held_out.get(print));
        let Some(twin) = candidates.into_iter().flatten().find(|other| **other == path || same_bytes(&path, other))
        else {
            continue;
        };
        let detail = if *twin == path {
            path.display().to_string()
        } else {
            format!("{} in training, {} held out: the same bytes", path.display(), twin.display())
        };
        findings.push(Finding {
            kind: FindingKind::SharedImage,
            file: train.annotation_file(i).to_owned(),
            image_id: Some(train.image(i).id),
            annotation_id: None,
            detail,
        });
    }
    for (name, set) in [("training", &train), ("held-out", val)] {
        copies(name, set, fingerprints, notes);
    }
    if findings.is_empty() {
        return Ok(train);
    }
    if !by_author {
        notes.push(format!(
            "{} images are copies of held-out ones, byte by byte, and are not trained on ({}, for one)",
            findings.len(),
            findings[0].detail
        ));
    } else if train.checks().shared_image == Policy::Error {
        return Err(Error::Annotations { path: train.source().to_owned(), findings });
    }
    let gone: HashSet<u64> = findings.iter().filter_map(|f| f.image_id).collect();
    let kept: Vec<usize> = (0..train.len()).filter(|&i| !gone.contains(&train.image(i).id)).collect();
    let findings = train.findings().iter().cloned().chain(findings).collect();
    Ok(train.subset(&kept).with_findings(findings))
}

/// Tells how many images of a split are copies of others.
fn copies(name: &str, set: &Dataset, fingerprints: &Fingerprints, notes: &mut Vec<String>) {
    let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let (mut count, mut example) = (0usize, None);
    for i in 0..set.len() {
        let path = set.image_path(i);
        let Some(print) = fingerprints.get(&path) else { continue };
        match first.get(print) {
            Some(other) if *other != path && same_bytes(&path, other) => {
                count += 1;
                example.get_or_insert_with(|| format!("{} and {}", other.display(), path.display()));
            }
            Some(_) => {}
            None => {
                first.insert(*print, path);
            }
        }
    }
    if let Some(example) = example {
        notes
            .push(format!("{count} images of the {name} split are copies of others, byte by byte: {example}, for one"));
    }
}

/// Whether two files hold the same bytes; no for a file that cannot be read.
fn same_bytes(a: &Path, b: &Path) -> bool {
    matches!((std::fs::read(a), std::fs::read(b)), (Ok(a), Ok(b)) if a == b)
}
