//! The modules of a crate, and the file that a path leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::source::{self, Source};

/// A crate's modules; the first one is its root.
pub struct ModuleTree {
    pub modules: Vec<Module>,
    /// The crate's files.
    pub files: Vec<PathBuf>,
}

/// A file, or `mod name { .. }` within one.
pub struct Module {
    pub source: Source,
    /// Position in [`ModuleTree::files`].
    pub file: usize,
    parent: usize,
    children: BTreeMap<String, usize>,
}

/// What a path names.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Place {
    /// A module, by its position in [`ModuleTree::modules`].
    Module(usize),
    /// An item, by the file that defines it.
    Item(usize),
}

/// A name that is being looked up in a module, and whether it ends its path. Imports in a ring come back to one.
type Lookup = (usize, String, bool);

impl ModuleTree {
    /// Reads the crate that starts at `root`.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { modules: Vec::new(), files: Vec::new() };
        let dir = root.parent().unwrap_or(root);
        tree.add_file(root, dir, 0)?;
        Ok(tree)
    }

    /// Reads a file whose child modules lie in `dir`.
    fn add_file(&mut self, file: &Path, dir: &Path, parent: usize) -> Result<usize> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let source = source::parse(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        self.files.push(file.to_owned());
        self.add(source, self.files.len() - 1, dir, parent)
    }

    fn add(&mut self, mut source: Source, file: usize, dir: &Path, parent: usize) -> Result<usize> {
        let declarations = std::mem::take(&mut source.modules);
        let module = self.modules.len();
        self.modules.push(Module { source, file, parent, children: BTreeMap::new() });
        for declaration in declarations {
            let name = declaration.name;
            let child = match (declaration.inline, declaration.path) {
                (Some(inline), _) => self.add(inline, file, &dir.join(&name), module)?,
                (None, Some(path)) => {
                    let path = self.files[file].parent().unwrap_or(dir).join(path);
                    let dir = path.parent().unwrap_or(dir).to_owned();
                    self.add_file(&path, &dir, module)?
                }
                (None, None) => {
                    let (flat, folder) = (dir.join(format!("{name}.rs")), dir.join(&name));
                    let path = if flat.is_file() { flat } else { folder.join("mod.rs") };
                    self.add_file(&path, &folder, module)?
                }
            };
            self.modules[module].children.insert(name, child);
        }
        Ok(module)
    }

    /// What `path` names in the code of `module`; `None` for other crates' items and local names.
    pub fn resolve(&self, module: usize, path: &[String]) -> Option<Place> {
        self.follow(module, path, &mut BTreeSet::new())
    }

    /// What `name` names as a member of `module`, if it is one: an item, an import or a child.
    pub fn member(&self, module: usize, name: &str) -> Option<Place> {
        self.find_member(module, name, true, &mut BTreeSet::new())
    }

    fn follow(&self, module: usize, path: &[String], visited: &mut BTreeSet<Lookup>) -> Option<Place> {
        let mut place = None;
        for (i, segment) in path.iter().enumerate() {
            let inside = match place {
                None => module,
                Some(Place::Module(inside)) => inside,
                Some(Place::Item(_)) => break,
            };
            let last = i + 1 == path.len();
            place = Some(match segment.as_str() {
                "crate" => Place::Module(0),
                "self" => Place::Module(inside),
                "super" => Place::Module(self.modules[inside].parent),
                name => match self.find_member(inside, name, last, visited) {
                    Some(found) => found,
                    // An item that a macro makes.
                    None if i > 0 => Place::Item(self.modules[inside].file),
                    None => return None,
                },
            });
        }
        place
    }

    fn find_member(&self, module: usize, name: &str, last: bool, visited: &mut BTreeSet<Lookup>) -> Option<Place> {
        let lookup = (module, name.to_owned(), last);
        if !visited.insert(lookup.clone()) {
            return None;
        }
        let Module { source, file, children, .. } = &self.modules[module];
        let child = children.get(name).map(|&child| Place::Module(child));
        let mut find_item = || {
            if source.items.contains(name) {
                return Some(Place::Item(*file));
            }
            let mut named = source.imports.iter().filter(|import| import.name.as_deref() == Some(name));
            let imported = named.find_map(|import| self.follow(module, &import.path, visited));
            imported.or_else(|| {
                let mut globs = source.imports.iter().filter(|import| import.name.is_none());
                globs.find_map(|import| match self.follow(module, &import.path, visited)? {
                    Place::Module(inside) => self.find_member(inside, name, last, visited),
                    Place::Item(_) => None,
                })
            })
        };
        // A module and a function may have one name: the function stands at a path's end, the module before it.
        let found = if last { find_item().or(child) } else { child.or_else(find_item) };
        visited.remove(&lookup);
        found
    }
}
