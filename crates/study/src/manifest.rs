//! `manifest.json`: what produced a run, for somebody who wants the same figures again.

use serde::{Deserialize, Serialize};

use crate::data::DataSummary;

/// Which build of the program runs; the library cannot know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The program's version.
    pub version: String,
    /// Revision of the sources, where it is known.
    pub revision: Option<String>,
    /// The command line.
    pub command: Vec<String>,
}

/// Everything that identifies a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The run's name in its study.
    pub run: String,
    /// The program.
    pub provenance: Provenance,
    /// The tensor library's version.
    pub candle: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Data set, digest, sizes.
    pub data: DataSummary,
    /// Machine.
    pub host: Host,
    /// The teacher's checkpoint and its SHA-256, in a distillation run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<FileHash>,
    /// The file of first weights and its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<FileHash>,
    /// Names of frozen tensors; empty when everything trains.
    pub frozen: Vec<String>,
}

/// A file, named and identified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// As it was given.
    pub path: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// The machine, as far as figures depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Operating system and processor family.
    pub platform: String,
    /// The processor's own name, where the system tells.
    pub cpu: String,
    /// Vector extensions found at run time.
    pub cpu_features: Vec<String>,
    /// Compute threads of this run.
    pub threads: usize,
}

impl Host {
    /// Reads this machine's properties.
    pub fn current() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|l| l.starts_with("model name"))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            })
            .unwrap_or_else(|| "unknown".to_owned());
        Self {
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            cpu,
            cpu_features: cpu_features(),
            threads: rayon::current_num_threads(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<String> {
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<String> {
    Vec::new()
}

/// Resident memory of this process in MiB; 0 where the system does not tell.
pub fn resident_mib() -> f64 {
    status_mib("VmRSS:")
}

/// The most that this process ever had resident, in MiB; 0 where the system does not tell.
pub fn peak_mib() -> f64 {
    status_mib("VmHWM:")
}

fn status_mib(field: &str) -> f64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else { return 0.0 };
    text.lines()
        .find_map(|l| l.strip_prefix(field)?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok())
        .map_or(0.0, |kib| kib / 1024.0)
}
