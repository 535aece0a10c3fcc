//! `docent predict`: pictures in, boxes out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use docent_coco::{
    DecodeOptions, Detection, Exif, IMAGE_EXTENSIONS, Listed, ListedImage, NamedDetection, decode_file, ids_of_names,
    listed, write_atomic, write_named_results,
};
use docent_model::Predictor;
use docent_study::Registry;
use indicatif::{ProgressBar, ProgressStyle};

use crate::draw::{Mark, drawn};
use crate::output::{error_text, say};
use crate::reading::exif;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  docent predict --checkpoint runs/shapes-seed0/distilled/checkpoints/last.safetensors \
                        --out found pictures/\n  \
                        docent predict --checkpoint last.safetensors --threshold 0.3 --exif ignore 'holiday/**/*.jpg' one.png\n  \
                        docent predict --checkpoint last.safetensors --annotations instances_val.json images/\n\n\
                        In the folder of --out: NAME.png for each picture, with its boxes (a small picture is enlarged there, so that \
                        its labels can be read); detections.json, every detection in COCO's results form, with its file_name; detections.csv, those \
                        that reach the threshold: file, image_id, category_id, class, score, x, y, width, height. Boxes count \
                        the picture's own pixels.\n\n\
                        Exit codes:\n  0  every picture was used\n  1  nothing was done; the last line says why\n  \
                        3  done, but for the pictures that are listed at the end: these could not be read or used"
)]
pub struct Args {
    /// A detector that `docent train` or `docent weights convert` wrote.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Folder for the pictures with boxes, `detections.json` and `detections.csv`.
    #[arg(long, value_name = "DIR", default_value = "predictions")]
    out: PathBuf,
    /// Draw and list (CSV) the boxes that score at least this; the JSON holds all.
    #[arg(long, value_name = "SCORE", default_value_t = 0.5)]
    threshold: f32,
    /// Images with an EXIF orientation: apply (turn them as it says; boxes count the turned image's pixels) or ignore. Default:
    /// apply; with --annotations as their sizes tell, and where these do not tell, it must be said.
    #[arg(long, value_name = "WHAT", value_parser = exif)]
    exif: Option<Exif>,
    /// COCO annotations of these pictures: image ids are theirs, by file name, and boxes count the pixels that theirs count, as `docent
    /// eval --results` wants them. Pictures that they do not list are passed over. Default: ids from the numbers that end the file
    /// names, else 1, 2, ..
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// Pictures (JPEG, PNG, WebP, BMP or TIFF), folders of them, or patterns (`'DIR/**/*.jpg'`, quoted).
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
}

/// How many images that the annotations do not list are named.
const UNLISTED_SHOWN: usize = 5;

/// An image to detect in.
#[derive(Debug, PartialEq)]
struct Picture {
    file: PathBuf,
    /// Its image id in what is written.
    id: u64,
    /// What the JSON calls it.
    name: String,
    /// Whether it is turned as its EXIF orientation says.
    upright: bool,
}

/// Some images could not be used; the others are done.
#[derive(Debug)]
pub struct Incomplete {
    failed: Vec<String>,
    pictures: usize,
}

impl Incomplete {
    /// The program's exit code for it.
    pub const CODE: u8 = 3;
}

impl std::fmt::Display for Incomplete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { failed, pictures } = self;
        write!(f, "{} of {pictures} pictures could not be used:\n  {}", failed.len(), failed.join("\n  "))
    }
}

impl std::error::Error for Incomplete {}

