//! Detections with the names of their files, so that somebody else's image ids do not pass for these.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::results::{Detection, parse, write};
use crate::types::Image;

/// A detection with the name of the file that it was made on. A results file may leave the name out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedDetection {
    /// The detection.
    #[serde(flatten)]
    pub detection: Detection,
    /// The image file's name, with or without folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
}

/// [`read_results`](crate::read_results) with the names that the file has.
///
/// # Errors
/// As [`read_results`](crate::read_results).
pub fn read_named_results(path: &Path) -> Result<Vec<NamedDetection>> {
    parse(&std::fs::read(path).map_err(|e| Error::file("read", path, e))?, path)
}

/// [`write_results`](crate::write_results) with names.
///
/// # Errors
/// A file that cannot be written.
pub fn write_named_results(path: &Path, detections: &[NamedDetection]) -> Result<()> {
    write(path, detections)
}

/// Are both the name of one file? Folders are compared from the end, as far as both names have them: `a/b.jpg` is `b.jpg` and
/// `x/a/b.jpg`, and not `c/b.jpg`. A backslash is a slash.
pub fn same_file_name(one: &str, other: &str) -> bool {
    parts(one).zip(parts(other)).all(|(a, b)| a == b)
}

/// A name's parts from the last to the first.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.rsplit(['/', '\\']).filter(|part| !matches!(*part, "" | "."))
}

/// The images of a data set by the names of their files.
pub struct ImagesByName<'a>(HashMap<&'a str, Vec<&'a Image>>);

impl<'a> ImagesByName<'a> {
    /// Sorts the images of `dataset` by the last part of their names.
    pub fn new(dataset: &'a Dataset) -> Self {
        let mut by_name: HashMap<&str, Vec<&Image>> = HashMap::with_capacity(dataset.len());
        for image in dataset.images() {
            by_name.entry(parts(&image.file_name).next().unwrap_or("")).or_default().push(image);
        }
        Self(by_name)
    }

    /// The images whose name is [the same](same_file_name); of these, the ones with the most parts in common.
    pub fn find(&self, file_name: &str) -> Vec<&'a Image> {
        let with_name = self.0.get(parts(file_name).next().unwrap_or("")).map_or(&[][..], Vec::as_slice);
        let same = with_name.iter().filter(|image| same_file_name(&image.file_name, file_name));
        let common = |image: &Image| parts(&image.file_name).count().min(parts(file_name).count());
        let most = same.clone().map(|image| common(image)).max();
        same.copied().filter(|image| Some(common(image)) == most).collect()
    }
}

/// A file whose image id in the detections is not its id in the annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherId {
    /// The file's name in the detections.
    pub file_name: String,
    /// Its id in the detections.
    pub image_id: u64,
    /// The name that the annotations have for this id.
    pub annotated_name: Option<String>,
    /// The id that the annotations have for this name.
    pub annotated_id: Option<u64>,
}

