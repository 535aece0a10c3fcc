//! The frozen teacher's pyramids, kept: an image that comes a second time costs no second pass.
//!
//! A teacher's weights and statistics never change, so its pyramid depends on the image alone. What the cache keeps it
//! finds by the SHA-256 of the pixels, the padding included, so that it stays right with any augmentation: an image and its
//! mirror image are two entries, and one that never comes twice is never found. An operation's result for an image does
//! not depend on what else is in the batch, so that training with the cache gives the same bits as without.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;
use docent_detect::{FasterRcnn, Features, ImageBatch, Mode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tensors::with_f32;
use crate::{Error, Result};

/// How much memory kept pyramids may take: `"off"`, or a number with `MiB` or `GiB`, as in `"1GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CacheSize(u64);

const MEBIBYTE: u64 = 1 << 20;

impl CacheSize {
    /// Nothing is kept.
    pub const OFF: Self = Self(0);

    /// The bound in bytes.
    pub fn bytes(self) -> u64 {
        self.0
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
                "teacher.cache",
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

/// Pyramids of one frozen teacher by image, up to a bound. When it is full, what is there stays and nothing is added.
#[derive(Debug)]
pub struct TeacherCache {
    bound: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: u64,
    pyramids: HashMap<[u8; 32], Features>,
}

impl TeacherCache {
    /// An empty cache.
    pub fn new(size: CacheSize) -> Self {
        Self { bound: size.bytes(), kept: Mutex::default() }
    }

    /// The teacher's pyramid of the batch: what is kept, and a pass for the images that are not.
    ///
    /// The teacher must be the same in every call, and frozen.
    ///
    /// # Errors
    /// As [`FasterRcnn::features`].
    pub fn features(&self, teacher: &FasterRcnn, images: &ImageBatch) -> Result<Features> {
        if self.bound == 0 {
            return Ok(teacher.features(images, Mode::Eval)?);
        }
        let keys = keys(images)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<usize> = (0..keys.len()).filter(|&i| !kept.pyramids.contains_key(&keys[i])).collect();
        let fresh =
            if missing.is_empty() { None } else { Some(teacher.features(&subset(images, &missing)?, Mode::Eval)?) };
        let mut pyramids: Vec<Option<Features>> = keys.iter().map(|key| kept.pyramids.get(key).cloned()).collect();
        if let Some(fresh) = &fresh {
            for (row, &i) in missing.iter().enumerate() {
                let pyramid = image_of(fresh, row)?;
                let bytes = 4 * pyramid.levels.iter().map(Tensor::elem_count).sum::<usize>() as u64;
                if kept.bytes + bytes <= self.bound {
                    kept.bytes += bytes;
                    kept.pyramids.insert(keys[i], pyramid.clone());
                }
                pyramids[i] = Some(pyramid);
            }
        }
        drop(kept);
        match fresh {
            Some(fresh) if missing.len() == keys.len() => Ok(fresh),
            _ => join(pyramids.into_iter().flatten().collect()),
        }
    }

    /// How many images are kept.
    pub fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).pyramids.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What each image of the batch is known by: its pixels and true size in a batch padded to this size.
fn keys(images: &ImageBatch) -> Result<Vec<[u8; 32]>> {
    let (height, width) = images.padded()?;
    let of_image = 3 * height * width;
    with_f32(&images.pixels, |pixels| {
        let one = |(pixels, size): (&[f32], &(usize, usize))| {
            let mut hash = Sha256::new();
            for side in [height, width, size.0, size.1] {
                hash.update((side as u64).to_le_bytes());
            }
            let mut bytes = Vec::with_capacity(4 * pixels.len());
            bytes.extend(pixels.iter().flat_map(|v| v.to_le_bytes()));
            hash.update(&bytes);
            hash.finalize().into()
        };
        pixels.chunks_exact(of_image).zip(&images.sizes).map(one).collect()
    })
}

/// Some images of a batch, with its padding.
fn subset(images: &ImageBatch, rows: &[usize]) -> Result<ImageBatch> {
    if rows.len() == images.len() {
        return Ok(images.clone());
    }
    let pixels = rows.iter().map(|&i| images.pixels.narrow(0, i, 1)).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(ImageBatch { pixels: Tensor::cat(&pixels, 0)?, sizes: rows.iter().map(|&i| images.sizes[i]).collect() })
}

/// One image's pyramid, in storage of its own.
fn image_of(features: &Features, row: usize) -> Result<Features> {
    let level = |t: &Tensor| t.narrow(0, row, 1)?.copy();
    let levels = features.levels.iter().map(level).collect::<candle_core::Result<_>>()?;
    Ok(Features { levels, strides: features.strides.clone() })
}

/// Several images' pyramids as one.
fn join(pyramids: Vec<Features>) -> Result<Features> {
    let Some(first) = pyramids.first() else {
        return Err(Error::config("teacher.cache", "a batch without images"));
    };
    let level = |l: usize| Tensor::cat(&pyramids.iter().map(|p| &p.levels[l]).collect::<Vec<_>>(), 0);
    let levels = (0..first.levels.len()).map(level).collect::<candle_core::Result<_>>()?;
    Ok(Features { levels, strides: first.strides.clone() })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use docent_detect::{FasterRcnnConfig, ResNetConfig};

    use super::*;
    use crate::ParamStore;

    fn teacher() -> FasterRcnn {
        let backbone = ResNetConfig { depth: 18, width: 0.5, ..Default::default() }.into();
        let mut config = FasterRcnnConfig { classes: 3, fpn_channels: 32, backbone, ..Default::default() };
        config.roi.hidden = 16;
        FasterRcnn::new(&config, ParamStore::frozen_all(3, &Device::Cpu).var_builder()).unwrap()
    }

    /// Images `ids` of 70 x 90 pixels (60 x 90 the odd ones), padded to 96 x 96.
    fn batch(ids: &[usize]) -> ImageBatch {
        let sizes: Vec<(usize, usize)> = ids.iter().map(|i| (70 - 10 * (i % 2), 90)).collect();
        let data: Vec<Vec<f32>> =
            ids.iter().zip(&sizes).map(|(i, (h, w))| docent_ops::testing::values(*i as u64, 3 * h * w)).collect();
        let mut planes: Vec<_> = sizes.iter().zip(&data).map(|((h, w), d)| (*h, *w, d.as_slice())).collect();
        // One of full size decides the padding.
        let full = vec![0.25; 3 * 96 * 96];
        planes.push((96, 96, &full));
        ImageBatch::from_planes(&planes, 32, &Device::Cpu).unwrap()
    }

    fn bits(f: &Features) -> Vec<Vec<u32>> {
        let bits =
            |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect();
        f.levels.iter().map(bits).collect()
    }

    #[test]
    fn kept_pyramids_have_the_bits_of_fresh_ones() {
        let (teacher, cache) = (teacher(), TeacherCache::new(CacheSize::default()));
        // All new, some new, none new, another order, an image alone.
        for (ids, kept) in
            [(vec![1, 2, 3], 4), (vec![2, 4, 1, 5], 6), (vec![5, 3], 6), (vec![4, 3, 2, 1], 6), (vec![6], 7)]
        {
            let images = batch(&ids);
            let want = teacher.features(&images, Mode::Eval).unwrap();
            let got = cache.features(&teacher, &images).unwrap();
            assert_eq!(got.strides, want.strides);
            assert!(bits(&got) == bits(&want), "{ids:?}");
            assert_eq!(cache.len(), kept);
        }
    }

    #[test]
    fn the_bound_holds_and_off_keeps_nothing() {
        let teacher = teacher();
        let images = batch(&[1, 2]);
        let of_image: usize =
            teacher.features(&images, Mode::Eval).unwrap().levels.iter().map(Tensor::elem_count).sum::<usize>() / 3;
        let cache = TeacherCache::new(CacheSize(2 * 4 * of_image as u64));
        for _ in 0..2 {
            let got = cache.features(&teacher, &images).unwrap();
            assert!(bits(&got) == bits(&teacher.features(&images, Mode::Eval).unwrap()));
            assert_eq!(cache.len(), 2, "three images, room for two");
        }
        let off = TeacherCache::new(CacheSize::OFF);
        off.features(&teacher, &images).unwrap();
        assert!(off.is_empty());
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
