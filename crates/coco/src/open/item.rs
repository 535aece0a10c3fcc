//! One image of a data set, as far as a split goes by it.

use super::roles::Role;

/// One image with its annotations, as far as a split goes by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Paths below the data folder, without extension: of the annotation file where each image has its own, and of the image.
    pub paths: Vec<String>,
}

impl Item {
    /// The role of the folders it lies in.
    pub(super) fn role(&self) -> Option<Role> {
        let folder = |path: &String| path.rsplit_once('/').and_then(|(folder, _)| Role::of_folder(folder));
        self.paths.iter().find_map(folder)
    }
}
