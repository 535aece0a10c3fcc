//! The whole model from outside: shapes, names, gradients, statistics, empty inputs, determinism, learning.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy.toml does not see as tests

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use docent_detect::backbone::ResNetConfig;
use docent_detect::layers::NormKind;
use docent_detect::testing::{FormulaStore, Kind, SplitMix};
use docent_detect::{
    BalancedPositiveNegativeSampler, BoxXyxy, Detector, FasterRcnn, FasterRcnnConfig, FeaturePyramid, ImageBatch, Mode,
    RegionHeads, Size, Target,
};

/// A detector of some ten thousand parameters.
fn tiny(depth: usize, norm: NormKind) -> FasterRcnnConfig {
    let mut cfg = FasterRcnnConfig::default()
        .classes(3)
        .fpn_channels(16)
        .backbone(ResNetConfig::default().depth(depth).width_multiplier(0.125).norm(norm));
    cfg.anchors.sizes = vec![8.0, 16.0, 32.0, 64.0, 128.0];
    cfg.rpn.batch_size_per_image = 64;
    cfg.rpn.post_nms_top_n_train = 60;
    cfg.rpn.post_nms_top_n_test = 40;
    cfg.roi.batch_size_per_image = 32;
    cfg.roi.representation_size = 32;
    cfg.roi.canonical_box_size = 56.0;
    cfg
}

/// Variables but for the buffers, and for what `frozen` names.
fn store(cfg: &FasterRcnnConfig, frozen: &'static [&'static str]) -> FormulaStore {
    let model = FasterRcnn::new(cfg, VarBuilder::zeros(DType::F32, &Device::Cpu)).unwrap();
    let tensors = model.layers().tensors();
    FormulaStore::new(move |name| {
        if tensors[name].buffer || frozen.iter().any(|f| name.starts_with(f)) { Kind::Plain } else { Kind::Variable }
    })
}

/// An image with a pale rectangle on each box.
fn image(h: usize, w: usize, boxes: &[BoxXyxy]) -> Vec<f32> {
    let mut data = vec![0f32; 3 * h * w];
    for (i, v) in data.iter_mut().enumerate() {
        let (c, y, x) = (i / (h * w), i / w % h, i % w);
        *v = 0.3 + 0.1 * ((x * 7 + y * 3 + c * 5) % 11) as f32 / 11.0;
        if boxes.iter().any(|b| b[0] <= x as f32 && (x as f32) < b[2] && b[1] <= y as f32 && (y as f32) < b[3]) {
            *v += 0.2 * (1 + c) as f32;
        }
    }
    data
}

fn batch(images: &[(usize, usize, &[BoxXyxy])], divisor: usize) -> ImageBatch {
    let data: Vec<Vec<f32>> = images.iter().map(|(h, w, b)| image(*h, *w, b)).collect();
    let all: Vec<_> = images.iter().zip(&data).map(|((h, w, _), d)| (Size::new(*h, *w), d.as_slice())).collect();
    ImageBatch::from_planes(&all, divisor, &Device::Cpu).unwrap()
}

