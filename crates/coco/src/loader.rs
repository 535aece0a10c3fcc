//! Batches from threads that live as long as the loader: prefetching, bounded, in order, the same for any number of threads.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use crate::augment::Augment;
use crate::dataset::{Dataset, Sample};
use crate::error::{Error, Result};
use crate::image_reader::panic_text;
use crate::resize::{Planes, Resize};
use crate::rng;
use crate::setters::setters;
use crate::transform::{ImageKey, Transform};

/// What a [`Loader`] does with the images. The defaults are those of an evaluation: in order, unflipped, the last batch short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LoaderConfig {
    /// The size images are brought to.
    pub resize: Resize,
    /// The probability that an image is mirrored left to right. Default 0.
    pub flip: f32,
    /// Changes of the images beside the flip. Default none.
    pub augment: Augment,
    /// Images in a batch. Default 1.
    pub batch: usize,
    /// Threads that decode and resize. Default 1.
    pub threads: usize,
    /// Batches that are made ready ahead of the one in use; with that one they bound the memory. Default 2.
    pub prefetch: usize,
    /// Seeds the order, the flips and the other changes. Default 0.
    pub seed: u64,
    /// Whether each epoch has its own random order. Default false: the order of the data set.
    pub shuffle: bool,
    /// Whether a last batch with fewer images is left out. Default false.
    pub drop_last: bool,
}

setters!(LoaderConfig {
    resize: Resize,
    flip: f32,
    augment: Augment,
    batch: usize,
    threads: usize,
    prefetch: usize,
    seed: u64,
    shuffle: bool,
    drop_last: bool,
});

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            resize: Resize::default(),
            flip: 0.0,
            augment: Augment::default(),
            batch: 1,
            threads: 1,
            prefetch: 2,
            seed: 0,
            shuffle: false,
            drop_last: false,
        }
    }
}

impl LoaderConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// A batch or thread count of 0, a flip outside 0..=1, or a refused resize.
    pub fn validate(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Config(text));
        if self.batch == 0 {
            return refuse("batch is 0; a batch needs at least one image".to_owned());
        }
        if self.threads == 0 || self.threads > 1024 {
            return refuse(format!("threads is {}; between 1 and 1024 loader threads are needed", self.threads));
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return refuse(format!("flip is {}; it is a probability between 0 and 1", self.flip));
        }
        self.augment.validate()?;
        self.resize.validate()
    }

    /// Draws the changes of an image in batch `batch` of an epoch, each by a key of its own.
    fn draw(&self, sample: &Sample, epoch: u64, batch: u64) -> Transform {
        let Sample { image, boxes, image_id, .. } = sample;
        let keyed = |purpose| rng::keyed(self.seed, purpose, epoch, *image_id);
        let crop = self.augment.crop.as_ref();
        let region = crop.and_then(|crop| crop.draw(&mut keyed("crop"), image.width, image.height, boxes));
        let region = region.unwrap_or([0, 0, image.width, image.height]);
        let flip = rng::unit(&mut keyed("flip")) < self.flip;
        let colours = self.augment.jitter.as_ref().map_or(Vec::new(), |jitter| jitter.draw(&mut keyed("jitter")));
        let resize = self.augment.resize_of(&self.resize, self.seed, epoch, batch);
        let size = resize.output_size(region[3], region[2]);
        Transform { region, flip, colours, size, rule: resize.rule }
    }
}

/// One image of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainItem {
    /// The image's id, its original size and every change that was drawn for it.
    pub key: ImageKey,
    /// Its position in the data set.
    pub index: usize,
    /// The image after these changes.
    pub planes: Planes,
    /// Ground truth for training, xyxy in pixels of `planes`.
    pub boxes: Vec<[f32; 4]>,
    /// One for each box, from 1.
    pub labels: Vec<u32>,
}

