//! One training step of a recipe without its data: models of random weights, images and boxes from a formula.
//!
//! The learning rate is 0: the update does its whole arithmetic, and each step is the same step. With random weights
//! the proposals lie elsewhere than a trained model's, but they are as many.

#![allow(clippy::expect_used, reason = "a bench stops with a panic, as a test does")]
#![allow(dead_code, reason = "each bench uses a part")]

use std::time::{Duration, Instant};

use candle_core::{Device, Var};
use docent_coco::{ImageKey, Planes, ResizeRule, TrainItem, Transform};
use docent_detect::FasterRcnn;
use docent_distill::{Channels, Distiller, Progress};
use docent_train::build::{Built, build};
use docent_train::data::Batch;
use docent_train::recipe::{Recipe, text_of};
use docent_train::step::{Lesson, forward};
use docent_train::{ParamStore, Sgd, SgdConfig, clip_grad_norm};

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

/// A student, its optimizer and perhaps somebody who teaches it.
pub struct Class {
    pub student: Built,
    params: Vec<(String, Var)>,
    sgd: Sgd,
    clip: f64,
    teaching: Option<Teaching>,
}

/// A frozen teacher, the distillation and its adapters.
struct Teaching {
    teacher: FasterRcnn,
    distiller: Box<dyn Distiller>,
    adapters: Vec<(String, Var)>,
    sgd: Sgd,
}

impl Class {
    pub fn new(recipe: &Recipe, taught: bool) -> Self {
        let student = build(&recipe.student, CLASSES, recipe.seed).expect("the recipe's student");
        let params = student.store.trainable();
        let sgd = Sgd::new(&SgdConfig::default(), params.clone()).expect("the default settings");
        let teaching = taught.then(|| Teaching::new(recipe));
        Self { student, params, sgd, clip: recipe.schedule.clip, teaching }
    }

    /// One step as the training loop does it.
    pub fn step(&mut self, batch: &Batch) -> Shares {
        let start = Instant::now();
        let progress = Progress { epoch: 1, epochs: 1, iteration: 1, iterations: 1, milestones: &[] };
        let lesson = self.teaching.as_ref().map(|t| Lesson {
            teacher: &t.teacher,
            distiller: t.distiller.as_ref(),
            cache: None,
        });
        let out = forward(&self.student.model, lesson.as_ref(), batch, &progress, 0).expect("the shapes fit");
        let loss = out.total.to_scalar::<f32>().expect("a scalar");
        assert!(loss.is_finite(), "the loss is {loss}: this would time the arithmetic of NaN");
        let forward = start.elapsed();
        let grads = docent_tensor::backward_freeing(&out.total).expect("every operation has a gradient");
        let backward = start.elapsed() - forward;
        let update = |params: &[(String, Var)], sgd: &mut Sgd| {
            let clip = clip_grad_norm(params, &grads, Some(self.clip)).expect("f32 gradients");
            assert!(clip.is_finite(), "the gradient's norm is {}", clip.norm);
            sgd.step(&grads, 0.0, clip.factor).expect("gradients of the parameters' shapes")
        };
        update(&self.params, &mut self.sgd);
        if let Some(t) = &mut self.teaching {
            update(&t.adapters, &mut t.sgd);
        }
        Shares { forward, backward, optimizer: start.elapsed() - forward - backward }
    }
}

impl Teaching {
    fn new(recipe: &Recipe) -> Self {
        let mut config = recipe.teacher.as_ref().expect("the recipe has a teacher").model.clone();
        config.classes = CLASSES;
        let frozen = ParamStore::new(1, &Device::Cpu).with_frozen(|_| true);
        let teacher = FasterRcnn::new(&config, frozen.var_builder()).expect("the recipe's teacher");

        let own = ParamStore::new(2, &Device::Cpu);
        let settings = recipe.distill.as_ref().expect("the recipe distils");
        let (student, teachers) = (Channels::of(&recipe.student.model), Channels::of(&config));
        let distiller = settings.build(&student, &teachers, own.var_builder()).expect("the recipe's distillation");
        let adapters = own.trainable();
        let sgd = Sgd::new(&SgdConfig::default(), adapters.clone()).expect("the default settings");
        Self { teacher, distiller, adapters, sgd }
    }
}

/// Images with a soft pattern, and a disc of its class's colour in each box.
pub fn batch(images: usize, size: (usize, usize)) -> Batch {
    pictures(images, size, |n| (0..BOXES).map(|i| object(n, i)).collect())
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
    pictures(images, (height, width), |n| (0..boxes).map(|i| object(n, i)).collect())
}

fn pictures(images: usize, (height, width): (usize, usize), objects: impl Fn(usize) -> Vec<([f32; 4], u32)>) -> Batch {
    let unchanged = Transform::resize((height, width), (height, width), ResizeRule::Torchvision);
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
            TrainItem {
                key: ImageKey::new(n as u64 + 1, (height, width), unchanged.clone()),
                index: n,
                planes: Planes { height, width, data },
                boxes,
                labels,
            }
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

/// Runs a bench with the `docent` program's settings of candle and of the allocator (big buffers are kept), on a thread of the
/// pool, as the program does. Called before there is a second thread.
pub fn run(bench: fn()) {
    // candle's own pool spins while it waits and takes cores from the threads that compute.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread reads the environment yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt changes settings of the allocator alone; no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
    let pool = rayon::ThreadPoolBuilder::new().stack_size(docent_train::STACK_BYTES);
    pool.build_global().expect("nothing has started it yet");
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
