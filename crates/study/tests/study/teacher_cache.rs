//! The teacher's cache changes no bit of a study, whatever is drawn for its images.

use std::collections::HashMap;

use candle_core::Device;
use docent_coco::ImageKey;
use docent_detect::Size;
use docent_study::data::{Data, train_loader};
use docent_study::recipe::Recipe;
use docent_train::Batch;

use crate::bench::{Bench, add_image};

#[test]
fn a_cache_on_disk_alone_changes_no_bit_of_a_study() {
    let bench = Bench::new();
    bench.study(&bench.recipe(&["teacher.cache=\"off\""]), "none", false).0.unwrap();
    let disk = bench.recipe(&["teacher.cache=\"off\"", "teacher.cache_disk=\"64MiB\""]);
    bench.study(&disk, "disk", false).0.unwrap();
    bench.assert_same("none", "disk", &["teacher", "alone", "distilled"]);
}

/// The keys of every batch of a training, each with the size that its batch is padded to.
fn batches(recipe: &Recipe) -> Vec<Vec<(ImageKey, Size)>> {
    let data = Data::open(&recipe.data).unwrap();
    let loader = train_loader(&data, &recipe.data, recipe.train.batch, recipe.seed).unwrap();
    let keys = |batch: Batch| {
        let padded = batch.images.padded().unwrap();
        batch.keys.into_iter().map(|key| (key, padded)).collect()
    };
    let epoch = |epoch| loader.epoch(epoch).map(|items| keys(Batch::new(&items.unwrap(), &Device::Cpu).unwrap()));
    (0..recipe.train.epochs).flat_map(epoch).collect()
}

/// How many times a key comes that was there before.
fn again(keys: impl Iterator<Item = (ImageKey, Size)>) -> usize {
    let mut seen = HashMap::new();
    for key in keys {
        *seen.entry(key).or_insert(0) += 1;
    }
    seen.values().map(|times| times - 1).sum()
}

#[test]
fn with_every_augmentation_and_mixed_orientations_a_cache_changes_no_bit() {
    let bench = Bench::new();
    for (id, size) in (1000..).zip([(90, 60), (60, 90), (100, 48), (48, 100)]) {
        add_image(&bench.path("data"), "train", id, size);
    }
    let common = ["train.epochs=4", "train.batch=4", "train.reference_batch=4", "eval.every=0", "data.flip=0.5"];
    let few = "data.augment={ scales = [32, 48], crop = { probability = 0.5 } }";
    let all = "data.augment={ scales = [32, 48], crop = { probability = 0.5 }, \
               jitter = { brightness = 0.3, contrast = 0.3, saturation = 0.3, hue = 0.1 } }";
    for (name, augment) in [("few", few), ("all", all)] {
        let recipe = |cache: &str| {
            let cache = format!("teacher.cache=\"{cache}\"");
            bench.recipe(&[&common[..], &[augment, &cache]].concat())
        };
        let batches = batches(&recipe("off"));
        let is_mixed = |batch: &Vec<(ImageKey, Size)>| {
            let tall = batch.iter().filter(|(key, _)| key.transform.size.0 > key.transform.size.1).count();
            (1..batch.len()).contains(&tall)
        };
        assert!(batches.iter().any(is_mixed), "{name}: landscape beside portrait");
        let keys = || batches.iter().flatten().cloned();
        if name == "few" {
            assert!(again(keys()) > 3, "pyramids are found: {}", again(keys()));
        } else {
            // Colours differ each time. A key without them would find the pyramid of another image.
            let without_colours = keys().map(|(mut key, padded)| {
                key.transform.colours.clear();
                (key, padded)
            });
            assert_eq!(again(keys()), 0, "no image comes twice");
            assert!(again(without_colours) > 3, "a key without colours would be found again");
        }
        let [without, with] = ["off", "1GiB"].map(|cache| {
            let study = format!("{name}-{cache}");
            bench.study(&recipe(cache), &study, false).0.unwrap();
            study
        });
        bench.assert_same(&without, &with, &["teacher", "alone", "distilled"]);
    }
}