/// Detects, draws and writes. An image that cannot be used does not stop the others.
pub fn run(args: &Args, registry: &Registry) -> Result<()> {
    ensure!((0.0..=1.0).contains(&args.threshold), "--threshold {}: a score lies in 0..=1", args.threshold);
    let predictor = Predictor::load(&args.checkpoint, &registry.models)?;
    let files = pictures(&args.inputs)?;
    let pictures = match &args.annotations {
        Some(json) => annotated(json, &files, args.exif)?,
        None => unannotated(files, args.exif.unwrap_or_default()),
    };
    let files: Vec<&Path> = pictures.iter().map(|picture| picture.file.as_path()).collect();
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    spare_the_pictures(&files, &args.out)?;
    let bar = progress(files.len());
    let mut table = Table::new()?;
    let mut detections = Vec::new();
    let mut failed = Vec::new();
    for (picture, drawing) in pictures.iter().zip(names(&files)) {
        bar.set_message(picture.file.display().to_string());
        match predict(args.threshold, &predictor, picture, &args.out.join(drawing), &mut table) {
            Ok((found, line)) => {
                let named = |detection| NamedDetection { detection, file_name: Some(picture.name.clone()) };
                detections.extend(found.into_iter().map(named));
                // On a terminal the bar tells how far it is, and a line for each of thousands of images would hide it.
                if bar.is_hidden() {
                    say!("{line}");
                }
            }
            Err(error) => failed.push(error_text(&error)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let [json, csv] = ["detections.json", "detections.csv"].map(|name| args.out.join(name));
    write_named_results(&json, &detections)?;
    let rows = table.rows;
    write_atomic(&csv, &table.finish()?)?;
    say!("{} detections in {}", detections.len(), json.display());
    say!("{rows} that reach {} in {} and in the pictures beside it", args.threshold, csv.display());
    if !failed.is_empty() {
        return Err(Incomplete { failed, pictures: files.len() }.into());
    }
    Ok(())
}

/// One picture's detections and what to say of them; the picture with its boxes goes to `path`.
fn predict(
    threshold: f32,
    predictor: &Predictor,
    picture: &Picture,
    path: &Path,
    table: &mut Table,
) -> Result<(Vec<Detection>, String)> {
    let Picture { ref file, id: image_id, upright, .. } = *picture;
    let options = DecodeOptions::default().upright(upright);
    let image = decode_file(file, options).map_err(|error| match error {
        // Without the advice for a data set's files.
        docent_coco::Error::Decode { path, reason } => anyhow::anyhow!("cannot read {}: {reason}", path.display()),
        other => other.into(),
    })?;
    let found = predictor.detect(&image).with_context(|| file.display().to_string())?;
    let mut detections = Vec::new();
    let mut marks = Vec::new();
    for d in &found {
        let Some(category) = predictor.category(d.label) else { continue };
        let [x1, y1, x2, y2] = d.bbox.map(f64::from);
        let detection = Detection {
            image_id,
            category_id: category.id,
            bbox: [x1, y1, x2 - x1, y2 - y1],
            score: f64::from(d.score),
        };
        if d.score >= threshold {
            table.add(file, &category.name, &detection)?;
            let label = format!("{} {:.2}", category.name, d.score);
            marks.push(Mark { bbox: d.bbox, class: d.label as usize - 1, label });
        }
        detections.push(detection);
    }
    drawn(&image, &marks).save_png(path)?;
    let (file, drawn, all) = (file.display(), marks.len(), detections.len());
    Ok((detections, format!("{file}: id {image_id}, {drawn} of {all} boxes reach {threshold}")))
}

/// A bar on a terminal; nothing elsewhere.
fn progress(pictures: usize) -> ProgressBar {
    let bar = ProgressBar::new(pictures as u64);
    if let Ok(style) = ProgressStyle::with_template("[{bar:24}] {pos}/{len} left {eta} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

/// The detections as CSV.
struct Table {
    out: csv::Writer<Vec<u8>>,
    rows: usize,
}

impl Table {
    fn new() -> Result<Self> {
        let mut out = csv::Writer::from_writer(Vec::new());
        out.write_record(["file", "image_id", "category_id", "class", "score", "x", "y", "width", "height"])?;
        Ok(Self { out, rows: 0 })
    }

    fn add(&mut self, file: &Path, class: &str, d: &Detection) -> Result<()> {
        let [x, y, width, height] = d.bbox.map(|v| format!("{v:.2}"));
        let (image, category, score) = (d.image_id.to_string(), d.category_id.to_string(), format!("{:.4}", d.score));
        let file = file.display().to_string();
        self.out.write_record([file.as_str(), &image, &category, class, &score, &x, &y, &width, &height])?;
        self.rows += 1;
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.out.into_inner().map_err(|e| anyhow::anyhow!("CSV: {}", e.error()))
    }
}

/// The files of `inputs`, each once: of folders and patterns the pictures, in name order.
fn pictures(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for input in inputs {
        let mut inside = if input.is_dir() {
            let entries = std::fs::read_dir(input).with_context(|| format!("cannot read {}", input.display()))?;
            entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()?
        } else if let Some(pattern) = pattern(input) {
            let paths = glob::glob(pattern).with_context(|| format!("{pattern} is no pattern"))?;
            paths.collect::<Result<Vec<_>, _>>()?
        } else {
            files.push(input.clone());
            continue;
        };
        inside.retain(|p| is_picture(p) && !is_hidden(p, input));
        inside.sort();
        ensure!(!inside.is_empty(), "{} holds or fits no image (.{})", input.display(), IMAGE_EXTENSIONS.join(", ."));
        files.append(&mut inside);
    }
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(std::path::absolute(file).unwrap_or_else(|_| file.clone())));
    Ok(files)
}

/// The path as a pattern, where it is one and no file has just this name.
fn pattern(input: &Path) -> Option<&str> {
    input.to_str().filter(|text| text.contains(['*', '?', '[']) && !input.exists())
}

fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|e| IMAGE_EXTENSIONS.contains(&e.to_string_lossy().to_lowercase().as_str()))
}

/// Whether a name below `input` begins with a dot: files and folders that systems and editors leave.
fn is_hidden(path: &Path, input: &Path) -> bool {
    let named =
        input.components().take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '['])).count();
    path.components().skip(named).any(|part| part.as_os_str().to_string_lossy().starts_with('.'))
}

