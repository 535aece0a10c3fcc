//! The frozen teacher's pyramids, kept: an image that comes a second time costs no second pass.
//!
//! A teacher's weights and statistics never change, so its pyramid depends on the image alone. The cache finds a pyramid by the
//! teacher's checkpoint, the image's id, everything that was drawn for the image (its true size in the batch included) and the size
//! that the batch is padded to. So it stays correct with any augmentation: an image and its mirror image are two entries, and one that
//! never comes twice is never found. An operation's result for an image does not depend on what else is in the batch, so training with
//! the cache gives the same bits as without.
//!
//! Memory is filled first, then, if asked for, a file without a name, which the system removes with the process.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};
use docent_coco::ImageKey;
use docent_detect::{Detector, FeaturePyramid, ImageBatch, Mode, Size};
use docent_distill::PyramidSource;
use docent_tensor::{deep_copy, with_f32};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How much memory or disk kept pyramids may take: `"off"`, or a number with `MiB` or `GiB`, as in `"1GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CacheSize(u64);

const MEBIBYTE: u64 = 1 << 20;

impl CacheSize {
    /// Nothing is kept.
    pub const OFF: Self = Self(0);

    /// [`CacheSize::OFF`], as a default.
    pub fn off() -> Self {
        Self::OFF
    }

    /// The bound in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Whether nothing is kept.
    pub fn is_off(&self) -> bool {
        self.0 == 0
    }
}

impl Default for CacheSize {
    /// 1 GiB: some 1,400 images of 320x240 pixels with 64 channels.
    fn default() -> Self {
        Self(1024 * MEBIBYTE)
    }
}

impl TryFrom<String> for CacheSize {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let units = [("GiB", 1024 * MEBIBYTE), ("MiB", MEBIBYTE)];
        let parsed = match text.as_str() {
            "off" => Some(0),
            other => units.iter().find_map(|(unit, bytes)| {
                let number = other.strip_suffix(unit)?.trim().parse::<u64>().ok()?;
                number.checked_mul(*bytes)
            }),
        };
        parsed.map(Self).ok_or_else(|| {
            Error::config(
                "teacher.cache, teacher.cache_disk",
                format!("`{text}` is no size: write \"off\", or as in \"512MiB\" or \"1GiB\""),
            )
        })
    }
}

impl From<CacheSize> for String {
    fn from(size: CacheSize) -> Self {
        match size.0 / MEBIBYTE {
            0 => "off".to_owned(),
            n if n % 1024 == 0 => format!("{}GiB", n / 1024),
            n => format!("{n}MiB"),
        }
    }
}

/// Pyramids of frozen teachers on the images of one data set, up to a bound. When it is full, what is there stays and nothing is added.
/// Several runs may share it.
#[derive(Debug)]
pub struct TeacherCache {
    memory: u64,
    kept: Mutex<Kept>,
}

/// What a pyramid is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    checkpoint: Arc<str>,
    image: ImageKey,
    padded: Size,
}

#[derive(Debug, Default)]
struct Kept {
    pyramids: HashMap<Key, Place>,
    /// Bytes in memory.
    bytes: u64,
    spill: Option<Spill>,
}

/// Where a pyramid is.
#[derive(Debug)]
enum Place {
    Memory(FeaturePyramid),
    Disk { from: u64, levels: Vec<Vec<usize>>, strides: Vec<usize> },
}

/// The file that takes what memory has no room for.
#[derive(Debug)]
struct Spill {
    file: File,
    used: u64,
    bound: u64,
}

impl TeacherCache {
    /// An empty cache in memory.
    pub fn new(size: CacheSize) -> Self {
        Self { memory: size.bytes(), kept: Mutex::default() }
    }

    /// The same with a file in `folder` for what memory has no room for. It has no name there and goes with the process, however
    /// that ends.
    ///
    /// # Errors
    /// When no file can be made in the folder.
    pub fn with_disk(mut self, size: CacheSize, folder: &Path) -> Result<Self> {
        if !size.is_off() {
            let file = tempfile::tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
            let kept = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner);
            kept.spill = Some(Spill { file, used: 0, bound: size.bytes() });
        }
        Ok(self)
    }

    /// The cache for one teacher, by what tells its checkpoint from others: its SHA-256.
    pub fn for_teacher(self: &Arc<Self>, checkpoint: &str) -> TeacherPyramids {
        TeacherPyramids { cache: Arc::clone(self), checkpoint: checkpoint.into() }
    }

    /// How many pyramids are kept.
    pub fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).pyramids.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A [`TeacherCache`] for one teacher.
#[derive(Debug, Clone)]
pub struct TeacherPyramids {
    cache: Arc<TeacherCache>,
    checkpoint: Arc<str>,
}

impl TeacherPyramids {
    /// The pyramids of one batch, whose images have these keys, in order.
    pub fn for_batch<'a>(&'a self, images: &'a [ImageKey]) -> BatchPyramids<'a> {
        BatchPyramids { teacher: self, images }
    }
}

/// One batch's pyramids of one teacher: what is kept, and a pass for the images that are not.
#[derive(Debug, Clone, Copy)]
pub struct BatchPyramids<'a> {
    teacher: &'a TeacherPyramids,
    images: &'a [ImageKey],
}

impl PyramidSource for BatchPyramids<'_> {
    /// A disk that is full or fails is used no further; what was to be read from it is computed again.
    fn pyramid(&self, teacher: &dyn Detector, images: &ImageBatch) -> docent_detect::Result<FeaturePyramid> {
        let TeacherPyramids { cache, checkpoint } = self.teacher;
        let lock = || cache.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.memory == 0 && lock().spill.is_none() {
            return teacher.features(images, Mode::Eval);
        }
        if self.images.len() != images.len() {
            let message = format!("{} keys for {} images", self.images.len(), images.len());
            return Err(docent_detect::Error::Input { stage: "teacher cache", message });
        }
        let padded = images.padded()?;
        let key = |image: &ImageKey| Key { checkpoint: Arc::clone(checkpoint), image: image.clone(), padded };
        let keys: Vec<Key> = self.images.iter().map(key).collect();
        let known = |kept: &mut Kept| keys.iter().map(|key| kept.get(key)).collect::<docent_detect::Result<Vec<_>>>();
        let mut pyramids = known(&mut lock())?;
        let missing: Vec<usize> = (0..keys.len()).filter(|&i| pyramids[i].is_none()).collect();
        let fresh =
            if missing.is_empty() { None } else { Some(teacher.features(&subset(images, &missing)?, Mode::Eval)?) };
        if let Some(fresh) = &fresh {
            // Nobody waited for the pass: another run may have brought the same image meanwhile.
            let mut kept = lock();
            for (row, &i) in missing.iter().enumerate() {
                let pyramid = image_of(fresh, row)?;
                kept.put(&keys[i], &pyramid, cache.memory)?;
                pyramids[i] = Some(pyramid);
            }
        }
        match fresh {
            Some(fresh) if missing.len() == keys.len() => Ok(fresh),
            _ => join(pyramids.into_iter().flatten().collect()),
        }
    }
}

impl Kept {
    fn get(&mut self, key: &Key) -> docent_detect::Result<Option<FeaturePyramid>> {
        let (from, levels, strides) = match self.pyramids.get(key) {
            None => return Ok(None),
            Some(Place::Memory(pyramid)) => return Ok(Some(pyramid.clone())),
            Some(Place::Disk { from, levels, strides }) => (*from, levels, strides),
        };
        let Some(spill) = &mut self.spill else { return Ok(None) };
        let elements = |dims: &Vec<usize>| dims.iter().product::<usize>();
        let mut bytes = vec![0; 4 * levels.iter().map(elements).sum::<usize>()];
        if spill.file.seek(SeekFrom::Start(from)).and_then(|_| spill.file.read_exact(&mut bytes)).is_err() {
            self.spill = None;
            return Ok(None);
        }
        let mut values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let level = |dims: &Vec<usize>| {
            let values: Vec<f32> = values.by_ref().take(elements(dims)).collect();
            Tensor::from_vec(values, dims.as_slice(), &Device::Cpu)
        };
        let levels = levels.iter().map(level).collect::<candle_core::Result<_>>()?;
        Ok(Some(FeaturePyramid { levels, strides: strides.clone() }))
    }

    /// Keeps a pyramid where there is room, and it is not there yet.
    fn put(&mut self, key: &Key, pyramid: &FeaturePyramid, memory: u64) -> docent_detect::Result<()> {
        if self.pyramids.contains_key(key) {
            return Ok(());
        }
        let bytes = 4 * pyramid.levels.iter().map(Tensor::elem_count).sum::<usize>() as u64;
        if self.bytes + bytes <= memory {
            self.bytes += bytes;
            self.pyramids.insert(key.clone(), Place::Memory(pyramid.clone()));
            return Ok(());
        }
        let Some(spill) = self.spill.as_mut().filter(|spill| spill.used + bytes <= spill.bound) else { return Ok(()) };
        let mut data = Vec::with_capacity(bytes as usize);
        for level in &pyramid.levels {
            with_f32(level, |values| data.extend(values.iter().flat_map(|v| v.to_le_bytes())))?;
        }
        let from = spill.used;
        if spill.file.seek(SeekFrom::Start(from)).and_then(|_| spill.file.write_all(&data)).is_err() {
            // A full disk: what is there is still good.
            spill.bound = spill.used;
            return Ok(());
        }
        spill.used += bytes;
        let levels = pyramid.levels.iter().map(|level| level.dims().to_vec()).collect();
        self.pyramids.insert(key.clone(), Place::Disk { from, levels, strides: pyramid.strides.clone() });
        Ok(())
    }
}

/// Some images of a batch, with its padding.
fn subset(images: &ImageBatch, rows: &[usize]) -> docent_detect::Result<ImageBatch> {
    if rows.len() == images.len() {
        return Ok(images.clone());
    }
    let pixels = rows.iter().map(|&i| images.pixels.narrow(0, i, 1)).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(ImageBatch { pixels: Tensor::cat(&pixels, 0)?, sizes: rows.iter().map(|&i| images.sizes[i]).collect() })
}

/// One image's pyramid, in storage of its own.
fn image_of(features: &FeaturePyramid, row: usize) -> docent_detect::Result<FeaturePyramid> {
    let level = |t: &Tensor| deep_copy(&t.narrow(0, row, 1)?);
    let levels = features.levels.iter().map(level).collect::<candle_core::Result<_>>()?;
    Ok(FeaturePyramid { levels, strides: features.strides.clone() })
}

/// Several images' pyramids as one.
fn join(pyramids: Vec<FeaturePyramid>) -> docent_detect::Result<FeaturePyramid> {
    let Some(first) = pyramids.first() else {
        return Err(docent_detect::Error::Input {
            stage: "teacher cache",
            message: "a batch without images".to_owned(),
        });
    };
    let level = |l: usize| Tensor::cat(&pyramids.iter().map(|p| &p.levels[l]).collect::<Vec<_>>(), 0);
    let levels = (0..first.levels.len()).map(level).collect::<candle_core::Result<_>>()?;
    Ok(FeaturePyramid { levels, strides: first.strides.clone() })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use docent_coco::{ResizeRule, Transform};
    use docent_detect::backbone::ResNetConfig;
    use docent_detect::{FasterRcnn, FasterRcnnConfig};
    use docent_model::ParamStore;
    use docent_ops::testing::values;

    use super::*;

    fn teacher() -> FasterRcnn {
        let backbone = ResNetConfig::default().depth(18).width_multiplier(0.5);
        let mut config = FasterRcnnConfig::default().classes(3).fpn_channels(32).backbone(backbone);
        config.roi.representation_size = 16;
        FasterRcnn::new(&config, ParamStore::frozen_all(3, &Device::Cpu).var_builder()).unwrap()
    }

    /// Images `ids` of 70 x 90 pixels (60 x 90 the odd ones), padded to 96 x 96, and their keys.
    fn batch(ids: &[usize]) -> (ImageBatch, Vec<ImageKey>) {
        let mut sizes: Vec<Size> = ids.iter().map(|i| Size::new(70 - 10 * (i % 2), 90)).collect();
        let mut data: Vec<Vec<f32>> =
            ids.iter().zip(&sizes).map(|(i, s)| values(*i as u64, 3 * s.height * s.width)).collect();
        // One of full size decides the padding.
        sizes.push(Size::new(96, 96));
        data.push(vec![0.25; 3 * 96 * 96]);
        let planes: Vec<_> = sizes.iter().zip(&data).map(|(size, d)| (*size, d.as_slice())).collect();
        let key = |(id, size): (usize, &Size)| {
            let size = (size.height, size.width);
            ImageKey::new(id as u64, size, Transform::resize(size, size, ResizeRule::Antialias))
        };
        let keys = ids.iter().copied().chain([0]).zip(&sizes).map(key).collect();
        (ImageBatch::from_planes(&planes, 32, &Device::Cpu).unwrap(), keys)
    }

    /// The batch's pyramid by way of the cache.
    fn cached(cache: &Arc<TeacherCache>, teacher: &FasterRcnn, batch: &(ImageBatch, Vec<ImageKey>)) -> FeaturePyramid {
        cache.for_teacher("checkpoint").for_batch(&batch.1).pyramid(teacher, &batch.0).unwrap()
    }

    fn bits(f: &FeaturePyramid) -> Vec<Vec<u32>> {
        let bits =
            |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect();
        f.levels.iter().map(bits).collect()
    }

    #[test]
    fn kept_pyramids_have_the_bits_of_fresh_ones() {
        let (teacher, cache) = (teacher(), Arc::new(TeacherCache::new(CacheSize::default())));
        // All new, some new, none new, another order, an image alone.
        for (ids, kept) in
            [(vec![1, 2, 3], 4), (vec![2, 4, 1, 5], 6), (vec![5, 3], 6), (vec![4, 3, 2, 1], 6), (vec![6], 7)]
        {
            let images = batch(&ids);
            let want = teacher.features(&images.0, Mode::Eval).unwrap();
            let got = cached(&cache, &teacher, &images);
            assert_eq!(got.strides, want.strides);
            assert!(bits(&got) == bits(&want), "{ids:?}");
            assert_eq!(cache.len(), kept);
        }
    }

    #[test]
    fn another_teacher_size_or_padding_is_another_pyramid() {
        let (teacher, cache) = (teacher(), Arc::new(TeacherCache::new(CacheSize::default())));
        let (images, keys) = batch(&[1]);
        let kept = |checkpoint: &str, keys: &[ImageKey], images: &ImageBatch| {
            cache.for_teacher(checkpoint).for_batch(keys).pyramid(&teacher, images).unwrap();
            cache.len()
        };
        assert_eq!(kept("a", &keys, &images), 2);
        assert_eq!(kept("a", &keys, &images), 2);
        assert_eq!(kept("b", &keys, &images), 4);
        let mut flipped = keys.clone();
        flipped[0].transform.flip = true;
        assert_eq!(kept("a", &flipped, &images), 5);
        let alone = vec![0.5; 3 * 60 * 90];
        let alone = ImageBatch::from_planes(&[(Size::new(60, 90), &alone[..])], 32, &Device::Cpu).unwrap();
        assert_eq!(kept("a", &keys[..1], &alone), 6, "padded to 64 x 96");
        let few = cache.for_teacher("a").for_batch(&keys[..1]).pyramid(&teacher, &images).unwrap_err().to_string();
        assert!(few.contains("1 keys for 2 images"), "{few}");
    }

    #[test]
    fn the_bound_holds_and_off_keeps_nothing() {
        let teacher = teacher();
        let images = batch(&[1, 2]);
        let of_image: usize =
            teacher.features(&images.0, Mode::Eval).unwrap().levels.iter().map(Tensor::elem_count).sum::<usize>() / 3;
        let cache = Arc::new(TeacherCache::new(CacheSize(2 * 4 * of_image as u64)));
        for _ in 0..2 {
            let got = cached(&cache, &teacher, &images);
            assert!(bits(&got) == bits(&teacher.features(&images.0, Mode::Eval).unwrap()));
            assert_eq!(cache.len(), 2, "three images, room for two");
        }
        // What is kept of an image is its own, not the batch's.
        let lock = cache.kept.lock().unwrap();
        for pyramid in lock.pyramids.values() {
            let Place::Memory(pyramid) = pyramid else { panic!("on no disk") };
            for level in &pyramid.levels {
                let (storage, _) = level.storage_and_layout();
                let candle_core::Storage::Cpu(candle_core::CpuStorage::F32(held)) = &*storage else { panic!("f32") };
                assert_eq!(held.len(), level.elem_count());
            }
        }
        drop(lock);
        let off = Arc::new(TeacherCache::new(CacheSize::OFF));
        cached(&off, &teacher, &images);
        assert!(off.is_empty());
    }

    #[test]
    fn the_disk_takes_what_memory_has_no_room_for_and_gives_back_its_bits() {
        let (teacher, folder) = (teacher(), tempfile::tempdir().unwrap());
        let want = |images: &(ImageBatch, _)| bits(&teacher.features(&images.0, Mode::Eval).unwrap());
        let all = batch(&[1, 2, 3, 4]);
        let of_image: u64 = want(&all).iter().map(Vec::len).sum::<usize>() as u64 * 4 / 5;
        // Room in memory for one, on disk for two; then none in memory.
        for (memory, disk, kept) in [(1, 2, 3), (0, 9, 5)] {
            let cache = TeacherCache::new(CacheSize(memory * of_image));
            let cache = Arc::new(cache.with_disk(CacheSize(disk * of_image), folder.path()).unwrap());
            for ids in [vec![1, 2, 3, 4], vec![4, 3, 2, 1], vec![2], vec![1, 2, 3, 4]] {
                let images = batch(&ids);
                assert!(bits(&cached(&cache, &teacher, &images)) == want(&images), "{ids:?}");
            }
            assert_eq!(cache.len(), kept);
            let lock = cache.kept.lock().unwrap();
            let spill = lock.spill.as_ref().unwrap();
            assert_eq!(spill.file.metadata().unwrap().len(), spill.used);
            assert!(spill.used == (kept as u64 - memory) * of_image && spill.used <= disk * of_image);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }

    #[test]
    fn a_disk_that_fails_costs_time_and_nothing_else() {
        let (teacher, folder) = (teacher(), tempfile::tempdir().unwrap());
        let images = batch(&[1, 2]);
        let want = bits(&teacher.features(&images.0, Mode::Eval).unwrap());
        let cache = Arc::new(TeacherCache::new(CacheSize::OFF).with_disk(CacheSize(1 << 30), folder.path()).unwrap());
        cached(&cache, &teacher, &images);
        // Cut behind its back: nothing can be read.
        cache.kept.lock().unwrap().spill.as_ref().unwrap().file.set_len(10).unwrap();
        assert!(bits(&cached(&cache, &teacher, &images)) == want);
        // Opened for reading alone: nothing can be written.
        let cache = Arc::new(TeacherCache::new(CacheSize::OFF).with_disk(CacheSize(1 << 30), folder.path()).unwrap());
        let path = folder.path().join("read-only");
        std::fs::write(&path, []).unwrap();
        cache.kept.lock().unwrap().spill.as_mut().unwrap().file = File::open(&path).unwrap();
        assert!(bits(&cached(&cache, &teacher, &images)) == want && cache.is_empty());
        let gone = TeacherCache::new(CacheSize::OFF).with_disk(CacheSize(1), &folder.path().join("gone"));
        assert!(gone.unwrap_err().to_string().contains("gone"));
    }

    #[test]
    fn sizes_are_written_as_they_are_read() {
        for text in ["off", "512MiB", "1GiB", "3GiB"] {
            assert_eq!(String::from(CacheSize::try_from(text.to_owned()).unwrap()), text);
        }
        assert_eq!(CacheSize::try_from("2048MiB".to_owned()).unwrap().bytes(), 2 << 30);
        for text in ["", "1", "1GB", "-1GiB", "99999999999GiB"] {
            assert!(CacheSize::try_from(text.to_owned()).unwrap_err().to_string().contains("512MiB"), "{text}");
        }
    }
}
