//! AP over drawn images, against the evaluation of a data set that really holds the copies.

use docent_coco::{Annotation, CocoMetrics, Dataset, Detection, Evaluator, Resampled, read_results, rng};
use rand::Rng;

use crate::support::{annotation, category, image, shared};

/// Ground truth and detections in which image i stands `counts[i]` times, under new ids.
fn copies(ground_truth: &Dataset, found: &[Detection], counts: &[u32]) -> (Dataset, Vec<Detection>) {
    let (mut images, mut annotations, mut detections) = (Vec::new(), Vec::new(), Vec::new());
    for (at, &count) in ground_truth.images().iter().zip(counts) {
        for _ in 0..count {
            let id = images.len() as u64 + 1;
            images.push(image(id, &format!("{id}.png"), at.width, at.height));
            let of = ground_truth.all_annotations().iter().filter(|a| a.image_id == at.id);
            annotations.extend(of.map(|a| Annotation { image_id: id, ..a.clone() }));
            detections.extend(found.iter().filter(|d| d.image_id == at.id).map(|d| Detection { image_id: id, ..*d }));
        }
    }
    for (id, annotation) in (1..).zip(&mut annotations) {
        annotation.id = id;
    }
    let ground_truth =
        Dataset::from_parts("copies", "", images, annotations, ground_truth.categories().to_vec()).unwrap();
    (ground_truth, detections)
}

/// Objects of two categories, one a crowd; detections near them, off them, and of the other category.
fn scene(seed: u64, images: u64) -> (Dataset, Vec<Detection>) {
    let mut random = rng::keyed(seed, "resample", 0, 0);
    let mut number = |from: f64, to: f64| random.random_range(from..to);
    let (mut annotations, mut found) = (Vec::new(), Vec::new());
    for image_id in 1..=images {
        for _ in 0..number(0.0, 5.0) as usize {
            let (x, y, side) = (number(0.0, 250.0), number(0.0, 250.0), number(10.0, 120.0));
            let class = [3, 17][number(0.0, 2.0) as usize];
            let mut a = annotation(annotations.len() as u64 + 1, image_id, class, [x, y, side, side]);
            a.iscrowd = number(0.0, 1.0) < 0.1;
            annotations.push(a);
            for _ in 0..number(0.0, 3.0) as usize {
                let bbox = [x + number(-6.0, 6.0), y + number(-6.0, 6.0), side + number(-5.0, 5.0), side];
                let category_id = if number(0.0, 1.0) < 0.15 { 20 - class } else { class };
                found.push(Detection { image_id, category_id, bbox, score: number(0.0, 1.0) });
            }
        }
        let bbox = [number(0.0, 300.0), number(0.0, 300.0), 40.0, 40.0];
        found.push(Detection { image_id, category_id: 3, bbox, score: number(0.0, 1.0) });
    }
    // The list's order is not the ids': copies keep the ground truth's own order.
    let images = (1..=images).map(|id| image(id, &format!("{id}.png"), 400, 400)).collect();
    let categories = vec![category(3, "a"), category(17, "b")];
    (Dataset::from_parts("scene", "", images, annotations, categories).unwrap(), found)
}

#[test]
fn one_of_each_is_the_evaluation_itself() {
    for seed in 0..5 {
        let (ground_truth, found) = scene(seed, 12);
        let ap = Resampled::new(&ground_truth, &found).unwrap().ap(&[1; 12]);
        let want = CocoMetrics.evaluate(&ground_truth, &found).unwrap().ap();
        assert!((ap - want).abs() < 1e-12 && want > 0.05, "seed {seed}: {ap}, {want}");
    }
}

#[test]
fn a_draw_is_the_evaluation_of_the_copies() {
    for seed in 0..8 {
        let (ground_truth, found) = scene(seed, 9);
        let matched = Resampled::new(&ground_truth, &found).unwrap();
        assert_eq!(matched.images(), 9);
        let mut random = rng::keyed(seed, "draw", 0, 0);
        let mut counts = vec![0; 9];
        (0..9).for_each(|_| counts[random.random_range(0..9)] += 1);
        let (ground_truth, found) = copies(&ground_truth, &found, &counts);
        let want = CocoMetrics.evaluate(&ground_truth, &found).unwrap().ap();
        let ap = matched.ap(&counts);
        assert!((ap - want).abs() < 1e-12, "seed {seed}, {counts:?}: {ap}, {want}");
    }
}

#[test]
fn nothing_drawn_and_nothing_found() {
    let (ground_truth, found) = scene(1, 6);
    let matched = Resampled::new(&ground_truth, &found).unwrap();
    assert_eq!(matched.ap(&[0; 6]), -1.0);
    assert_eq!(matched.ap(&[]), -1.0);
    assert_eq!(Resampled::new(&ground_truth, &[]).unwrap().ap(&[1; 6]), 0.0);
}

#[test]
fn coco_itself_to_1e_12() {
    let Some(dir) = shared("cocoeval") else { return };
    let ground_truth = Dataset::load(&dir.join("instances_val2014_100.json"), &dir).unwrap();
    let found = read_results(&dir.join("instances_val2014_fakebbox100_results.json")).unwrap();
    let ap = Resampled::new(&ground_truth, &found).unwrap().ap(&vec![1; ground_truth.len()]);
    let want = CocoMetrics.evaluate(&ground_truth, &found).unwrap().ap();
    assert!((ap - want).abs() < 1e-12, "{ap}, {want}");
}