/// One image to make, and where to send it.
struct Job {
    index: usize,
    epoch: u64,
    batch: usize,
    position: usize,
    cancelled: Arc<AtomicBool>,
    reply: Sender<(usize, Result<TrainItem>)>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    /// The lock, whether or not a thread died holding it: the queue is whole between any two of its operations.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let job = loop {
                if queue.closed {
                    return;
                }
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            };
            drop(queue);
            if job.cancelled.load(Ordering::Relaxed) {
                continue;
            }
            // A panic must not take the thread, and with it the run, along.
            let made = catch_unwind(AssertUnwindSafe(|| self.make(&job)));
            let item = made.unwrap_or_else(|panic| {
                let text = format!("loading failed inside: {}", panic_text(&*panic));
                Err(Error::decode(&self.dataset.image_path(job.index), text))
            });
            let item = item.map_err(|source| Error::Item {
                image_id: self.dataset.image(job.index).id,
                path: self.dataset.image_path(job.index),
                source: Box::new(source),
            });
            // The epoch may be gone by now; then nobody wants the image.
            let _ = job.reply.send((job.position, item));
        }
    }

    fn make(&self, &Job { index, epoch, batch, .. }: &Job) -> Result<TrainItem> {
        let sample = self.dataset.sample(index)?;
        let transform = self.config.draw(&sample, epoch, batch as u64);
        let Sample { image, mut boxes, mut labels, image_id } = sample;
        let original = (image.height, image.width);
        if let Some(crop) = &self.config.augment.crop {
            (boxes, labels) = crop.clip_all(transform.region, &boxes, &labels);
        }
        let planes = transform.pixels(image)?;
        let (boxes, labels) = transform.boxes(&boxes, &labels);
        Ok(TrainItem { key: ImageKey::new(image_id, original, transform), index, planes, boxes, labels })
    }
}

/// Makes batches of a data set on its own threads.
///
/// The threads start with the loader and end when it is dropped, also in the middle of an epoch. Which images stand in which
/// batch, and how they are changed, depends on the seed, the epoch and the image's id alone (their size on the batch's number
/// instead of the id): never on the number of threads, and not on the batches before (so an epoch can be entered at any batch,
/// see [`Self::epoch_from`]).
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader")
            .field("dataset", &self.shared.dataset.name())
            .field("config", &self.shared.config)
            .finish()
    }
}

impl Loader {
    /// Starts the threads.
    ///
    /// # Errors
    /// Settings out of range, an empty data set, or threads that the system refuses.
    pub fn new(dataset: Arc<Dataset>, config: LoaderConfig) -> Result<Self> {
        config.validate()?;
        if dataset.is_empty() {
            return Err(Error::Config(format!("data set {} has no image to load", dataset.name())));
        }
        if config.drop_last && dataset.len() < config.batch {
            return Err(Error::Config(format!(
                "data set {} has {} images, fewer than one batch of {}, and short batches are to be dropped: no batch is left",
                dataset.name(),
                dataset.len(),
                config.batch
            )));
        }
        let threads = config.threads;
        let mut loader = Self {
            shared: Arc::new(Shared { dataset, config, queue: Mutex::default(), wake: Condvar::new() }),
            threads: Vec::with_capacity(threads),
        };
        for i in 0..threads {
            let shared = loader.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("loader-{i}"))
                .spawn(move || shared.work())
                .map_err(|e| Error::Config(format!("cannot start loader thread {i}: {e}")))?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.shared.dataset
    }

    /// The settings.
    pub fn config(&self) -> &LoaderConfig {
        &self.shared.config
    }

    /// Batches in an epoch.
    pub fn batches(&self) -> usize {
        let (n, batch) = (self.shared.dataset.len(), self.shared.config.batch);
        if self.shared.config.drop_last { n / batch } else { n.div_ceil(batch) }
    }

