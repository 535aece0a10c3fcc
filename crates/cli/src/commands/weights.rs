//! `docent weights`: what a weight file is of, and other programs' weights brought in.

use std::path::{Path, PathBuf};

use crate::output::say;
use anyhow::{Result, bail, ensure};
use docent_coco::{Category, Dataset};
use docent_model::import::{Content, ConvertOptions, Target, convert};
use docent_model::read_weights;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  docent weights inspect FILE.pth\n  docent weights convert FILE.pth mine.safetensors"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Tell what a file is of, and list its tensors.
    ///
    /// Reads safetensors and PyTorch's .pth (zip and legacy form; data only, nothing in it is run).
    #[command(after_help = "Example:\n  docent weights inspect fasterrcnn_resnet50_fpn_coco-258fb6c6.pth")]
    Inspect {
        /// A weight file.
        file: PathBuf,
        /// Leave the list of tensors out.
        #[arg(long)]
        brief: bool,
    },
    /// Convert a weight file.
    ///
    /// torchvision's Faster R-CNN becomes a checkpoint for `docent predict`, `docent eval`, `teacher.checkpoint` and `init.from`.
    /// A classification network becomes a backbone's file for `init.backbone`. A checkpoint of docent stays one.
    /// The tensors must be exactly those of the architecture; whatever is missing, unexpected or of another shape is listed.
    #[command(after_help = "Examples:\n  \
        docent weights convert fasterrcnn_resnet50_fpn_coco-258fb6c6.pth coco.safetensors\n  \
        docent weights convert fasterrcnn_resnet50_fpn_coco-258fb6c6.pth teacher.safetensors --drop-unused\n  \
        docent weights convert mine.pth mine.safetensors --categories instances_train.json --set anchors.sizes=[16,32,64,128,256]\n  \
        docent weights convert resnet50-11ad3fa6.pth backbone.safetensors\n  \
        docent weights convert runs/shapes-seed0/distilled/checkpoints/last.safetensors small.safetensors --f16")]
    Convert(ConvertArgs),
}

#[derive(clap::Args)]
struct ConvertArgs {
    /// The file to read.
    input: PathBuf,
    /// The safetensors file to write; it must not be there yet.
    output: PathBuf,
    /// What to write; default: a detector of a detector, a backbone of a classification network.
    #[arg(long, value_enum)]
    to: Option<To>,
    /// Write weights of two and more dimensions as f16: half the size.
    #[arg(long)]
    f16: bool,
    /// A setting that the shapes do not tell, over the model's config; may be repeated.
    ///
    /// For instance `anchors.sizes=[16,32,64,128,256]`, `normalize.std=[1,1,1]`, backbone.norm_eps=0, backbone.stride_in_1x1=true.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// COCO annotations whose categories, by id, are the classes 1, 2, ...
    #[arg(long, value_name = "JSON")]
    categories: Option<PathBuf>,
    /// Leave out the classes that stand for the ids that COCO does not use: 81 instead of 91, as COCO's data has.
    #[arg(long)]
    drop_unused: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum To {
    /// A checkpoint.
    Detector,
    /// The backbone alone.
    Backbone,
}

/// Inspects or converts.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Inspect { file, brief } => inspect(&file, brief),
        Command::Convert(args) => run_convert(args),
    }
}

fn inspect(path: &Path, brief: bool) -> Result<()> {
    let file = read_weights(path)?;
    let content = Content::of(path, &file)?;
    say!("file      {}", path.display());
    say!("format    {}", file.format);
    say!("sha256    {}", file.sha256);
    say!("content   {}", content.describe());
    if let Content::Checkpoint(meta) = &content {
        let names: Vec<String> = meta.categories.iter().map(|c| format!("{} {}", c.id, c.name)).collect();
        say!("classes   {}", names.join(", "));
        say!("model     {}", meta.model);
        say!("resize    {}", meta.resize);
    } else {
        for (key, value) in &file.metadata {
            say!("metadata  {key} = {value}");
        }
    }
    for note in &file.notes {
        say!("note      {note}");
    }
    if !file.saturated.is_empty() {
        say!("infinite  {}", file.saturated.join(", "));
    }
    let values: usize = file.tensors.values().map(|t| t.elem_count()).sum();
    say!("tensors   {}, {values} values", file.tensors.len());
    if brief {
        return Ok(());
    }
    say!();
    let width = file.tensors.keys().map(String::len).max().unwrap_or(0);
    for (name, tensor) in &file.tensors {
        let dtype = file.stored.get(name).map_or("?", |d| d.as_str());
        say!("{name:<width$}  {dtype:<4}  {:?}", tensor.dims());
    }
    Ok(())
}

fn run_convert(args: ConvertArgs) -> Result<()> {
    let (input, output) = (&args.input, &args.output);
    if output.extension().is_none_or(|e| e != "safetensors") {
        bail!("{}: only safetensors are written; give the output that ending", output.display());
    }
    ensure!(!output.exists(), "{} is there already; choose another name", output.display());
    let mut options = ConvertOptions::default().set(args.set).drop_unused(args.drop_unused).f16(args.f16);
    options.to = args.to.map(|to| match to {
        To::Detector => Target::Detector,
        To::Backbone => Target::Backbone,
    });
    options.categories = args.categories.as_deref().map(categories).transpose()?;
    let converted = convert(input, read_weights(input)?, &options)?;
    let sha256 = converted.save(output)?;
    for note in &converted.notes {
        say!("note: {note}");
    }
    let kind = format!("{:?}", converted.target).to_lowercase();
    say!("{}: {kind}, {} tensors, sha256 {sha256}", output.display(), converted.tensors.len());
    Ok(())
}

/// The categories of an annotation file in the order of their ids, as training counts them.
fn categories(json: &Path) -> Result<Vec<Category>> {
    // No image is read, so any folder will do.
    Ok(Dataset::load(json, json.parent().unwrap_or(Path::new(".")))?.categories().to_vec())
}
