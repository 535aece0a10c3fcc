//! The data set on disk: made beside its place and moved there when complete, and made again only if something differs.

use super::{Class, Object, ShapesConfig, Split, VERSION, lock, render};
use crate::parallel::in_order;
use crate::{Error, OpenOptions, Result, Rgb8, Splits, open_dir};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Name of the file that marks a complete folder.
const MARKER: &str = "shapes.json";

/// What the marker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    version: u32,
    seed: u64,
    train: usize,
    val: usize,
    /// Digest of pixels and annotations: the data set's identity.
    pub(super) sha256: String,
    /// Digest of the files as they lie on disk: how damage is found.
    files: String,
}

/// Where [`make`] puts the files.
pub(super) enum Target<'a> {
    /// Only the digests are wanted.
    Nowhere,
    /// Into this folder, which exists.
    Folder(&'a Path),
}

/// Makes the data set in `root` if it is not there complete, and opens it. All cores are used.
///
/// # Errors
/// When the configuration is refused, a file cannot be written or read, `root` holds something else, or the default data set comes
/// out other than `shapes.lock` says.
pub fn generate(root: &Path, config: &ShapesConfig) -> Result<Splits> {
    generate_with(root, config, 0)
}

/// [`generate`] with a number of threads (0: as many as there are cores), which changes no byte.
///
/// # Errors
/// As [`generate`].
pub fn generate_with(root: &Path, config: &ShapesConfig, threads: usize) -> Result<Splits> {
    config.validate()?;
    if !is_complete(root, config) {
        replace(root, config, threads)?;
    }
    open_dir(root, &OpenOptions::default())
}

/// Whether `root` holds exactly this data set: the marker says so, and every file still has its bytes.
fn is_complete(root: &Path, config: &ShapesConfig) -> bool {
    let Some(marker) = fs::read(root.join(MARKER)).ok().and_then(|bytes| serde_json::from_slice::<Marker>(&bytes).ok())
    else {
        return false;
    };
    let asked = (VERSION, config.seed, config.train, config.val);
    if (marker.version, marker.seed, marker.train, marker.val) != asked || lock::check(config, &marker.sha256).is_err()
    {
        return false;
    }
    let mut files = Sha256::new();
    for split in Split::ALL {
        for index in 0..config.images(split) {
            let Ok(bytes) = fs::read(root.join(image_path(split, index))) else { return false };
            files.update(Sha256::digest(&bytes));
        }
        let Ok(json) = fs::read(root.join(json_path(split))) else { return false };
        files.update(Sha256::digest(&json));
    }
    marker.files == hex(files)
}

/// Makes the data set beside `root` and moves it there.
fn replace(root: &Path, config: &ShapesConfig, threads: usize) -> Result<()> {
    let Some(name) = root.file_name().map(|name| name.to_string_lossy().into_owned()) else {
        return Err(Error::Shapes(format!("{} does not end in a folder's name", root.display())));
    };
    let parent = match root.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Only a folder this function made, or an empty one, is ever replaced.
    let strange = match fs::read_dir(root) {
        Ok(mut entries) => entries.next().is_some() && !root.join(MARKER).is_file(),
        Err(_) => root.exists(),
    };
    if strange {
        return Err(Error::Shapes(format!(
            "{} holds something that is no shapes data set (it has no {MARKER}): name another folder, or move it away",
            root.display()
        )));
    }
    fs::create_dir_all(parent).map_err(|source| Error::io(parent, source))?;
    sweep(parent, &name);
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let own = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let made = Scratch(parent.join(format!(".{name}.partial-{own}")));
    let old = Scratch(parent.join(format!(".{name}.partial-{own}-old")));
    fs::create_dir(&made.0).map_err(|source| Error::io(&made.0, source))?;
    let marker = make(config, threads, Target::Folder(&made.0))?;
    lock::check(config, &marker.sha256)?;
    // The marker comes last: a folder without it is never taken for complete.
    write(&made.0.join(MARKER), &json_line(&marker)?)?;
    if root.exists() {
        fs::rename(root, &old.0).map_err(|source| Error::io(root, source))?;
    }
    match fs::rename(&made.0, root) {
        Ok(()) => Ok(()),
        // Somebody else may have made the same in the meantime.
        Err(_) if is_complete(root, config) => Ok(()),
        Err(source) => Err(Error::io(root, source)),
    }
}

