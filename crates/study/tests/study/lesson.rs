//! Of the teacher, a step computes what the method needs.

use std::sync::Mutex;

use candle_core::{Device, Tensor};
use docent_distill::{DistillOutput, Distiller, Needs, Progress, Result, StepContext};
use docent_train::build::build;
use docent_train::data::{Batch, Data, train_loader};
use docent_train::recipe::ModelRecipe;
use docent_train::step::{Lesson, forward};

use crate::bench::Bench;

/// Looks at what a step holds, and teaches nothing.
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
        self.seen.lock().unwrap().push(Needs {
            features: step.teacher_features.is_some(),
            head: step.teacher_head.is_some(),
            stages: step.stages.is_some(),
            proposals: step.teacher_rois.is_some(),
        });
        if let Some(set) = step.teacher_rois {
            let rois = set.rois.rois.len();
            assert!(rois > 0 && set.rois.rois != step.rois.rois, "other proposals, other RoIs");
            assert_eq!((set.student.class_logits.dim(0)?, set.teacher.class_logits.dim(0)?), (rois, rois));
            assert!(set.student.class_logits.track_op() && !set.teacher.class_logits.track_op());
        }
        if let Some(stages) = step.stages {
            assert_eq!((stages.student.strides.as_slice(), stages.student.levels.len()), (&[4, 8, 16, 32][..], 4));
            assert!(stages.student.levels[3].track_op() && !stages.teacher.levels[3].track_op());
        }
        assert_eq!(step.anchors.len(), 5);
        Ok(DistillOutput { terms: Vec::new(), decay: 1.0, stats: Vec::new() })
    }
}

#[test]
fn a_step_computes_what_is_needed_and_the_student_does_not_notice() {
    let bench = Bench::new();
    let recipe = bench.recipe(&[]);
    let data = Data::open(&recipe.data).unwrap();
    let student = build(&recipe.student, 7, 1).unwrap();
    let part = recipe.teacher.as_ref().unwrap();
    let teacher = build(&ModelRecipe { model: part.model.clone(), init: part.init.clone() }, 7, 2).unwrap();
    let teacher = teacher.model.detached();
    let items = train_loader(&data, &recipe.data, 3, 1).unwrap().epoch(0).next().unwrap().unwrap();
    let batch = Batch::new(&items, &Device::Cpu).unwrap();
    let progress = Progress { epoch: 1, epochs: 2, iteration: 1, iterations: 6, milestones: &[] };
    let alone = forward(&student.model, None, &batch, &progress, 5).unwrap();
    let flags = [false, true];
    for (features, head) in flags.into_iter().flat_map(|a| flags.map(|b| (a, b))) {
        for (stages, proposals) in flags.into_iter().flat_map(|a| flags.map(|b| (a, b))) {
            let needs = Needs { features, head, stages, proposals };
            let looks = Looks { needs, seen: Mutex::default() };
            let lesson = Lesson { teacher: &teacher, distiller: &looks, cache: None };
            let taught = forward(&student.model, Some(&lesson), &batch, &progress, 5).unwrap();
            let seen = looks.seen.into_inner().unwrap();
            // A head needs the pyramid below it, so that is there too.
            let features = features || head || proposals;
            assert_eq!(seen, [Needs { features, ..needs }], "{needs:?}");
            assert_eq!(taught.detection, alone.detection, "{needs:?}");
            assert_eq!(taught.total.to_scalar::<f32>().unwrap(), alone.total.to_scalar::<f32>().unwrap());
        }
    }
}
