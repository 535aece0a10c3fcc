//! The data set on disk: made beside its place and moved there when complete, and made again only if something differs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::config::{ShapesConfig, Split, VERSION};
use super::lock;
use super::make::{Marker, Target, hex, image_path, json_line, json_path, make, write};
use crate::error::{Error, Result};
use crate::open::{Splits, open_dir};
use crate::open_options::OpenOptions;

/// Name of the file that marks a complete folder.
const MARKER: &str = "shapes.json";

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