/// A folder that goes when it is no longer needed, whatever happened.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing is there after it was moved to its place, and a failure to clean up is no failure of the work.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what a killed generation left, an hour later: until then it may be somebody's work in progress.
fn sweep(parent: &Path, name: &str) {
    let prefix = format!(".{name}.partial-");
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let stale = entry.file_name().to_string_lossy().starts_with(&prefix)
            && entry
                .metadata()
                .and_then(|data| data.modified())
                .ok()
                .and_then(|time| time.elapsed().ok())
                .is_some_and(|age| age > Duration::from_secs(3600));
        if stale {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// One image's share of the data set.
struct Made {
    size: (usize, usize),
    objects: Vec<Object>,
    pixels: [u8; 32],
    file: [u8; 32],
}

/// Makes all images and both annotation files.
pub(super) fn make(config: &ShapesConfig, threads: usize, target: Target<'_>) -> Result<Marker> {
    let (mut content, mut files) = (Sha256::new(), Sha256::new());
    for split in Split::ALL {
        if let Target::Folder(folder) = target {
            for sub in [Path::new("annotations"), Path::new(split.name())] {
                let sub = folder.join(sub);
                fs::create_dir_all(&sub).map_err(|source| Error::io(&sub, source))?;
            }
        }
        let images = in_order(config.images(split), threads, |index| make_image(config, split, index, &target))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        for image in &images {
            content.update(image.pixels);
            files.update(image.file);
        }
        let json = annotations(split, &images)?;
        content.update(Sha256::digest(&json));
        files.update(Sha256::digest(&json));
        if let Target::Folder(folder) = target {
            write(&folder.join(json_path(split)), &json)?;
        }
    }
    Ok(Marker {
        version: VERSION,
        seed: config.seed,
        train: config.train,
        val: config.val,
        sha256: hex(content),
        files: hex(files),
    })
}

fn make_image(config: &ShapesConfig, split: Split, index: usize, target: &Target<'_>) -> Result<Made> {
    let (image, objects) = render(config, split, index);
    let mut pixels = Sha256::new();
    pixels.update((image.width as u32).to_le_bytes());
    pixels.update((image.height as u32).to_le_bytes());
    pixels.update(&image.data);
    let mut file = [0; 32];
    if let Target::Folder(folder) = target {
        let path = folder.join(image_path(split, index));
        let png = encode(&image, &path)?;
        file = Sha256::digest(&png).into();
        write(&path, &png)?;
    }
    Ok(Made { size: (image.width, image.height), objects, pixels: pixels.finalize().into(), file })
}

fn encode(image: &Rgb8, path: &Path) -> Result<Vec<u8>> {
    let mut png = Vec::new();
    // The noise leaves little to compress: the fast setting loses a few per cent.
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive)
        .write_image(&image.data, image.width as u32, image.height as u32, ExtendedColorType::Rgb8)
        .map_err(|source| Error::Shapes(format!("{}: cannot encode: {source}", path.display())))?;
    Ok(png)
}

/// Path of an image below the root.
fn image_path(split: Split, index: usize) -> PathBuf {
    Path::new(split.name()).join(file_name(split, index))
}

fn file_name(split: Split, index: usize) -> String {
    format!("{:06}.png", split.image_id(index))
}

/// Path of an annotation file below the root.
fn json_path(split: Split) -> PathBuf {
    Path::new("annotations").join(format!("instances_{}.json", split.name()))
}

/// The annotation file. It is spelled here and not by the general writer, so that no change of that one changes the digest.
fn annotations(split: Split, images: &[Made]) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct File {
        info: Info,
        images: Vec<Image>,
        annotations: Vec<Annotation>,
        categories: Vec<Category>,
    }
    #[derive(Serialize)]
    struct Info {
        description: &'static str,
        version: String,
    }
    #[derive(Serialize)]
    struct Image {
        id: u64,
        file_name: String,
        width: usize,
        height: usize,
    }
    #[derive(Serialize)]
    struct Annotation {
        id: u64,
        image_id: u64,
        category_id: u64,
        bbox: [f64; 4],
        area: f64,
        iscrowd: u8,
    }
    #[derive(Serialize)]
    struct Category {
        id: u64,
        name: &'static str,
    }
    let mut file = File {
        info: Info { description: "docent shapes", version: VERSION.to_string() },
        images: Vec::new(),
        annotations: Vec::new(),
        categories: Class::ALL.map(|class| Category { id: class.id(), name: class.name() }).into(),
    };
    for (index, made) in images.iter().enumerate() {
        let image_id = split.image_id(index);
        let (width, height) = made.size;
        file.images.push(Image { id: image_id, file_name: file_name(split, index), width, height });
        for object in &made.objects {
            file.annotations.push(Annotation {
                id: file.annotations.len() as u64 + 1,
                image_id,
                category_id: object.class.id(),
                bbox: object.bbox,
                area: object.area(),
                iscrowd: 0,
            });
        }
    }
    json_line(&file)
}

fn json_line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut json =
        serde_json::to_vec(value).map_err(|source| Error::Shapes(format!("cannot be written as JSON: {source}")))?;
    json.push(b'\n');
    Ok(json)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|source| Error::io(path, source))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