/// The files whose names and ids do not stand together in the annotations, each once, in the order of the detections. Detections
/// without a name are passed over, and so are those whose name and id are both unknown to the annotations.
pub fn other_ids(ground_truth: &Dataset, detections: &[NamedDetection]) -> Vec<OtherId> {
    let by_id: HashMap<u64, &Image> = ground_truth.images().iter().map(|image| (image.id, image)).collect();
    let by_name = ImagesByName::new(ground_truth);
    let mut seen = HashSet::new();
    let mut others = Vec::new();
    for NamedDetection { detection, file_name } in detections {
        let Some(name) = file_name else { continue };
        let image_id = detection.image_id;
        if !seen.insert((image_id, name.as_str())) {
            continue;
        }
        let annotated = by_id.get(&image_id);
        if annotated.is_some_and(|image| same_file_name(&image.file_name, name)) {
            continue;
        }
        let annotated_id = by_name.find(name).first().map(|image| image.id);
        if annotated.is_some() || annotated_id.is_some() {
            let annotated_name = annotated.map(|image| image.file_name.clone());
            others.push(OtherId { file_name: name.clone(), image_id, annotated_name, annotated_id });
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground_truth(images: &[(u64, &str)]) -> Dataset {
        let image = |&(id, name): &(u64, &str)| Image { id, file_name: name.into(), width: 8, height: 8 };
        Dataset::from_parts("ground truth", "", images.iter().map(image).collect(), vec![], vec![]).unwrap()
    }

    #[test]
    fn names_agree_as_far_as_both_have_folders() {
        for (one, other) in [
            ("a.jpg", "a.jpg"),
            ("a.jpg", "images/a.jpg"),
            ("images\\a.jpg", "/data/images/a.jpg"),
            ("./a.jpg", "images//a.jpg"),
        ] {
            assert!(same_file_name(one, other) && same_file_name(other, one), "{one} {other}");
        }
        for (one, other) in [("a.jpg", "b.jpg"), ("train/a.jpg", "val/a.jpg"), ("a.jpg", "a.png"), ("xa.jpg", "a.jpg")]
        {
            assert!(!same_file_name(one, other), "{one} {other}");
        }
    }

    #[test]
    fn images_are_found_by_the_longest_name() {
        let ground_truth =
            ground_truth(&[(1, "train/a.jpg"), (2, "val/a.jpg"), (3, "a.jpg"), (4, "b.jpg"), (5, "b.jpg")]);
        let images = ImagesByName::new(&ground_truth);
        let ids = |name: &str| images.find(name).iter().map(|image| image.id).collect::<Vec<_>>();
        assert_eq!(ids("/data/val/a.jpg"), [2]);
        assert_eq!(ids("/data/test/a.jpg"), [3]);
        assert_eq!(ids("a.jpg"), [1, 2, 3]);
        assert_eq!(ids("b.jpg"), [4, 5]);
        assert_eq!(ids("c.jpg"), [0u64; 0]);
    }

    #[test]
    fn other_ids_are_told_once_a_file() {
        let ground_truth = ground_truth(&[(9, "images/a.jpg"), (1, "images/b.jpg"), (4, "images/c.jpg")]);
        let found = |image_id, name: Option<&str>| NamedDetection {
            detection: Detection { image_id, category_id: 1, bbox: [0.0; 4], score: 0.5 },
            file_name: name.map(str::to_owned),
        };
        let correct = [found(9, Some("a.jpg")), found(1, Some("b.jpg")), found(4, None), found(7, Some("x.jpg"))];
        assert_eq!(other_ids(&ground_truth, &correct), []);
        let wrong =
            [found(1, Some("a.jpg")), found(1, Some("a.jpg")), found(8, Some("c.jpg")), found(4, Some("d.jpg"))];
        let told: Vec<_> = other_ids(&ground_truth, &wrong)
            .into_iter()
            .map(|o| (o.file_name, o.image_id, o.annotated_name, o.annotated_id))
            .collect();
        let text = |s: &str| s.to_owned();
        assert_eq!(
            told,
            [
                (text("a.jpg"), 1, Some(text("images/b.jpg")), Some(9)),
                (text("c.jpg"), 8, None, Some(4)),
                (text("d.jpg"), 4, Some(text("images/c.jpg")), None),
            ]
        );
    }

    #[test]
    fn a_results_file_keeps_names_and_may_lack_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("found.json");
        let detection = Detection { image_id: 7, category_id: 2, bbox: [1.0, 2.5, 3.0, 4.126], score: 0.98765 };
        let mixed = [Some("a, \"b\".png".to_owned()), None].map(|file_name| NamedDetection { detection, file_name });
        write_named_results(&path, &mixed).unwrap();
        assert_eq!(read_named_results(&path).unwrap(), mixed);
        assert_eq!(crate::read_results(&path).unwrap(), [detection; 2]);
        std::fs::write(&path, "[{\"image_id\": 7}]").unwrap();
        assert!(read_named_results(&path).unwrap_err().to_string().contains("category_id"));
    }
}
