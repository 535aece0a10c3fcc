//! The digest of the data set and `shapes.lock`, which pins the default one.

use serde::{Deserialize, Serialize};

use super::config::{ShapesConfig, VERSION};
use super::make::{Target, make};
use crate::error::{Error, Result};

/// What `shapes.lock` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of the generator.
    pub version: u32,
    /// Seed of the scenes.
    pub seed: u64,
    /// Training images.
    pub train: usize,
    /// Validation images.
    pub val: usize,
    /// SHA-256 over all decoded pixels and both annotation files; see [`digest`].
    pub sha256: String,
}

/// The lock file of this build.
///
/// # Errors
/// When the embedded file cannot be read as a [`Lock`].
pub fn locked() -> Result<Lock> {
    serde_json::from_str(include_str!("shapes.lock"))
        .map_err(|source| Error::Shapes(format!("shapes.lock cannot be read: {source}")))
}

/// The digest of a data set, computed in memory by `threads` threads (0: as many as there are cores).
///
/// SHA-256, in hexadecimal, over, for `train` and then `val`: the SHA-256 of each image (width and height as little-endian `u32`,
/// then the RGB bytes) in order, and the SHA-256 of the annotation file. The PNG encoding has no part in it.
///
/// # Errors
/// When the configuration is refused.
pub fn digest(config: &ShapesConfig, threads: usize) -> Result<String> {
    config.validate()?;
    Ok(make(config, threads, Target::Nowhere)?.sha256)
}

/// Refuses a digest of the locked configuration that differs from the lock file's.
pub(super) fn check(config: &ShapesConfig, sha256: &str) -> Result<()> {
    let lock = locked()?;
    let same = (lock.seed, lock.train, lock.val) == (config.seed, config.train, config.val);
    if lock.version != VERSION {
        return Err(Error::Shapes(format!(
            "shapes.lock is of version {}, the generator of version {VERSION}: write the lock file anew \
             (cargo run -p docent-coco --example shapes -- --lock)",
            lock.version
        )));
    }
    if same && lock.sha256 != sha256 {
        return Err(Error::Shapes(format!(
            "the generator made {sha256}, but shapes.lock says {} for version {VERSION}: a change of the generator is a \
             new version. Raise shapes::VERSION and write the lock file anew, or find out why this machine computes \
             other bits",
            lock.sha256
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_names_the_default_configuration() {
        let lock = locked().unwrap();
        let config = ShapesConfig { train: lock.train, val: lock.val, seed: lock.seed };
        assert_eq!(config, ShapesConfig::default());
        assert_eq!(lock.version, VERSION);
    }

    #[test]
    fn another_digest_is_refused_with_the_reason() {
        let lock = locked().unwrap();
        check(&ShapesConfig::default(), &lock.sha256).unwrap();
        let error = check(&ShapesConfig::default(), "0123").unwrap_err().to_string();
        assert!(error.contains("a change of the generator is a new version"), "{error}");
        assert!(error.contains("0123") && error.contains(&lock.sha256), "{error}");
        // The lock says nothing about other sizes.
        check(&ShapesConfig { train: 3, ..ShapesConfig::default() }, "0123").unwrap();
    }
}
