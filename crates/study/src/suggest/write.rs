//! The suggested recipe as TOML with its reasons as comments.

use std::fmt::Write as _;

use docent_detect::backbone::BackboneConfig;
use docent_detect::layers::NormKind;

use super::draft::Draft;
use super::plan::Model;

/// Weight of the feature term: what `shapes` chose and BCCD confirmed, docs/results.md.
const FEATURE_WEIGHT: f64 = 2.88;
/// Columns of a comment.
const WIDTH: usize = 110;

/// Writes a draft. Paths and names are quoted as TOML's basic strings.
pub(super) fn toml(draft: &Draft<'_>) -> String {
    let mut out = String::new();
    comment(
        &mut out,
        "Suggested by `docent init` from the data; every field may be changed. What is not named has its default: `docent recipe show FILE --resolved` writes all of them out.",
    );
    line(&mut out, format_args!("name = {}", quoted(&draft.name)));
    let classes = draft.classes.join(", ");
    line(
        &mut out,
        format_args!("about = {}", quoted(&format!("Suggested for {}: {classes}", draft.options.dir.display()))),
    );
    line(&mut out, format_args!("seed = 0\n"));

    comment(&mut out, &draft.reason("classes"));
    line(&mut out, format_args!("[data]"));
    let absolute =
        |path: &std::path::Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    line(&mut out, format_args!("dir = {}", quoted(&absolute(&draft.options.dir))));
    let open = &draft.options.open;
    let named = [
        ("train_annotations", &open.train_annotations),
        ("val_annotations", &open.val_annotations),
        ("images", &open.images),
    ];
    for (key, path) in named {
        if let Some(path) = path {
            line(&mut out, format_args!("{key} = {}", quoted(&absolute(path))));
        }
    }
    if let Some(limit) = draft.limit {
        line(&mut out, format_args!("limit = {limit}"));
    }
    comment(&mut out, &draft.reason("input size"));
    let r = &draft.input.resize;
    line(
        &mut out,
        format_args!("resize = {{ shortest = {}, longest = {}, rule = \"antialias\" }}", r.shortest, r.longest),
    );
    comment(&mut out, &draft.reason("flip"));
    line(&mut out, format_args!("flip = {:?}", draft.flip));
    reading(&mut out, draft);

    out.push('\n');
    comment(&mut out, &draft.reason("schedule"));
    let s = &draft.schedule;
    line(&mut out, format_args!("[train]\nepochs = {}\nbatch = {}\nlr = {:?}", s.epochs, s.batch, s.lr));
    line(&mut out, format_args!("reference_batch = {}\n", s.batch));
    line(&mut out, format_args!("[train.lr_schedule]\nwarmup_iters = {}\nmilestones = [0.7, 0.9]\n", s.warmup));

    comment(&mut out, &draft.reason("models"));
    line(&mut out, format_args!("[student.model]"));
    comment(&mut out, &draft.reason("anchors"));
    model(&mut out, draft, &draft.pair.student);

    line(&mut out, format_args!("\n[teacher]"));
    comment(&mut out, "A teacher below this AP (0 to 1) has nothing to teach; the study stops before it distils.");
    line(&mut out, format_args!("min_ap = 0.1"));
    let epochs = draft.pair.teacher_epochs(s.epochs);
    if epochs != s.epochs {
        line(&mut out, format_args!("epochs = {epochs}"));
    }
    if let Some(weights) = &draft.pair.weights {
        line(&mut out, format_args!("\n[teacher.init]\nbackbone = {}", quoted(&weights.display().to_string())));
        line(&mut out, format_args!("required = true\nfreeze_at = 3"));
    }
    line(&mut out, format_args!("\n[teacher.model]"));
    model(&mut out, draft, &draft.pair.teacher);
    out.push('\n');
    comment(
        &mut out,
        "Our reading of the paper's method (docs/method.md). The default feature weight is 0.32; nine times as much did better on \
         both data sets that it was tried on (docs/results.md).",
    );
    line(&mut out, format_args!("[distill]\nw_feat = {FEATURE_WEIGHT}"));
    out
}

