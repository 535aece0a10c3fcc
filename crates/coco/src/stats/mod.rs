//! What a split holds, in figures: images, classes, boxes an image, sizes and shapes of boxes.

#[cfg(feature = "plots")]
mod draw;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::dataset::Dataset;
#[cfg(feature = "plots")]
pub use draw::chart;

/// COCO's bound between small and medium objects: an area of 32 x 32 pixels.
const SMALL: f64 = 32.0 * 32.0;
/// Between medium and large ones.
const LARGE: f64 = 96.0 * 96.0;

/// One split in figures. Boxes are objects with area; crowds and boxes without area are counted and left out of the rest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// The split's name, as [`Dataset::name`].
    pub name: String,
    /// Number of images.
    pub images: usize,
    /// Images without a box.
    pub empty_images: usize,
    /// Number of boxes.
    pub boxes: usize,
    /// Number of crowds.
    pub crowds: usize,
    /// Boxes without area.
    pub degenerate: usize,
    /// Images' sizes, the most frequent first; the first 20.
    pub sizes: Vec<SizeCount>,
    /// How many sizes there are.
    pub distinct_sizes: usize,
    /// Images' widths in pixels.
    pub width: Distribution,
    /// Images' heights in pixels.
    pub height: Distribution,
    /// Boxes of each image.
    pub boxes_an_image: Distribution,
    /// Square roots of the boxes' areas, in pixels of the original images.
    pub side: Distribution,
    /// The same as a share of the square root of the image's area.
    pub relative_side: Distribution,
    /// Widths over heights.
    pub aspect: Distribution,
    /// How many boxes are small, medium and large.
    pub areas: Areas,
    /// In the order of ids.
    pub classes: Vec<ClassStats>,
    /// The numbers behind the chart.
    #[serde(skip)]
    values: Values,
}

/// An image size and how often it occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SizeCount {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Images of this size.
    pub images: usize,
}

/// Least, most, mean and quantiles (the value at rank `ceil(q * n)`); all 0 of no values.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Distribution {
    /// The least.
    pub least: f64,
    /// 5% are at most this.
    pub p5: f64,
    /// 25% are at most this.
    pub p25: f64,
    /// Half are at most this.
    pub median: f64,
    /// 75% are at most this.
    pub p75: f64,
    /// 95% are at most this.
    pub p95: f64,
    /// The largest.
    pub most: f64,
    /// The mean.
    pub mean: f64,
}

/// Boxes by COCO's bounds of area: small below 32 x 32 pixels, large from 96 x 96 on. By the annotation's `area`, as COCO's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Areas {
    /// Below 32 x 32.
    pub small: usize,
    /// Between.
    pub medium: usize,
    /// From 96 x 96 on.
    pub large: usize,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassStats {
    /// The category's id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its boxes.
    pub boxes: usize,
    /// Images that hold one.
    pub images: usize,
    /// Square roots of its boxes' areas.
    pub side: Distribution,
    /// Its boxes by area.
    pub areas: Areas,
}

/// What the chart's histograms count.
#[derive(Debug, Clone, PartialEq, Default)]
struct Values {
    boxes_an_image: Vec<f64>,
    side: Vec<f64>,
    aspect: Vec<f64>,
}

impl Distribution {
    /// Of any values; those that are not finite are passed over.
    ///
    /// ```
    /// let distribution = docent_coco::Distribution::of(&[4.0, 1.0, 3.0, 2.0]);
    /// assert_eq!((distribution.least, distribution.median, distribution.most, distribution.mean), (1.0, 2.0, 4.0, 2.5));
    /// ```
    pub fn of(values: &[f64]) -> Self {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (sorted.first(), sorted.last()) else { return Self::default() };
        let n = sorted.len();
        let at = |q: f64| sorted[((q * n as f64).ceil() as usize).clamp(1, n) - 1];
        Self {
            least,
            p5: at(0.05),
            p25: at(0.25),
            median: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
            most,
            mean: sorted.iter().sum::<f64>() / n as f64,
        }
    }
}

impl Areas {
    fn add(&mut self, area: f64) {
        match area {
            a if a < SMALL => self.small += 1,
            a if a < LARGE => self.medium += 1,
            _ => self.large += 1,
        }
    }

    /// Small, medium and large as shares of all; 0 of nothing.
    pub fn shares(&self) -> [f64; 3] {
        let counts = [self.small, self.medium, self.large];
        let all = counts.iter().sum::<usize>().max(1) as f64;
        counts.map(|n| n as f64 / all)
    }
}

impl Stats {
    /// Counts a split. No image file is touched.
    pub fn of(dataset: &Dataset) -> Self {
        let (mut crowds, mut degenerate, mut boxes) = (0, 0, 0);
        let (mut relative_side, mut values) = (Vec::new(), Values::default());
        let mut areas = Areas::default();
        let mut sizes: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        let mut classes: BTreeMap<u64, (Vec<f64>, Areas, usize)> = BTreeMap::new();
        for i in 0..dataset.len() {
            let image = dataset.image(i);
            *sizes.entry((image.width, image.height)).or_default() += 1;
            let mut of_image = BTreeSet::new();
            let mut count = 0;
            for annotation in dataset.annotations(i) {
                if annotation.iscrowd {
                    crowds += 1;
                    continue;
                }
                if annotation.is_degenerate() {
                    degenerate += 1;
                    continue;
                }
                count += 1;
                let [_, _, w, h] = annotation.bbox;
                let side = (w * h).sqrt();
                values.side.push(side);
                values.aspect.push(w / h);
                relative_side.push(side / (f64::from(image.width) * f64::from(image.height)).sqrt());
                areas.add(annotation.area);
                let class = classes.entry(annotation.category_id).or_default();
                class.0.push(side);
                class.1.add(annotation.area);
                class.2 += usize::from(of_image.insert(annotation.category_id));
            }
            boxes += count;
            values.boxes_an_image.push(count as f64);
        }
        let distinct_sizes = sizes.len();
        let mut sizes: Vec<SizeCount> =
            sizes.into_iter().map(|((width, height), images)| SizeCount { width, height, images }).collect();
        sizes.sort_by_key(|size| std::cmp::Reverse(size.images));
        sizes.truncate(20);
        let of = |side: fn(&crate::Image) -> u32| {
            Distribution::of(&dataset.images().iter().map(|image| f64::from(side(image))).collect::<Vec<_>>())
        };
        let classes = dataset.categories().iter().map(|category| {
            let (sides, areas, images) = classes.remove(&category.id).unwrap_or_default();
            let (id, name, boxes) = (category.id, category.name.clone(), sides.len());
            ClassStats { id, name, boxes, images, side: Distribution::of(&sides), areas }
        });
        Self {
            name: dataset.name().to_owned(),
            images: dataset.len(),
            empty_images: values.boxes_an_image.iter().filter(|n| **n == 0.0).count(),
            boxes,
            crowds,
            degenerate,
            sizes,
            distinct_sizes,
            width: of(|image| image.width),
            height: of(|image| image.height),
            boxes_an_image: Distribution::of(&values.boxes_an_image),
            side: Distribution::of(&values.side),
            relative_side: Distribution::of(&relative_side),
            aspect: Distribution::of(&values.aspect),
            areas,
            classes: classes.collect(),
            values,
        }
    }
}
