//! Keys that older recipes have under another name.

use crate::error::{Error, Result};

/// Keys of older recipes, and what they are called now; those of models are [`docent_model::renamed_keys`]'.
const RENAMED: [(&str, &str); 17] = [
    ("data.train_json", "data.train_annotations"),
    ("data.val_json", "data.val_annotations"),
    ("data.voc.boxes", "data.read.boxes"),
    ("data.voc.difficult", "data.read.difficult"),
    ("data.voc.classes", "data.read.classes"),
    ("data.voc", "data.read"),
    ("schedule.rate", "train.lr_schedule"),
    ("schedule.clip", "train.max_grad_norm"),
    ("schedule.accumulate", "train.accumulation_steps"),
    ("schedule", "train"),
    ("train.rate", "train.lr_schedule"),
    ("train.clip", "train.max_grad_norm"),
    ("train.accumulate", "train.accumulation_steps"),
    ("teacher.floor", "teacher.min_ap"),
    ("distill.tap", "distill.feature_source"),
    ("distill.share", "distill.proposal_source"),
    ("distill.adapt", "distill.adaptation_layer"),
];

/// Names the new key where a recipe has an old one.
pub(super) fn refuse_renamed(table: &toml::Table) -> Result<()> {
    for (old, new) in RENAMED {
        refuse(table, old, new)?;
    }
    for part in ["student", "teacher"] {
        let Some(model) = table.get(part).and_then(|part| part.get("model")) else { continue };
        for (old, new) in docent_model::renamed_keys().filter(|(old, _)| is_ours(model, old)) {
            refuse(table, &format!("{part}.model.{old}"), &format!("{part}.model.{new}"))?;
        }
    }
    if table.get("data").and_then(|d| d.get("checks")).and_then(|c| c.get("duplicate_id")).is_some() {
        return Err(Error::Recipe(
            "`data.checks.duplicate_id` is gone: annotations are numbered anew, and two images with one id are an error".to_owned(),
        ));
    }
    Ok(())
}

/// Whether a key is one of this project's architectures: somebody else's may have any.
fn is_ours(model: &toml::Value, key: &str) -> bool {
    let architecture = |table: &toml::Value| table.get("architecture").and_then(toml::Value::as_str).map(str::to_owned);
    let ours =
        |table: &toml::Value, names: &[&str]| architecture(table).is_none_or(|name| names.contains(&name.as_str()));
    let backbone = model.get("backbone").filter(|_| key.starts_with("backbone."));
    ours(model, &["faster_rcnn"]) && backbone.is_none_or(|backbone| ours(backbone, &["resnet", "mobilenet_v2"]))
}

fn refuse(table: &toml::Table, old: &str, new: &str) -> Result<()> {
    let mut keys = old.split('.');
    let first = keys.next().and_then(|key| table.get(key));
    match keys.try_fold(first, |at, key| Some(at?.as_table()?.get(key))).flatten() {
        Some(_) => Err(Error::Recipe(format!("`{old}` is called `{new}` now"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        refuse_renamed(&text.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn an_old_key_names_the_new_one() {
        for (old, new) in RENAMED {
            let message = message(&format!("{old} = 1\n"));
            assert!(message.contains(&format!("`{old}`")) && message.contains(&format!("`{new}`")), "{message}");
        }
        let model = message("student.model.rpn = { samples = 64 }");
        assert!(model.contains("`student.model.rpn.batch_size_per_image`"), "{model}");
        let others: toml::Table = "student.model.backbone = { architecture = \"yours\", width = 3 }".parse().unwrap();
        refuse_renamed(&others).unwrap();
        assert!(message("data.checks.duplicate_id = \"drop\"").contains("duplicate_id"));
        assert!(refuse_renamed(&"data.read.boxes = \"edges\"".parse().unwrap()).is_ok());
    }
}
