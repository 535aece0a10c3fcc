//! Distillation in a training loop of one's own: a student learns one picture, with a teacher beside it.
//!
//! `cargo run -p docent-distill --example own_loop` takes some seconds. The loop is candle's (`VarMap`, `SGD`); what this crate adds
//! to it is one [`StepContext`] a step. The same in docent's own loop is `docent_train::step`.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use candle_core::{DType, Device};
use candle_nn::{Optimizer, SGD, VarBuilder, VarMap};
use docent_detect::{FasterRcnn, FasterRcnnConfig, ImageBatch, Mode, NormKind, BalancedPositiveNegativeSampler, ResNetConfig, Target};
use docent_distill::{Channels, Distiller, StepContext, TaskAdaptive, TaskAdaptiveConfig};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const STEPS: usize = 40;

/// A ResNet-18 of this width with this many pyramid channels.
fn detector(width: f64, fpn_channels: usize, store: &VarMap) -> Outcome<FasterRcnn> {
    let norm = NormKind::GroupNorm { groups: 4 };
    let mut config = FasterRcnnConfig {
        classes: 3,
        fpn_channels,
        backbone: ResNetConfig { depth: 18, width, norm, ..ResNetConfig::default() }.into(),
        ..FasterRcnnConfig::default()
    };
    config.anchors.sizes = vec![16.0, 24.0, 32.0, 64.0, 128.0];
    config.rpn.post_nms_top_n_train = 100;
    config.roi.batch_size_per_image = 32;
    config.roi.representation_size = 64;
    config.roi.canonical_box_size = 56.0;
    Ok(FasterRcnn::new(&config, VarBuilder::from_varmap(store, DType::F32, &Device::Cpu))?)
}

fn main() -> Outcome<()> {
    let (height, width) = (96, 128);
    let truth = [[16.0, 20.0, 44.0, 52.0], [72.0, 40.0, 112.0, 76.0f32]];
    let colours = [[0.9, 0.1, 0.1], [0.1, 0.1, 0.9f32]];
    let pixel = |i: usize| {
        let (c, y, x) = (i / (height * width), (i / width % height) as f32, (i % width) as f32);
        let at = truth.iter().position(|b| (b[0]..b[2]).contains(&x) && (b[1]..b[3]).contains(&y));
        at.map_or(0.5, |object| colours[object][c])
    };
    let planes: Vec<f32> = (0..3 * height * width).map(pixel).collect();
    let batch = ImageBatch::from_planes(&[(height, width, &planes)], 32, &Device::Cpu)?;
    let targets = [Target { boxes: truth.to_vec(), labels: vec![1, 2] }];
    let sampler = |step: usize| BalancedPositiveNegativeSampler::new(vec![ChaCha8Rng::seed_from_u64(step as u64)]);

    // A teacher that knows the picture. `detached` shares its weights and builds no graph: no gradient can reach it.
    let theirs = VarMap::new();
    let teacher = detector(0.5, 48, &theirs)?;
    let mut optimizer = SGD::new(theirs.all_vars(), 0.02)?;
    for step in 0..STEPS {
        let out = teacher.train(&batch, &targets, &mut sampler(step))?;
        optimizer.backward_step(&out.losses.total()?)?;
    }
    let teacher = teacher.detached();

    let ours = VarMap::new();
    let student = detector(0.25, 32, &ours)?;
    // The method's own parameters (an adapter a level, 32 channels to 48) live in the same store, so the optimizer has them too.
    let builder = VarBuilder::from_varmap(&ours, DType::F32, &Device::Cpu).pp("distill");
    let [small, big] = [&student, &teacher].map(|model| Channels::of(model.config()));
    let method = TaskAdaptive::new(&TaskAdaptiveConfig::default(), &small, &big, builder)?;
    let mut optimizer = SGD::new(ours.all_vars(), 0.02)?;
    for step in 0..STEPS {
        let out = student.train(&batch, &targets, &mut sampler(step))?;
        // The teacher answers on the student's regions: proposals are shared, as the paper has it; after the sampler is our reading.
        let pyramid = teacher.features(&batch, Mode::Eval)?;
        let head = teacher.box_head(&pyramid, &out.rois.rois)?;
        let lesson = method.loss(&StepContext {
            student_features: &out.features,
            teacher_features: Some(&pyramid),
            stages: None,
            rois: &out.rois,
            student_head: &out.head,
            teacher_head: Some(&head),
            teacher_rois: None,
            anchors: &[],
            targets: &targets,
            sizes: &batch.sizes,
            image_size: batch.padded()?,
            epoch: 1 + step * 4 / STEPS,
            epochs: 4,
            iteration: step + 1,
            iterations: STEPS,
            milestones: &[],
            student_coder: &student.box_coder(),
            teacher_coder: &teacher.box_coder(),
        })?;
        let own = out.losses.total()?;
        if step % 10 == 0 {
            let terms: Vec<String> = lesson.report()?.iter().map(|(name, v)| format!("{name} {v:.3}")).collect();
            println!("step {step:>2}: detection {:.3}, {}", own.to_scalar::<f32>()?, terms.join(", "));
        }
        optimizer.backward_step(&(own + lesson.total()?)?)?;
    }
    println!("\nfound by the student, best first (truth {truth:?}):");
    for d in student.detect(&batch)?.iter().flatten().take(4) {
        println!("  class {} with {:.2} at {:.0?}", d.label, d.score, d.bbox);
    }
    Ok(())
}
