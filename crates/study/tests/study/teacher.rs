//! Teachers: given or trained, under the minimum, of other categories, and with nothing to say.

use docent_study::recipe::Recipe;
use docent_study::report;
use docent_study::run::{RunFolder, RunState};
use docent_train::events::Event;

use crate::bench::{Bench, steps, weights};

#[test]
fn a_teacher_under_the_minimum_is_refused_before_a_student_is_trained() {
    let bench = Bench::new();
    let message = bench.study(&bench.recipe(&["teacher.min_ap=0.99"]), "study", false).0.unwrap_err().to_string();
    assert!(
        message.contains("teacher/checkpoints/last.safetensors") && message.contains("minimum of 0.990"),
        "{message}"
    );
    assert!(RunFolder::new(&bench.path("study"), "teacher").result().is_file());
    assert!(!bench.path("study/alone").exists());
}

/// The recipe with the teacher of study `name`.
fn taught_by(bench: &Bench, name: &str, assignments: &[&str]) -> Recipe {
    let mut recipe = bench.recipe(assignments);
    recipe.teacher.as_mut().unwrap().checkpoint = Some(RunFolder::new(&bench.path(name), "teacher").last());
    recipe
}

#[test]
fn a_given_teacher_teaches_as_the_trained_one_does() {
    let bench = Bench::new();
    let trained = bench.study(&bench.recipe(&[]), "trained", false).0.unwrap();
    let recipe = taught_by(&bench, "trained", &[]);
    let (given, events) = bench.study(&recipe, "given", false);
    let given = given.unwrap();
    let warned = |events: &[Event]| {
        events.iter().any(|e| matches!(e, Event::Warning { text } if text.contains("teacher.model says otherwise")))
    };
    assert!(!warned(&events));
    let [a, b] = ["trained", "given"].map(|study| bench.path(study).join("distilled"));
    assert!(weights(&a, "last") == weights(&b, "last"));
    let (trained, given) = (trained.teacher.unwrap(), given.teacher.unwrap());
    assert_eq!((trained.ap, &trained.per_class, trained.params), (given.ap, &given.per_class, given.params));
    assert_eq!((given.steps, given.seconds), (0, 0.0));
    // A path that joins with the study's folder to the file that was given.
    assert_eq!(bench.path("given").join(&given.checkpoint), RunFolder::new(&bench.path("trained"), "teacher").last());
    // It has no run here, and its detections alone are kept, for the report.
    let folder = RunFolder::new(&bench.path("given"), "teacher");
    assert!(folder.detections().is_file());
    assert!(!folder.result().exists() && !folder.last().exists());

    // The file under the same name is another one now: what it taught is not to be mixed with what it would teach.
    let student = RunFolder::new(&bench.path("trained"), "alone").last();
    std::fs::copy(student, RunFolder::new(&bench.path("trained"), "teacher").last()).unwrap();
    let (result, events) = bench.study(&recipe, "given", true);
    let message = result.unwrap_err().to_string();
    assert!(message.contains("another teacher"), "{message}");
    // That student's model is not what the recipe says of the teacher.
    assert!(warned(&events), "{events:?}");

    for split in ["train", "val"] {
        let path = bench.path(&format!("data/annotations/instances_{split}.json"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"disc\"", "\"disk\"")).unwrap();
    }
    let message = bench.study(&recipe, "renamed", false).0.unwrap_err().to_string();
    assert!(message.contains("1 disc") && message.contains("1 disk"), "{message}");
}

#[test]
fn first_weights_that_are_others_by_now_are_no_part_of_a_finished_study() {
    let bench = Bench::new();
    for (name, seed) in [("a", "seed=1"), ("b", "seed=2")] {
        bench.study(&bench.alone(&[seed, "train.epochs=1"]), name, false).0.unwrap();
    }
    let [a, b] = ["a", "b"].map(|study| RunFolder::new(&bench.path(study), "alone").last());
    let first = bench.path("first.safetensors");
    std::fs::copy(a, &first).unwrap();
    let mut recipe = bench.alone(&["train.epochs=1"]);
    recipe.student.init.from = Some(first.clone());
    bench.study(&recipe, "study", false).0.unwrap();
    // The page is made again where it is not there.
    let page = bench.path("study/alone").join(report::FILE);
    std::fs::remove_file(&page).unwrap();
    bench.study(&recipe, "study", true).0.unwrap();
    assert!(page.is_file());

    // A finished run needs the file no more, wherever it is.
    let moved = bench.path("moved.safetensors");
    std::fs::rename(&first, &moved).unwrap();
    bench.study(&recipe, "study", true).0.unwrap_err();
    recipe.student.init.from = Some(moved.clone());
    bench.study(&recipe, "study", true).0.unwrap();
    std::fs::copy(b, &moved).unwrap();
    let message = bench.study(&recipe, "study", true).0.unwrap_err().to_string();
    assert!(message.contains("other first weights"), "{message}");
}

#[test]
fn distillation_at_weight_0_is_plain_training() {
    let bench = Bench::new();
    // Without its gate the box term has something to say about every positive.
    let recipe =
        bench.recipe(&["distill.w_feat=0.0", "distill.w_cls=0.0", "distill.w_reg=0.0", "distill.reg_gate=none"]);
    let summary = bench.study(&recipe, "study", false).0.unwrap();
    assert_eq!(summary.gain, Some(0.0));
    let [alone, distilled] = ["alone", "distilled"].map(|run| bench.path("study").join(run));
    assert!(weights(&alone, "last") == weights(&distilled, "last"));
    assert!(weights(&alone, "best") == weights(&distilled, "best"));
    let state = RunState::load(&RunFolder::new(&bench.path("study"), "distilled").state()).unwrap();
    assert!(!state.trainer.adapters.is_empty(), "the adapters were there");
    for s in steps(&distilled) {
        let distill = s.distill.unwrap();
        // The teacher's opinion is still measured.
        assert_eq!(distill.terms.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["feat", "cls", "reg"]);
        assert!(s.positives > 0 && distill.terms.iter().all(|t| t.raw > 0.0), "{distill:?}");
        assert!(distill.terms.iter().all(|t| t.weighted == 0.0) && distill.ratio == 0.0);
        assert_eq!(s.adapter_grad_norm, Some(0.0));
    }
}
