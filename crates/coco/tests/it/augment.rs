//! Augmentation: nothing by default, the same for any number of threads, boxes where their objects are.

use std::sync::Arc;

use docent_coco::{
    Annotation, Augment, ColourJitter, Dataset, Loader, LoaderConfig, Resize, ResizeRule, Rgb8, ScaleCrop, TrainItem,
};
use proptest::prelude::*;

use crate::support::{annotation, categories, image};

fn everything() -> Augment {
    Augment::default()
        .scales(vec![24, 32, 40])
        .crop(Some(ScaleCrop::default()))
        .jitter(Some(ColourJitter::default().brightness(0.4).contrast(0.4).saturation(0.4).hue(0.1)))
}

fn config(augment: Augment) -> LoaderConfig {
    let resize = Resize::default().shortest(32).longest(48).rule(ResizeRule::Torchvision);
    LoaderConfig::default().resize(resize).augment(augment).batch(3).shuffle(true).seed(9).flip(0.5)
}

/// `n` dark images of 60 x 40 pixels, each with one bright object in its box, at another place in each.
fn made(n: usize) -> (tempfile::TempDir, Arc<Dataset>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut images, mut annotations): (Vec<_>, Vec<Annotation>) = (Vec::new(), Vec::new());
    for i in 0..n {
        let mut pixels = Rgb8::filled(60, 40, [20, 20, 20]);
        let (x, y, w, h) = (2 + 7 * i % 38, 3 + 5 * i % 22, 10 + i % 8, 8 + i % 7);
        for row in y..y + h {
            for column in x..x + w {
                let at = (row * 60 + column) * 3;
                pixels.data[at..at + 3].copy_from_slice(&[250, 240, 230]);
            }
        }
        let name = format!("{i:03}.png");
        pixels.save_png(&dir.path().join(&name)).unwrap();
        images.push(image(i as u64 + 1, &name, 60, 40));
        let bbox = [x, y, w, h].map(|v| v as f64);
        annotations.push(annotation(i as u64 + 1, i as u64 + 1, 2, bbox));
    }
    let set = Dataset::from_parts("made", dir.path(), images, annotations, categories()).unwrap();
    (dir, Arc::new(set))
}

fn items(set: &Arc<Dataset>, config: LoaderConfig, epoch: usize) -> Vec<TrainItem> {
    let loader = Loader::new(Arc::clone(set), config).unwrap();
    loader.epoch(epoch).flat_map(|batch| batch.unwrap()).collect()
}

#[test]
fn each_change_is_drawn_alike_for_any_number_of_threads_and_alone() {
    let (_dir, set) = made(14);
    let base = config(everything());
    let one = items(&set, base.clone(), 2);
    assert_eq!(one, items(&set, base.clone().threads(4).prefetch(0), 2));
    assert_ne!(one, items(&set, base.clone(), 3));
    assert_ne!(one, items(&set, base.clone().seed(10), 2));
    // A later start gives the same rest.
    let loader = Loader::new(Arc::clone(&set), base.threads(3)).unwrap();
    let rest: Vec<TrainItem> = loader.epoch_from(2, 3).flat_map(|batch| batch.unwrap()).collect();
    assert_eq!(rest, one[9..]);

    // Order and flips stay what they are without; colours move no size and no box.
    let plain = items(&set, config(Augment::default()), 2);
    let ids = |items: &[TrainItem]| items.iter().map(|i| (i.key.image_id, i.key.transform.flip)).collect::<Vec<_>>();
    assert_eq!(ids(&plain), ids(&one));
    let jittered = items(&set, config(Augment::default().jitter(everything().jitter)), 2);
    assert!(plain.iter().zip(&jittered).all(|(a, b)| a.boxes == b.boxes && a.planes.height == b.planes.height));
    assert!(plain.iter().zip(&jittered).any(|(a, b)| a.planes.data != b.planes.data));
}

#[test]
fn a_batch_shares_its_size_and_batches_differ() {
    let (_dir, set) = made(40);
    let loader = Loader::new(set, config(Augment::default().scales(vec![24, 32, 40]))).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for batch in loader.epoch(0) {
        let heights: std::collections::BTreeSet<usize> = batch.unwrap().iter().map(|i| i.planes.height).collect();
        assert_eq!(heights.len(), 1, "no padding inside a batch of equal images");
        seen.extend(heights);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [24, 32, 40]);
}

