//! Of the teacher, a step computes what the method needs.

use std::sync::Mutex;

use candle_core::{Device, Tensor};
use docent_distill::{DistillOutput, Distiller, Needs, Progress, Result, StepContext};
use docent_model::ParamStore;
use docent_study::data::{Data, train_loader};
use docent_train::{Batch, TeacherContext, forward};

use crate::bench::{Bench, build, teacher};

/// Notes what of the teacher a step holds, and has no loss.
struct Looks {
    needs: Needs,
    seen: Mutex<Vec<Needs>>,
}

impl Distiller for Looks {
    fn name(&self) -> &str {
        "looks"
    }
    fn needs(&self) -> Needs {
        self.needs
    }
    fn params(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }
    fn loss(&self, step: &StepContext<'_>) -> Result<DistillOutput> {
        let teacher = step.teacher;
        self.seen.lock().unwrap().push(Needs {
            stages: teacher.stages.is_some(),
            pyramid: teacher.pyramid.is_some(),
            dense: teacher.dense.is_some(),
            regions: teacher.regions.is_some(),
            teacher_regions: teacher.teacher_regions.is_some(),
        });
        let own = step.student.regions.unwrap();
        if let (Some(ours), Some(theirs)) = (step.student.teacher_regions, teacher.teacher_regions) {
            let rois = ours.rois.rois.len();
            assert!(rois > 0 && ours.rois.rois != own.rois.rois, "other proposals, other RoIs");
            assert_eq!(ours.rois.rois, theirs.rois.rois);
            assert_eq!((ours.head.class_logits.dim(0)?, theirs.head.class_logits.dim(0)?), (rois, rois));
            assert!(ours.head.class_logits.track_op() && !theirs.head.class_logits.track_op());
        }
        if let (Some(ours), Some(theirs)) = (step.student.stages, teacher.stages) {
            assert_eq!((ours.strides.as_slice(), ours.levels.len()), (&[4, 8, 16, 32][..], 4));
            assert!(ours.levels[3].track_op() && !theirs.levels[3].track_op());
        }
        if let Some(theirs) = teacher.dense {
            assert_eq!(theirs.anchors, step.student.dense.unwrap().anchors);
        }
        assert_eq!(step.student.dense.unwrap().anchors.len(), 5);
        Ok(DistillOutput { terms: Vec::new(), decay: 1.0, stats: Vec::new() })
    }
}

#[test]
fn a_step_computes_what_is_needed_and_the_student_does_not_notice() {
    let bench = Bench::new();
    let recipe = bench.recipe(&[]);
    let data = Data::open(&recipe.data).unwrap();
    let (student, teacher) = (build(&recipe.student, 1), teacher(&recipe));
    let items = train_loader(&data, &recipe.data, 3, 1).unwrap().epoch(0).next().unwrap().unwrap();
    let batch = Batch::new(&items, &Device::Cpu).unwrap();
    let progress = Progress { epoch: 1, epochs: 2, iteration: 1, iterations: 6, milestones: &[] };
    let alone = forward(&*student.model, None, &batch, progress, 5).unwrap();
    let store = ParamStore::new(3, &Device::Cpu);
    for needed in 0..1 << 5 {
        let [stages, pyramid, dense, regions, teacher_regions] = std::array::from_fn(|bit| needed >> bit & 1 == 1);
        let needs = Needs { stages, pyramid, dense, regions, teacher_regions };
        let looks = Looks { needs, seen: Mutex::default() };
        let context = TeacherContext { model: &*teacher.model, distiller: &looks, store: &store, cache: None };
        let distilled = forward(&*student.model, Some(&context), &batch, progress, 5).unwrap();
        // A head needs the pyramid below it, so that is there too.
        let pyramid = pyramid || dense || regions || teacher_regions;
        assert_eq!(looks.seen.into_inner().unwrap(), [Needs { pyramid, ..needs }], "{needs:?}");
        assert_eq!(distilled.losses, alone.losses, "{needs:?}");
        assert_eq!(distilled.total.to_scalar::<f32>().unwrap(), alone.total.to_scalar::<f32>().unwrap());
    }
}
