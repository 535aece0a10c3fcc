//! What the lines of a list of images (`train.txt`) name.

use std::collections::{HashMap, HashSet};

use super::data_folder::DataFolder;
use super::index::{IndexedFile, extension_of, is_tail, nfc, starts, without_extension};
use super::item::Item;
use super::kept_folders::KeptFolders;
use crate::error::{Error, Result};
use crate::image_reader::IMAGE_EXTENSIONS;
use crate::text_file::{decoded, read_text};

/// What a line of a list names.
enum Named {
    /// Images with annotations, by their positions; more than one where it cannot be told which is meant.
    Items(Vec<usize>),
    /// An image without annotations.
    Unlabelled,
    /// An annotation file whose image is not there.
    WithoutImage,
}

/// A line of a list.
struct Line<'l> {
    list: &'l IndexedFile,
    /// From 1.
    number: usize,
    text: String,
    /// What it names, the name without marks, and how many of the name's first folders were passed over to find it.
    found: Option<(Named, String, usize)>,
}

/// Items by their names.
pub(crate) struct Names<'a> {
    items: &'a [Item],
    /// By the last part of their paths in lower case.
    by_name: HashMap<String, Vec<usize>>,
}

impl<'a> Names<'a> {
    pub fn new(items: &'a [Item]) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (i, item) in items.iter().enumerate() {
            let mut names: Vec<String> = item.paths.iter().map(|path| last(path).to_lowercase()).collect();
            names.dedup();
            for name in names {
                by_name.entry(name).or_default().push(i);
            }
        }
        Self { items, by_name }
    }

    /// The items that each of a data set's lists names.
    ///
    /// # Errors
    /// A list that cannot be read; a line that names no image, or several.
    pub fn members(
        &self,
        lists: &[&IndexedFile],
        source: &DataFolder<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<HashSet<usize>>> {
        let mut lines = Vec::new();
        for list in lists {
            let text = read_text(&list.path, None)?;
            let mut of_list = Vec::new();
            for (number, line) in (1..).zip(decoded(&text).lines()) {
                let text = nfc(line.trim().trim_start_matches('\u{feff}').trim());
                if !text.is_empty() && !text.starts_with('#') {
                    let found = self.line(&text, source);
                    of_list.push(Line { list, number, text, found });
                }
            }
            lines.push(of_list);
        }
        let mut kept = KeptFolders::default();
        for (_, name, dropped) in lines.iter().flatten().filter_map(|line| line.found.as_ref()) {
            kept.add(name, *dropped);
        }
        lists.iter().zip(lines).map(|(list, lines)| self.members_of(list, lines, &kept, notes)).collect()
    }

    fn members_of(
        &self,
        list: &IndexedFile,
        lines: Vec<Line<'_>>,
        kept: &KeptFolders,
        notes: &mut Vec<String>,
    ) -> Result<HashSet<usize>> {
        let mut members = HashSet::new();
        let mut without = 0;
        for line in lines {
            match &line.found {
                Some((named, name, dropped)) if kept.allow(name, *dropped) => match named {
                    Named::Items(items) => match items[..] {
                        [item] => _ = members.insert(item),
                        _ => return Err(self.several(&line, items)),
                    },
                    Named::Unlabelled => without += 1,
                    // The annotation file without its image is a fault of its own.
                    Named::WithoutImage => {}
                },
                _ => {
                    return Err(Error::Undecided {
                        path: line.list.path.clone(),
                        problem: format!("line {} names {:?}, and there is no such image", line.number, line.text),
                        hint: "correct the line, or take it out".to_owned(),
                    });
                }
            }
        }
        if without > 0 {
            notes.push(format!(
                "{without} images of the list {} have no annotations and are not used (--unlabeled as-negatives uses them as images \
                 without objects)",
                list.below
            ));
        }
        Ok(members)
    }

    fn several(&self, line: &Line<'_>, items: &[usize]) -> Error {
        let paths: Vec<String> = items.iter().take(2).map(|&i| self.items[i].paths.join(" and ")).collect();
        Error::Undecided {
            path: line.list.path.clone(),
            problem: format!(
                "line {} names {:?}, and {} images are called so: {}",
                line.number,
                line.text,
                items.len(),
                paths.join(", ")
            ),
            hint: "write the folder before the name".to_owned(),
        }
    }

    /// What a line names: as a whole, without a mark (1, 0 or -1) behind the name, or by its first word.
    fn line(&self, line: &str, source: &DataFolder<'_>) -> Option<(Named, String, usize)> {
        let unmarked = line.rsplit_once(char::is_whitespace).filter(|(_, mark)| ["1", "0", "-1"].contains(mark));
        // Pairs of an image and its annotations, and marks of several kinds.
        let rest_are_marks = |rest: &str| {
            rest.split_whitespace()
                .all(|word| word.parse::<i64>().is_ok() || [".xml", ".txt", ".json"].iter().any(|e| word.ends_with(e)))
        };
        let first = line.split_once(char::is_whitespace).filter(|(_, rest)| rest_are_marks(rest)).map(|(name, _)| name);
        [Some(line), unmarked.map(|(name, _)| name.trim_end()), first].into_iter().flatten().find_map(|name| {
            let name = name.replace('\\', "/");
            let name = name.trim_start_matches("./");
            self.named(name, source).map(|(named, dropped)| (named, name.to_owned(), dropped))
        })
    }

    /// What has this name or path, with or without an extension, and how many folders of the path were passed over: the longest part
    /// of it that anything has decides.
    fn named(&self, name: &str, source: &DataFolder<'_>) -> Option<(Named, usize)> {
        let name = name.trim_start_matches('/');
        let bare = bare(name);
        starts(name).take_while(|start| *start < bare.len()).enumerate().find_map(|(dropped, start)| {
            let (name, bare) = (&name[start..], &bare[start..]);
            let items = [name, bare].iter().map(|name| self.items(name)).find(|items| !items.is_empty());
            let annotated = |e: &&str| !source.index.ending_with(&format!("{bare}.{e}")).is_empty();
            let named = if let Some(items) = items {
                Named::Items(items)
            } else if !source.images.images_like(bare).is_empty() || !source.images.ending_with(name).is_empty() {
                Named::Unlabelled
            } else if ["xml", "json"].iter().any(annotated) {
                Named::WithoutImage
            } else {
                return None;
            };
            Some((named, dropped))
        })
    }

    /// The items with a path that ends so: as it is written, or else in another case of letters.
    fn items(&self, tail: &str) -> Vec<usize> {
        let lower = tail.to_lowercase();
        let candidates = self.by_name.get(last(&lower)).map_or(&[][..], |c| &c[..]);
        let paths = |i: &usize| self.items[*i].paths.iter();
        let exact: Vec<usize> =
            candidates.iter().filter(|i| paths(i).any(|path| is_tail(path, tail))).copied().collect();
        if !exact.is_empty() {
            return exact;
        }
        candidates.iter().filter(|i| paths(i).any(|path| is_tail(&path.to_lowercase(), &lower))).copied().collect()
    }
}

/// Without the extension, where that is an image's or an annotation file's.
fn bare(name: &str) -> &str {
    let extension = extension_of(last(name));
    let known = IMAGE_EXTENSIONS.contains(&extension.as_str()) || ["xml", "txt", "json"].contains(&extension.as_str());
    if known { without_extension(name) } else { name }
}

/// A path's last name.
pub(super) fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
