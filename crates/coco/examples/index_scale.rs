//! Writes annotations of COCO's size (118,000 images, 860,000 boxes with outlines), loads them, and fails when that takes longer or
//! more memory than promised: `cargo run -p docent-coco --example index_scale [-- --images N]`. Time is judged by the processor's
//! seconds, which other programs do not lengthen.
#![allow(clippy::print_stdout, reason = "a program that tells what it measured")]

use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use docent_coco::{Dataset, rng};

/// COCO 2017's training split has 118,287 images and 860,001 boxes.
const IMAGES: usize = 118_000;
const BOXES: usize = 860_000;
const MAX_SECONDS: f64 = 3.0;
const MAX_BYTES: u64 = 1 << 30;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let images = match (args.next().as_deref(), args.next()) {
        (None, _) => IMAGES,
        (Some("--images"), Some(n)) => n.parse()?,
        _ => return Err("usage: index_scale [--images N]".into()),
    };
    let boxes = images * BOXES / IMAGES;
    let folder = std::env::temp_dir().join(format!("docent-index-scale-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(&folder.join("instances_train.json"), images, boxes);
    std::fs::remove_dir_all(&folder)?;
    let (seconds, bytes) = measured?;
    if seconds > MAX_SECONDS || bytes > MAX_BYTES {
        return Err(format!("the bounds are {MAX_SECONDS} s and {MAX_BYTES} bytes").into());
    }
    Ok(())
}

/// Writes and loads; the processor's seconds of the load, and the most memory that the process ever had.
fn measure(json: &Path, images: usize, boxes: usize) -> Result<(f64, u64), Box<dyn Error>> {
    write(json, images, boxes)?;
    println!("METRIC:index_json:{}:bytes", std::fs::metadata(json)?.len());
    println!("METRIC:index_memory_before:{}:bytes", peak_memory()?);
    let (start, busy) = (Instant::now(), cpu_seconds()?);
    let set = Dataset::load(json, Path::new("train2017"))?;
    let (wall, seconds) = (start.elapsed().as_secs_f64(), cpu_seconds()? - busy);
    let memory = peak_memory()?;
    println!("METRIC:index_load:{wall:.3}:s");
    println!("METRIC:index_load_cpu:{seconds:.2}:s");
    println!("METRIC:index_memory:{memory}:bytes");
    // What was written is what was read.
    let targets: usize = (0..set.len()).map(|i| set.ground_truth(i).boxes.len()).sum();
    if (set.len(), set.all_annotations().len(), targets) != (images, boxes, boxes) {
        return Err(format!(
            "{} images, {} boxes, {targets} targets were read",
            set.len(),
            set.all_annotations().len()
        )
        .into());
    }
    println!("METRIC:index_findings:{}:findings", set.findings().len());
    Ok((seconds, memory))
}

/// Streams the file, so that making it takes no memory. Keys and their order, ids with gaps, and outlines are as in COCO's own.
fn write(json: &Path, images: usize, boxes: usize) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(json)?);
    let mut draw = rng::keyed(0, "index scale", 0, 0);
    write!(out, "{{\"info\":{{\"year\":2017}},\"licenses\":[],\"images\":[")?;
    for i in 0..images {
        let comma = if i == 0 { "" } else { "," };
        write!(
            out,
            "{comma}{{\"license\":{},\"file_name\":\"{:012}.jpg\",\"coco_url\":\"http://images.cocodataset.org/train2017/{:012}.jpg\",\
             \"height\":480,\"width\":640,\"date_captured\":\"2013-11-14 11:18:45\",\
             \"flickr_url\":\"http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg\",\"id\":{}}}",
            i % 8,
            5 * i + 9,
            5 * i + 9,
            5 * i + 9
        )?;
    }
    write!(out, "],\"annotations\":[")?;
    for k in 0..boxes {
        let comma = if k == 0 { "" } else { "," };
        let mut unit = || rng::unit_f64(&mut draw);
        let (x, y) = (500.0 * unit(), 400.0 * unit());
        let (w, h) = (1.0 + 139.0 * unit(), 1.0 + 79.0 * unit());
        write!(out, "{comma}{{\"segmentation\":[[")?;
        // COCO's outlines have 27 points on average.
        for p in 0..27 {
            let point = if p == 0 { "" } else { "," };
            write!(out, "{point}{:.2},{:.2}", x + w * unit(), y + h * unit())?;
        }
        // In no order of images, as in COCO's file.
        let image = 5 * (k * 7919 % images) + 9;
        write!(
            out,
            "]],\"area\":{:.4},\"iscrowd\":0,\"image_id\":{image},\"bbox\":[{x:.2},{y:.2},{w:.2},{h:.2}],\
             \"category_id\":{},\"id\":{}}}",
            0.6 * w * h,
            1 + k % 80,
            3 * k + 1
        )?;
    }
    let categories: Vec<String> = (1..=80).map(|id| format!("{{\"id\":{id},\"name\":\"class {id}\"}}")).collect();
    write!(out, "],\"categories\":[{}]}}", categories.join(","))?;
    out.flush()
}

/// What all threads of the process have used so far. Hashing goes on beside parsing, so an idle machine takes no longer than this.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    const TICKS: f64 = 100.0; // USER_HZ, the same on every Linux
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // After the program's name in brackets: state is field 3, user and system time are 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at - 3).and_then(|t| t.parse::<f64>().ok()).ok_or("no times in /proc/self/stat");
    Ok((ticks(14)? + ticks(15)?) / TICKS)
}

/// The process's largest resident size so far, as Linux tells it.
fn peak_memory() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
