//! Which images are held out where the author gives no split: a hash of each file name decides.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::index::{nfc, stem_of};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::finding::Finding;

/// An image's place between 0 and 1, by the hash of a name: the one number that splitting by a share goes by.
///
/// The name is taken without folder and extension. Of Roboflow's copies (`a_jpg.rf.0f3b..jpg`), which are one image changed, all have
/// one place.
pub(crate) fn place_of(file_name: &str) -> f64 {
    let name = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = nfc(stem_of(name));
    let mut hash = Sha256::new();
    hash.update(b"docent split 2");
    hash.update(name.split(".rf.").next().unwrap_or_default().as_bytes());
    let mut first = [0u8; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    u64::from_le_bytes(first) as f64 / 2f64.powi(64)
}

/// The places of images, in their order.
pub(crate) fn places(file_names: &[&str]) -> Vec<f64> {
    file_names.iter().map(|name| place_of(name)).collect()
}

/// Positions of the images that are held out at a share: those whose place lies below it, and at least one. At least one is left to
/// train on.
///
/// # Errors
/// A share that does not lie between 0 and 1; fewer than two images.
pub(crate) fn held_out(file_names: &[&str], share: f64) -> Result<HashSet<usize>> {
    if !(share > 0.0 && share < 1.0) {
        return Err(Error::Config(format!(
            "the held-out share is {share}; it must lie between 0 and 1, both excluded"
        )));
    }
    if file_names.len() < 2 {
        return Err(Error::Config(format!(
            "{} image(s) are too few to train on some and hold out others; add images, or name annotations of both splits with \
             --train-annotations and --val-annotations",
            file_names.len()
        )));
    }
    let places = places(file_names);
    let mut held: HashSet<usize> = (0..places.len()).filter(|&i| places[i] < share).collect();
    let by_place = |a: &&usize, b: &&usize| places[**a].total_cmp(&places[**b]);
    let all: Vec<usize> = (0..places.len()).collect();
    if held.is_empty() {
        held.extend(all.iter().min_by(by_place));
    } else if held.len() == all.len() {
        if let Some(last) = all.iter().max_by(by_place) {
            held.remove(last);
        }
    }
    Ok(held)
}

/// Splits a data set in two, the second with about `val_fraction` of its images, by a hash of their file names.
///
/// An image is held out if the first 8 bytes of the SHA-256 of `docent split 2` and its name, as a fraction of 2^64, lie below
/// `val_fraction`. The name counts without folder and extension. So an image stays on its side whatever is added to or removed from the
/// data set. At least one image is held out, and at least one is not.
///
/// # Errors
/// A fraction that does not lie between 0 and 1; fewer than two images.
pub fn split_by_name(whole: &Dataset, val_fraction: f64) -> Result<(Dataset, Dataset)> {
    let names: Vec<&str> = whole.images().iter().map(|image| image.file_name.as_str()).collect();
    let held = held_out(&names, val_fraction)?;
    let side = |i: usize| Some(held.contains(&i));
    Ok(split(whole, " by hash of name", side))
}

/// The images of each side; `is_held_out` is `None` for an image that is in neither. Faults of images that are in neither (left out, or
/// never listed) stay with the training split, so that none is lost.
pub(crate) fn split(whole: &Dataset, how: &str, is_held_out: impl Fn(usize) -> Option<bool>) -> (Dataset, Dataset) {
    let mut sides: [Vec<usize>; 2] = Default::default();
    let mut nowhere = HashMap::new();
    for i in 0..whole.len() {
        match is_held_out(i) {
            Some(held) => sides[usize::from(held)].push(i),
            None => {
                nowhere.insert(whole.image(i).id, i);
            }
        }
    }
    let [train, val] = sides;
    let part =
        |what: &str, positions: &[usize]| whole.subset(positions).with_name(format!("{} ({what}{how})", whole.name()));
    let (train, val) = (part("train", &train), part("val", &val));
    let held_out: HashSet<u64> = val.images().iter().map(|image| image.id).collect();
    let others = |f: &&Finding| f.image_id.is_none_or(|id| !held_out.contains(&id) && !nowhere.contains_key(&id));
    let findings = whole.findings().iter().filter(others).cloned().collect();
    (train.with_findings(findings), val)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_matter_of_the_name_alone() {
        let names: Vec<String> = (0..200).map(|i| format!("images/part_{i:03}.jpg")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let held = held_out(&names, 0.2).unwrap();
        assert!((25..=55).contains(&held.len()), "{}", held.len());
        let fewer = held_out(&names[50..], 0.2).unwrap();
        assert!((50..200).all(|i| held.contains(&i) == fewer.contains(&(i - 50))));
        assert_eq!(place_of("a/x.jpg"), place_of("b/x.png"));
        assert_eq!(place_of("x_jpg.rf.0a1b.jpg"), place_of("x_jpg.rf.ff00.jpg"));
        assert_eq!(place_of("e\u{301}.jpg"), place_of("é.jpg"));
        assert_ne!(place_of("x.jpg"), place_of("y.jpg"));
    }

    #[test]
    fn both_sides_have_an_image() {
        for n in 2..12 {
            for seed in 0..20 {
                let names: Vec<String> = (0..n).map(|i| format!("{seed}-{i}.jpg")).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                for share in [0.01, 0.2, 0.99] {
                    let held = held_out(&names, share).unwrap().len();
                    assert!(held >= 1 && held < n, "{held} of {n}");
                }
            }
        }
        assert!(
            held_out(&["a.jpg"], 0.2).is_err()
                && held_out(&["a", "b"], 1.0).is_err()
                && held_out(&["a", "b"], f64::NAN).is_err()
        );
    }
}
