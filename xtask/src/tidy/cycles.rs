//! Files of a crate that import each other, directly or through others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::Result;

use super::module_tree::{ModuleTree, Place};

/// For each file, the files that it uses, and where it does first: the line and the path.
type Uses = Vec<BTreeMap<usize, (usize, String)>>;

/// The import cycles of the crate that starts at the file `crate_root`: one for each set of files that use each other. File names are
/// relative to `root`.
pub fn find(root: &Path, crate_root: &Path) -> Result<Vec<String>> {
    let tree = ModuleTree::read(crate_root)?;
    let uses = uses(&tree);
    let reached: Vec<BTreeSet<usize>> = (0..uses.len()).map(|file| reachable(&uses, file)).collect();
    let mut faults = Vec::new();
    let mut told: BTreeSet<usize> = BTreeSet::new();
    for file in 0..uses.len() {
        if !reached[file].contains(&file) || told.contains(&file) {
            continue;
        }
        let all: Vec<usize> = reached[file].iter().copied().filter(|&other| reached[other].contains(&file)).collect();
        told.extend(&all);
        let name = |file: usize| tree.files[file].strip_prefix(root).unwrap_or(&tree.files[file]).display();
        let mut text = "import cycle:".to_owned();
        let cycle = shortest_cycle(&uses, file);
        for &(from, to) in &cycle {
            let (line, path) = &uses[from][&to];
            text.push_str(&format!("\n  {}:{line} uses {path} of {}", name(from), name(to)));
        }
        let in_cycle = |other: &usize| cycle.iter().any(|(from, _)| from == other);
        for &other in all.iter().filter(|&other| !in_cycle(other)) {
            text.push_str(&format!("\n  {} is in cycles with these files, too", name(other)));
        }
        faults.push(text);
    }
    Ok(faults)
}

/// Which file uses which. A re-export is a use only where the file's own code has the name.
fn uses(tree: &ModuleTree) -> Uses {
    let mut uses = vec![BTreeMap::new(); tree.files.len()];
    for (m, module) in tree.modules.iter().enumerate() {
        let mut add = |place: Option<Place>, line: usize, path: String| {
            if let Some(Place::Item(file)) = place
                && file != module.file
            {
                let first = uses[module.file].entry(file).or_insert((line, path.clone()));
                if line < first.0 {
                    *first = (line, path);
                }
            }
        };
        let source = &module.source;
        for import in &source.imports {
            let place = tree.resolve(m, &import.path);
            match (&import.name, place) {
                (Some(name), _) if import.reexport && !source.words.contains(name) => {}
                (Some(_), _) => add(place, import.line, import.path.join("::")),
                (None, Some(Place::Module(inside))) => {
                    // What of a glob the code names.
                    let own = |word: &str| {
                        source.items.contains(word) || source.imports.iter().any(|i| i.name.as_deref() == Some(word))
                    };
                    for word in source.words.iter().filter(|word| !own(word)) {
                        add(tree.member(inside, word), import.line, format!("{}::{word}", import.path.join("::")));
                    }
                }
                // The variants of an enum.
                (None, _) => add(place, import.line, import.path.join("::")),
            }
        }
        for code in &source.paths {
            add(tree.resolve(m, &code.path), code.line, code.path.join("::"));
        }
    }
    uses
}

/// The files that `file` uses, directly or through others.
fn reachable(uses: &Uses, file: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<usize> = uses[file].keys().copied().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(uses[next].keys());
        }
    }
    reached
}

/// The steps of a shortest way from `file` back to it, which must exist.
fn shortest_cycle(uses: &Uses, file: usize) -> Vec<(usize, usize)> {
    let mut from = BTreeMap::new();
    let mut open = VecDeque::from([file]);
    while let Some(next) = open.pop_front() {
        for &to in uses[next].keys() {
            if to == file {
                let mut steps = vec![(next, to)];
                while let Some(&(at, _)) = steps.last()
                    && at != file
                {
                    steps.push((from[&at], at));
                }
                steps.reverse();
                return steps;
            }
            from.entry(to).or_insert_with(|| {
                open.push_back(to);
                next
            });
        }
    }
    Vec::new()
}
