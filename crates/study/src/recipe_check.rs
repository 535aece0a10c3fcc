//! Whether a registry can build what a recipe names.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use docent_detect::DetectorConfig;
use docent_distill::Channels;

use crate::build::without_weights;
use crate::error::{Error, Result};
use crate::recipe::{InitRecipe, Recipe};
use crate::registry::Registry;

impl Recipe {
    /// [`Recipe::validate`], and that `registry` can build what the recipe names.
    ///
    /// # Errors
    /// The first finding, naming its key; for an unknown name also the known ones.
    pub fn check(&self, registry: &Registry) -> Result<()> {
        self.validate()?;
        let student = check_model("student", &self.student.model, &self.student.init, registry)?;
        let (Some(teacher), Some(distill)) = (&self.teacher, &self.distill) else { return Ok(()) };
        let theirs = check_model("teacher", &teacher.model, &teacher.init, registry)?;
        // A teacher from a file has the channels that it has.
        let theirs = if teacher.checkpoint.is_none() { &theirs } else { &student };
        let zeros = VarBuilder::zeros(DType::F32, &Device::Cpu);
        match registry.distillers.distiller(distill, &student, theirs, zeros) {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::Recipe(format!("distill: {e}"))),
        }
    }
}

/// Builds a model without its weights; returns the channels of its maps.
fn check_model(part: &str, model: &DetectorConfig, init: &InitRecipe, registry: &Registry) -> Result<Channels> {
    let mut model = model.clone();
    model.set_classes(model.classes().max(2));
    let (model, _) =
        without_weights(&model, &registry.models).map_err(|e| Error::Recipe(format!("{part}.model: {e}")))?;
    let freezable = model.layers().freezable();
    if init.freeze_at > freezable {
        return Err(Error::Recipe(format!(
            "{part}.init.freeze_at = {}: the stem and the stages of this backbone are {freezable}, so {freezable} freezes all of it",
            init.freeze_at
        )));
    }
    Ok(Channels::of(&*model))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::text_of;

    #[test]
    fn what_is_wrong_with_a_model_or_method_is_found_before_any_data_is_read() {
        let text = text_of("shapes").unwrap();
        let check = |assignments: &[&str]| {
            let assignments: Vec<String> = assignments.iter().map(|a| (*a).to_owned()).collect();
            Recipe::parse(&text, &assignments).unwrap().check(&Registry::builtin())
        };
        let unequal = ["distill.adaptation_layer=none", "student.model.fpn_channels=32"];
        for (assignments, part) in [
            (&unequal[..], "channels"),
            (&["teacher.model.anchors.sizes=[8.0]"], "teacher.model"),
            (&["student.init.freeze_at=6"], "freeze_at = 6"),
            (&["student.model.architecture=yolo"], "detector `yolo`"),
            (&["student.model.backbone.architecture=vgg"], "backbone `vgg`"),
            (&["distill.method=magic"], "`magic`"),
        ] {
            let message = check(assignments).unwrap_err().to_string();
            assert!(message.contains(part), "{assignments:?}: {message}");
        }
        check(&[unequal[0], unequal[1], "teacher.checkpoint=t.safetensors"]).unwrap();
    }
}
