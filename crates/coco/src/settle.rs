//! From what the annotations say to data sets: image files are looked at, sizes, turns and box readings are settled, and what cannot
//! be told is an error.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use crate::box_reading::{BoxReading, Measured, ReadingCheck, are_shares, look_like_corners};
use crate::checks::{checks, locate};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::found::{Found, FoundObject};
use crate::header::{Probe, probe};
use crate::open_options::{Exif, OpenOptions};
use crate::parallel::in_order;
use crate::parts::Parts;
use crate::policy::Policy;
use crate::types::{Annotation, Image};

/// So many boxes of a folder are enough to doubt their reading.
const FEW_BOXES: usize = 8;

/// How far a share may lie outside 0..1 before it is taken for something else than a share: a box half outside its image is a
/// finding, a coordinate in pixels is a mistake.
const MOST_SHARE: f64 = 1.5;

/// Data sets and what was seen on the way.
pub(crate) struct Settled {
    /// One for each [`Found`], in their order.
    pub datasets: Vec<Dataset>,
    /// What tells image files apart: their length and a hash of their first bytes.
    pub fingerprints: HashMap<PathBuf, (u64, u64)>,
    /// Lines about what was taken from where.
    pub notes: Vec<String>,
}

/// An image with its file.
struct Looked {
    /// `None` where the file is missing or unreadable.
    probe: Option<Probe>,
    /// Width and height as the image is read.
    size: Option<(u32, u32)>,
    upright: bool,
}

/// Settles what was found in the parts of one data set.
///
/// # Errors
/// Sizes or numbers that can mean two things ([`Error::Undecided`]); faults whose policy is `error`.
pub(crate) fn settle(mut parts: Vec<Found>, options: &OpenOptions) -> Result<Settled> {
    let mut notes = Vec::new();
    let mut looked: Vec<Vec<Looked>> = parts.iter_mut().map(look).collect();
    sizes(&mut parts, &mut looked, &mut notes);
    orientations(&mut parts, &mut looked, options, &mut notes)?;
    let reading = options.read.boxes;
    check_reading(&parts, &looked, reading, &mut notes)?;

    let mut fingerprints = HashMap::new();
    for (found, looked) in parts.iter().zip(&looked) {
        for (i, image) in looked.iter().enumerate() {
            if let Some(probe) = &image.probe {
                fingerprints.insert(found.path(i), probe.fingerprint);
            }
        }
    }
    let built = parts.into_iter().zip(looked).map(|(found, looked)| build(found, &looked, options));
    let mut fatal = Vec::new();
    let mut datasets = Vec::new();
    for result in built {
        match result {
            Ok(dataset) => datasets.push(dataset),
            // All parts' faults are listed at once.
            Err(Error::Annotations { path, findings }) => fatal.push((path, findings)),
            Err(other) => return Err(other),
        }
    }
    if !fatal.is_empty() {
        let path = fatal[0].0.clone();
        let findings = fatal.into_iter().flat_map(|(_, findings)| findings).collect();
        return Err(Error::Annotations { path, findings });
    }
    Ok(Settled { datasets, fingerprints, notes })
}

/// Whether each image of `found` is turned as its EXIF orientation says, and a line for each image of another size than annotated. Of
/// the objects it matters alone which images have some.
///
/// # Errors
/// Orientations that can mean two things ([`Error::Undecided`]).
pub(crate) fn turns(found: Found, options: &OpenOptions, notes: &mut Vec<String>) -> Result<(Vec<bool>, Vec<String>)> {
    let mut parts = [found];
    let mut looked: Vec<Vec<Looked>> = parts.iter_mut().map(look).collect();
    orientations(&mut parts, &mut looked, options, notes)?;
    let upright = looked.iter().flatten().map(|image| image.upright).collect();
    let [found] = parts;
    let mismatched = found.findings.into_iter().filter(|f| f.kind == FindingKind::SizeMismatch);
    Ok((upright, mismatched.map(|f| f.detail).collect()))
}

/// Reads the headers of all image files, on all cores.
fn look(found: &mut Found) -> Vec<Looked> {
    let probes = in_order(found.images.len(), 0, |i| {
        let path = found.path(i);
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Some(Some(probe(&path))),
            // What a pipe gives can be read once, when the image is loaded.
            Ok(metadata) if !metadata.is_dir() => Some(None),
            _ => None,
        }
    });
    let mut all = Vec::with_capacity(probes.len());
    // A missing image that a reader has listed already is not listed again.
    let listed: HashSet<u64> = found.findings.iter().filter_map(|f| f.image_id).collect();
    for (i, probed) in probes.into_iter().enumerate() {
        let known = listed.contains(&found.images[i].id);
        let probe = match probed {
            Some(Some(Ok(probe))) => Some(probe),
            Some(None) => None,
            Some(Some(Err(error))) => {
                found.fault(FindingKind::UnreadableImage, i, reason(&error));
                None
            }
            None if known => None,
            None => {
                let detail = found.path(i).display().to_string();
                found.fault(FindingKind::MissingImage, i, detail);
                None
            }
        };
        all.push(Looked { probe, size: found.images[i].size, upright: false });
    }
    all
}

