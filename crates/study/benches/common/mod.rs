//! One training step of a recipe without its data: models of random weights, images and boxes from a formula.
//!
//! The learning rate is 0: the update does its whole arithmetic, and each step is the same step. With random weights
//! the proposals lie elsewhere than a trained model's, but they are as many.

#![allow(clippy::expect_used, reason = "a bench stops with a panic, as a test does")]
#![allow(dead_code, reason = "each bench uses a part")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{Device, Var};
use docent_coco::{ImageKey, Planes, ResizeRule, TrainItem, Transform};
use docent_detect::{Detector, Registry};
use docent_distill::{Channels, Distiller, DistillerRegistry, Progress};
use docent_model::ParamStore;
use docent_study::build::{Built, build};
use docent_study::recipe::{Recipe, text_of};
use docent_train::{Batch, Sgd, SgdConfig, TeacherContext, clip_grad_norm, forward};

/// Red and white cells, platelets, background.
pub const CLASSES: usize = 4;
/// Boxes an image, as many as the photographs of the recipe `bccd` have on the average.
const BOXES: usize = 12;

/// The recipe `bccd` with some of its fields set anew, such as `student.model.backbone.depth=50`.
pub fn recipe(changes: &[&str]) -> Recipe {
    let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
    Recipe::parse(&text_of("bccd").expect("a shipped recipe"), &changes).expect("a shipped recipe")
}

/// How long the parts of a step took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shares {
    pub forward: Duration,
    pub backward: Duration,
    /// Clipping and update.
    pub optimizer: Duration,
}

/// A student and its optimizer, alone or with a teacher.
pub struct Training {
    pub student: Built,
    params: Vec<(String, Var)>,
    sgd: Sgd,
    max_grad_norm: f64,
    teacher: Option<Teacher>,
}

/// A frozen teacher, the distillation and its adapters.
struct Teacher {
    model: Arc<dyn Detector>,
    distiller: Box<dyn Distiller>,
    store: ParamStore,
    adapters: Vec<(String, Var)>,
    sgd: Sgd,
}

impl Training {
    pub fn new(recipe: &Recipe, distils: bool) -> Self {
        let student = build(&recipe.student, CLASSES, recipe.seed, &Registry::builtin()).expect("the recipe's student");
        let params = student.store.trainable();
        let sgd = Sgd::new(&SgdConfig::default(), params.clone()).expect("the default settings");
        let teacher = distils.then(|| Teacher::new(recipe, &*student.model));
        Self { student, params, sgd, max_grad_norm: recipe.train.max_grad_norm, teacher }
    }

    /// One step as the training loop does it.
    pub fn step(&mut self, batch: &Batch) -> Shares {
        let start = Instant::now();
        let context = self.teacher.as_ref().map(Teacher::context);
        let out = forward(&*self.student.model, context.as_ref(), batch, Progress::one_epoch(1, 1), 0)
            .expect("the shapes fit");
        let loss = out.total.to_scalar::<f32>().expect("a scalar");
        assert!(loss.is_finite(), "the loss is {loss}: this would time the arithmetic of NaN");
        let forward = start.elapsed();
        let grads = docent_tensor::backward_freeing(&out.total).expect("every operation has a gradient");
        let backward = start.elapsed() - forward;
        let update = |params: &[(String, Var)], sgd: &mut Sgd| {
            let clip = clip_grad_norm(params, &grads, Some(self.max_grad_norm)).expect("f32 gradients");
            assert!(clip.is_finite(), "the gradient's norm is {}", clip.norm);
            sgd.step(&grads, 0.0, clip.factor).expect("gradients of the parameters' shapes")
        };
        update(&self.params, &mut self.sgd);
        if let Some(teacher) = &mut self.teacher {
            update(&teacher.adapters, &mut teacher.sgd);
        }
        Shares { forward, backward, optimizer: start.elapsed() - forward - backward }
    }
}

impl Teacher {
    fn new(recipe: &Recipe, student: &dyn Detector) -> Self {
        let mut config = recipe.teacher.as_ref().expect("the recipe has a teacher").model.clone();
        config.set_classes(CLASSES);
        let frozen = ParamStore::frozen_all(1, &Device::Cpu);
        let model = Registry::builtin().detector(&config, frozen.var_builder()).expect("the recipe's teacher");

        let store = ParamStore::new(2, &Device::Cpu);
        let settings = recipe.distill.as_ref().expect("the recipe distils");
        let (ours, theirs) = (Channels::of(student), Channels::of(&*model));
        let distiller = DistillerRegistry::builtin()
            .distiller(settings, &ours, &theirs, store.var_builder())
            .expect("the recipe's distillation");
        let adapters = store.trainable();
        let sgd = Sgd::new(&SgdConfig::default(), adapters.clone()).expect("the default settings");
        Self { model, distiller, store, adapters, sgd }
    }

