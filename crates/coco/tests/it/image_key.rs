//! The key of an image's pixels: equal exactly where the pixels are, over crops, colours, flips, sizes and orientations.

use std::sync::Arc;

use docent_coco::{
    Augment, ColourChange, ColourJitter, Dataset, ImageKey, Loader, LoaderConfig, Resize, ResizeRule, Rgb8, ScaleCrop,
    TrainItem, Transform,
};

use crate::support::{categories, image};

/// Images whose pixels all differ, wide and high ones by turns, so small that random regions come twice.
fn made() -> (tempfile::TempDir, Arc<Dataset>) {
    let dir = tempfile::tempdir().unwrap();
    let images = (0..4u64).map(|i| {
        let (width, height) = if i % 2 == 0 { (9, 6) } else { (6, 9) };
        let data = (0..width * height * 3).map(|v| ((v * 37 + v / 7 + i as usize * 11) % 251) as u8).collect();
        let name = format!("{i}.png");
        Rgb8 { width, height, data }.save_png(&dir.path().join(&name)).unwrap();
        image(i + 1, &name, width as u32, height as u32)
    });
    let set = Dataset::from_parts("made", dir.path(), images.collect(), vec![], categories()).unwrap();
    (dir, Arc::new(set))
}

fn items(set: &Arc<Dataset>, config: &LoaderConfig, epochs: std::ops::Range<usize>) -> Vec<TrainItem> {
    let loader = Loader::new(Arc::clone(set), config.clone()).unwrap();
    epochs.flat_map(|epoch| loader.epoch(epoch).flat_map(Result::unwrap).collect::<Vec<_>>()).collect()
}

/// Compares all pairs of one image's items, and gives how many are equal and how many are not.
fn compare(items: &[TrainItem]) -> [usize; 2] {
    let mut counts = [0; 2];
    for (i, a) in items.iter().enumerate() {
        for b in items[i + 1..].iter().filter(|b| b.index == a.index) {
            assert_eq!(a.key == b.key, a.planes == b.planes, "{:?} and {:?}", a.key, b.key);
            counts[usize::from(a.key != b.key)] += 1;
        }
    }
    counts
}

#[test]
fn keys_are_equal_exactly_where_the_pixels_are() {
    let (_dir, set) = made();
    let crop = Some(ScaleCrop::default().probability(0.7).scale([0.6, 1.0]));
    let jitter = Some(ColourJitter::default().brightness(0.4).contrast(0.4).saturation(0.4).hue(0.1));
    let base = LoaderConfig::default()
        .resize(Resize::default().shortest(8).longest(14).rule(ResizeRule::Torchvision))
        .batch(2)
        .shuffle(true);
    for (flip, augment) in [
        (0.5, Augment::default()),
        (0.0, Augment::default().crop(crop)),
        (0.0, Augment::default().scales(vec![6, 8])),
        (0.5, Augment::default().crop(crop).scales(vec![6, 8])),
    ] {
        let counts = compare(&items(&set, &base.clone().flip(flip).augment(augment.clone()), 0..60));
        assert!(counts.iter().all(|&n| n > 20), "{augment:?}: {counts:?}");
    }
    // Factors are drawn from intervals and never come twice; the same draws do, whatever the threads.
    let all = base.flip(0.5).augment(Augment::default().crop(crop).jitter(jitter).scales(vec![6, 8]));
    let once = items(&set, &all, 0..12);
    let [equal, different] = compare(&once);
    assert!(equal == 0 && different > 200, "{equal} {different}");
    let again = items(&set, &all.threads(3), 0..12);
    assert!(once.iter().zip(&again).all(|(a, b)| a.key == b.key && a.planes == b.planes));
}

#[test]
fn a_key_has_every_part_of_a_transform() {
    let whole = Transform::resize((6, 9), (8, 12), ResizeRule::Torchvision);
    let with = |change: fn(&mut Transform)| {
        let mut transform = whole.clone();
        change(&mut transform);
        ImageKey::new(3, (6, 9), transform)
    };
    let keys = [
        with(|_| {}),
        with(|t| t.region = [0, 0, 8, 6]),
        with(|t| t.flip = true),
        with(|t| t.colours = vec![ColourChange::Brightness(0.9)]),
        with(|t| t.colours = vec![ColourChange::Contrast(0.9)]),
        with(|t| t.colours = vec![ColourChange::Brightness(0.9), ColourChange::Contrast(0.9)]),
        with(|t| t.colours = vec![ColourChange::Contrast(0.9), ColourChange::Brightness(0.9)]),
        with(|t| t.colours = vec![ColourChange::Brightness(0.9 + f64::EPSILON)]),
        with(|t| t.size = (12, 8)),
        with(|t| t.rule = ResizeRule::Antialias),
        ImageKey::new(4, (6, 9), whole.clone()),
        ImageKey::new(3, (9, 6), whole.clone()),
    ];
    assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), keys.len());
    assert_eq!(keys[0], with(|_| {}));
}