fn sampler(images: usize) -> BalancedPositiveNegativeSampler<SplitMix> {
    BalancedPositiveNegativeSampler::new((0..images as u64).map(|i| SplitMix(100 + i)).collect())
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

const BOXES: [BoxXyxy; 2] = [[8., 6., 30., 40.], [34., 20., 60., 38.]];

fn two_images() -> (ImageBatch, Vec<Target>) {
    let batch = batch(&[(48, 64, &BOXES), (44, 50, &BOXES[..1])], 32);
    let targets = vec![
        Target { boxes: BOXES.to_vec(), labels: vec![1, 2] },
        Target { boxes: BOXES[..1].to_vec(), labels: vec![1] },
    ];
    (batch, targets)
}

#[test]
fn every_stage_has_its_shape_on_odd_sizes() {
    for (depth, stride_in_1x1) in [(18, false), (50, false), (50, true)] {
        let mut cfg = tiny(depth, NormKind::FrozenBatchNorm);
        cfg.backbone.set_stride_in_1x1(stride_in_1x1);
        let model = FasterRcnn::new(&cfg, store(&cfg, &[]).builder()).unwrap();
        let batch = batch(&[(75, 41, &BOXES), (67, 53, &[])], 1);
        assert_eq!(batch.pixels.dims(), [2, 3, 75, 53]);
        let body = model.backbone(&batch, Mode::Eval).unwrap();
        let sizes = [(19, 14), (10, 7), (5, 4), (3, 2), (2, 1)];
        let expansion = if depth == 18 { 1 } else { 4 };
        for (((level, spec), c), (h, w)) in body.levels.iter().zip(model.stages()).zip([8, 16, 32, 64]).zip(sizes) {
            assert_eq!((level.dims(), spec.channels), (&[2, c * expansion, h, w][..], c * expansion));
        }
        let features = model.pyramid(&body, Mode::Eval).unwrap();
        assert_eq!(features.strides, [4, 8, 16, 32, 64]);
        let output = model.rpn(&features, &batch, Mode::Eval).unwrap();
        for (l, (h, w)) in sizes.into_iter().enumerate() {
            assert_eq!(features.levels[l].dims(), [2, 16, h, w]);
            assert_eq!(output.logits[l].dims(), [2, 3, h, w]);
            assert_eq!(output.deltas[l].dims(), [2, 12, h, w]);
            assert_eq!(output.anchors[l].len(), 3 * h * w);
        }
        let proposals = model.propose(&features, &batch, Mode::Eval).unwrap();
        assert!(proposals.boxes.iter().all(|b| !b.is_empty() && b.len() <= 40));
        for (boxes, Size { height, width }) in proposals.boxes.iter().zip(&batch.sizes) {
            let inside = |b: &BoxXyxy| b[0] >= 0.0 && b[1] >= 0.0 && b[2] <= *width as f32 && b[3] <= *height as f32;
            assert!(boxes.iter().all(inside));
        }
        let rois = proposals.rois();
        let head = model.box_head(&features, &rois, Mode::Eval).unwrap();
        assert_eq!(head.class_logits.dims(), [rois.len(), 3]);
        assert_eq!(head.box_deltas.dims(), [rois.len(), 12]);
        assert_eq!(model.detect(&batch).unwrap().len(), 2);
    }
}

#[test]
fn the_place_of_the_stride_changes_the_features() {
    let features = |stride_in_1x1| {
        let mut cfg = tiny(50, NormKind::FrozenBatchNorm);
        cfg.backbone.set_stride_in_1x1(stride_in_1x1);
        let model = FasterRcnn::new(&cfg, store(&cfg, &[]).builder()).unwrap();
        values(&model.backbone(&batch(&[(64, 64, &BOXES)], 32), Mode::Eval).unwrap().levels[1])
    };
    assert_ne!(features(false), features(true));
}

/// torchvision 0.29's `fasterrcnn_resnet50_fpn` has 295 entries with frozen BatchNorm; BatchNorm that trains adds 53 counters.
#[test]
fn names_are_torchvisions() {
    let names = |depth, norm| {
        let cfg = tiny(depth, norm);
        let store = store(&cfg, &[]);
        FasterRcnn::new(&cfg, store.builder()).unwrap();
        store.tensors().into_iter().map(|(n, t)| (n, t.dims().to_vec())).collect::<Vec<_>>()
    };
    let all = names(50, NormKind::FrozenBatchNorm);
    assert_eq!(all.len(), 295);
    assert_eq!(names(50, NormKind::BatchNorm).len(), 295 + 53);
    for (name, dims) in [
        ("backbone.body.conv1.weight", vec![8, 3, 7, 7]),
        ("backbone.body.bn1.running_mean", vec![8]),
        ("backbone.body.layer1.0.conv1.weight", vec![8, 8, 1, 1]),
        ("backbone.body.layer1.0.downsample.0.weight", vec![32, 8, 1, 1]),
        ("backbone.body.layer1.0.downsample.1.running_var", vec![32]),
        ("backbone.body.layer4.2.bn3.bias", vec![256]),
        ("backbone.fpn.inner_blocks.3.0.weight", vec![16, 256, 1, 1]),
        ("backbone.fpn.layer_blocks.0.0.bias", vec![16]),
        ("rpn.head.conv.0.0.weight", vec![16, 16, 3, 3]),
        ("rpn.head.cls_logits.weight", vec![3, 16, 1, 1]),
        ("rpn.head.bbox_pred.bias", vec![12]),
        ("roi_heads.box_head.fc6.weight", vec![32, 16 * 49]),
        ("roi_heads.box_head.fc7.bias", vec![32]),
        ("roi_heads.box_predictor.cls_score.weight", vec![3, 32]),
        ("roi_heads.box_predictor.bbox_pred.weight", vec![12, 32]),
    ] {
        assert!(all.contains(&(name.to_owned(), dims.clone())), "{name} {dims:?}");
    }
}

#[test]
fn every_trainable_parameter_has_a_finite_gradient_and_no_frozen_one() {
    for (depth, norm) in
        [(18, NormKind::BatchNorm), (50, NormKind::FrozenBatchNorm), (18, NormKind::GroupNorm { groups: 4 })]
    {
        let cfg = tiny(depth, norm);
        let frozen = &["backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1."];
        let store = store(&cfg, frozen);
        let model = FasterRcnn::new(&cfg, store.builder()).unwrap();
        let (batch, targets) = two_images();
        let out = model.forward_train(&batch, &targets, &mut sampler(2)).unwrap();
        assert!(out.positives() > 0);
        let grads = out.total().unwrap().backward().unwrap();
        let vars = store.vars();
        assert!(vars.iter().all(|(n, _)| !frozen.iter().any(|f| n.starts_with(f))));
        for (name, var) in &vars {
            let g = grads.get(var).unwrap_or_else(|| panic!("{norm:?}: {name} has no gradient"));
            let g = values(g);
            assert!(g.iter().all(|v| v.is_finite()), "{name}");
            assert!(g.iter().any(|v| *v != 0.0), "{name} has a gradient of zeros");
        }
        for (name, t) in store.tensors() {
            let is_var = vars.iter().any(|(n, _)| *n == name);
            assert!(is_var || grads.get(&t).is_none(), "{name} is frozen");
        }
    }
}

#[test]
fn running_statistics_move_in_training_only_and_not_in_frozen_layers() {
    let cfg = tiny(18, NormKind::BatchNorm);
    let store = store(&cfg, &["backbone.body.layer1."]);
    let model = FasterRcnn::new(&cfg, store.builder()).unwrap();
    let (batch, _) = two_images();
    let stats = || -> Vec<(String, Vec<f32>)> {
        let all = store.tensors().into_iter();
        all.filter(|(n, _)| n.contains("running_") || n.contains("tracked")).map(|(n, t)| (n, values(&t))).collect()
    };
    let start = stats();
    model.detect(&batch).unwrap();
    model.features(&batch, Mode::Eval).unwrap();
    assert_eq!(stats(), start, "nothing but training with variables moves them");
    let before = values(&model.features(&batch, Mode::Eval).unwrap().levels[2]);
    model.features(&batch, Mode::Train).unwrap();
    model.features(&batch, Mode::Train).unwrap();
    for ((name, now), (_, then)) in stats().into_iter().zip(start) {
        if name.starts_with("backbone.body.layer1.") {
            assert_eq!(now, then, "{name}");
        } else if name.ends_with("tracked") {
            assert_eq!(now, [2.0], "{name}");
        } else {
            assert_ne!(now, then, "{name}");
        }
    }
    assert_ne!(values(&model.features(&batch, Mode::Eval).unwrap().levels[2]), before, "evaluation sees them");
}

#[test]
fn images_without_objects_have_finite_losses() {
    let cfg = tiny(18, NormKind::BatchNorm);
    let store = store(&cfg, &[]);
    let model = FasterRcnn::new(&cfg, store.builder()).unwrap();
    let (batch, _) = two_images();
    let out = model.forward_train(&batch, &[Target::default(), Target::default()], &mut sampler(2)).unwrap();
    let without_boxes = ["rpn_box", "head_box"];
    for (name, loss) in out.losses.iter() {
        let v = loss.to_scalar::<f32>().unwrap();
        assert!(v.is_finite() && (v == 0.0) == without_boxes.contains(&name), "{name}: {v}");
    }
    assert_eq!(out.losses.iter().count(), 4);
    let grads = out.total().unwrap().backward().unwrap();
    for (name, var) in store.vars() {
        assert!(values(grads.get(&var).unwrap()).iter().all(|v| v.is_finite()), "{name}");
    }
}

#[test]
fn without_a_proposal_nothing_is_found_and_losses_are_finite() {
    let mut cfg = tiny(18, NormKind::FrozenBatchNorm);
    cfg.rpn.score_threshold = 1.0;
    let store = store(&cfg, &[]);
    let model = FasterRcnn::new(&cfg, store.builder()).unwrap();
    let (batch, targets) = two_images();
    assert_eq!(model.detect(&batch).unwrap(), [vec![], vec![]]);
    // With targets the ground truths are the proposals; without, no region is left.
    let with = model.forward_train(&batch, &targets, &mut sampler(2)).unwrap();
    assert_eq!(with.regions[0].rois.positives, [0, 1, 2]);
    let none = model.forward_train(&batch, &[Target::default(), Target::default()], &mut sampler(2)).unwrap();
    assert!(none.regions[0].rois.rois.is_empty());
    for out in [with, none] {
        let total = out.total().unwrap();
        assert!(total.to_scalar::<f32>().unwrap().is_finite());
        total.backward().unwrap();
    }
}

#[test]
fn the_heads_answer_in_the_order_of_the_regions() {
    let cfg = tiny(18, NormKind::FrozenBatchNorm);
    let model = FasterRcnn::new(&cfg, store(&cfg, &[]).builder()).unwrap();
    let (batch, _) = two_images();
    let features = model.features(&batch, Mode::Eval).unwrap();
    // Of three levels, both images, out of order.
    let rois = [
        (1, [0., 0., 50., 44.]),
        (0, [1., 2., 9., 12.]),
        (1, [5., 5., 20., 20.]),
        (0, [0., 0., 64., 48.]),
        (0, [3., 3., 40., 35.]),
    ];
    let all = model.box_head(&features, &rois, Mode::Eval).unwrap();
    let (logits, deltas) = (all.class_logits.to_vec2::<f32>().unwrap(), all.box_deltas.to_vec2::<f32>().unwrap());
    for (i, roi) in rois.iter().enumerate() {
        let one = model.box_head(&features, &[*roi], Mode::Eval).unwrap();
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-5);
        assert!(close(&logits[i], &values(&one.class_logits)), "{i}");
        assert!(close(&deltas[i], &values(&one.box_deltas)), "{i}");
    }
    for strides in [[4, 16, 32, 64], [32, 16, 8, 4], [3, 6, 12, 24]] {
        let other = FeaturePyramid { strides: strides.to_vec(), ..features.clone() };
        let message = model.box_head(&other, &rois, Mode::Eval).unwrap_err().to_string();
        assert!(message.contains(&format!("{strides:?}")), "{message}");
    }
}