/// No image of the caller's lies where ours will.
fn spare_the_pictures(files: &[&Path], out: &Path) -> Result<()> {
    let out = out.canonicalize().with_context(|| out.display().to_string())?;
    let lies_there = |file: &&&Path| file.canonicalize().is_ok_and(|file| file.parent() == Some(out.as_path()));
    match files.iter().find(lies_there) {
        Some(file) => bail!(
            "{} lies in {} itself, where pictures would be overwritten: choose another --out",
            file.display(),
            out.display()
        ),
        None => Ok(()),
    }
}

/// Ids from the files' names.
fn unannotated(files: Vec<PathBuf>, exif: Exif) -> Vec<Picture> {
    let stem = |file: &PathBuf| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let ids = ids_of_names(&files.iter().map(stem).collect::<Vec<_>>());
    let times = times(files.iter().map(|file| base(file)));
    let picture = |(file, id): (PathBuf, u64)| {
        let name = base(&file);
        let name = if times[&name] > 1 { file.to_string_lossy().into_owned() } else { name };
        Picture { file, id, name, upright: exif == Exif::Apply }
    };
    files.into_iter().zip(ids).map(picture).collect()
}

/// Those of the files that the annotations list, with the ids that these have.
fn annotated(json: &Path, files: &[PathBuf], exif: Option<Exif>) -> Result<Vec<Picture>> {
    let Listed { images, names, notes } = listed(json, files, exif)?;
    let json = json.display();
    let used: HashSet<usize> = images.iter().map(|image| image.at).collect();
    let unlisted: Vec<String> =
        (0..files.len()).filter(|at| !used.contains(at)).map(|at| files[at].display().to_string()).collect();
    let more = if unlisted.len() > UNLISTED_SHOWN { ", .." } else { "" };
    let shown = format!("{}{more}", unlisted[..unlisted.len().min(UNLISTED_SHOWN)].join(", "));
    if images.is_empty() {
        let example = names.first().map_or("nothing", String::as_str);
        bail!("{json} lists none of the pictures: it has {example}, and not {shown}");
    }
    say!("ids of {json}, for {} of its {} images", images.len(), names.len());
    for note in &notes {
        say!("{note}");
    }
    if !unlisted.is_empty() {
        say!("passed over, since it does not list them: {} pictures ({shown})", unlisted.len());
    }
    let annotated = times(names.iter().map(|name| base(Path::new(&name.replace('\\', "/")))));
    let given = times(images.iter().map(|image| base(&files[image.at])));
    let picture = |ListedImage { at, id, file_name, upright }| {
        let name = base(&files[at]);
        // Where a bare name may be several images, the annotations' own tells which.
        let alone = given[&name] == 1 && annotated.get(&name).is_none_or(|times| *times == 1);
        Picture { file: files[at].clone(), id, name: if alone { name } else { file_name }, upright }
    };
    Ok(images.into_iter().map(picture).collect())
}

/// A file's name without its folders.
fn base(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// How often each name occurs.
fn times(names: impl Iterator<Item = String>) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    for name in names {
        *times.entry(name).or_default() += 1;
    }
    times
}

