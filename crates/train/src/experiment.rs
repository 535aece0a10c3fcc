//! Are two recipes the same experiment? Where its files lie is no part of one; their digests are, and stand in the manifest.
//!
//! Nor is what is written about a run. Features that are off are left out of a recipe's text, so that a recipe from before them is
//! still the same experiment.

use std::path::PathBuf;

use crate::Result;
use crate::recipe::{LogRecipe, Recipe};
use crate::weights::sha256_hex;

/// `recipe` with nothing in it that says where a file lies or what is logged. That a file of weights is used at all stays visible.
pub(crate) fn without_paths(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    recipe.log = LogRecipe::default();
    let data = &mut recipe.data;
    (data.dir, data.train_annotations, data.val_annotations, data.images) = (None, None, None, None);
    let init = &mut recipe.student.init;
    let mut files = vec![&mut init.backbone, &mut init.from, &mut init.distilled_from];
    if let Some(teacher) = &mut recipe.teacher {
        files.extend([&mut teacher.init.backbone, &mut teacher.init.from, &mut teacher.checkpoint]);
    }
    for path in files.into_iter().flatten() {
        *path = PathBuf::from("FILE");
    }
    recipe
}

/// SHA-256 of [`without_paths`].
pub(crate) fn digest(recipe: &Recipe) -> Result<String> {
    Ok(sha256_hex(without_paths(recipe).to_toml()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::text_of;

    #[test]
    fn places_are_no_part_of_an_experiment_and_everything_else_is() {
        let with = |assignments: &[&str]| {
            let assignments: Vec<String> = assignments.iter().map(|a| (*a).to_owned()).collect();
            digest(&Recipe::parse(&text_of("bccd").unwrap(), &assignments).unwrap()).unwrap()
        };
        let plain = with(&[]);
        assert_eq!(
            plain,
            with(&["data.dir=there", "data.train_annotations=a.json", "data.val_annotations=b.json", "data.images=c"])
        );
        assert_eq!(plain, with(&["log.tensorboard=true"]));
        let weights = with(&["teacher.init.backbone=a.safetensors"]);
        assert_eq!(weights, with(&["teacher.init.backbone=b.safetensors"]));
        let both = |file: &str| {
            let distilled = format!("student.init.distilled_from={file}");
            with(&["student.init.from=a.safetensors", &distilled])
        };
        assert_eq!(both("a.safetensors"), both("b.safetensors"));
        for part in ["student", "teacher"] {
            let from = |file: &str| with(&[&format!("{part}.init.from={file}")]);
            assert_eq!(from("a.safetensors"), from("b.safetensors"), "{part}");
            assert_ne!(plain, from("a.safetensors"), "{part}");
        }
        assert_ne!(plain, weights, "with weights or without is a difference");
        assert_ne!(plain, with(&["teacher.checkpoint=t.safetensors"]));
        assert_ne!(plain, with(&["student.init.backbone=s.safetensors"]));
        for other in [
            "seed=9",
            "data.limit=7",
            "data.flip=0.25",
            "schedule.lr=0.5",
            "distill.w_cls=0.1",
            "schedule.optimizer=adamw",
        ] {
            assert_ne!(plain, with(&[other]), "{other}");
        }
    }
}
