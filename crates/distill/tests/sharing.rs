//! Proposal sharing: what of the teacher runs, on which regions, and what is refused.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, which clippy.toml does not see as tests

use std::cell::Cell;

use candle_core::{Device, Tensor};
use docent_detect::backbone::ResNetConfig;
use docent_detect::layers::{LayerList, NormKind};
use docent_detect::testing::{FormulaStore, Kind};
use docent_detect::{
    BalancedPositiveNegativeSampler, Detection, Detector, DetectorConfig, FasterRcnn, FasterRcnnConfig, FeaturePyramid,
    FeatureSpec, ImageBatch, Mode, RegionHeads, Sampler, Size, Target, TrainOutput,
};
use docent_distill::config::{ProposalSource, TaskAdaptiveConfig};
use docent_distill::methods::TaskAdaptive;
use docent_distill::{Channels, Distiller, Needs, Progress, PyramidSource, SharedStep, SharingOptions, StepInput};

fn detector(width_multiplier: f64, norm: NormKind) -> FasterRcnn {
    let backbone = ResNetConfig::default().depth(18).width_multiplier(width_multiplier).norm(norm);
    let mut config = FasterRcnnConfig::default().classes(3).fpn_channels(16).backbone(backbone);
    config.anchors.sizes = vec![8.0, 16.0, 32.0, 64.0, 128.0];
    (config.rpn.post_nms_top_n_train, config.roi.batch_size_per_image) = (60, 16);
    (config.roi.representation_size, config.roi.canonical_box_size) = (32, 56.0);
    let state = |name: &str| name.contains("running_") || name.ends_with("tracked");
    let store = FormulaStore::new(move |name| if state(name) { Kind::Plain } else { Kind::Variable });
    FasterRcnn::new(&config, store.builder()).unwrap()
}

/// Two models, a batch, and the student's forward pass over it.
struct Scene {
    student: FasterRcnn,
    teacher: FasterRcnn,
    output: TrainOutput,
    images: ImageBatch,
    targets: Vec<Target>,
}

impl Scene {
    fn new() -> Self {
        let student = detector(0.125, NormKind::GroupNorm { groups: 4 });
        let teacher = detector(0.25, NormKind::BatchNorm);
        let planes: Vec<f32> = (0..3 * 48 * 64).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
        let images = ImageBatch::from_planes(&[(Size::new(48, 64), &planes)], 32, &Device::Cpu).unwrap();
        let targets = vec![Target { boxes: vec![[8., 6., 30., 40.], [34., 20., 60., 38.]], labels: vec![1, 2] }];
        let output = student.forward_train(&images, &targets, &mut sampler()).unwrap();
        Self { student, teacher, output, images, targets }
    }

    fn input(&self) -> StepInput<'_> {
        let Self { student, teacher, output, images, targets } = self;
        StepInput { student, teacher, output, images, targets }
    }
}

