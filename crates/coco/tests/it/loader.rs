//! The loader: order, flips, bounds, failures, and ending cleanly.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use docent_coco::{Augment, Dataset, Error, Loader, LoaderConfig, Resize, ResizeRule, TrainItem};

use crate::support::{size_of, write_images};

fn config(threads: usize) -> LoaderConfig {
    LoaderConfig::default()
        .resize(Resize::default().shortest(16).longest(40).rule(ResizeRule::Torchvision))
        .flip(0.5)
        .augment(Augment::default())
        .batch(3)
        .threads(threads)
        .prefetch(2)
        .seed(5)
        .shuffle(true)
        .drop_last(false)
}

fn made(n: usize) -> (tempfile::TempDir, Arc<Dataset>) {
    let dir = tempfile::tempdir().unwrap();
    let set = Arc::new(write_images(dir.path(), n));
    (dir, set)
}

fn run(loader: &Loader, epoch: usize) -> Vec<Vec<TrainItem>> {
    loader.epoch(epoch).collect::<Result<_, _>>().unwrap()
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (_dir, set) = made(13);
    let one = Loader::new(set.clone(), config(1)).unwrap();
    let four = Loader::new(set.clone(), config(4)).unwrap();
    let none_ahead = Loader::new(set, config(2).prefetch(0)).unwrap();
    for epoch in 0..3 {
        let batches = run(&one, epoch);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 3, 1]);
        assert_eq!(batches, run(&four, epoch));
        assert_eq!(batches, run(&none_ahead, epoch));
        // Entering later gives the same batches.
        let rest: Vec<_> = four.epoch_from(epoch, 3).map(Result::unwrap).collect();
        assert_eq!(rest, batches[3..]);
    }
    assert_eq!(one.epoch_from(0, 99).count(), 0);
    assert_eq!(one.epoch(0).len(), 5);
}

#[test]
fn epochs_differ_seeds_differ_and_every_image_comes_once() {
    let (_dir, set) = made(13);
    let loader = Loader::new(set.clone(), config(2)).unwrap();
    let order = |e| run(&loader, e).into_iter().flatten().map(|i| i.index).collect::<Vec<_>>();
    let (first, second) = (order(1), order(2));
    assert_ne!(first, second);
    assert_eq!(first, loader.order(1));
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..13).collect::<Vec<_>>());
    let other = Loader::new(set, config(2).seed(6)).unwrap();
    assert_ne!(other.order(1), first);
}