    fn context(&self) -> TeacherContext<'_> {
        TeacherContext { model: &*self.model, distiller: &*self.distiller, store: &self.store, cache: None }
    }
}

/// Images with a soft pattern, and a disc of its class's colour in each box.
pub fn batch(images: usize, size: (usize, usize)) -> Batch {
    drawn(images, size, |n| (0..BOXES).map(|i| object(n, i)).collect())
}

/// The same with any number of boxes an image, one in each field of a grid.
pub fn crowd(images: usize, (height, width): (usize, usize), boxes: usize) -> Batch {
    let across = ((boxes * width) as f32 / height as f32).sqrt().ceil().max(1.0);
    let down = (boxes as f32 / across).ceil().max(1.0);
    let (w, h) = (width as f32 / across, height as f32 / down);
    let object = |n: usize, i: usize| {
        let share = |k: usize| 0.5 + 0.05 * ((7 * i + 5 * n + k) % 9) as f32;
        let (x, y) = ((i as f32 % across).floor() * w, (i as f32 / across).floor() * h);
        ([x, y, x + w * share(0), y + h * share(4)], ((i + n) % 3) as u32 + 1)
    };
    drawn(images, (height, width), |n| (0..boxes).map(|i| object(n, i)).collect())
}

fn drawn(images: usize, (height, width): (usize, usize), objects: impl Fn(usize) -> Vec<([f32; 4], u32)>) -> Batch {
    let items: Vec<TrainItem> = (0..images)
        .map(|n| {
            let (boxes, labels): (Vec<_>, Vec<_>) = objects(n).into_iter().unzip();
            let pixel = |(channel, y, x): (usize, usize, usize)| {
                let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
                let inside = |b: &[f32; 4]| {
                    let (u, v) = ((2.0 * px - b[0] - b[2]) / (b[2] - b[0]), (2.0 * py - b[1] - b[3]) / (b[3] - b[1]));
                    u * u + v * v < 1.0
                };
                match boxes.iter().position(inside) {
                    Some(i) if labels[i] as usize == channel + 1 => 0.9,
                    Some(_) => 0.25,
                    None => 0.6 + 0.1 * (px * 0.07 + n as f32).sin() * (py * 0.05 + channel as f32).cos(),
                }
            };
            let at = |i: usize| pixel((i / (height * width), i / width % height, i % width));
            let data = (0..3 * height * width).map(at).collect();
            let size = (height, width);
            let key = ImageKey::new(n as u64 + 1, size, Transform::resize(size, size, ResizeRule::Antialias));
            TrainItem { key, index: n, planes: Planes { height, width, data }, boxes, labels }
        })
        .collect();
    Batch::new(&items, &Device::Cpu).expect("images of one size")
}

/// Box and label number `i` of image `n`: one in each field of a 4x3 grid of 80x80 pixels, 24 to 72 pixels wide and high.
/// `benches/peers/steps.py` has the same.
fn object(n: usize, i: usize) -> ([f32; 4], u32) {
    let side = |k: usize| 24.0 + 6.0 * ((7 * i + 5 * n + k) % 9) as f32;
    let (w, h) = (side(0), side(4));
    let center = ((i % 4) as f32 * 80.0 + 40.0, (i / 4) as f32 * 80.0 + 40.0);
    let (x, y) = (center.0 - w / 2.0, center.1 - h / 2.0);
    ([x, y, x + w, y + h], ((i + n) % 3) as u32 + 1)
}

/// Runs a bench with the `docent` program's settings of the process, on a thread of the pool, as the program does. Called first in
/// `main`.
pub fn run(bench: fn()) {
    docent_tensor::process::prepare(None).expect("main has one thread, and no pool has been started");
    rayon::scope(|_| bench());
}

/// Gives freed memory back to the system: what building the model took and left is no part of what a step needs.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it only returns pages that nobody uses.
    unsafe {
        libc::malloc_trim(0);
    }
}