/// What was said about faults and the annotations' meaning, where it is not the default.
fn reading(out: &mut String, draft: &Draft<'_>) {
    let tables = [
        (
            "checks",
            toml::Table::try_from(&draft.options.open.checks),
            toml::Table::try_from(docent_coco::CheckConfig::default()),
        ),
        (
            "read",
            toml::Table::try_from(&draft.options.open.read),
            toml::Table::try_from(docent_coco::ReadConfig::default()),
        ),
    ];
    for (name, given, default) in tables {
        let (Ok(given), Ok(default)) = (given, default) else { continue };
        let said: Vec<_> = given.iter().filter(|(key, value)| default.get(*key) != Some(value)).collect();
        if !said.is_empty() {
            line(out, format_args!("\n[data.{name}]"));
            for (key, value) in said {
                line(out, format_args!("{key} = {value}"));
            }
        }
    }
}

fn model(out: &mut String, draft: &Draft<'_>, model: &Model) {
    line(out, format_args!("backbone = {}", backbone(&model.backbone)));
    line(out, format_args!("fpn_channels = {}", model.fpn_channels));
    let list = |values: &[f32]| values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(", ");
    let a = &draft.anchors.config;
    line(out, format_args!("anchors = {{ sizes = [{}], ratios = [{}] }}", list(&a.sizes), list(&a.ratios)));
    let (post, pre) = (draft.proposals, 2 * draft.proposals);
    line(
        out,
        format_args!(
            "rpn = {{ pre_nms_top_n_train = {pre}, pre_nms_top_n_test = {pre}, post_nms_top_n_train = {post}, post_nms_top_n_test = {post} }}"
        ),
    );
    line(
        out,
        format_args!(
            "roi = {{ batch_size_per_image = {}, representation_size = {}, canonical_box_size = {:?} }}",
            draft.roi_samples, model.hidden, draft.anchors.canonical_box_size
        ),
    );
}

fn backbone(config: &BackboneConfig) -> String {
    let norm = if config.norm() == Some(NormKind::FrozenBatchNorm) { "frozen_batch_norm" } else { "batch_norm" };
    let named = || format!("architecture = \"{}\"", config.architecture());
    let (architecture, width) = match config {
        BackboneConfig::ResNet(c) => (format!("depth = {}", c.depth), c.width_multiplier),
        BackboneConfig::MobileNetV2(c) => (named(), c.width_multiplier),
        _ => (named(), 1.0),
    };
    let width = if width == 1.0 { String::new() } else { format!(", width_multiplier = {width:?}") };
    format!("{{ {architecture}{width}, norm = \"{norm}\" }}")
}

/// A string as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes whatever is written.
    let _ = writeln!(out, "{text}");
}

/// A comment in lines; nothing where there is nothing to say.
fn comment(out: &mut String, text: &str) {
    let mut row = String::new();
    for word in text.split_whitespace() {
        if !row.is_empty() && row.chars().count() + word.chars().count() + 3 > WIDTH {
            line(out, format_args!("# {row}"));
            row.clear();
        }
        if !row.is_empty() {
            row.push(' ');
        }
        row.push_str(word);
    }
    if !row.is_empty() {
        line(out, format_args!("# {row}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_wrapped_and_strings_quoted() {
        let mut out = String::new();
        comment(&mut out, &"word ".repeat(60));
        assert!(out.lines().count() > 2 && out.lines().all(|l| l.starts_with("# word") && l.len() <= WIDTH));
        comment(&mut out, "");
        for text in ["plain", "C:\\data \"mine\"", "it's\nnew"] {
            let table: toml::Table = format!("a = {}", quoted(text)).parse().unwrap();
            assert_eq!(table["a"].as_str(), Some(text));
        }
    }
}