#[test]
fn evaluation_is_in_order_and_unflipped() {
    let (_dir, set) = made(7);
    let resize = config(1).resize;
    let loader = Loader::new(set, LoaderConfig::default().resize(resize).batch(2)).unwrap();
    let items: Vec<_> = run(&loader, 0).into_iter().flatten().collect();
    assert_eq!(items.iter().map(|i| i.index).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    assert!(items.iter().all(|i| !i.key.transform.flip && i.key.image_id == 10 * i.index as u64 + 3));
}

#[test]
fn boxes_follow_their_image() {
    let (_dir, set) = made(40);
    let loader = Loader::new(set.clone(), config(2)).unwrap();
    let items: Vec<_> = run(&loader, 0).into_iter().flatten().collect();
    let flipped = items.iter().filter(|i| i.key.transform.flip).count();
    assert!((8..=32).contains(&flipped), "{flipped} of 40");
    // The same image flips in one epoch and not in another.
    let again: Vec<_> = run(&loader, 1).into_iter().flatten().collect();
    assert!(items.iter().any(|i| {
        again.iter().any(|j| j.key.image_id == i.key.image_id && j.key.transform.flip != i.key.transform.flip)
    }));
    for item in &items {
        let (w, h) = size_of(item.index);
        let (w, h) = (w as usize, h as usize);
        assert_eq!(item.key.original, (h, w));
        let (height, width) = config(1).resize.output_size(h, w);
        assert_eq!((item.planes.height, item.planes.width), (height, width));
        assert_eq!(item.planes.data.len(), 3 * height * width);
        // The white pixel stands in the upper left corner, or in the upper right one of a mirrored image.
        let red = &item.planes.data[..width];
        let (marked, other) = if item.key.transform.flip { (red[width - 1], red[0]) } else { (red[0], red[width - 1]) };
        assert!(marked > other, "{marked} {other}");
        let ground_truth = set.ground_truth(item.index);
        assert_eq!(item.labels, ground_truth.labels);
        assert_eq!(item.boxes.len(), item.index % 3);
        for (got, b) in item.boxes.iter().zip(&ground_truth.boxes) {
            let (sx, sy) = (width as f32 / w as f32, height as f32 / h as f32);
            let (x1, x2) = if item.key.transform.flip { (w as f32 - b[2], w as f32 - b[0]) } else { (b[0], b[2]) };
            assert_eq!(*got, [x1 * sx, b[1] * sy, x2 * sx, b[3] * sy]);
        }
    }
}

#[test]
fn a_short_last_batch_can_be_left_out() {
    let (_dir, set) = made(7);
    let drop_last = config(1).drop_last(true);
    let loader = Loader::new(set.clone(), drop_last.clone()).unwrap();
    assert_eq!(loader.batches(), 2);
    assert_eq!(run(&loader, 0).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    let error = Loader::new(set, drop_last.batch(8)).unwrap_err().to_string();
    assert!(error.contains("no batch is left"), "{error}");
}

#[test]
fn a_broken_image_is_an_error_that_names_it_and_the_rest_goes_on() {
    let (_dir, set) = made(9);
    std::fs::write(set.image_path(4), b"\x89PNG\r\n\x1a\nrubbish").unwrap();
    std::fs::remove_file(set.image_path(7)).unwrap();
    let loader = Loader::new(set, config(2).shuffle(false)).unwrap();
    let batches: Vec<_> = loader.epoch(0).collect();
    assert!(batches[0].is_ok());
    for (batch, id, file) in [(1, 43, "004.png"), (2, 73, "007.png")] {
        let error = batches[batch].as_ref().unwrap_err();
        assert!(matches!(error, Error::Item { image_id, .. } if *image_id == id), "{error}");
        assert!(error.to_string().contains(file), "{error}");
    }
    // Its threads still work.
    assert!(loader.epoch(1).next().unwrap().is_ok());
}

#[test]
fn it_ends_at_any_moment() {
    let (_dir, set) = made(30);
    let start = Instant::now();
    for taken in 0..8 {
        let loader = Loader::new(set.clone(), config(3).prefetch(4)).unwrap();
        let mut epoch = loader.epoch(taken);
        for _ in 0..taken {
            epoch.next().unwrap().unwrap();
        }
        drop(epoch);
        drop(loader);
    }
    // Two epochs at once, one of them left behind.
    let loader = Loader::new(set, config(2)).unwrap();
    let mut left = loader.epoch(0);
    left.next().unwrap().unwrap();
    assert_eq!(run(&loader, 1).len(), 10);
    assert_eq!(left.len(), 9);
    drop(left);
    drop(loader);
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn no_more_than_asked_is_made_ahead() {
    let (dir, set) = made(30);
    let loader = Loader::new(set.clone(), config(4).shuffle(false).prefetch(2)).unwrap();
    let mut epoch = loader.epoch(0);
    epoch.next().unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    // The batch in use and two ahead are made (9 images); what comes later is not touched, so that it can still go.
    for i in 9..30 {
        std::fs::remove_file(set.image_path(i)).unwrap();
    }
    assert!(epoch.next().unwrap().is_ok());
    assert!(epoch.next().unwrap().is_ok());
    assert!(epoch.next().unwrap().is_err());
    drop(dir);
}

#[test]
fn settings_are_checked() {
    let (_dir, set) = made(2);
    let good = config(1);
    let bad = [
        (good.clone().batch(0), "batch"),
        (good.clone().threads(0), "threads"),
        (good.clone().flip(1.5), "flip"),
        (good.clone().flip(f32::NAN), "flip"),
        (good.clone().resize(good.resize.shortest(0)), "shortest"),
    ];
    for (config, word) in bad {
        let error = Loader::new(set.clone(), config).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let empty = Arc::new(set.subset(&[]));
    assert!(Loader::new(empty, good).unwrap_err().to_string().contains("no image"));
}

/// Every image file is a pipe that gives its bytes late, as a slow disk does. However slow the disk or the loop is, no more images are
/// begun than one batch in use and those that are made ahead.
#[test]
#[cfg(unix)]
fn a_slow_disk_slows_and_never_piles_images_up() {
    let (_dir, set) = made(24);
    let begun = Arc::new(AtomicUsize::new(0));
    let taken = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    for i in 0..set.len() {
        let path = set.image_path(i);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (begun, taken, most) = (begun.clone(), taken.clone(), most.clone());
        std::thread::spawn(move || {
            // Waits for the loader to open the other end.
            let mut pipe = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            let ahead = begun.fetch_add(1, Ordering::SeqCst) + 1 - taken.load(Ordering::SeqCst);
            most.fetch_max(ahead, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(10));
            pipe.write_all(&bytes).unwrap();
        });
    }
    let loader = Loader::new(set, config(3).batch(2).prefetch(2)).unwrap();
    let mut epoch = loader.epoch(0);
    for batch in 0..12 {
        if batch < 4 {
            // The loop is slow at first, then the disk is.
            std::thread::sleep(Duration::from_millis(60));
        }
        taken.fetch_add(epoch.next().unwrap().unwrap().len(), Ordering::SeqCst);
    }
    assert!(epoch.next().is_none());
    assert_eq!(begun.load(Ordering::SeqCst), 24);
    let most = most.load(Ordering::SeqCst);
    assert!((4..=6).contains(&most), "{most} images begun and not taken, with 2 batches of 2 ahead of the one in use");
}
