//! Comparing what docent read with the ground truth.

use std::collections::{BTreeMap, HashMap, HashSet};

use unicode_normalization::UnicodeNormalization;

use super::coco::{Coco, Id};
use super::expect::{ClassesOrder, Expectation, GtBox, Split};
use super::fault::Fault;
use super::program::{BySplit, Counts, Reading};

/// The side of each image, by its base name.
pub type Sides = BTreeMap<String, &'static str>;

/// Compares what was read: all of it where it was written, or else the counts.
pub fn content(reading: &Reading, expected: &Expectation, allow_crowds: bool) -> Result<(), Fault> {
    match (&reading.splits, &reading.counts) {
        (Some(splits), _) => annotations(splits, expected, allow_crowds),
        (None, Some(counts)) => numbers(counts, expected),
        (None, None) => Ok(()),
    }
}

/// The last part of a file name of any system, in Unicode's form NFC.
pub fn base_name(name: &str) -> String {
    name.rsplit(['/', '\\']).next().unwrap_or(name).nfc().collect()
}

/// Compares the two COCO files with the ground truth.
fn annotations(splits: &BySplit<Coco>, expected: &Expectation, allow_crowds: bool) -> Result<(), Fault> {
    let mut sides = Sides::new();
    let mut boxes: BTreeMap<String, Vec<GtBox>> = BTreeMap::new();
    for (split, coco) in splits.iter() {
        let names = images(split, coco, expected, &mut sides)?;
        boxes.extend(names.values().map(|name| (name.clone(), Vec::new())));
        let classes: HashMap<&Id, &str> = coco.categories.iter().map(|c| (&c.id, c.name.as_str())).collect();
        let mut ids = HashSet::new();
        for annotation in &coco.annotations {
            if !ids.insert(&annotation.id) {
                return silent(format!("{split}: annotation id {} occurs twice", annotation.id));
            }
            let unknown = |what| Fault::NoCoco(format!("{split}: annotation {} has an unknown {what}", annotation.id));
            let name = names.get(&annotation.image_id).ok_or_else(|| unknown("image_id"))?;
            if annotation.iscrowd && !allow_crowds {
                return silent(format!("{name}: a crowd, should be an object"));
            }
            let class = classes.get(&annotation.category_id).ok_or_else(|| unknown("category_id"))?;
            let read = GtBox { class: (*class).to_owned(), xywh: annotation.bbox };
            boxes.entry(name.clone()).or_default().push(read);
        }
    }

    let gt_boxes = &expected.boxes;
    for (name, split) in &sides {
        if !gt_boxes.contains_key(name) {
            return silent(format!("{name} is in {split}, should be in neither split"));
        }
    }
    for name in gt_boxes.keys() {
        if !sides.contains_key(name) && !expected.may_lack.contains(name) {
            return silent(format!("{name} is in neither split"));
        }
    }
    let differs = |(name, read): &(&String, &Vec<GtBox>)| !boxes_match(read, &gt_boxes[*name], expected.tolerance);
    let wrong: Vec<_> = boxes.iter().filter(differs).collect();
    if let Some((name, read)) = wrong.first() {
        return silent(format!(
            "boxes of {} of {} images, for one {name}: {}, should be {}",
            wrong.len(),
            gt_boxes.len(),
            spelled(read),
            spelled(&gt_boxes[*name])
        ));
    }
    let names = splits.iter().map(|(_, coco)| {
        let mut sorted: Vec<_> = coco.categories.iter().map(|c| (&c.id, c.name.as_str())).collect();
        sorted.sort_by_key(|(id, _)| *id);
        sorted.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
    });
    class_lists(&names.collect::<Vec<_>>(), expected)?;
    split_sides(&sides, expected)
}

/// The images of a split by their ids; each image's side goes to `sides`.
fn images<'a>(
    split: &'static str,
    coco: &'a Coco,
    expected: &Expectation,
    sides: &mut Sides,
) -> Result<HashMap<&'a Id, String>, Fault> {
    let mut names = HashMap::new();
    for image in &coco.images {
        let name = base_name(&image.file_name);
        if let Some(other) = sides.insert(name.clone(), split) {
            return silent(format!("{name} is {}", if other == split { "there twice" } else { "in both splits" }));
        }
        if let Some([width, height]) = expected.size
            && [image.width, image.height] != [width, height]
        {
            return silent(format!("{name} is {}x{}, should be {width}x{height}", image.width, image.height));
        }
        if names.insert(&image.id, name).is_some() {
            return silent(format!("{split}: image id {} occurs twice", image.id));
        }
    }
    Ok(names)
}