/// Names of the images with boxes: a file's own, with its number behind it where two have the same.
fn names(files: &[&Path]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut name = |(i, file): (usize, &&Path)| {
        let mut stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        while !taken.insert(stem.clone()) {
            stem = format!("{stem}-{}", i + 1);
        }
        format!("{stem}.png")
    };
    files.iter().enumerate().map(&mut name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    fn drawings(files: &[&str]) -> Vec<String> {
        names(&files.iter().map(Path::new).collect::<Vec<_>>())
    }

    #[test]
    fn no_picture_is_drawn_over_another() {
        assert_eq!(drawings(&["a/x.png", "b/y.jpg"]), ["x.png", "y.png"]);
        assert_eq!(drawings(&["x-2.jpg", "x.png", "b/x.png", "x.jpg"]), ["x-2.png", "x.png", "x-3.png", "x-4.png"]);
        assert_eq!(drawings(&["x-2.jpg", "x.png", "x.jpg", "x-3.png"]), ["x-2.png", "x.png", "x-3.png", "x-3-4.png"]);
    }

    #[test]
    fn the_json_names_files_and_folders_where_it_must() {
        let names = |files: &[&str]| {
            unannotated(paths(files), Exif::Apply).into_iter().map(|picture| picture.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["in/x.png", "y.jpg"]), ["x.png", "y.jpg"]);
        assert_eq!(names(&["a/x.png", "b/x.png", "b/y.jpg"]), ["a/x.png", "b/x.png", "y.jpg"]);
    }

    #[test]
    fn ids_come_from_the_annotations_by_file_name() {
        let dir = tempfile::tempdir().unwrap();
        let json = dir.path().join("all.json");
        let image = |id: u64, name: &str| serde_json::json!({ "id": id, "file_name": name, "width": 8, "height": 8 });
        let write = |images: &[serde_json::Value]| {
            let file = serde_json::json!({ "images": images, "annotations": [], "categories": [] });
            std::fs::write(&json, file.to_string()).unwrap();
        };
        let found = |names: &[&str]| {
            let found = annotated(&json, &paths(names), None).map_err(|e| e.to_string())?;
            let found = found.into_iter().map(|p| (p.file.display().to_string(), p.id, p.name));
            Ok::<_, String>(found.collect::<Vec<_>>())
        };
        write(&[image(9, "part_1.jpg"), image(4, "train/part_2.jpg"), image(5, "val/part_2.jpg")]);
        let text = str::to_owned;
        assert_eq!(
            found(&["in/part_1.jpg", "in/other.jpg", "in/val/part_2.jpg"]).unwrap(),
            [
                (text("in/part_1.jpg"), 9, text("part_1.jpg")),
                // Without its folder it would be a name of two images.
                (text("in/val/part_2.jpg"), 5, text("val/part_2.jpg")),
            ]
        );
        let message = found(&["in/other.jpg"]).unwrap_err();
        assert!(message.contains("lists none of the pictures: it has part_1.jpg, and not in/other.jpg"), "{message}");
    }

    #[test]
    fn inputs_are_files_folders_and_patterns() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["in/deep", "in/.x"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for name in
            ["in/b.PNG", "in/a.jpg", "in/notes.txt", "in/deep/c.jpeg", "in/odd[1].jpg", "in/._a.jpg", "in/.x/d.jpg"]
        {
            std::fs::write(at(name), "").unwrap();
        }
        let found = |inputs: &[&str]| {
            let inputs: Vec<PathBuf> = inputs.iter().map(|i| at(i)).collect();
            let files = pictures(&inputs).map_err(|e| e.to_string())?;
            let name = |f: &PathBuf| f.strip_prefix(dir.path()).unwrap().to_string_lossy().into_owned();
            Ok::<_, String>(files.iter().map(name).collect::<Vec<_>>())
        };
        assert_eq!(found(&["in"]).unwrap(), ["in/a.jpg", "in/b.PNG", "in/odd[1].jpg"]);
        assert_eq!(found(&["in/**/*"]).unwrap(), ["in/a.jpg", "in/b.PNG", "in/deep/c.jpeg", "in/odd[1].jpg"]);
        // A file of that name is no pattern; one that is named is tried whatever its name is.
        assert_eq!(found(&["in/odd[1].jpg", "none.gif"]).unwrap(), ["in/odd[1].jpg", "none.gif"]);
        assert_eq!(found(&["in/b.PNG", "in", "./in/a.jpg"]).unwrap(), ["in/b.PNG", "in/a.jpg", "in/odd[1].jpg"]);
        for (input, part) in [("in/*.gif", "*.gif holds or fits no"), ("in/[", "is no pattern")] {
            let message = found(&[input]).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_table_quotes_what_it_must() {
        let mut table = Table::new().unwrap();
        let d = Detection { image_id: 7, category_id: 2, bbox: [1.0, 2.5, 3.0, 4.126], score: 0.98765 };
        table.add(Path::new("a, b.png"), "red \"cell\"", &d).unwrap();
        let text = String::from_utf8(table.finish().unwrap()).unwrap();
        assert_eq!(
            text,
            "file,image_id,category_id,class,score,x,y,width,height\n\
             \"a, b.png\",7,2,\"red \"\"cell\"\"\",0.9877,1.00,2.50,3.00,4.13\n"
        );
    }
}
