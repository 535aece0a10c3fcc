//! `report.html`: a study or a run as one page that opens from disk and needs no network.
//!
//! The page is made of what lies in the folder (`summary.json`, `result.json`, `metrics.jsonl`, `detections.json`) and, for curves of
//! precision and the pictures, of the held-out data. Nothing depends on it: it can be deleted, and made again by [`write()`].
//!
//! | file | what lives there |
//! |---|---|
//! | `source` | the folder, read |
//! | `log` | `metrics.jsonl` as series |
//! | `plot` | line plots as SVG |
//! | `sections` | tables and plots of the page |
//! | `gallery` | held-out pictures with boxes: which, and how they are drawn |
//! | `html` | escaping, and the template's placeholders |
//! | `page/` | the page's own HTML, CSS and script |

mod gallery;
mod html;
pub(crate) mod log;
mod plot;
mod sections;
mod source;

use std::path::{Path, PathBuf};

use docent_coco::{Analysis, analyze};
use docent_model::files;

use crate::data::Data;
use crate::error::{Error, Result};
use source::Source;

/// The page's name in its folder.
pub const FILE: &str = "report.html";

/// A report that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The page.
    pub path: PathBuf,
    /// What the page lacks, and why: images that are not there any more, for one. The page says the same.
    pub notes: Vec<String>,
}

/// Writes `report.html` into the folder of a study or of a run, also of one that is not finished. `data` is the study's data where it
/// is open already; else it is opened as the folder's recipe says.
///
/// # Errors
/// A folder that is neither, files in it that cannot be read, or a page that cannot be written.
pub fn write(dir: &Path, data: Option<&Data>) -> Result<Written> {
    let source = Source::read(dir)?;
    let mut notes = Vec::new();
    let opened = match data {
        Some(data) => Some(data.clone()),
        None => {
            open(&source).map_err(|cause| notes.push(format!("no pictures and no curves of precision: {cause}"))).ok()
        }
    };
    let analyses = opened.as_ref().map_or_else(|| vec![None; source.runs.len()], |d| analyses(&source, d, &mut notes));
    let gallery = opened.as_ref().map(|d| gallery::Gallery::new(&source, d, &analyses, &mut notes));
    let page = html::fill(
        include_str!("page/report.html"),
        &[
            ("title", &html::escape(&source.title())),
            ("style", include_str!("page/report.css")),
            ("script", include_str!("page/report.js")),
            ("header", &sections::header(&source, &notes)),
            ("comparison", &sections::comparison(&source)),
            ("progress", &sections::progress(&source)),
            ("precision", &sections::precision(&source, &analyses)),
            ("classes", &sections::classes(&source, &analyses)),
            ("errors", &sections::errors(&source, &analyses)),
            ("gallery", &gallery.map_or_else(String::new, |g| g.html())),
            ("losses", &sections::losses(&source)),
            ("origin", &sections::origin(&source)),
        ],
    );
    let path = dir.join(FILE);
    files::write_atomic(&path, page.as_bytes())?;
    Ok(Written { path, notes })
}

/// The data as the recipe names it. What is drawn, not found, is not drawn for a report.
fn open(source: &Source) -> Result<Data> {
    let recipe = &source.recipe.data;
    if let Some(dir) = recipe.dir.as_deref().filter(|dir| !dir.exists()) {
        return Err(Error::file(dir, "the data folder is not there; call docent where the study was made"));
    }
    Data::open(recipe)
}

/// The analysis of each run that has detections on this data.
fn analyses(source: &Source, data: &Data, notes: &mut Vec<String>) -> Vec<Option<Analysis>> {
    // Detections of other data have other images, or none that fit; a digest tells before figures lie.
    let digest = data.summary().digest;
    if source.dataset.as_ref().is_some_and(|d| d.digest != digest) {
        notes.push("no pictures and no curves of precision: the data has changed since the study was made".to_owned());
        return vec![None; source.runs.len()];
    }
    let mut analysis = |run: &source::Run| {
        let detections = run.detections.as_ref()?;
        analyze(&data.val, detections).map_err(|e| notes.push(format!("{}: {e}", run.label))).ok()
    };
    source.runs.iter().map(&mut analysis).collect()
}
