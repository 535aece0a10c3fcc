//! What is shipped can be built: every recipe and every cell of every ablation.
#![allow(clippy::unwrap_used, clippy::panic)]

use docent_study::Registry;
use docent_study::ablate::{self, Grid};
use docent_study::recipe::{self, Recipe};

#[test]
fn every_recipe_names_what_the_registry_has() {
    let registry = Registry::builtin();
    for (name, text) in recipe::shipped() {
        Recipe::parse(text, &[]).unwrap().check(&registry).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn every_cell_of_an_ablation_names_what_the_registry_has() {
    let registry = Registry::builtin();
    for (name, text) in ablate::shipped() {
        let grid = Grid::parse(text).unwrap();
        for cell in &grid.cells {
            let mut recipe = grid.recipe_of(cell, 0, &[]).unwrap();
            if !cell.alone {
                recipe.teacher = grid.teacher_recipe(&cell.teacher, &[]).unwrap().teacher;
            }
            recipe.check(&registry).unwrap_or_else(|e| panic!("{name}, {}: {e}", cell.name));
        }
    }
}
