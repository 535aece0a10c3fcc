//! torchvision's parameter names through the years.

use std::collections::BTreeMap;

/// The prefix of a backbone inside torchvision's Faster R-CNN.
pub const BACKBONE_PREFIX: &str = "backbone.body.";

/// Beginnings that say how a model was held, not what it is: by DistributedDataParallel, by a training script's or Lightning's own
/// class, by torch.compile.
const NEUTRAL: [&str; 3] = ["module.", "model.", "_orig_mod."];

/// The names alone.
pub(super) fn names_of<T>(tensors: &BTreeMap<String, T>) -> Vec<&str> {
    tensors.keys().map(String::as_str).collect()
}

/// Is this PyTorch's name of a BatchNorm's running variance? A file's values are checked before anybody knows what model they are of.
pub(crate) fn is_running_variance(name: &str) -> bool {
    name.ends_with("running_var")
}

/// The name without the neutral prefixes before it, in any order and number.
pub(crate) fn without_prefixes(mut name: &str) -> &str {
    while let Some(rest) = NEUTRAL.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}

/// Tensors under their names without neutral prefixes, and how many names had one.
///
/// # Errors
/// The name that two of the file's come to.
pub(crate) fn neutral<T>(tensors: BTreeMap<String, T>) -> Result<(BTreeMap<String, T>, usize), String> {
    rename(tensors, |name| without_prefixes(name).to_owned())
}

/// The present name of a detector's tensor, where it is one of torchvision's older names.
///
/// Before torchvision 0.13 a convolution of the pyramid and of the RPN stood without the block that holds it now, which is how
/// the COCO_V1 files still spell them.
fn present(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        ["backbone", "fpn", blocks @ ("inner_blocks" | "layer_blocks"), level, leaf] => {
            Some(format!("backbone.fpn.{blocks}.{level}.0.{leaf}"))
        }
        ["rpn", "head", "conv", leaf] => Some(format!("rpn.head.conv.0.0.{leaf}")),
        _ => None,
    }
}

/// The name with the `backbone.` that a pyramid saved alone lacks.
fn whole(name: &str) -> String {
    match name.split('.').next() {
        Some("fpn" | "body") => format!("backbone.{name}"),
        _ => name.to_owned(),
    }
}

/// Every tensor under its present name, and how many names were older versions'.
///
/// # Errors
/// The name that two of the file's come to.
pub(super) fn up_to_date<T>(tensors: BTreeMap<String, T>) -> Result<(BTreeMap<String, T>, usize), String> {
    let (tensors, _) = rename(tensors, whole)?;
    rename(tensors, |name| present(name).unwrap_or_else(|| name.to_owned()))
}

/// Every value under its new name, and how many names changed.
///
/// # Errors
/// The name that two come to.
fn rename<T>(
    tensors: BTreeMap<String, T>,
    new: impl Fn(&str) -> String,
) -> Result<(BTreeMap<String, T>, usize), String> {
    let (mut renamed, mut changed) = (BTreeMap::new(), 0);
    for (name, tensor) in tensors {
        let now = new(&name);
        changed += usize::from(now != name);
        if renamed.insert(now.clone(), tensor).is_some() {
            return Err(now);
        }
    }
    Ok((renamed, changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(names: &[&str]) -> (Vec<String>, usize) {
        let (tensors, _) = neutral(names.iter().map(|name| ((*name).to_owned(), 0)).collect()).unwrap();
        let (tensors, old) = up_to_date(tensors).unwrap();
        (tensors.into_keys().collect(), old)
    }

    #[test]
    fn older_names_become_present_ones_and_are_counted() {
        for (old, present) in [
            ("rpn.head.conv.weight", "rpn.head.conv.0.0.weight"),
            ("backbone.fpn.inner_blocks.0.weight", "backbone.fpn.inner_blocks.0.0.weight"),
            ("backbone.fpn.layer_blocks.3.bias", "backbone.fpn.layer_blocks.3.0.bias"),
            ("fpn.inner_blocks.0.weight", "backbone.fpn.inner_blocks.0.0.weight"),
            ("module.rpn.head.conv.bias", "rpn.head.conv.0.0.bias"),
        ] {
            assert_eq!(now(&[old]), (vec![present.to_owned()], 1));
            assert_eq!(now(&[present]), (vec![present.to_owned()], 0));
        }
    }

    #[test]
    fn prefixes_in_any_combination_change_nothing_else() {
        for name in
            ["rpn.head.cls_logits.weight", "backbone.body.layer1.0.conv1.weight", "rpn.head.conv.0.0.weight", "fc.bias"]
        {
            for prefix in
                ["", "module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.model.module."]
            {
                assert_eq!(now(&[&format!("{prefix}{name}")]), (vec![name.to_owned()], 0), "{prefix}");
            }
        }
        // A pyramid saved alone.
        assert_eq!(now(&["body.conv1.weight"]), (vec!["backbone.body.conv1.weight".to_owned()], 0));
        assert_eq!(now(&["remodel.weight", "models.weight"]).0, ["models.weight", "remodel.weight"]);
    }

    #[test]
    fn two_spellings_of_one_name_are_refused() {
        let both = ["rpn.head.conv.weight", "rpn.head.conv.0.0.weight"].map(|n| (n.to_owned(), 0)).into();
        assert_eq!(up_to_date(both).unwrap_err(), "rpn.head.conv.0.0.weight");
        let both = ["module.fc.bias", "fc.bias"].map(|n| (n.to_owned(), 0)).into();
        assert_eq!(neutral(both).unwrap_err(), "fc.bias");
    }
}