    /// The positions of the images in the order of an epoch.
    pub fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.shared.dataset.len()).collect();
        if self.shared.config.shuffle {
            let mut rng = rng::keyed(self.shared.config.seed, "order", epoch as u64, 0);
            rng::shuffle(&mut rng, &mut order);
        }
        order
    }

    /// The batches of an epoch, in order. The threads begin at once.
    pub fn epoch(&self, epoch: usize) -> Epoch<'_> {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from batch `first_batch` on (from 0): the same as [`Self::epoch`] gives after skipping that many.
    pub fn epoch_from(&self, epoch: usize, first_batch: usize) -> Epoch<'_> {
        let (reply, results) = mpsc::channel();
        let batches = self.batches();
        let mut epoch = Epoch {
            loader: self,
            epoch: epoch as u64,
            order: self.order(epoch),
            batches,
            next: first_batch.min(batches),
            asked: first_batch.min(batches),
            waiting: BTreeMap::new(),
            cancelled: Arc::new(AtomicBool::new(false)),
            reply,
            results,
        };
        epoch.ask(self.shared.config.prefetch);
        epoch
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.lock();
            queue.closed = true;
            queue.jobs.clear();
        }
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that died has nothing left to say.
            let _ = thread.join();
        }
    }
}

/// The batches of one epoch; see [`Loader::epoch`].
///
/// An image that fails makes its batch an error that names file and id; the batches after it can still be asked for.
#[derive(Debug)]
pub struct Epoch<'a> {
    loader: &'a Loader,
    epoch: u64,
    order: Vec<usize>,
    batches: usize,
    /// The batch given next.
    next: usize,
    /// The first batch that the threads have not been asked for.
    asked: usize,
    /// Images that came before their turn, by position in the order.
    waiting: BTreeMap<usize, Result<TrainItem>>,
    cancelled: Arc<AtomicBool>,
    reply: Sender<(usize, Result<TrainItem>)>,
    results: Receiver<(usize, Result<TrainItem>)>,
}

impl Epoch<'_> {
    /// Where batch `batch` stands in the order.
    fn span(&self, batch: usize) -> std::ops::Range<usize> {
        let size = self.loader.shared.config.batch;
        batch * size..((batch + 1) * size).min(self.order.len())
    }

    /// Asks the threads for the next `ahead` batches, as far as they have not been asked for.
    fn ask(&mut self, ahead: usize) {
        let end = (self.next.saturating_add(ahead)).min(self.batches);
        if self.asked >= end {
            return;
        }
        let mut queue = self.loader.shared.lock();
        while self.asked < end {
            for position in self.span(self.asked) {
                queue.jobs.push_back(Job {
                    index: self.order[position],
                    epoch: self.epoch,
                    batch: self.asked,
                    position,
                    cancelled: self.cancelled.clone(),
                    reply: self.reply.clone(),
                });
            }
            self.asked += 1;
        }
        drop(queue);
        self.loader.shared.wake.notify_all();
    }
}

impl Iterator for Epoch<'_> {
    type Item = Result<Vec<TrainItem>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.batches {
            return None;
        }
        self.ask(self.loader.shared.config.prefetch.saturating_add(1));
        let span = self.span(self.next);
        self.next += 1;
        let mut items = Vec::with_capacity(span.len());
        let mut failed = None;
        for position in span {
            let item = loop {
                if let Some(item) = self.waiting.remove(&position) {
                    break item;
                }
                // `self.reply` lives, so the channel cannot close; threads answer every job that is not cancelled.
                match self.results.recv() {
                    Ok((at, item)) => drop(self.waiting.insert(at, item)),
                    Err(e) => break Err(Error::Config(format!("loader threads are gone: {e}"))),
                }
            };
            match item {
                Ok(item) => items.push(item),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        Some(failed.map_or(Ok(items), Err))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batches - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch<'_> {}

impl Drop for Epoch<'_> {
    fn drop(&mut self) {
        // Jobs of this epoch still in the queue are passed over.
        self.cancelled.store(true, Ordering::Relaxed);
    }
}
