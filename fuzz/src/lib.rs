//! What the fuzz targets check. It lies apart from them so that the workspace's tests can check the seeds by it.

pub mod coco;
pub mod model;
pub mod study;
pub mod upload;
