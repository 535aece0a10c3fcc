//! The grid of an ablation: one TOML file, cells over a base recipe.

use std::collections::BTreeSet;

use docent_model::sha256_hex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::{DataRecipe, Recipe, text_of};

/// How much a cell's figure is meant to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tier {
    /// The question itself: every seed.
    A,
    /// Rivals under the same loop and schedule: every seed.
    C,
    /// A look around: the first seed alone, and marked so.
    B,
}

impl std::str::FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "A" | "a" => Ok(Self::A),
            "B" | "b" => Ok(Self::B),
            "C" | "c" => Ok(Self::C),
            _ => Err(format!("'{text}' is no tier; there are A, B and C")),
        }
    }
}

/// One way to train the student.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Short name; its runs' folders are `NAME-seedN`.
    pub name: String,
    /// A, B or C.
    pub tier: Tier,
    /// What it asks, in a few words.
    pub about: String,
    /// Overrides over the base recipe, as `--set` takes them.
    #[serde(default)]
    pub set: Vec<String>,
    /// Without a teacher.
    #[serde(default)]
    pub alone: bool,
    /// Which of the grid's teachers; `main`.
    #[serde(default = "main_teacher")]
    pub teacher: String,
    /// The cell that its difference is taken to; `alone`.
    #[serde(default = "alone")]
    pub against: String,
}

/// A teacher: the base recipe's, with other settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridTeacher {
    /// The name that cells use.
    pub name: String,
    /// What is special about it.
    #[serde(default)]
    pub about: String,
    /// Overrides over the base recipe, as `--set` takes them.
    #[serde(default)]
    pub set: Vec<String>,
}

/// The teacher of a cell that names none.
pub const MAIN: &str = "main";
/// The cell that differences are taken to where a cell names none.
pub const ALONE: &str = "alone";

fn main_teacher() -> String {
    MAIN.to_owned()
}

fn alone() -> String {
    ALONE.to_owned()
}

/// A whole ablation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Short name; folder, records and table carry it.
    pub name: String,
    /// One or two sentences: what is asked.
    pub about: String,
    /// The base recipe: a shipped name, or a file.
    pub recipe: String,
    /// Overrides for every run.
    #[serde(default)]
    pub set: Vec<String>,
    /// Cells with a teacher that every other cell of this teacher is compared with too, each in a table of its own.
    #[serde(default)]
    pub beside: Vec<String>,
    /// Teachers beside `main`, which is the base recipe's own unless it is listed here.
    #[serde(default, rename = "teacher")]
    pub teachers: Vec<GridTeacher>,
    /// The cells, in the order of the table.
    #[serde(rename = "cell")]
    pub cells: Vec<Cell>,
}

/// The grids inside the program: name and TOML text.
pub fn shipped() -> &'static [(&'static str, &'static str)] {
    &[
        ("bccd-ablation", include_str!("../../ablations/bccd-ablation.toml")),
        ("bccd-choice", include_str!("../../ablations/bccd-choice.toml")),
        ("shapes-ablation", include_str!("../../ablations/shapes-ablation.toml")),
    ]
}

