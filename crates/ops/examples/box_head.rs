//! A detector's second stage by hand: features, RoIAlign, classes and boxes, learnt by plain gradient descent; then NMS.
//!
//! `cargo run -p docent-ops --example box_head` takes a second. Nothing here knows a detector, a file or an optimizer: every line
//! is a tensor operation whose gradient this crate computes.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use candle_core::{Device, Tensor, Var};
use docent_ops::loss::{smooth_l1, softmax_cross_entropy};
use docent_ops::{
    BiasOrResidual, BoxCoder, BoxXyxy, Conv2dParams, RoiAlignParams, batched_nms, conv2d, linear, roi_align, softmax,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const SIDE: usize = 32;
const CHANNELS: usize = 8;
const CELLS: usize = 4;
const CLASSES: usize = 3;

/// A grey image with a bright square (class 1) and a dark one (class 2).
fn image(bright: &BoxXyxy, dark: &BoxXyxy) -> Outcome<Tensor> {
    let inside =
        |b: &BoxXyxy, x: usize, y: usize| (b[0]..b[2]).contains(&(x as f32)) && (b[1]..b[3]).contains(&(y as f32));
    let pixel = |i: usize| match (i % SIDE, i / SIDE % SIDE) {
        (x, y) if inside(bright, x, y) => 1f32,
        (x, y) if inside(dark, x, y) => -1.0,
        _ => 0.0,
    };
    Ok(Tensor::from_vec((0..3 * SIDE * SIDE).map(pixel).collect(), (1, 3, SIDE, SIDE), &Device::Cpu)?)
}

/// Numbers that look random and are the same in every run.
fn weights(shape: (usize, usize), spread: f32) -> Outcome<Var> {
    let value = |i: usize| (((i * 7919 + 104_729) % 1009) as f32 / 504.5 - 1.0) * spread;
    let (rows, columns) = shape;
    Ok(Var::from_tensor(&Tensor::from_vec((0..rows * columns).map(value).collect(), shape, &Device::Cpu)?)?)
}

fn main() -> Outcome<()> {
    let gt_boxes: [BoxXyxy; 2] = [[4.0, 5.0, 14.0, 15.0], [18.0, 16.0, 28.0, 27.0]];
    let image = image(&gt_boxes[0], &gt_boxes[1])?;
    // Regions as an RPN would propose them: near the objects, and one on the ground.
    let proposals: [BoxXyxy; 5] = [
        [2.0, 4.0, 13.0, 16.0],
        [6.0, 6.0, 16.0, 15.0],
        [17.0, 15.0, 27.0, 29.0],
        [19.0, 18.0, 29.0, 26.0],
        [16.0, 0.0, 26.0, 9.0],
    ];
    let labels = [1u32, 1, 2, 2, 0];
    let rois: Vec<(usize, BoxXyxy)> = proposals.iter().map(|b| (0, *b)).collect();

    let filters = weights((CHANNELS, 3 * 9), 0.3)?;
    let class_weights = weights((CLASSES, CHANNELS * CELLS * CELLS), 0.1)?;
    let box_weights = weights((4, CHANNELS * CELLS * CELLS), 0.02)?;
    let bias = Var::zeros(CLASSES, candle_core::DType::F32, &Device::Cpu)?;

    let align = RoiAlignParams { output: CELLS, spatial_scale: 1.0, sampling_ratio: 2, aligned: true };
    let coder = BoxCoder::new([10.0, 10.0, 5.0, 5.0]);
    let forward = || -> Outcome<(Tensor, Tensor)> {
        let kernels = filters.as_tensor().reshape((CHANNELS, 3, 3, 3))?;
        let same = Conv2dParams { padding: 1, ..Conv2dParams::default() };
        let features = conv2d(&image, &kernels, BiasOrResidual::None, None, true, &same)?;
        let pooled = roi_align(&features, &rois, &align)?.flatten_from(1)?;
        Ok((linear(&pooled, &class_weights, Some(&bias), false)?, linear(&pooled, &box_weights, None, false)?))
    };

    // The deltas that move each proposal on an object onto it, and their places among all deltas [R, 4].
    let (mut indices, mut targets) = (Vec::new(), Vec::new());
    for (r, label) in labels.iter().enumerate().filter(|(_, label)| **label > 0) {
        indices.extend((0..4).map(|k| 4 * r + k));
        targets.extend(coder.encode(&gt_boxes[*label as usize - 1], &proposals[r]));
    }
    for step in 0..=200 {
        let (logits, deltas) = forward()?;
        let class_loss = softmax_cross_entropy(&logits, &labels, labels.len() as f32)?;
        let box_loss = smooth_l1(&deltas, &indices, &targets, 1.0, labels.len() as f32)?;
        if step % 50 == 0 {
            println!(
                "step {step:>3}: class loss {:.4}, box loss {:.4}",
                class_loss.to_scalar::<f32>()?,
                box_loss.to_scalar::<f32>()?
            );
        }
        let gradients = (class_loss + box_loss)?.backward()?;
        for var in [&filters, &class_weights, &box_weights, &bias] {
            if let Some(gradient) = gradients.get(var) {
                var.set(&(var.as_tensor() - (gradient * 0.05)?)?)?;
            }
        }
    }

    let (logits, deltas) = forward()?;
    let (scores, deltas) = (softmax(&logits)?.to_vec2::<f32>()?, deltas.to_vec2::<f32>()?);
    let (mut boxes, mut best, mut classes) = (Vec::new(), Vec::new(), Vec::new());
    for ((row, delta), proposal) in scores.iter().zip(&deltas).zip(&proposals) {
        let class = (1..CLASSES).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(1);
        boxes.push(coder.decode(&[delta[0], delta[1], delta[2], delta[3]], proposal));
        best.push(row[class]);
        classes.push(class);
    }
    println!("\n{} regions; after NMS:", boxes.len());
    for i in batched_nms(&boxes, &best, &classes, 0.5).into_iter().filter(|&i| best[i] > 0.5) {
        println!(
            "  class {} with {:.2} at {:.1?}, ground truth {:.1?}",
            classes[i],
            best[i],
            boxes[i],
            gt_boxes[classes[i] - 1]
        );
    }
    Ok(())
}