#[test]
fn evaluation_follows_the_weights_without_a_graph() {
    let cfg = tiny(18, NormKind::BatchNorm);
    let store = store(&cfg, &[]);
    let model = FasterRcnn::new(&cfg, store.builder()).unwrap();
    let (batch, _) = two_images();
    let features = model.features(&batch, Mode::Eval).unwrap();
    let output = model.rpn(&features, &batch, Mode::Eval).unwrap();
    let head = model.box_head(&features, &[(0, BOXES[0])], Mode::Eval).unwrap();
    let all = features.levels.iter().chain(&output.logits).chain(&output.deltas);
    assert!(all.chain([&head.class_logits, &head.box_deltas]).all(|t| !t.track_op()));
    let (_, var) = store.vars().into_iter().find(|(n, _)| n == "backbone.body.conv1.weight").unwrap();
    var.set(&(var.as_tensor().detach() * 0.5).unwrap()).unwrap();
    let changed = model.features(&batch, Mode::Eval).unwrap();
    assert_ne!(values(&changed.levels[0]), values(&features.levels[0]));
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let cfg = tiny(18, NormKind::BatchNorm);
            let store = store(&cfg, &[]);
            let model = FasterRcnn::new(&cfg, store.builder()).unwrap();
            let (batch, targets) = two_images();
            let out = model.forward_train(&batch, &targets, &mut sampler(2)).unwrap();
            let total = out.total().unwrap();
            let grads = total.backward().unwrap();
            let mut bits: Vec<u32> = vec![total.to_scalar::<f32>().unwrap().to_bits()];
            for (_, var) in store.vars() {
                bits.extend(values(grads.get(&var).unwrap()).iter().map(|v| v.to_bits()));
            }
            for d in model.detect(&batch).unwrap().concat() {
                bits.push(d.score.to_bits());
                bits.extend(d.bbox.map(f32::to_bits));
            }
            bits
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(2));
}

