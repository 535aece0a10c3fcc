//! Distillation in a loop of one's own: `cargo run -p docent-distill --example own_loop`.
//!
//! docent-distill is the only crate that it needs. The teacher's weights are random here, so the program shows the calls and a falling
//! loss. `docent_model::load_checkpoint` loads a trained teacher.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use docent_distill::candle_nn::{AdamW, Optimizer, VarBuilder, VarMap};
use docent_distill::detect::{BalancedPositiveNegativeSampler, Detector, FasterRcnnConfig, ImageBatch, Size, backbone};
use docent_distill::{Channels, DistillerRegistry, Progress, SharedStep, SharingOptions, StepInput, candle, detect};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (of_teacher, of_student) = (&VarMap::new(), &VarMap::new());
    let builder = |parameters| VarBuilder::from_varmap(parameters, candle::DType::F32, &candle::Device::Cpu);
    let config = |w| FasterRcnnConfig::default().backbone(backbone::MobileNetV2Config::default().width_multiplier(w));
    let teacher = &detect::FasterRcnn::new(&config(1.0), builder(of_teacher))?;
    let student = &detect::FasterRcnn::new(&config(0.35), builder(of_student))?;
    // The method's adaptation layers stand beside the student's parameters, so the optimizer updates both.
    let [small, big] = [Channels::of(student), Channels::of(teacher)];
    let method = DistillerRegistry::builtin().distiller(&Default::default(), &small, &big, builder(of_student))?;
    let mut optimizer = AdamW::new_lr(of_student.all_vars(), 2e-4)?;

    let images = &ImageBatch::from_planes(&[(Size::new(64, 64), &[0.5; 3 * 64 * 64])], 32, &candle::Device::Cpu)?;
    let targets = &[detect::Target { boxes: vec![[8.0, 4.0, 50.0, 40.0]], labels: vec![2] }];
    for iteration in 1..=10 {
        let output = &student.forward_train(images, targets, &mut BalancedPositiveNegativeSampler::seeded(7, 1))?;
        let input = StepInput { student, teacher, output, images, targets };
        let step = SharedStep::new(input, method.needs(), SharingOptions::default())?;
        let loss = (output.total()? + method.loss(&step.context(Progress::one_epoch(iteration, 10)))?.total()?)?;
        println!("step {iteration:>2}: loss {:.3}", loss.to_scalar::<f32>()?);
        optimizer.backward_step(&loss)?;
    }
    Ok(())
}
