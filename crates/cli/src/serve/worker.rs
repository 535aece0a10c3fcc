//! The model's thread: one image after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use axum::body::Bytes;
use docent_coco::{DecodeOptions, Rgb8, decode_bytes};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::problem::Problem;
use crate::runtime::on_the_pool;

/// What finds the objects of an image, best first, or says what is wrong.
pub type Model = Box<dyn FnMut(&Rgb8) -> Result<Vec<Found>, String> + Send>;

/// One object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// The class's name.
    pub label: String,
    /// The category's id in the training data.
    pub category_id: u64,
    /// From 0 to 1.
    pub score: f32,
    /// `[x, y, width, height]` in pixels of the image, as COCO's.
    pub bbox: [f32; 4],
}

/// One image to look at.
pub struct Job {
    /// The file's bytes.
    pub bytes: Bytes,
    /// Whether EXIF's rotation is applied.
    pub upright: bool,
    /// When it was put in the queue.
    pub queued: Instant,
    /// Where the answer goes; closed when nobody waits for it any more.
    pub reply: oneshot::Sender<Result<Done, Problem>>,
    /// Its slot, held until the model is done with it.
    pub slot: OwnedSemaphorePermit,
}

/// The answer.
#[derive(Debug)]
pub struct Done {
    /// Pixels of the image that the boxes lie in.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// All objects, best first.
    pub found: Vec<Found>,
    /// Seconds in the queue.
    pub waited: f64,
    /// Seconds of decoding and detecting.
    pub seconds: f64,
}

/// The thread's other end.
pub struct Worker {
    /// How many jobs there are is bounded by their slots.
    jobs: Sender<Job>,
    works: Arc<AtomicBool>,
}

impl Worker {
    /// Starts the thread; it ends when the worker is dropped.
    pub fn start(model: Model) -> std::io::Result<Self> {
        let (jobs, received) = channel();
        let works = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&works);
        std::thread::Builder::new().name("model".to_owned()).spawn(move || {
            work(model, &received);
            flag.store(false, Ordering::Release);
        })?;
        Ok(Self { jobs, works })
    }

    /// Puts a job in the queue.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn send(&self, job: Job) -> Result<(), Problem> {
        self.jobs.send(job).map_err(|_| Problem::Failed("its thread has ended".to_owned()))
    }

    /// Whether the thread runs.
    pub fn works(&self) -> bool {
        self.works.load(Ordering::Acquire)
    }
}

fn work(mut model: Model, jobs: &Receiver<Job>) {
    for job in jobs {
        let Job { bytes, upright, queued, reply, slot } = job;
        // Whoever asked has gone, or was told that it took too long.
        if reply.is_closed() {
            continue;
        }
        let waited = queued.elapsed().as_secs_f64();
        let start = Instant::now();
        // A fault in the model costs one answer, not the service.
        let done = catch_unwind(AssertUnwindSafe(|| on_the_pool(|| detect(&mut model, &bytes, upright))))
            .unwrap_or_else(|_| Err(Problem::Failed("a fault of the program itself: please report it".to_owned())))
            .map(|(image, found)| Done {
                width: image.width,
                height: image.height,
                found,
                waited,
                seconds: start.elapsed().as_secs_f64(),
            });
        drop(bytes);
        drop(slot);
        // Nobody may be waiting any more.
        let _ = reply.send(done);
    }
}

fn detect(model: &mut Model, bytes: &[u8], upright: bool) -> Result<(Rgb8, Vec<Found>), Problem> {
    let options = DecodeOptions::default().upright(upright);
    let image = decode_bytes(bytes, "the body", options).map_err(Problem::unreadable)?;
    let found = model(&image).map_err(Problem::Failed)?;
    Ok((image, found))
}
