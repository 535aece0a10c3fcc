//! torchvision's parameter names through the years.

use std::collections::BTreeMap;

/// The present name of a detector's tensor; its own where it is not an old one.
///
/// Before torchvision 0.13 a convolution of the pyramid and of the RPN stood without the block that holds it now, which is how
/// the COCO_V1 files still spell them. Scripts for several GPUs put `module.` in front; a pyramid saved alone lacks `backbone.`.
pub(super) fn present(name: &str) -> String {
    let name = name.strip_prefix("module.").unwrap_or(name);
    let name = match name.split('.').next() {
        Some("fpn" | "body") => format!("backbone.{name}"),
        _ => name.to_owned(),
    };
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        ["backbone", "fpn", blocks @ ("inner_blocks" | "layer_blocks"), level, leaf] => {
            format!("backbone.fpn.{blocks}.{level}.0.{leaf}")
        }
        ["rpn", "head", "conv", leaf] => format!("rpn.head.conv.0.0.{leaf}"),
        _ => name,
    }
}

/// Every value under its present name, and how many names were old ones.
///
/// # Errors
/// The name that two of the file's come to.
pub(super) fn rename<T>(tensors: BTreeMap<String, T>) -> Result<(BTreeMap<String, T>, usize), String> {
    let (mut renamed, mut old) = (BTreeMap::new(), 0);
    for (name, tensor) in tensors {
        let now = present(&name);
        old += usize::from(now != name);
        if renamed.insert(now.clone(), tensor).is_some() {
            return Err(now);
        }
    }
    Ok((renamed, old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_become_present_ones_and_present_ones_stay() {
        for (old, now) in [
            ("rpn.head.conv.weight", "rpn.head.conv.0.0.weight"),
            ("backbone.fpn.inner_blocks.0.weight", "backbone.fpn.inner_blocks.0.0.weight"),
            ("backbone.fpn.layer_blocks.3.bias", "backbone.fpn.layer_blocks.3.0.bias"),
            ("fpn.inner_blocks.0.weight", "backbone.fpn.inner_blocks.0.0.weight"),
            ("module.rpn.head.conv.bias", "rpn.head.conv.0.0.bias"),
            ("body.conv1.weight", "backbone.body.conv1.weight"),
        ] {
            assert_eq!(present(old), now);
            assert_eq!(present(now), now);
        }
        for name in ["rpn.head.cls_logits.weight", "backbone.body.layer1.0.conv1.weight", "backbone.fpn.x.0.weight"] {
            assert_eq!(present(name), name);
        }
    }

    #[test]
    fn two_spellings_of_one_name_are_refused() {
        let both = ["rpn.head.conv.weight", "rpn.head.conv.0.0.weight"].map(|n| (n.to_owned(), 0)).into();
        assert_eq!(rename(both).unwrap_err(), "rpn.head.conv.0.0.weight");
        let one = BTreeMap::from([("rpn.head.conv.weight".to_owned(), 0), ("rpn.x".to_owned(), 1)]);
        assert_eq!(rename(one).unwrap().1, 1);
    }
}
