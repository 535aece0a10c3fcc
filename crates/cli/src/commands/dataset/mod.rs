//! `docent dataset`: what a data folder holds and what is wrong with it; other formats to COCO's; one file made two.

mod check;
mod shapes;
mod split;
mod stats;
mod to_coco;
mod view;

use anyhow::Result;
use docent_coco::Format;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  docent dataset check DIR\n  docent dataset stats DIR --chart stats.svg\n  \
                        docent dataset view DIR --out sheet.png\n  docent dataset to-coco DIR coco-DIR")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Report on a data folder: sizes, classes, and every fault of annotations and image files.
    ///
    /// Exit code 0: nothing would stop a training under the policies; 1: something would, or the folder cannot be opened; 2: wrong
    /// arguments.
    #[command(after_help = "Examples:\n  docent dataset check DIR\n  \
                            docent dataset check DIR --policy missing_image=drop --policy unreadable_image=drop\n\n\
                            A policy is error, drop or (for outside) clip; `--set data.checks.KEY=POLICY` gives it to a training.")]
    Check(check::Args),
    /// Count what both splits hold: image sizes, classes, boxes an image, sizes and shapes of boxes.
    #[command(after_help = "Examples:\n  docent dataset stats DIR\n  docent dataset stats DIR --chart stats.svg\n  \
                            docent dataset stats DIR --json > stats.json")]
    Stats(stats::Args),
    /// Draw some images with their boxes and classes on one sheet, a PNG file.
    #[command(after_help = "Examples:\n  docent dataset view DIR\n  \
                            docent dataset view DIR --split val --class Platelets --count 6 --seed 3 --out platelets.png")]
    View(view::Args),
    /// Split a data set into a training and a held-out part: OUT/annotations/instances_train.json and instances_val.json.
    ///
    /// SRC is a COCO JSON file, whose keys are all kept, or a folder in any layout that `to-coco` reads. An image's side follows from a
    /// hash of its file name, so that it stays there whatever is added. Files that are there already are not overwritten.
    #[command(after_help = "Examples:\n  docent dataset split all.json DIR\n  \
                            docent dataset split all.json DIR --val 0.1 --stratify")]
    Split(split::Args),
    /// Write a folder's annotations as COCO JSON: OUT/annotations/instances_train.json and instances_val.json.
    ///
    /// SRC holds COCO JSON, PASCAL VOC XML, YOLO text files, labelme or VIA JSON, or CSV, in any layout that docs/data.md lists. Images
    /// stay where they are. Files that are there already are not overwritten.
    #[command(after_help = "Examples:\n  docent dataset to-coco VOCdevkit/VOC2012 voc2012-coco\n  \
                            docent dataset to-coco cells cells-coco --boxes edges --classes WBC,RBC,Platelets")]
    ToCoco(to_coco::Args),
    /// `to-coco --format voc`.
    #[command(after_help = "Examples:\n  docent dataset import-voc VOCdevkit/VOC2012 voc2012-coco\n  \
                            docent dataset import-voc cells cells-coco --boxes edges --classes WBC,RBC,Platelets")]
    ImportVoc(to_coco::Args),
    /// `to-coco --format yolo`.
    #[command(after_help = "Examples:\n  docent dataset import-yolo coco8 coco8-coco\n  \
                            docent dataset import-yolo mine mine-coco --classes names.txt --val 0.1")]
    ImportYolo(to_coco::Args),
    /// Draw the data set `shapes`, a COCO folder of scenes that docent makes itself.
    #[command(after_help = "Examples:\n  docent dataset shapes shapes\n  \
                            docent dataset shapes few-shapes --train 100 --val 20 --seed 7")]
    Shapes(shapes::Args),
}

/// Reports, draws or writes.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Check(args) => check::run(args),
        Command::Stats(args) => stats::run(args),
        Command::View(args) => view::run(args),
        Command::Split(args) => split::run(args),
        Command::ToCoco(args) => to_coco::run(args, None),
        Command::ImportVoc(args) => to_coco::run(args, Some(Format::Voc)),
        Command::ImportYolo(args) => to_coco::run(args, Some(Format::Yolo)),
        Command::Shapes(args) => shapes::run(args),
    }
}