#[test]
fn a_few_steps_learn_one_image() {
    let cfg = tiny(18, NormKind::GroupNorm { groups: 4 });
    let store = store(&cfg, &[]);
    let model = FasterRcnn::new(&cfg, store.builder()).unwrap();
    let batch = batch(&[(48, 64, &BOXES)], 32);
    let targets = [Target { boxes: BOXES.to_vec(), labels: vec![1, 2] }];
    let mut speed: Vec<Tensor> = store.vars().iter().map(|(_, v)| v.zeros_like().unwrap()).collect();
    let mut losses = vec![];
    for step in 0..80 {
        let mut draw = BalancedPositiveNegativeSampler::new(vec![SplitMix(step)]);
        let total = model.forward_train(&batch, &targets, &mut draw).unwrap().total().unwrap();
        losses.push(total.to_scalar::<f32>().unwrap());
        let grads = total.backward().unwrap();
        for ((_, var), v) in store.vars().iter().zip(&mut speed) {
            // Outside the graph: velocity 0.9 v + g, step 0.02.
            *v = ((v.detach() * 0.9).unwrap() + grads.get(var).unwrap()).unwrap().detach();
            var.set(&(var.as_tensor().detach() - (v.detach() * 0.02).unwrap()).unwrap()).unwrap();
        }
    }
    let (first, last) = (losses[0], losses[70..].iter().sum::<f32>() / 10.0);
    assert!(last < 0.5 * first, "from {first} to {last}: {losses:?}");
    let found = model.detect(&batch).unwrap().remove(0);
    for (bbox, label) in BOXES.iter().zip([1, 2]) {
        let hit = found.iter().any(|d| d.label == label && docent_ops::boxes::iou(&d.bbox, bbox) > 0.5);
        assert!(hit, "label {label} not among {found:?}");
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let cfg = tiny(18, NormKind::FrozenBatchNorm);
    let model = FasterRcnn::new(&cfg, store(&cfg, &[]).builder()).unwrap();
    let (batch, mut targets) = two_images();
    let message = |targets: &[Target]| model.forward_train(&batch, targets, &mut sampler(2)).unwrap_err().to_string();
    assert!(message(&targets[..1]).contains("1 targets for 2 images"));
    targets[1].labels[0] = 3;
    assert!(message(&targets).contains("image 1") && message(&targets).contains("1 to 2"));
    targets[1] = Target { boxes: vec![[4., 4., 4., 9.]], labels: vec![1] };
    assert!(message(&targets).contains("no area"));
    let mut bad = cfg.clone();
    bad.backbone = ResNetConfig::default().depth(52).into();
    let error = FasterRcnn::new(&bad, store(&cfg, &[]).builder()).unwrap_err().to_string();
    assert!(error.contains("nearest is 50"), "{error}");
}

#[test]
fn work_of_the_whole_agrees_with_a_count_by_hand() {
    let model = FasterRcnn::new(&FasterRcnnConfig::default(), VarBuilder::zeros(DType::F32, &Device::Cpu)).unwrap();
    let size = Size::new(64, 96);
    let of = |part: &str| model.layers().below(part).flops(size, 10);
    // P2 to P6; P6 is 1x2.
    let cells = [16 * 24u64, 8 * 12, 4 * 6, 2 * 3, 2];
    let rpn: u64 = cells.iter().map(|n| n * 2 * (256 * 256 * 9 + 256 * 15)).sum();
    assert_eq!(of("rpn"), rpn);
    let lateral = [256u64, 512, 1024, 2048];
    let fpn: u64 = cells.iter().zip(lateral).map(|(n, c)| n * 2 * (c * 256 + 256 * 256 * 9)).sum();
    assert_eq!(of("backbone.fpn"), fpn);
    let head = 10 * 2 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * 455);
    assert_eq!(of("roi_heads"), head);
    assert_eq!(model.layers().flops(size, 10), of("backbone.body") + fpn + rpn + head);
    assert_eq!(model.flops(size), model.layers().flops(size, 1000), "a detection has the RPN's test count of regions");
}

/// The names of the first edition's rules: `running_*` and `num_batches_tracked`, and every tensor of a frozen norm.
#[test]
fn buffers_are_those_of_the_norms() {
    for (norm, frozen) in [(NormKind::BatchNorm, false), (NormKind::FrozenBatchNorm, true)] {
        let cfg = tiny(50, norm);
        let model = FasterRcnn::new(&cfg, VarBuilder::zeros(DType::F32, &Device::Cpu)).unwrap();
        let tensors = model.layers().tensors();
        for (name, tensor) in &tensors {
            let body = name.strip_prefix("backbone.body.").unwrap_or_default();
            let in_norm = body.contains("bn") || body.contains("downsample.1.");
            let state = name.contains("running_") || name.ends_with("num_batches_tracked");
            assert_eq!(tensor.buffer, state || (frozen && in_norm), "{name}");
        }
        assert_eq!(model.layers().batch_counts().len(), 53);
        let counts = tensors.keys().filter(|name| name.ends_with("num_batches_tracked")).count();
        assert_eq!(counts, if frozen { 0 } else { 53 }, "a frozen norm does not ask for its count");
    }
}