/// Whether the boxes can be paired one to one: the same class, and each number within the tolerance.
fn boxes_match(read: &[GtBox], gt_boxes: &[GtBox], tolerance: f64) -> bool {
    let fits = |a: &GtBox, b: &GtBox| {
        a.class == b.class && a.xywh.iter().zip(b.xywh).all(|(a, b)| (a - b).abs() <= tolerance + 1e-9)
    };
    let candidates: Vec<Vec<usize>> =
        read.iter().map(|a| (0..gt_boxes.len()).filter(|&j| fits(a, &gt_boxes[j])).collect()).collect();
    let mut owner = vec![None; gt_boxes.len()];
    read.len() == gt_boxes.len()
        && (0..read.len()).all(|i| assign(i, &candidates, &mut owner, &mut vec![false; gt_boxes.len()]))
}

/// One augmenting path of bipartite matching: finds box `i` a partner, where need be by moving others.
fn assign(i: usize, candidates: &[Vec<usize>], owner: &mut [Option<usize>], visited: &mut [bool]) -> bool {
    for &j in &candidates[i] {
        if std::mem::replace(&mut visited[j], true) {
            continue;
        }
        let free = match owner[j] {
            None => true,
            Some(other) => assign(other, candidates, owner, visited),
        };
        if free {
            owner[j] = Some(i);
            return true;
        }
    }
    false
}

fn spelled(boxes: &[GtBox]) -> String {
    let one = |b: &GtBox| format!("{} {}", b.class, b.xywh.map(|v| v.to_string()).join(" "));
    format!("[{}]", boxes.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Compares the class names of the two splits, in the order of their ids.
fn class_lists(lists: &[Vec<&str>], expected: &Expectation) -> Result<(), Fault> {
    let mut read = lists[0].clone();
    if let Some(other) = lists.iter().find(|list| **list != read) {
        return silent(format!("the splits list different classes: {read:?} and {other:?}"));
    }
    let mut classes: Vec<&str> = expected.classes.iter().map(String::as_str).collect();
    if expected.classes_order == Some(ClassesOrder::Any) {
        read.sort_unstable();
        classes.sort_unstable();
    }
    if read != classes {
        return silent(format!("classes {read:?}, should be {:?}", expected.classes));
    }
    Ok(())
}

/// Compares the sides with the author's split; where docent chooses them, neither is empty.
fn split_sides(sides: &Sides, expected: &Expectation) -> Result<(), Fault> {
    for (split, images) in [("train", &expected.train), ("val", &expected.val)] {
        let mut read = sides.iter().filter(|(_, side)| **side == split).map(|(name, _)| name);
        if expected.split == Some(Split::Hash) {
            if read.next().is_none() {
                return silent(format!("no image in {split}"));
            }
        } else if let Some(name) = read.find(|name| images.as_ref().is_some_and(|images| !images.contains(*name))) {
            return silent(format!("{name} is in {split}; the author's split says otherwise"));
        }
    }
    Ok(())
}

/// Compares the numbers of images and of boxes of each class.
fn numbers(counts: &BySplit<Counts>, expected: &Expectation) -> Result<(), Fault> {
    let gt_boxes = &expected.boxes;
    let images: usize = counts.iter().map(|(_, c)| c.images).sum();
    let least = gt_boxes.len().saturating_sub(expected.may_lack.len());
    if !(least..=gt_boxes.len()).contains(&images) {
        return silent(format!("{images} images, should be {}", gt_boxes.len()));
    }
    for name in &expected.classes {
        let should = gt_boxes.values().flatten().filter(|b| b.class == *name).count();
        let of_class = |c: &Counts| c.classes.iter().rev().find(|c| c.name == *name).map_or(0, |c| c.boxes);
        let read: usize = counts.iter().map(|(_, c)| of_class(c)).sum();
        if read != should {
            return silent(format!("{read} boxes of {name}, should be {should}"));
        }
    }
    let lists = counts.iter().map(|(_, c)| c.classes.iter().map(|c| c.name.as_str()).collect::<Vec<_>>());
    class_lists(&lists.collect::<Vec<_>>(), expected)?;
    for ((split, read), images) in counts.iter().zip([&expected.train, &expected.val]) {
        if let Some(images) = images
            && read.images != images.len()
        {
            return silent(format!("{} images in {split}, should be {}", read.images, images.len()));
        }
    }
    Ok(())
}

fn silent<T>(what: String) -> Result<T, Fault> {
    Err(Fault::Silent(what))
}