#[test]
fn a_crop_keeps_its_objects_in_their_boxes() {
    let (_dir, set) = made(40);
    let crop = ScaleCrop::default().probability(0.8).scale([0.4, 0.9]).min_visible(0.5);
    let (mut cropped, mut larger) = (0, 0);
    for epoch in 0..4 {
        let plain = items(&set, config(Augment::default()), epoch);
        for (item, whole) in items(&set, config(Augment::default().crop(Some(crop))), epoch).iter().zip(&plain) {
            assert_eq!(item.key.original, (40, 60), "the file's own size");
            assert_eq!(item.boxes.len(), 1, "a region with nothing in it is drawn again");
            let (height, width) = (item.planes.height, item.planes.width);
            assert!(
                height.abs_diff(32) <= 2 && width.abs_diff(48) <= 2,
                "a region has the image's shape: {height} {width}"
            );
            let [x1, y1, x2, y2] = item.boxes[0];
            assert!(x1 >= 0.0 && y1 >= 0.0 && x2 <= width as f32 + 1e-3 && y2 <= height as f32 + 1e-3);
            // Bright inside the box, dark outside, one pixel of blur at its edges.
            for y in 0..height {
                for x in 0..width {
                    let (cx, cy, v) = (x as f32 + 0.5, y as f32 + 0.5, item.planes.data[y * width + x]);
                    let inside = (cx - x1).min(x2 - cx).min(cy - y1).min(y2 - cy);
                    if inside > 2.0 {
                        assert!(v > 0.9, "{v} at {x}, {y} in {:?}", item.boxes);
                    } else if inside < -2.0 {
                        assert!(v < 0.2, "{v} at {x}, {y} outside {:?}", item.boxes);
                    }
                }
            }
            cropped += usize::from(item.planes != whole.planes);
            let area = |b: &[f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
            larger += usize::from(area(&item.boxes[0]) > area(&whole.boxes[0]));
        }
    }
    assert!((100..=155).contains(&cropped) && larger > 80, "{cropped} of 160 cropped, {larger} larger");
}

/// A box within an image of 200 x 150 pixels.
fn bbox() -> impl Strategy<Value = [f32; 4]> {
    (0u32..180, 0u32..130, 1u32..100, 1u32..100)
        .prop_map(|(x, y, w, h)| [x, y, (x + w).min(200), (y + h).min(150)].map(|v| v as f32))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_region_lies_in_the_image_and_boxes_in_the_region(
        boxes in prop::collection::vec(bbox(), 0..6),
        (low, more) in (0.05f64..0.9, 0.0f64..1.0),
        min_visible in 0.0f64..1.0,
        id in any::<u64>(),
    ) {
        let high = low + (1.0 - low) * more;
        let crop = ScaleCrop::default().probability(1.0).scale([low, high]).min_visible(min_visible);
        crop.validate().unwrap();
        let Some(region) = crop.draw(&mut docent_coco::rng::keyed(1, "crop", 0, id), 200, 150, &boxes) else {
            prop_assert!(!boxes.is_empty(), "without boxes the first region is taken");
            return Ok(());
        };
        let [x, y, w, h] = region;
        prop_assert!(w >= 1 && h >= 1 && x + w <= 200 && y + h <= 150);
        for (side, full) in [(w, 200.0), (h, 150.0)] {
            prop_assert!(side as f64 >= low * full - 0.51 && side as f64 <= high * full + 0.51, "{} of {}", side, full);
        }
        let mut kept = 0;
        for b in &boxes {
            let area = |b: &[f32; 4]| f64::from((b[2] - b[0]) * (b[3] - b[1]));
            let Some(c) = crop.clip(b, region) else { continue };
            kept += 1;
            prop_assert!(0.0 <= c[0] && c[0] < c[2] && c[2] <= w as f32 && 0.0 <= c[1] && c[1] < c[3] && c[3] <= h as f32);
            prop_assert!(area(&c) >= min_visible * area(b) - 1e-3 && area(&c) <= area(b) + 1e-3);
            // Moved back it lies in the box that it comes from.
            let back = [c[0] + x as f32, c[1] + y as f32, c[2] + x as f32, c[3] + y as f32];
            prop_assert!(back[0] >= b[0] && back[1] >= b[1] && back[2] <= b[2] && back[3] <= b[3]);
        }
        prop_assert!(kept > 0 || boxes.is_empty());
    }
}