impl Grid {
    /// A shipped grid, or a file.
    ///
    /// # Errors
    /// When `name_or_path` is neither, or its grid has a fault.
    pub fn open(name_or_path: &str) -> Result<Self> {
        if let Some((_, text)) = shipped().iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(text);
        }
        let path = std::path::Path::new(name_or_path);
        if !path.exists() {
            let names: Vec<_> = shipped().iter().map(|(name, _)| *name).collect();
            let names = names.join(", ");
            return Err(Error::Recipe(format!("'{name_or_path}' is neither a shipped ablation ({names}) nor a file")));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?)
    }

    /// Reads a grid and checks it, every cell's recipe included.
    ///
    /// # Errors
    /// Unknown keys, names that are used twice or lead nowhere, an override that does not fit the recipe.
    pub fn parse(text: &str) -> Result<Self> {
        let grid: Self = toml::from_str(text).map_err(|e| Error::Recipe(format!("ablation: {e}")))?;
        let fail = |message: String| Err(Error::Recipe(format!("ablation {}: {message}", grid.name)));
        let mut names = BTreeSet::new();
        for name in grid.cells.iter().map(|c| &c.name).chain(grid.teachers.iter().map(|t| &t.name)) {
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
            if !plain || !names.insert(name) {
                return fail(format!("the name '{name}' must be of letters, digits, - and _, and there once"));
            }
        }
        let base = grid.teacher_recipe(MAIN, &[])?;
        for cell in &grid.cells {
            if !cell.alone && cell.teacher != MAIN && !grid.teachers.iter().any(|t| t.name == cell.teacher) {
                return fail(format!("cell {} names the teacher '{}', which is not there", cell.name, cell.teacher));
            }
            let Some(against) = grid.cell(&cell.against) else {
                return fail(format!("cell {} is compared with '{}', which is not there", cell.name, cell.against));
            };
            if !against.alone {
                return fail(format!("cell {} is compared with '{}', which has a teacher", cell.name, against.name));
            }
            // One data set is opened, for all.
            let (own, shared) = (grid.recipe_of(cell, 0, &[])?.data, &base.data);
            let DataRecipe { resize, flip, loader_threads, prefetch, .. } = own;
            let augment = own.augment.clone();
            if own != (DataRecipe { resize, flip, augment, loader_threads, prefetch, ..shared.clone() }) {
                return fail(format!("cell {} names other data; its figures could not be compared", cell.name));
            }
        }
        for teacher in &grid.teachers {
            grid.teacher_recipe(&teacher.name, &[])?;
        }
        if let Some(name) = grid.beside.iter().find(|name| grid.cell(name).is_none_or(|cell| cell.alone)) {
            return fail(format!("beside names '{name}', which is no cell with a teacher"));
        }
        Ok(grid)
    }

    /// A cell by name.
    pub fn cell(&self, name: &str) -> Option<&Cell> {
        self.cells.iter().find(|c| c.name == name)
    }

    /// The assignments of a cell, in the order in which they are applied.
    fn assignments(&self, own: &[String], extra: &[String]) -> Vec<String> {
        [self.set.as_slice(), own, extra].concat()
    }

    /// The recipe of one run.
    ///
    /// # Errors
    /// An override that does not fit.
    pub fn recipe_of(&self, cell: &Cell, seed: u64, extra: &[String]) -> Result<Recipe> {
        let mut recipe = self.parsed(&cell.name, &self.assignments(&cell.set, extra))?;
        recipe.seed = seed;
        if cell.alone {
            (recipe.teacher, recipe.distill) = (None, None);
        } else if recipe.teacher.is_none() {
            return Err(Error::Recipe(format!("cell {}: recipe '{}' has no teacher", cell.name, self.recipe)));
        }
        if recipe.train.early_stop.is_some() {
            return Err(Error::Recipe(format!(
                "cell {}: train.early_stop would end cells at different steps; they are compared at one schedule",
                cell.name
            )));
        }
        Ok(recipe)
    }

    /// The recipe that a teacher is trained by; its seed is the base recipe's, whatever the students' are.
    ///
    /// # Errors
    /// An override that does not fit.
    pub fn teacher_recipe(&self, name: &str, extra: &[String]) -> Result<Recipe> {
        let own = self.teachers.iter().find(|t| t.name == name).map_or(&[][..], |t| &t.set);
        self.parsed(name, &self.assignments(own, extra))
    }

    fn parsed(&self, what: &str, assignments: &[String]) -> Result<Recipe> {
        Recipe::parse(&text_of(&self.recipe)?, assignments).map_err(|e| match e {
            Error::Recipe(message) => Error::Recipe(format!("ablation {}, {what}: {message}", self.name)),
            other => other,
        })
    }

    /// SHA-256 of a cell's settings as written: the base recipe's table with every override, without paths, comments or the
    /// defaults of a version. Equal for equal settings, so a record tells whether it is of this cell.
    ///
    /// # Errors
    /// A base recipe that cannot be read.
    pub fn settings(&self, cell: &Cell, extra: &[String]) -> Result<String> {
        let mut table: toml::Table =
            text_of(&self.recipe)?.parse().map_err(|e| Error::Recipe(format!("not TOML: {e}")))?;
        let assignments = self.assignments(&cell.set, extra);
        for part in ["about", "seed", "teacher"] {
            // The teacher is another file: its hash stands in the record.
            table.remove(part);
        }
        if let Some(data) = table.get_mut("data").and_then(toml::Value::as_table_mut) {
            data.remove("dir");
        }
        if cell.alone {
            table.remove("distill");
        }
        let text = toml::to_string(&table).map_err(|e| Error::Recipe(e.to_string()))?;
        Ok(sha256_hex(format!("{text}\n{}\nalone {}", assignments.join("\n"), cell.alone)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: &str = r#"
        name = "g"
        about = "a question"
        recipe = "shapes"
        set = ["train.epochs=3"]
        [[teacher]]
        name = "early"
        set = ["teacher.epochs=1"]
        [[cell]]
        name = "alone"
        tier = "A"
        about = "no teacher"
        alone = true
        [[cell]]
        name = "full"
        tier = "B"
        about = "all of it"
        set = ["distill.w_cls=1.0"]
        teacher = "early"
    "#;

    #[test]
    fn shipped_grids_parse_and_hold_what_they_promise() {
        for (name, text) in shipped() {
            let grid = Grid::parse(text).unwrap();
            assert_eq!(grid.name, *name);
            assert!(grid.cell(ALONE).is_some_and(|c| c.alone && c.tier == Tier::A));
            assert!(grid.cell("full").is_some_and(|c| c.set.is_empty() && c.teacher == MAIN));
            // Two cells with the same settings would be one question asked twice.
            let mut seen = BTreeSet::new();
            for cell in &grid.cells {
                let recipe = grid.recipe_of(cell, 0, &[]).unwrap();
                let resolved = format!("{} {}", cell.teacher, recipe.to_toml().unwrap());
                assert!(seen.insert(resolved), "{name}: {} repeats another cell", cell.name);
            }
        }
        let bccd = Grid::open("bccd-ablation").unwrap();
        for cell in ["feat-only", "cls-only", "reg-only", "gate-none", "decay-none", "fitnets", "fgfi", "pkd", "defeat"]
        {
            assert!(bccd.cell(cell).is_some_and(|c| c.tier != Tier::B), "{cell}");
        }
    }

    #[test]
    fn a_cell_is_the_base_with_its_overrides() {
        let grid = Grid::parse(GRID).unwrap();
        let (alone, full) = (&grid.cells[0], &grid.cells[1]);
        let recipe = grid.recipe_of(full, 7, &["train.lr=0.5".to_owned()]).unwrap();
        assert_eq!((recipe.seed, recipe.train.epochs, recipe.train.lr), (7, 3, 0.5));
        assert!(recipe.to_toml().unwrap().contains("w_cls = 1.0"));
        let bare = grid.recipe_of(alone, 7, &[]).unwrap();
        assert!(bare.teacher.is_none() && bare.distill.is_none());
        assert_eq!(grid.teacher_recipe("early", &[]).unwrap().teacher.unwrap().epochs, Some(1));
        assert_eq!(grid.teacher_recipe(MAIN, &[]).unwrap().teacher.unwrap().epochs, Some(16));
        let of = |cell: &Cell| grid.settings(cell, &[]).unwrap();
        assert_eq!(of(full), of(&full.clone()));
        assert_ne!(of(full), of(alone));
        assert_ne!(of(full), grid.settings(full, &["train.lr=0.5".to_owned()]).unwrap());
        assert_ne!(of(full), of(&Cell { set: Vec::new(), ..full.clone() }));
        assert_eq!(of(full), of(&Cell { about: "other words".into(), tier: Tier::A, ..full.clone() }));
    }

    #[test]
    fn faults_are_named() {
        for (from, to, part) in [
            ("name = \"full\"", "name = \"alone\"", "alone"),
            ("name = \"full\"", "name = \"a/b\"", "a/b"),
            ("teacher = \"early\"", "teacher = \"late\"", "late"),
            ("teacher = \"early\"", "against = \"full\"", "has a teacher"),
            ("teacher = \"early\"", "against = \"none\"", "not there"),
            ("distill.w_cls=1.0", "distill.w_clss=1.0", "w_clss"),
            ("distill.w_cls=1.0", "data.limit=5", "other data"),
            ("tier = \"B\"", "tier = \"D\"", "D"),
            ("alone = true", "lonely = true", "lonely"),
        ] {
            let message = Grid::parse(&GRID.replace(from, to)).unwrap_err().to_string();
            assert!(message.contains(part), "{to}: {message}");
        }
        assert!(Grid::open("nowhere").unwrap_err().to_string().contains("bccd-ablation"));
    }
}
