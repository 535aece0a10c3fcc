//! What each case does; `benches/peers/peer.py` does the same with PyTorch.

use candle_core::{Tensor, Var};
use docent_detect::ImageBatch;
use docent_ops::testing::random;
use docent_ops::{BiasOrResidual, BoxXyxy, Conv2dParams, RoiAlignParams, conv2d, nms, roi_align};
use docent_study::recipe::Recipe;
use docent_tensor::backward_freeing;
use docent_train::Batch;

use crate::common::{Shares, Training, batch, recipe};

/// A named piece of work with its operands.
pub enum Case {
    /// Anything without parts.
    Call(Box<dyn FnMut()>),
    /// A training step.
    Step { training: Box<Training>, batch: Batch, last: Shares },
}

impl Case {
    /// `conv B C_IN C_OUT KERNEL STRIDE H W PASS`, `roi BOXES C H W PASS`, `nms BOXES`, `detect BATCH`,
    /// `step r50|r18|distill`; PASS is `forward` or `both`.
    pub fn new(name: &str) -> Self {
        let words: Vec<&str> = name.split_whitespace().collect();
        let number = |i: usize| words[i].parse::<usize>().expect("a case's sizes are numbers");
        let both = words.last() == Some(&"both");
        match words[0] {
            "conv" => {
                let [b, c_in, c_out, k, stride, h, w] = std::array::from_fn(|i| number(i + 1));
                let p = Conv2dParams { stride, padding: k / 2, ..Default::default() };
                let (x, weights) = (tensor(1, &[b, c_in, h, w], both), tensor(2, &[c_out, c_in, k, k], both));
                let run = move || conv2d(&x, &weights, BiasOrResidual::None, None, false, &p).expect("it fits");
                Self::Call(Box::new(move || finish(run(), both)))
            }
            "roi" => {
                let [n, c, h, w] = std::array::from_fn(|i| number(i + 1));
                let p = RoiAlignParams { output: 7, spatial_scale: 0.125, sampling_ratio: 2, aligned: false };
                let rois: Vec<_> = boxes(n, [8 * h, 8 * w]).into_iter().map(|b| (0, b)).collect();
                let x = tensor(1, &[1, c, h, w], both);
                Self::Call(Box::new(move || finish(roi_align(&x, &rois, &p).expect("it fits"), both)))
            }
            "nms" => {
                let boxes = boxes(number(1), [800, 1333]);
                let scores: Vec<f32> = (0..boxes.len()).map(|i| unit(i, 4)).collect();
                Self::Call(Box::new(move || _ = std::hint::black_box(nms(&boxes, &scores, 0.7))))
            }
            "detect" => {
                let training = Training::new(&r50(), false);
                let images = batch(number(1), (320, 320)).images;
                Self::Call(Box::new(move || detect(&training, &images)))
            }
            "step" => {
                let (recipe, batch) = match words[1] {
                    "r50" => (r50(), batch(2, (320, 320))),
                    _ => (recipe(&[]), batch(4, (240, 320))),
                };
                let training = Box::new(Training::new(&recipe, words[1] == "distill"));
                Self::Step { training, batch, last: Shares::default() }
            }
            other => panic!("unknown case {other}"),
        }
    }

    /// Does it once.
    pub fn call(&mut self) {
        match self {
            Self::Call(f) => f(),
            Self::Step { training, batch, last } => *last = training.step(batch),
        }
    }

    /// The parts of the last step.
    pub fn shares(&self) -> Shares {
        match self {
            Self::Call(_) => Shares::default(),
            Self::Step { last, .. } => *last,
        }
    }
}

/// Faster R-CNN R50-FPN with torchvision's sizes.
fn r50() -> Recipe {
    recipe(&[
        "student.model.backbone.depth=50",
        "student.model.fpn_channels=256",
        "student.model.roi.representation_size=1024",
        "student.model.roi.batch_size_per_image=512",
        "student.model.rpn.pre_nms_top_n_train=2000",
        "student.model.rpn.post_nms_top_n_train=2000",
        "student.model.rpn.post_nms_top_n_test=1000",
    ])
}

fn detect(training: &Training, images: &ImageBatch) {
    _ = std::hint::black_box(training.student.model.detect(images).expect("it fits"));
}

fn tensor(seed: u64, shape: &[usize], tracked: bool) -> Tensor {
    let t = random(seed, shape).expect("it fits");
    if tracked { Var::from_tensor(&t).expect("it fits").into_inner() } else { t }
}

/// Differentiates `y` by a gradient of ones, or just keeps it from being optimised away.
fn finish(y: Tensor, both: bool) {
    if both {
        std::hint::black_box(backward_freeing(&y).expect("it has a gradient"));
    } else {
        std::hint::black_box(y);
    }
}

/// A number in 0..1, by a formula that Python has too.
fn unit(i: usize, k: usize) -> f32 {
    ((i * 7919 + k * 3557 + i * i % 1009 * 31) % 10007) as f32 / 10007.0
}

/// Boxes with sides between 16 and 216 pixels, anywhere in an image of `[height, width]`.
fn boxes(n: usize, [height, width]: [usize; 2]) -> Vec<BoxXyxy> {
    let one = |i: usize| {
        let (w, h) = (16.0 + 200.0 * unit(i, 2), 16.0 + 200.0 * unit(i, 3));
        let (x, y) = (unit(i, 0) * (width as f32 - w), unit(i, 1) * (height as f32 - h));
        [x, y, x + w, y + h]
    };
    (0..n).map(one).collect()
}