fn sampler() -> impl Sampler {
    BalancedPositiveNegativeSampler::seeded(5, 1)
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_teacher_answers_on_the_students_regions() {
    let scene = Scene::new();
    let needs = Needs { pyramid: true, regions: true, ..Needs::default() };
    let shared = SharedStep::new(scene.input(), needs, SharingOptions::default()).unwrap();
    let step = shared.context(Progress::one_epoch(1, 1));
    let (own, theirs) = (step.student.regions.unwrap(), step.teacher.regions.unwrap());
    assert_eq!(own.rois, &scene.output.regions[0].rois);
    assert_eq!(theirs.rois, own.rois);
    // By hand: the teacher's own pyramid of the same batch, its heads on the student's regions.
    let pyramid = scene.teacher.features(&scene.images, Mode::Eval).unwrap();
    let head = scene.teacher.box_head(&pyramid, &own.rois.rois, Mode::Eval).unwrap();
    assert_eq!(values(&theirs.head.class_logits), values(&head.class_logits));
    assert_eq!(values(&theirs.head.box_deltas), values(&head.box_deltas));
    assert_eq!(values(&step.teacher.pyramid.unwrap().levels[0]), values(&pyramid.levels[0]));
    // The student's side has its graph, the teacher's none.
    assert!(own.head.class_logits.track_op() && step.student.pyramid.unwrap().levels[0].track_op());
    assert!(!theirs.head.class_logits.track_op() && !step.teacher.pyramid.unwrap().levels[0].track_op());
}

#[test]
fn only_what_is_needed_is_computed() {
    let scene = Scene::new();
    for needs in [
        Needs::default(),
        Needs { stages: true, ..Needs::default() },
        Needs { pyramid: true, ..Needs::default() },
        Needs { dense: true, ..Needs::default() },
        Needs { regions: true, ..Needs::default() },
        Needs { teacher_regions: true, ..Needs::default() },
    ] {
        let mut draws = sampler();
        let options = SharingOptions { sampler: Some(&mut draws), ..Default::default() };
        let shared = SharedStep::new(scene.input(), needs, options).unwrap();
        let teacher = shared.context(Progress::one_epoch(1, 1)).teacher;
        assert_eq!(teacher.stages.is_some(), needs.stages, "{needs:?}");
        assert_eq!(teacher.dense.is_some(), needs.dense, "{needs:?}");
        assert_eq!(teacher.regions.is_some(), needs.regions, "{needs:?}");
        assert_eq!(teacher.teacher_regions.is_some(), needs.teacher_regions, "{needs:?}");
        // Every head reads the pyramid.
        let pyramid = needs.pyramid || needs.dense || needs.regions || needs.teacher_regions;
        assert_eq!(teacher.pyramid.is_some(), pyramid, "{needs:?}");
    }
}

#[test]
fn the_teachers_regions_are_a_set_of_their_own() {
    let scene = Scene::new();
    let needs = Needs { teacher_regions: true, ..Needs::default() };
    let message = |options| SharedStep::new(scene.input(), needs, options).err().unwrap().to_string();
    assert!(message(SharingOptions::default()).contains("no sampler"));

    let mut draws = sampler();
    let options = SharingOptions { sampler: Some(&mut draws), ..Default::default() };
    let shared = SharedStep::new(scene.input(), needs, options).unwrap();
    let step = shared.context(Progress::one_epoch(1, 1));
    let set = step.teacher_set().unwrap();
    set.check().unwrap();
    assert_ne!(set.rois, &scene.output.regions[0].rois, "the teacher proposes other boxes");
    assert!(set.student.class_logits.track_op() && !set.teacher.class_logits.track_op());
    let config = TaskAdaptiveConfig::default().proposal_source(ProposalSource::TeacherToStudent);
    let vb = FormulaStore::new(|_| Kind::Variable).builder();
    let method = TaskAdaptive::new(&config, &Channels::of(&scene.student), &Channels::of(&scene.teacher), vb).unwrap();
    let mut draws = sampler();
    let options = SharingOptions { sampler: Some(&mut draws), ..Default::default() };
    let shared = SharedStep::new(scene.input(), method.needs(), options).unwrap();
    let out = method.loss(&shared.context(Progress::one_epoch(1, 1))).unwrap();
    assert!(out.total().unwrap().to_scalar::<f32>().unwrap() > 0.0);
}

/// Counts its calls and gives the teacher's own pyramid.
struct Counting(Cell<usize>);

impl PyramidSource for Counting {
    fn pyramid(&self, teacher: &dyn Detector, images: &ImageBatch) -> docent_detect::Result<FeaturePyramid> {
        self.0.set(self.0.get() + 1);
        teacher.features(images, Mode::Eval)
    }
}

#[test]
fn a_source_of_pyramids_is_asked_where_no_stage_is_read() {
    let scene = Scene::new();
    let source = Counting(Cell::new(0));
    let calls = |needs: Needs| {
        source.0.set(0);
        let options = SharingOptions { pyramids: Some(&source), ..Default::default() };
        SharedStep::new(scene.input(), needs, options).unwrap();
        source.0.get()
    };
    assert_eq!(calls(Needs::default()), 0);
    assert_eq!(calls(Needs { regions: true, ..Needs::default() }), 1);
    // The backbone runs anyway, so the pyramid is computed from its maps.
    assert_eq!(calls(Needs { stages: true, pyramid: true, ..Needs::default() }), 0);
}

/// A detector without heads of any kind over the features of another.
#[derive(Debug)]
struct Headless(FasterRcnn);

impl Detector for Headless {
    fn config(&self) -> DetectorConfig {
        self.0.config()
    }

    fn layers(&self) -> &LayerList {
        self.0.layers()
    }

    fn stages(&self) -> &[FeatureSpec] {
        self.0.stages()
    }

    fn levels(&self) -> &[FeatureSpec] {
        self.0.levels()
    }

    fn backbone(&self, batch: &ImageBatch, mode: Mode) -> docent_detect::Result<FeaturePyramid> {
        self.0.backbone(batch, mode)
    }

    fn pyramid(&self, stages: &FeaturePyramid, mode: Mode) -> docent_detect::Result<FeaturePyramid> {
        self.0.pyramid(stages, mode)
    }

    fn forward_train(
        &self,
        batch: &ImageBatch,
        targets: &[Target],
        sampler: &mut dyn Sampler,
    ) -> docent_detect::Result<TrainOutput> {
        let output = self.0.forward_train(batch, targets, sampler)?;
        Ok(TrainOutput { dense: None, regions: Vec::new(), ..output })
    }

    fn detect(&self, batch: &ImageBatch) -> docent_detect::Result<Vec<Vec<Detection>>> {
        self.0.detect(batch)
    }

    fn flops(&self, size: Size) -> u64 {
        self.0.flops(size)
    }
}

#[test]
fn heads_that_a_detector_lacks_are_named() {
    let scene = Scene::new();
    let teacher = Headless(detector(0.25, NormKind::BatchNorm));
    let needs_of = |part: &str| Needs {
        dense: part == "dense",
        regions: part == "regions",
        teacher_regions: part == "teacher_regions",
        ..Needs::default()
    };
    let message = |input: StepInput<'_>, part: &str| {
        let mut draws = sampler();
        let options = SharingOptions { sampler: Some(&mut draws), ..Default::default() };
        SharedStep::new(input, needs_of(part), options).err().unwrap().to_string()
    };
    let without = StepInput { teacher: &teacher, ..scene.input() };
    assert!(message(without, "dense").contains("dense head, which the teacher"));
    assert!(message(without, "regions").contains("region heads, which the teacher"));
    assert!(message(without, "teacher_regions").contains("region heads, which the teacher"));
    let student = Headless(detector(0.125, NormKind::GroupNorm { groups: 4 }));
    let output = student.forward_train(&scene.images, &scene.targets, &mut sampler()).unwrap();
    let without = StepInput { student: &student, output: &output, ..scene.input() };
    assert!(message(without, "regions").contains("region heads, which the student"));
    assert!(message(without, "teacher_regions").contains("region heads, which the student"));
}
