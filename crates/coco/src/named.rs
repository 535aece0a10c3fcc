//! Detections with the names of their files, so that somebody else's image ids do not pass for these.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::open::find_image::{Place, trimmed};
use crate::open::fits::{fits, parts};
use crate::open::index::{FileIndex, IndexedFile, nfc};
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

/// Where names and ids do not stand together in the annotations: a line for each such file and id, in the order of the detections.
///
/// Names are compared as readers of data find files by them. A name that fits several images equally well is such a case too: it cannot
/// vouch for its id. Detections without a name are passed over, and so are those whose name and id are both unknown to the annotations.
pub fn other_ids(ground_truth: &Dataset, detections: &[NamedDetection]) -> Vec<String> {
    let images = ground_truth.images();
    let by_id: HashMap<u64, &Image> = images.iter().map(|image| (image.id, image)).collect();
    let mut spelled: HashMap<&str, Vec<&Image>> = HashMap::new();
    for image in images {
        spelled.entry(image.file_name.as_str()).or_default().push(image);
    }
    let mut seen = HashSet::new();
    let named = detections.iter().filter_map(|d| Some((d.file_name.as_deref()?, d.detection.image_id)));
    let named: Vec<(&str, u64)> = named.filter(|pair| seen.insert(*pair)).collect();
    let below = |name: &str| nfc(trimmed(&name.replace('\\', "/")));
    let files: BTreeMap<String, &str> = named.iter().map(|(name, _)| (below(name), *name)).collect();
    let files = files.into_iter().map(|(below, name)| IndexedFile { path: name.into(), below }).collect();
    let index = FileIndex::of(Path::new(""), files);
    let names = images.iter().map(|image| image.file_name.as_str());
    let fits = fits(names, &index, Place { beside: None, role: None }, None);

    let mut first_name: HashMap<u64, String> = HashMap::new();
    let mut lines = Vec::new();
    for (name, id) in named {
        let below = below(name);
        let meant: Vec<&Image> = match spelled.get(name) {
            Some(same) => same.clone(),
            // Where both have folders, these must agree: another folder may hold other images under the same names.
            None => {
                let bare = |name: &str| parts(name).count() < 2;
                let fits = fits.get(&below).into_iter().flatten();
                let fits = fits.map(|fit| (fit.parts, &images[fit.image]));
                fits.filter(|(common, i)| *common > 0 || bare(name) || bare(&i.file_name)).map(|(_, i)| i).collect()
            }
        };
        let there = by_id.get(&id);
        match meant.as_slice() {
            [image] if image.id == id => {
                let first = first_name.entry(id).or_insert_with(|| below.clone());
                if *first != below {
                    lines.push(format!("{first} and {name} are both {id} in the detections"));
                }
            }
            [image] => lines.push(format!("{name} is {id} in the detections, {} in the annotations", image.id)),
            [] => lines.extend(there.map(|other| {
                let other = &other.file_name;
                format!(
                    "{name} is {id} in the detections; the annotations do not list {name}, and {id} is {other} there"
                )
            })),
            several => {
                let several: Vec<String> = several.iter().map(|i| format!("{} ({})", i.id, i.file_name)).collect();
                let several = several.join(" or ");
                lines.push(format!(
                    "{name} is {id} in the detections; by its name it may be {several} in the annotations"
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground_truth(images: &[(u64, &str)]) -> Dataset {
        let image = |&(id, name): &(u64, &str)| Image { id, file_name: name.into(), width: 8, height: 8 };
        Dataset::from_parts("ground truth", "", images.iter().map(image).collect(), vec![], vec![]).unwrap()
    }

    fn found(image_id: u64, name: Option<&str>) -> NamedDetection {
        let detection = Detection { image_id, category_id: 1, bbox: [0.0; 4], score: 0.5 };
        NamedDetection { detection, file_name: name.map(str::to_owned) }
    }

    #[test]
    fn other_ids_are_told_once_a_file() {
        let ground_truth = ground_truth(&[(9, "images/a.jpg"), (1, "images/b.jpg"), (4, "images/c.jpg")]);
        let right = [found(9, Some("a.jpg")), found(1, Some("b.jpg")), found(4, None), found(7, Some("x.jpg"))];
        assert_eq!(other_ids(&ground_truth, &right), [""; 0]);
        let wrong =
            [found(1, Some("a.jpg")), found(1, Some("a.jpg")), found(8, Some("c.jpg")), found(4, Some("d.jpg"))];
        assert_eq!(
            other_ids(&ground_truth, &wrong),
            [
                "a.jpg is 1 in the detections, 9 in the annotations",
                "c.jpg is 8 in the detections, 4 in the annotations",
                "d.jpg is 4 in the detections; the annotations do not list d.jpg, and 4 is images/c.jpg there",
            ]
        );
    }

    #[test]
    fn a_name_that_fits_several_images_vouches_for_none() {
        let ground_truth =
            ground_truth(&[(1, "a/x.jpg"), (2, "b/x.jpg"), (3, "y.jpg"), (4, "old/y.jpg"), (5, "z.jpg")]);
        for id in [1, 2, 7] {
            let lines = other_ids(&ground_truth, &[found(id, Some("x.jpg"))]);
            let wanted = format!(
                "x.jpg is {id} in the detections; by its name it may be 1 (a/x.jpg) or 2 (b/x.jpg) in the annotations"
            );
            assert_eq!(lines, [wanted]);
        }
        // A name that is spelled just so, and folders, tell them apart.
        let right = [found(2, Some("b\\x.jpg")), found(3, Some("y.jpg")), found(4, Some("/data/old/y.jpg"))];
        assert_eq!(other_ids(&ground_truth, &right), [""; 0]);
        let lines = other_ids(&ground_truth, &[found(1, Some("c/x.jpg"))]);
        assert!(lines[0].contains("do not list c/x.jpg, and 1 is a/x.jpg there"), "{lines:?}");
        let lines = other_ids(&ground_truth, &[found(5, Some("a/z.jpg")), found(5, Some("b/z.jpg"))]);
        assert_eq!(lines, ["a/z.jpg and b/z.jpg are both 5 in the detections"]);
    }

    #[test]
    fn names_are_compared_as_readers_compare_them() {
        let spelled =
            ["C:\\me\\images\\one.jpg", "https://x.org/a%201.png?v=2", "0a1b2c3d-two.jpg", "THREE.JPG", "four"];
        let images: Vec<(u64, &str)> = (11..).zip(spelled).collect();
        let files = ["one.jpg", "a 1.png", "two.jpg", "images/three.jpg", "four.jpg"];
        let ground_truth = ground_truth(&images);
        for (id, name) in (11..).zip(files) {
            assert_eq!(other_ids(&ground_truth, &[found(id, Some(name))]), [""; 0], "{name}");
            let lines = other_ids(&ground_truth, &[found(1, Some(name))]);
            assert_eq!(lines, [format!("{name} is 1 in the detections, {id} in the annotations")]);
        }
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
