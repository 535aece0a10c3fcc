//! Which folders in the names of one file are folders of the data, and which are another machine's.

use std::collections::HashSet;

/// Folders that names of one annotation file or list were found with.
///
/// A name may lose its first folders: `/home/me/parts/camA/1.jpg` is `camA/1.jpg` here. But where `camA/1.jpg` was found with its
/// folder, `camB/2.jpg` is no image of another folder that is called `2.jpg` too: it is missing.
#[derive(Debug, Default)]
pub(crate) struct KeptFolders(HashSet<String>);

impl KeptFolders {
    /// Notes that a name (with `/` between folders) was found without its first `dropped` folders.
    pub fn add(&mut self, name: &str, dropped: usize) {
        self.0.extend(parents(name).skip(dropped));
    }

    /// Whether a name may lose its first `dropped` folders: no other name kept a folder in the place of one of these.
    pub fn allow(&self, name: &str, dropped: usize) -> bool {
        !parents(name).take(dropped).any(|parent| self.0.contains(&parent))
    }
}

/// What stands before each folder of a name, in lower case. The root of an absolute path is no folder.
fn parents(name: &str) -> impl Iterator<Item = String> {
    let first = usize::from(name.starts_with('/'));
    let starts =
        std::iter::once(first).chain(name.match_indices('/').map(|(at, _)| at + 1).filter(move |at| *at > first));
    let folders = name[first..].matches('/').count();
    starts.take(folders).map(|start| name[..start].to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_one_name_keeps_no_other_loses() {
        assert_eq!(parents("a/b/c.jpg").collect::<Vec<_>>(), ["", "a/"]);
        assert_eq!(parents("/a/b/c.jpg").collect::<Vec<_>>(), ["/", "/a/"]);
        assert_eq!(parents("c.jpg").count() + parents("/c.jpg").count(), 0);
        let mut kept = KeptFolders::default();
        kept.add("camA/1.jpg", 0);
        kept.add("/home/me/parts/camA/1.jpg", 3);
        kept.add("plain.jpg", 0);
        for (name, dropped, allowed) in [
            ("camB/2.jpg", 1, false),
            ("camB/2.jpg", 0, true),
            ("/home/me/parts/camB/2.jpg", 4, false),
            ("/home/me/parts/camB/2.jpg", 3, true),
            ("/home/you/parts/2.jpg", 3, true),
            ("/Home/Me/parts/lot/2.jpg", 4, false),
        ] {
            assert_eq!(kept.allow(name, dropped), allowed, "{name} without {dropped}");
        }
    }
}