/// The file and what is wrong with it, without the advice of the error's own text.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::Decode { path, reason } => format!("{}: {reason}", path.display()),
        other => other.to_string(),
    }
}

/// Takes sizes that the annotations lack from the files.
fn sizes(parts: &mut [Found], looked: &mut [Vec<Looked>], notes: &mut Vec<String>) {
    let mut taken = 0;
    for (found, looked) in parts.iter_mut().zip(looked) {
        let listed: HashSet<u64> = found.findings.iter().filter_map(|f| f.image_id).collect();
        for (i, image) in looked.iter_mut().enumerate() {
            if image.size.is_some() {
                continue;
            }
            match &image.probe {
                Some(probe) => {
                    image.size = Some((probe.header.width, probe.header.height));
                    taken += 1;
                }
                None if listed.contains(&found.images[i].id) => {}
                None => found.fault(FindingKind::EmptyImage, i, found.images[i].file_name.clone()),
            }
        }
    }
    // Formats without sizes have nothing to lack.
    let lacking = parts.iter().all(|found| matches!(found.reading, BoxReading::CenterShares));
    if taken > 0 && !lacking {
        notes.push(format!(
            "{taken} images have no width and height in the annotations; their sizes are those of the files"
        ));
    }
}

/// Decides which images are turned as their EXIF orientation says.
fn orientations(
    parts: &mut [Found],
    looked: &mut [Vec<Looked>],
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Result<()> {
    let (mut marked, mut by_size, mut stored_by_size, mut open) = (0usize, 0usize, 0usize, Vec::new());
    for (found, looked) in parts.iter_mut().zip(looked.iter_mut()) {
        let with_objects: HashSet<u64> = found.objects.iter().map(|o| o.image_id).collect();
        let mut mismatched = Vec::new();
        for (i, image) in looked.iter_mut().enumerate() {
            let Some(Probe { header, .. }) = image.probe else { continue };
            let (stored, turned) = ((header.width, header.height), header.upright_size());
            let annotated = found.images[i].size;
            if header.is_marked() {
                marked += 1;
            }
            match annotated {
                Some(size) if size != stored && size != turned => mismatched.push((i, size, stored)),
                Some(size) if size == turned && size != stored => {
                    image.upright = true;
                    by_size += 1;
                }
                // The annotations say the stored size.
                Some(_) if turned != stored => stored_by_size += 1,
                _ if !header.is_marked() => {}
                _ => {
                    match options.read.exif {
                        Some(exif) => image.upright = exif == Exif::Apply,
                        // Nothing can be misplaced in it.
                        None if !with_objects.contains(&found.images[i].id) => {
                            image.upright = Exif::default() == Exif::Apply
                        }
                        None => open.push(found.path(i)),
                    }
                    if image.upright {
                        image.size = Some(turned);
                    }
                }
            }
        }
        for (i, (w, h), (width, height)) in mismatched {
            let mut detail = format!("{} is {width}x{height}, annotated as {w}x{h}", found.path(i).display());
            if (w, h) == (height, width) {
                detail.push_str(" (width and height are exchanged)");
            }
            found.fault(FindingKind::SizeMismatch, i, detail);
        }
    }
    if let Some(first) = open.first() {
        let problem = format!(
            "{} images with boxes have an EXIF orientation, and nothing says whether the boxes count the pixels of the turned or of the \
             stored image ({}, for one)",
            open.len(),
            first.display()
        );
        let hint = "say which: --exif apply (boxes were drawn on the image as a viewer shows it, turned) or --exif ignore (on the \
                    image as it is stored); `docent dataset view` draws them";
        return Err(Error::Undecided { path: parts[0].source.clone(), problem, hint: hint.to_owned() });
    }
    if marked > 0 {
        let turned: usize = looked.iter().flatten().filter(|image| image.upright).count();
        notes.push(format!(
            "{marked} images have an EXIF orientation: {turned} are turned as it says ({by_size} because their annotated size is that of \
             the turned image), {} stay as they are stored",
            marked - turned
        ));
        let overruled = match options.read.exif {
            Some(Exif::Ignore) => by_size,
            Some(Exif::Apply) => stored_by_size,
            None => 0,
        };
        if overruled > 0 {
            notes.push(format!("--exif is not followed for {overruled} images: their annotated sizes say otherwise"));
        }
    }
    Ok(())
}

/// Whether the boxes fit the reading in use.
fn check_reading(
    parts: &[Found],
    looked: &[Vec<Looked>],
    given: Option<BoxReading>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let Some(own) = parts.first().map(|found| found.reading) else { return Ok(()) };
    let mut all: Vec<Measured> = Vec::new();
    // The parts of a data set may come from different tools.
    let mut by_folder: BTreeMap<(usize, &str), Vec<Measured>> = BTreeMap::new();
    for (part, (found, looked)) in parts.iter().zip(looked).enumerate() {
        // An image of another size than annotated is a fault of its own, and says nothing about the boxes.
        let of_another_size = found.findings.iter().filter(|f| f.kind == FindingKind::SizeMismatch);
        let of_another_size: HashSet<u64> = of_another_size.filter_map(|f| f.image_id).collect();
        let known = found.images.iter().zip(looked).filter(|(image, _)| !of_another_size.contains(&image.id));
        let folder = |name: &'_ str| name.rsplit_once('/').map_or(0, |(folder, _)| folder.len());
        let images: HashMap<u64, ((u32, u32), &str)> =
            known.filter_map(|(im, l)| Some((im.id, (l.size?, &im.file_name[..folder(&im.file_name)])))).collect();
        for o in found.objects.iter().filter(|o| o.reading.is_none() && o.numbers.iter().all(|v| v.is_finite())) {
            if let Some(&((w, h), folder)) = images.get(&o.image_id) {
                let measured = (o.numbers, f64::from(w), f64::from(h));
                all.push(measured);
                by_folder.entry((part, folder)).or_default().push(measured);
            }
        }
    }
    let reading = given.unwrap_or(own);
    let whole = ReadingCheck::of(&all, reading).complaint(reading);
    let of_folder = |((_, folder), boxes): (&(usize, &str), &Vec<Measured>)| {
        // Of a few boxes many may lie over the border by chance.
        if boxes.len() < FEW_BOXES {
            return None;
        }
        let (problem, hint) = ReadingCheck::of(boxes, reading).complaint(reading)?;
        Some((if folder.is_empty() { problem } else { format!("in {folder}: {problem}") }, hint))
    };
    let Some((problem, hint)) = whole.or_else(|| by_folder.iter().find_map(of_folder)) else {
        let corners = all.iter().filter(|(n, w, h)| look_like_corners(n, *w, *h)).count();
        if reading == BoxReading::Xywh && corners > 0 {
            notes.push(format!(
                "{corners} of {} boxes reach over the border of their images when read as {}, and would fit as {}: are they another \
                 tool's? `docent dataset view` draws them",
                all.len(),
                reading.meaning(),
                BoxReading::Edges.meaning()
            ));
        }
        return Ok(());
    };
    if given.is_some() {
        // The caller has decided; the doubt is told all the same.
        notes.push(format!("{problem}; --boxes {} was given, so they are read that way", reading.name()));
        return Ok(());
    }
    Err(Error::Undecided { path: parts[0].source.clone(), problem, hint })
}

/// Makes a data set of one part.
fn build(found: Found, looked: &[Looked], options: &OpenOptions) -> Result<Dataset> {
    let reading = options.read.boxes.unwrap_or(found.reading);
    let policies = &options.checks;
    let Found { name, source, image_root, images, objects, categories, other_classes, mut findings, digest, .. } =
        found;
    let size_of = |i: usize| looked[i].size.unwrap_or_default();
    let index: HashMap<u64, usize> = images.iter().enumerate().map(|(i, image)| (image.id, i)).collect();
    let mut annotations = Vec::with_capacity(objects.len());
    // Classes by name in messages: ids mean nothing to somebody who has a folder of XML files.
    let names: HashMap<u64, &str> = categories.iter().map(|c| (c.id, c.name.as_str())).collect();
    let place = |line: u32, category_id: u64| match names.get(&category_id) {
        _ if line == 0 => String::new(),
        Some(class) => format!("line {line}, {class:?} "),
        None => format!("line {line}, "),
    };
    let mut fault = |kind, object: &FoundObject, detail: String| {
        let i = index.get(&object.image_id);
        let file = i.and_then(|&i| images[i].annotation_file.as_deref()).unwrap_or(&source).to_owned();
        let detail = place(object.line, object.category_id) + &detail;
        let (image_id, annotation_id) = (Some(object.image_id), Some(object.id));
        findings.push(Finding { kind, file, image_id, annotation_id, detail });
    };
    let mut seen = HashSet::with_capacity(objects.len());
    let mut lines = Vec::with_capacity(objects.len());
    for object in &objects {
        let (width, height) = index.get(&object.image_id).map_or((0, 0), |&i| size_of(i));
        if object.numbers.iter().any(|v| !v.is_finite()) {
            fault(FindingKind::DegenerateBox, object, format!("the box is {:?}", object.numbers));
            continue;
        }
        let of = object.reading.unwrap_or(reading);
        if of.is_shares() && object.numbers.iter().any(|v| v.abs() > MOST_SHARE) {
            let detail = format!(
                "{:?} are no shares of an image's sides; divide pixels by its width and height",
                object.numbers
            );
            fault(FindingKind::BrokenAnnotation, object, detail);
            continue;
        }
        if !of.is_shares() && are_shares(&object.numbers) && width > 4 && height > 4 && object.numbers != [0.0; 4] {
            let detail = format!("{:?} look like shares among boxes in pixels", object.numbers);
            fault(FindingKind::BrokenAnnotation, object, detail);
            continue;
        }
        let (bbox, swapped) = of.ordered_bbox(object.numbers, f64::from(width), f64::from(height));
        if swapped {
            let detail = format!("{:?} is read as [x, y, width, height] = {bbox:?}", object.numbers);
            fault(FindingKind::SwappedCorners, object, detail);
            if policies.swapped_corners == Policy::Drop {
                continue;
            }
        }
        let key = (object.image_id, object.category_id, bbox.map(f64::to_bits));
        if !object.crowd && !seen.insert(key) {
            fault(FindingKind::RepeatedObject, object, format!("[x, y, width, height] = {bbox:?}"));
            if policies.repeated_object == Policy::Drop {
                continue;
            }
        }
        // An area was computed from the numbers as the file's own reading has them.
        let area = object.area.filter(|_| options.read.boxes.is_none() && !swapped).unwrap_or(bbox[2] * bbox[3]);
        annotations.push(Annotation {
            id: object.id,
            image_id: object.image_id,
            category_id: object.category_id,
            bbox,
            area,
            iscrowd: object.crowd,
        });
        lines.push((object.id, object.line));
    }
    let annotation_files: Vec<PathBuf> = if images.iter().all(|image| image.annotation_file.is_some()) {
        images.iter().filter_map(|image| image.annotation_file.clone()).collect()
    } else {
        Vec::new()
    };
    let upright: Vec<bool> = looked.iter().map(|image| image.upright).collect();
    let sized: Vec<Image> = images
        .iter()
        .enumerate()
        .map(|(i, image)| {
            let (width, height) = size_of(i);
            Image { id: image.id, file_name: image.file_name.clone(), width, height }
        })
        .collect();
    let mut found = checks(&source, &sized, &annotations, &categories);
    let at_fault: HashSet<u64> = found.iter().filter_map(|f| f.annotation_id).collect();
    let by_id: HashMap<u64, &FoundObject> =
        objects.iter().filter(|o| at_fault.contains(&o.id)).map(|o| (o.id, o)).collect();
    for finding in &mut found {
        let Some(object) = finding.annotation_id.and_then(|id| by_id.get(&id)) else { continue };
        let size = index.get(&object.image_id).map(|&i| size_of(i));
        match (finding.kind, size) {
            (FindingKind::OutsideBox, Some((width, height)))
                if object.reading.unwrap_or(reading) == BoxReading::Xywh
                    && look_like_corners(&object.numbers, f64::from(width), f64::from(height)) =>
            {
                finding.detail.push_str("; as corners (x1, y1, x2, y2) it would fit");
            }
            (FindingKind::UnknownCategory, _) if other_classes.contains_key(&object.category_id) => {
                let class = &other_classes[&object.category_id];
                finding.detail = format!("class {class:?} is not among the classes");
            }
            _ => {}
        }
    }
    let places: HashMap<u64, String> =
        objects.iter().filter(|o| o.line > 0).map(|o| (o.id, place(o.line, o.category_id))).collect();
    let files = images.iter().filter_map(|image| Some((image.id, image.annotation_file.as_deref()?))).collect();
    locate(&mut found, &files, &places);
    // Where the file is missing or of another size, what follows from that is no fault of its own.
    found.retain(|f| f.kind != FindingKind::EmptyImage);
    findings.extend(found);
    // Boxes without area are part of the ground truth that a COCO file is scored with; no tool of the other formats scores with them.
    if !annotation_files.is_empty() && policies.degenerate == Policy::Drop {
        annotations.retain(|a| !a.is_degenerate());
    }
    let parts =
        Parts { name, source, image_root, images: sized, annotations, categories, annotation_files, upright, digest };
    let dataset = Dataset::build_with(parts, findings, policies)?;
    Ok(if policies.unreadable_image == Policy::Drop { dataset.without_unreadable_images() } else { dataset })
}
